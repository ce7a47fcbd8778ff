import pytest
import torch

import bayeswm as bwm
from bayeswm.base import Gaussian, MultivariateGaussian
from bayeswm.causal.interventions.set_noise import with_noise

MEAN = torch.tensor([[[1.0, -1.0]]], dtype=torch.float64)


def test_noise_is_set_or_shifted() -> None:
    law = Gaussian(MEAN, torch.tensor([0.5, 2.0], dtype=torch.float64))
    hard, soft = (bwm.do({"noise.y": value}).assignments[0] for value in (3.0, bwm.causal.shift(0.5)))
    found = with_noise(law, hard, column=1, step=0)
    assert (found.mean.flatten().tolist(), found.spread.flatten().tolist()) == ([1.0, 5.0], [0.5, 0.0])
    found = with_noise(law, soft, column=1, step=0)
    assert (found.mean.flatten().tolist(), found.spread.flatten().tolist()) == ([1.0, 0.0], [0.5, 2.0])
    assert law.mean.flatten().tolist() == [1.0, -1.0]


def test_correlated_noise_is_refused() -> None:
    (one,) = bwm.do({"noise.y": 0.0}).assignments
    with pytest.raises(bwm.SpecError, match="independent Gaussian noise"):
        with_noise(MultivariateGaussian(MEAN, torch.eye(2).double()), one, column=1, step=0)
