import pytest
import torch

import bayeswm as bwm
from bayeswm.base import Gaussian
from bayeswm.causal.interventions.carrying_law import CarryingLaw

MEAN = torch.tensor([[[1.0, -1.0, 0.5]]], dtype=torch.float64)


def test_a_carrying_law_draws_for_the_next_step() -> None:
    law = CarryingLaw(Gaussian(MEAN, torch.ones(3)), 2, torch.zeros(1, 1, 0, dtype=torch.bool))
    state, eta, _ = law.push(torch.tensor([[[1.0, 1.0, 1.0, 7.0, 8.0]]], dtype=torch.float64))
    torch.testing.assert_close(state, MEAN + 1)
    assert (law.noise_size, eta.flatten().tolist()) == (5, [7.0, 8.0])

    with pytest.raises(bwm.NotInvertible, match="stochastic"):
        law.abduct(MEAN)


def test_it_changes_its_leading_axes() -> None:
    law = CarryingLaw(Gaussian(MEAN.expand(1, 2, 3), torch.ones(3)), 1, torch.zeros(1, 2, 1, dtype=torch.bool))
    assert law.map(lambda v: v.expand(1, 2, *v.shape[2:])[:, :1]).mean.shape == (1, 1, 3)
