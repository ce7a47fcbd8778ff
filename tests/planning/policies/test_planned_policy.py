import pytest
import torch

import bayeswm as bwm
from bayeswm.planning import CEM, PlannedPolicy, closed_loop, quadratic
from bayeswm.planning.policies.planned_policy import act_out

SCHEMA = bwm.Schema(state=[bwm.Variable("x")], action=[bwm.Variable("u", bounds=(-1, 1))], time_step=0.1)
TRUTH = bwm.KnownDynamics(structure=bwm.structures.Linear(SCHEMA, A=1.0, B=1.0))
PLANNER = CEM(quadratic(torch.ones(1), torch.tensor([0.01])), horizon=3, samples=256, elites=32, iterations=12)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def test_it_does_what_a_closed_loop_does():
    starts = torch.tensor([[2.0], [-1.5]])
    policy = PlannedPolicy(PLANNER, TRUTH, generator=generator())
    found = bwm.rollout(TRUTH, starts, policy, horizon=4, particles=1).particles[0, 0]
    loop = closed_loop(TRUTH, TRUTH, PLANNER, starts=starts, steps=4, generator=generator()).trajectories
    # both reach the goal; other random numbers, the same optimum to the precision of the search
    torch.testing.assert_close(found, loop.states()[:, 1:], atol=0.02, rtol=0)
    again = PlannedPolicy(PLANNER, TRUTH, generator=generator())
    assert torch.equal(found, bwm.rollout(TRUTH, starts, again, horizon=4, particles=1).particles[0, 0])


def test_a_new_rollout_begins_anew_and_lost_particles_get_nan():
    policy = PlannedPolicy(PLANNER, TRUTH, generator=generator())
    for _ in range(2):
        assert policy(torch.zeros(1, 3, 2, 1).double(), 0).shape == (1, 3, 2, 1)
    state = torch.tensor([[1.0], [float("nan")]])
    assert policy(state, 0).isnan().flatten().tolist() == [False, True]


def test_what_was_done_is_kept():
    noisy = bwm.KnownDynamics(structure=TRUTH.structure, noise=0.1).draw(1)
    acted = act_out(
        noisy, lambda x, t: -0.5 * x, torch.ones(3, 1), horizon=4, particles=5, generator=generator(), context=None
    )
    assert acted.states.shape == (1, 5, 3, 5, 1)
    torch.testing.assert_close(acted.actions, -0.5 * acted.states[..., :-1, :])
    with pytest.raises(bwm.SpecError, match="PlannedPolicy"):
        act_out(noisy, PLANNER, torch.ones(3, 1), horizon=4, particles=5, generator=generator(), context=None)
    with pytest.raises(bwm.SpecError, match="horizon"):
        act_out(noisy, lambda x, t: x, torch.ones(1), horizon=None, particles=5, generator=generator(), context=None)
