import torch

import bayeswm as bwm
from bayeswm.planning import LQR, Limits, Mean, Problem, quadratic
from bayeswm.planning.search.mean_system import MeanSystem
from tests.planning.linear_systems import linear_problem, starts


def problem(*, change=0.0, rate=None, previous=None, noise=0.0, bound=1.0):
    p = linear_problem(0, offset=0.1)
    worlds = p.model(bound, noise=noise).draw(1)
    objective = quadratic(p.Q, p.R, terminal=p.last)
    return p, Problem(
        type(objective)(stage=objective.stage, terminal=objective.terminal, change=change),
        worlds,
        starts(3),
        horizon=6,
        particles=2,
        risk=Mean(),
        limits=Limits.of(worlds.schema, change=rate, like=torch.empty(2, dtype=torch.float64)),
        previous=previous,
        generator=torch.Generator().manual_seed(0),
    )


def opened(system, actions):
    size = system.origin.shape[-1]
    blank = torch.zeros(*actions.shape, size, dtype=torch.float64)
    return system.follow(actions, blank, blank[..., 0, :])


def test_open_loop_costs_are_those_of_the_problem():
    for change, previous in ((0.0, None), (0.7, None), (0.7, torch.full((3, 2), 0.4, dtype=torch.float64))):
        _, given = problem(change=change, previous=previous)
        system = MeanSystem(given)
        actions = 0.1 * torch.randn(5, 3, 6, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
        states, done = opened(system, actions)
        torch.testing.assert_close(done, actions)
        torch.testing.assert_close(system.cost(states, done), given.score(actions).cost)


def test_limits_are_those_of_the_problem():
    for previous in (None, torch.full((3, 2), 0.4, dtype=torch.float64)):
        _, given = problem(rate=0.2, previous=previous)
        actions = torch.randn(5, 3, 6, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
        done = opened(MeanSystem(given), actions)[1]
        torch.testing.assert_close(done, given.limits.apply(actions, given.previous))


def test_derivatives_know_the_action_before():
    p, given = problem(change=0.5)
    system = MeanSystem(given)
    states = torch.randn(3, 6, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    actions = torch.full((3, 6, 2), 0.3, dtype=torch.float64)
    after, A, B = system.linearised(states, actions)
    torch.testing.assert_close(after[..., :4], states[..., :4] @ p.A.T + actions @ p.B.T + p.c)
    torch.testing.assert_close(after[..., 4:], actions)
    torch.testing.assert_close(A[0, 0], torch.block_diag(p.A, torch.zeros(2, 2)))
    torch.testing.assert_close(B[0, 0], torch.cat((p.B, torch.eye(2))))


def test_a_system_that_clips_has_a_derivative_at_the_bound():
    model = bwm.KnownDynamics(structure=bwm.structures.Pendulum.gymnasium())
    plan = LQR(quadratic(torch.ones(2), torch.ones(1)), horizon=3).plan(model, torch.zeros(2))
    at = torch.full((3, 1), 2.0, dtype=torch.float64)
    B = MeanSystem(plan.problem).linearised(torch.zeros(3, 2, dtype=torch.float64), at)[2]
    torch.testing.assert_close(B[:, 1], torch.full((3, 1), 0.15, dtype=torch.float64))


def test_what_diverges_costs_infinity():
    _, given = problem()
    system = MeanSystem(given)
    states = torch.zeros(3, 7, 4, dtype=torch.float64)
    states[1, 3, 0], states[2, 3, 0] = float("nan"), 1e200
    cost = system.cost(states, torch.zeros(3, 6, 2, dtype=torch.float64))
    assert cost.isfinite().tolist() == [True, False, False]
