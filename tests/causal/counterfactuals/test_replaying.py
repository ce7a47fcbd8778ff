import pytest
import torch

import bayeswm as bwm
from bayeswm.base import Gaussian
from bayeswm.causal.counterfactuals.replaying import EndedLaw, until_the_end

INSIDE = torch.tensor([[True, True], [True, False]])


def test_a_law_of_rows_that_have_ended() -> None:
    law = EndedLaw(Gaussian(torch.zeros(1, 3, 2, 1), torch.ones(1)), INSIDE[None, None, :, 1])
    for values in (law.mean, law.variance, law.covariance[..., 0], law.cdf(torch.zeros(1)), law.push(torch.ones(1))):
        assert values.isnan()[0, 0, :, 0].tolist() == [False, True]
    assert law.log_prob(torch.zeros(1)).isnan()[0, 0].tolist() == [False, True]
    assert law.abduct(torch.zeros(1)).isnan()[0, 0, :, 0].tolist() == [False, True]
    assert law.map(lambda v: v[:, :1]).mean.shape == (1, 1, 2, 1)


def test_a_predictive_ends_with_its_episodes(generator: torch.Generator) -> None:
    model = bwm.KnownDynamics(structure=bwm.structures.Pendulum(), noise=0.1)
    whole = bwm.rollout(model, torch.zeros(2, 2), torch.zeros(2, 2, 1), particles=3, generator=generator)
    found = until_the_end(whole, INSIDE)
    assert found.mean.isnan()[..., 0].tolist() == [[False, False], [False, True]]
    torch.testing.assert_close(found.mean[0], whole.mean[0])
    torch.testing.assert_close(found.particles[:, :, 1, 0], whole.particles[:, :, 1, 0])
    assert bool(found.particles[:, :, 1, 1].isnan().all())
    with pytest.warns(bwm.base.errors.UndefinedWarning):
        _ = found.variance
