import pytest
import torch
from torch.distributions import MultivariateNormal, Normal

import bayeswm as bwm
from bayeswm.base import Gaussian, MultivariateGaussian
from bayeswm.causal.interventions.boundary_law import OverwrittenLaw, overwritten
from bayeswm.causal.interventions.overwrite import Overwrite

MEAN = torch.tensor([[[1.0, -1.0, 0.5]]], dtype=torch.float64)
ROOT = torch.tensor([[1.0, 0.0, 0.0], [0.5, 1.0, 0.0], [-0.3, 0.2, 0.7]], dtype=torch.float64)
NAMES = ("x", "y", "z")


def setting(**values: object) -> Overwrite:
    changes = bwm.do(values).assignments
    drawn = {one: one.values(0).expand(1, 1) for one in changes if one.hard}
    return Overwrite(changes, NAMES, step=0, drawn=drawn)


def test_hard_values_of_independent_columns_stay_gaussian() -> None:
    law = overwritten(Gaussian(MEAN, torch.ones(3)), setting(y=2.0, z=bwm.causal.shift(1.0)))
    assert isinstance(law, Gaussian)
    assert (law.mean.flatten().tolist(), law.variance.flatten().tolist()) == ([1.0, 2.0, 1.5], [1.0, 0.0, 1.0])
    assert law.noise_size == 3


def test_hard_values_of_correlated_columns() -> None:
    law = overwritten(MultivariateGaussian(MEAN, ROOT), setting(y=2.0))
    covariance = ROOT @ ROOT.mT
    covariance[1] = covariance[:, 1] = 0.0
    torch.testing.assert_close(law.covariance[0, 0], covariance)
    x = torch.tensor([0.3, 2.0, -0.4], dtype=torch.float64)
    kept = [0, 2]
    expected = MultivariateNormal(MEAN[0, 0, kept], covariance[kept][:, kept]).log_prob(x[kept])
    torch.testing.assert_close(law.log_prob(x).flatten(), expected[None])
    assert law.log_prob(x + torch.tensor([0.0, 0.1, 0.0])).item() == float("-inf")
    torch.testing.assert_close(law.cdf(x)[0, 0, 0], Normal(1.0, 1.0).cdf(x[0]))
    with pytest.raises(bwm.NotInvertible, match="overwritten"):
        law.abduct(x)


def test_callables_and_clamps_have_no_joint_density() -> None:
    inner = Gaussian(MEAN, torch.ones(3))
    for value in (lambda state, step: state[..., 0], bwm.causal.clamp(0.0)):
        law = overwritten(inner, setting(y=value))
        assert isinstance(law, OverwrittenLaw)
        with pytest.raises(bwm.SpecError, match="joint density"):
            law.log_prob(MEAN)
    with pytest.raises(bwm.SpecError, match="mass at the bounds"):
        overwritten(inner, setting(y=bwm.causal.clamp(0.0))).log_prob(MEAN, marginal=True)
    both = overwritten(inner, setting(y=lambda state, step: state[..., 0] * state[..., 2]))
    # the product of independent N(1, 1) and N(0.5, 1)
    assert (both.mean[0, 0, 1].item(), both.variance[0, 0, 1].item()) == pytest.approx((0.5, 1 + 1 + 0.25))


def test_laws_change_their_leading_axes() -> None:
    two = MEAN.expand(1, 2, 3)
    law = overwritten(MultivariateGaussian(two, ROOT.expand(1, 2, 3, 3)), setting(y=2.0))
    assert law.map(lambda v: v.expand(1, 2, *v.shape[2:])[:, :1]).mean.shape == (1, 1, 3)
