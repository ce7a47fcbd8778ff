"""The law of the next belief: moments, density and what a push does."""

import pytest
import torch
from torch.distributions import Normal

import bayeswm as bwm
from bayeswm.inference import Unscented
from bayeswm.models.sensed_worlds import SensedWorlds
from tests.models.sensed import NOISE, A, B, model, record


def worlds_of(**choices) -> SensedWorlds:
    drawn = model(**choices).draw(1)
    assert isinstance(drawn, SensedWorlds)
    return drawn


def test_law_of_a_belief() -> None:
    worlds, data = worlds_of(), record()
    belief, action = worlds.start(data), torch.tensor([[0.4], [-0.3]], dtype=torch.float64)
    law = worlds.transition(belief, action)
    covariance = A @ belief.covariance @ A.mT + torch.tensor(NOISE).double().square().diag()
    torch.testing.assert_close(law.mean, belief.mean @ A.mT + action @ B.mT)
    torch.testing.assert_close(law.covariance, covariance)
    torch.testing.assert_close(law.variance, covariance.diagonal(dim1=-2, dim2=-1))
    x = law.mean + 0.1
    dense = torch.distributions.MultivariateNormal(law.mean, covariance)
    torch.testing.assert_close(law.log_prob(x), dense.log_prob(x))
    marginal = Normal(law.mean, law.variance.sqrt())
    torch.testing.assert_close(law.log_prob(x, marginal=True), marginal.log_prob(x))
    torch.testing.assert_close(law.cdf(x), marginal.cdf(x))
    assert law.exact
    assert law.noise_size == worlds.noise_size == 2
    pushed = law.push(torch.ones(1, 3, 2, 2, dtype=torch.float64))
    torch.testing.assert_close(pushed.mean, (law.mean + torch.tensor(NOISE)).expand(1, 3, 2, 2))
    part = law.map(lambda v: v[:, :, :1])
    torch.testing.assert_close(part.covariance, law.covariance[:, :, :1])
    with pytest.raises(bwm.NotInvertible, match="known state"):
        law.abduct(x)
    assert not worlds_of(filtering=Unscented()).transition(belief, action).exact


def test_one_silent_column_has_one_coordinate() -> None:
    worlds = worlds_of(noise=(0.0, 0.3))
    belief = worlds.start(record())
    law = worlds.transition(belief, torch.zeros(2, 1).double())
    assert law.noise_size == worlds.noise_size == 1
    pushed = law.push(torch.full((1, 1, 2, 1), 2.0).double())
    torch.testing.assert_close(pushed.mean - law.mean, torch.tensor([0.0, 0.6]).double().expand(1, 1, 2, 2))
