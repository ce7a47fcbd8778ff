import pytest
import torch

import bayeswm as bwm
from bayeswm.base import Gaussian
from bayeswm.causal.counterfactuals.replayed_law import ReplayedLaw

MEAN = torch.tensor([[[1.0, -1.0, 0.5]]], dtype=torch.float64)


def test_a_law_with_known_noise_is_a_point() -> None:
    law = ReplayedLaw(Gaussian(MEAN, torch.ones(3)), torch.ones(1, 1, 3, dtype=torch.float64), state=lambda x: x)
    assert law.noise_size == 0
    torch.testing.assert_close(law.mean, MEAN + 1)
    assert float(law.variance.max()) == 0
    assert law.log_prob(MEAN + 1).item() == 0.0
    with pytest.raises(bwm.NotInvertible):
        law.abduct(MEAN)


def test_it_changes_its_leading_axes() -> None:
    two, noise = MEAN.expand(1, 2, 3), torch.ones(1, 2, 3, dtype=torch.float64)
    law = ReplayedLaw(Gaussian(two, torch.ones(3)), noise, state=lambda x: x)
    assert law.map(lambda v: v.expand(1, 2, *v.shape[2:])[:, :1]).mean.shape == (1, 1, 3)


def test_what_is_not_given_is_drawn() -> None:
    """The last coordinate is left: a law of what it does, without a joint density."""
    noise = torch.ones(1, 1, 2, dtype=torch.float64)
    law = ReplayedLaw(Gaussian(MEAN, torch.ones(3)), noise, state=lambda x: x)
    assert law.noise_size == 1
    assert law.mean.flatten().tolist() == [2.0, 0.0, 0.5]
    assert law.variance.flatten().tolist() == pytest.approx([0.0, 0.0, 1.0])
    with pytest.raises(bwm.SpecError, match="marginal=True"):
        law.log_prob(MEAN)
