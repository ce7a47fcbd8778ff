import pytest
import torch
from torch.distributions import Normal

import bayeswm as bwm
from bayeswm.causal.effects.branches import Branches
from tests.causal.reference_models import c3


def test_branches_have_the_same_noise(generator: torch.Generator) -> None:
    branches = Branches(c3(), torch.zeros(2, 1), torch.zeros(4, 1), horizon=None, generator=generator)
    none, same = branches.run(), branches.run(bwm.do(a=0.0))
    torch.testing.assert_close(none.particles, same.particles, rtol=0, atol=0)
    first, second = branches.run(bwm.do(a=Normal(0.0, 1.0))), branches.run(bwm.do(a=Normal(1.0, 1.0)))
    gap = (second.particles - first.particles)[..., 0, 0]
    torch.testing.assert_close(gap, torch.full_like(gap, 0.5))
    assert float((first.particles - none.particles).abs().max()) > 0.1


def test_a_belief_about_the_start_is_shared(generator: torch.Generator) -> None:
    start = bwm.Gaussian(torch.zeros(1, 1, 1), torch.ones(1))
    branches = Branches(c3(), start, torch.zeros(1, 1), horizon=None, particles=50, generator=generator)
    gap = branches.run(bwm.do(a=1.0)).particles - branches.run(bwm.do(a=0.0)).particles
    torch.testing.assert_close(gap, torch.full_like(gap, 0.5))


def test_what_is_refused() -> None:
    with pytest.raises(bwm.SpecError, match="generator="):
        Branches(c3(), torch.zeros(1), torch.zeros(1, 1), horizon=None)
    with pytest.raises(bwm.SpecError, match="horizon="):
        Branches(c3(), torch.zeros(1), None, horizon=None, generator=torch.Generator())


@pytest.mark.parametrize("horizon", [2.5, True, 0])
def test_a_horizon_is_a_number_of_steps(horizon):
    with pytest.raises(bwm.SpecError, match="horizon= as a number of steps >= 1"):
        Branches(c3(), torch.zeros(1), None, horizon=horizon, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    "partly", [bwm.do(a=1.0, when=lambda state, step: state[..., 0] > 0), bwm.do(a=bwm.causal.shift(1.0))]
)
def test_what_sets_an_action_in_part_needs_the_rest(partly):
    g = torch.Generator().manual_seed(0)
    branches = Branches(c3(), torch.zeros(1), None, horizon=3, generator=g)
    with pytest.raises(bwm.SpecError, match="expected actions="):
        branches.run(partly)
    Branches(c3(), torch.zeros(1), torch.zeros(3, 1), horizon=3, generator=g).run(partly)
