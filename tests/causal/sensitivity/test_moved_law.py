import math

import pytest
import torch

import bayeswm as bwm
from bayeswm.base.errors import SpecError
from bayeswm.causal.sensitivity.moved_law import MovedLaw, moved
from bayeswm.inference import StudentT


def test_correlated_noise_keeps_its_other_columns() -> None:
    tril = torch.tensor([[1.0, 0.0], [0.5, 0.8]], dtype=torch.float64)
    law = bwm.MultivariateGaussian(torch.zeros(1, 1, 2, dtype=torch.float64), tril)
    found = moved(law, torch.full((1, 1), 0.3), torch.full((1, 1), 0.44), column=1)
    size = math.sqrt(0.25 + 0.64)
    assert found.mean.flatten().tolist() == pytest.approx([0.0, 0.3 * size])
    expected = (tril @ tril.mT).clone()
    expected[1, 1] *= 1.44
    torch.testing.assert_close(found.covariance[0, 0], expected)


def test_any_other_noise_keeps_its_shape() -> None:
    law = StudentT(torch.ones(1, 1, 2).double(), torch.ones(2).double(), torch.full((2,), 5.0).double())
    found = moved(law, torch.full((1, 1), -0.5).double(), torch.full((1, 1), 1.25).double(), column=0)
    assert isinstance(found, MovedLaw)
    sd = math.sqrt(5 / 3)
    assert found.mean.flatten().tolist() == pytest.approx([1 - 0.5 * sd, 1.0])
    assert found.variance.flatten().tolist() == pytest.approx([2.25 * 5 / 3, 5 / 3])
    torch.testing.assert_close(found.covariance.diagonal(dim1=-2, dim2=-1), found.variance)
    noise = torch.tensor([[[0.7, -0.4]]], dtype=torch.float64)
    x = found.push(noise)
    torch.testing.assert_close(found.abduct(x), noise)
    torch.testing.assert_close(found.cdf(x), torch.special.ndtr(noise))
    # the density is the derivative of the distribution function
    step = torch.tensor([1e-5, 0.0], dtype=torch.float64)
    slope = (found.cdf(x + step) - found.cdf(x - step))[..., 0] / 2e-5
    torch.testing.assert_close(found.log_prob(x, marginal=True)[..., 0].exp(), slope, rtol=1e-6, atol=0)
    torch.testing.assert_close(found.log_prob(x), found.log_prob(x, marginal=True).sum(-1))
    wider = found.map(lambda v: v.expand(1, 3, 2))
    assert wider.mean.shape == (1, 3, 2)
    heavy = StudentT(torch.ones(1, 1, 1), torch.ones(1), torch.full((1,), 2.0))
    with pytest.raises(SpecError, match="finite variance"):
        moved(heavy, torch.zeros(1, 1), torch.zeros(1, 1), column=0)


def test_gaussian_noise_stays_gaussian() -> None:
    law = bwm.Gaussian(torch.zeros(1, 1, 3), torch.tensor([1.0, 2.0, 0.0]), noisy=(0, 1))
    found = moved(law, torch.full((1, 1), 0.5), torch.full((1, 1), 3.0), column=1)
    assert isinstance(found, bwm.Gaussian)
    assert found.noisy == (0, 1)
    assert found.mean.flatten().tolist() == [0.0, 1.0, 0.0]
    assert found.spread.flatten().tolist() == [1.0, 4.0, 0.0]
    silent = moved(bwm.Gaussian(torch.ones(1, 1, 2)), torch.ones(1, 1), torch.ones(1, 1), column=0)
    assert silent.mean.flatten().tolist() == [1.0, 1.0]
    assert silent.noise_size == 0
