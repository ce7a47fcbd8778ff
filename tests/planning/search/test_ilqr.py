from dataclasses import replace

import pytest
import torch

import bayeswm as bwm
from bayeswm.base.errors import SpecError
from bayeswm.planning import ILQR, Gradient, Objective, quadratic
from bayeswm.planning.search.box_qp import box_qp
from tests.planning.linear_systems import linear_problem, starts
from tests.planning.search.test_gradient import exploding

PENDULUM = bwm.KnownDynamics(structure=bwm.structures.Pendulum.gymnasium())


def swing_cost(x, u, c, t):
    angle = torch.remainder(x[..., 0] + torch.pi, 2 * torch.pi) - torch.pi
    return angle**2 + 0.1 * x[..., 1] ** 2 + 0.001 * u[..., 0] ** 2


SWING = Objective(stage=swing_cost)


@pytest.mark.parametrize("seed", range(3))
def test_linear_quadratic_optimum(seed):
    p, x0 = linear_problem(seed, offset=0.1), starts(4)
    plan = ILQR(p.objective, horizon=25).plan(p.model(), x0)
    for i in range(4):
        best = p.optimum(x0[i], 25)[1]
        assert abs(float((plan.cost[i] - best) / best)) <= 1e-8


@pytest.mark.parametrize("bound", [0.1, 0.3])
def test_bounds_that_bind(bound):
    p, horizon, x0 = linear_problem(1), 15, starts(1)[0]
    H, g, r = p.condensed(x0, horizon)
    ends = torch.full_like(g, bound)
    exact = box_qp(2 * H, 2 * g, -ends, ends, iterations=200)[0]
    best = exact @ H @ exact + 2 * g @ exact + r
    plan = ILQR(p.objective, horizon=horizon).plan(p.model(bound), x0)
    assert bool((exact.abs() == bound).any())
    assert -1e-9 <= float((plan.cost - best) / best) <= 1e-6


def test_limits_and_costs_of_changes():
    p, x0 = linear_problem(0), starts(1)[0]
    objective = replace(p.objective, change=0.7)
    first = ILQR(objective, horizon=8).plan(p.model(), x0)
    plan = ILQR(objective, horizon=8).plan(p.model(), x0, previous=first)
    H, g, _ = p.condensed(x0, 8)
    D = torch.kron(torch.eye(8) - torch.diag(torch.ones(7), -1), torch.eye(2)).double()
    target = torch.cat((first.action, torch.zeros(14)))
    exact = torch.linalg.solve(H + 0.7 * D.T @ D, -g + 0.7 * D.T @ target)
    torch.testing.assert_close(plan.actions, exact.view(8, 2), rtol=1e-4, atol=1e-5)
    slow = ILQR(p.objective, horizon=8, change=0.1).plan(p.model(), x0)
    assert float(slow.actions.diff(dim=-2).abs().max()) <= 0.1 + 1e-9
    compared = Gradient(p.objective, horizon=8, restarts=1, iterations=200, change=0.1).plan(p.model(), x0)
    assert float(slow.cost) <= 1.05 * float(compared.cost)


def test_swing_up_is_as_good_as_a_long_search_by_gradients():
    x0 = torch.tensor([[2.0, 0.0], [-1.0, 0.5], [0.4, -1.0]])
    plan = ILQR(SWING, horizon=15, restarts=3).plan(PENDULUM, x0, generator=torch.Generator().manual_seed(0))
    other = Gradient(SWING, horizon=15, restarts=6, iterations=40).plan(
        PENDULUM, x0, generator=torch.Generator().manual_seed(0)
    )
    assert bool((plan.cost <= 1.1 * other.cost).all())


def test_it_leaves_bounds_at_which_the_system_clips():
    objective = quadratic(torch.tensor([1.0, 0.1]), torch.tensor([0.001]))
    plan = ILQR(objective, horizon=30).plan(PENDULUM, torch.tensor([0.3, 0.0]))
    # six steps of full torque, then the linear regulator
    assert float(plan.cost) < 0.854


def test_feedback_follows_the_plan_and_holds_it_against_noise():
    x0 = torch.tensor([0.25, 0.0])
    noisy = bwm.KnownDynamics(structure=bwm.structures.Pendulum.gymnasium(), noise={"velocity": 0.05})
    plan = ILQR(SWING, horizon=40).plan(PENDULUM, x0)
    followed = bwm.rollout(PENDULUM, x0, plan.feedback, horizon=40)
    torch.testing.assert_close(followed.mean, plan.predictive.mean, rtol=1e-6, atol=1e-8)
    closed, opened = (
        bwm.rollout(noisy, x0, policy, horizon=40, particles=200, generator=torch.Generator().manual_seed(1))
        for policy in (plan.feedback, plan.actions)
    )
    # upright an error grows by exp(sqrt(15) t) without feedback: 20 steps of 0.05 s are a factor of 48
    assert float(closed.stddev[19, 0]) < 0.1 * float(opened.stddev[19, 0])


def test_costs_never_rise_and_starts_do_not_meet():
    x0 = torch.tensor([[2.0, 0.0], [-1.0, 0.5]])
    together = ILQR(SWING, horizon=20).plan(PENDULUM, x0)
    assert bool((together.history.diff(dim=0) <= 1e-12).all())
    alone = ILQR(SWING, horizon=20).plan(PENDULUM, x0[1])
    torch.testing.assert_close(alone.actions, together.actions[1], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(alone.feedback.gains, together.feedback.gains[1], rtol=1e-4, atol=1e-5)


def test_uncertain_worlds_enter_by_their_mean():
    p, x0 = linear_problem(0), starts(1)[0]
    law = torch.distributions.Normal(p.A, 0.05)
    worlds = bwm.KnownDynamics(structure=bwm.structures.Linear(p.schema(1e3), A=law, B=p.B), noise=0.1).draw(
        5, generator=torch.Generator().manual_seed(0)
    )
    plan = ILQR(p.objective, horizon=10).plan(worlds, x0, generator=torch.Generator().manual_seed(1))
    certain = replace(p, A=worlds.parameters["A"].mean(0), c=torch.zeros(4, dtype=torch.float64))
    torch.testing.assert_close(plan.actions, certain.optimum(x0, 10)[0], rtol=1e-5, atol=1e-6)


def test_each_start_has_its_context():
    schema = bwm.Schema(
        state=[bwm.Variable("x")],
        action=[bwm.Variable("u", bounds=(-100.0, 100.0))],
        context=[bwm.Variable("wind")],
        time_step=0.1,
    )
    drift = bwm.structures.FromFunction(lambda x, u, c: x + u + c, schema=schema)
    objective = quadratic(torch.tensor([1.0]), torch.tensor([1e-9]))
    plan = ILQR(objective, horizon=4, restarts=3).plan(
        bwm.KnownDynamics(structure=drift),
        torch.zeros(2, 1),
        context=torch.tensor([[0.5], [-2.0]]),
        generator=torch.Generator().manual_seed(0),
    )
    torch.testing.assert_close(
        plan.actions[:, :3, 0], torch.tensor([[-0.5] * 3, [2.0] * 3]).double(), rtol=1e-6, atol=1e-8
    )


def test_a_start_that_diverges_falls_back_and_the_others_go_on():
    objective = Objective(stage=lambda x, u, c, t: (x[..., 0] - 0.1) ** 2 + 0.01 * u[..., 0] ** 2)
    plan = ILQR(objective, horizon=12).plan(exploding(), torch.tensor([[5.0], [0.0]]))
    assert plan.fallback.tolist() == [True, False]
    assert bool(plan.actions.isfinite().all())
    assert bool((plan.feedback.gains[0] == 0).all())
    assert float(plan.history[-1, 1]) < float(plan.history[0, 1])


def test_a_saddle_in_the_cost_is_no_obstacle():
    # the cost curves downwards at the start
    objective = Objective(stage=lambda x, u, c, t: 1 - torch.exp(-0.5 * (x[..., 0] - 1.5) ** 2) + 1e-3 * u[..., 0] ** 2)
    schema = bwm.Schema(state=[bwm.Variable("x")], action=[bwm.Variable("u", bounds=(-1, 1))], time_step=1.0)
    line = bwm.KnownDynamics(structure=bwm.structures.Linear(schema, A=torch.eye(1).double(), B=1.0))
    plan = ILQR(objective, horizon=10).plan(line, torch.zeros(1))
    assert float(plan.predictive.mean[-1, 0]) == pytest.approx(1.5, abs=0.05)


def test_warm_start_within_inference_mode():
    planner = ILQR(SWING, horizon=15, iterations=5)
    with torch.inference_mode():
        first = planner.plan(PENDULUM, torch.tensor([2.0, 0.0]))
        warm = planner.plan(PENDULUM, first.predictive.mean[0], previous=first)
    cold = planner.plan(PENDULUM, first.predictive.mean[0].clone())
    assert float(warm.history[0]) < float(cold.history[0])


@pytest.mark.parametrize("wrong", [{"restarts": 0}, {"iterations": 0}, {"tolerance": -1.0}])
def test_settings_that_make_no_sense(wrong):
    with pytest.raises(SpecError, match=next(iter(wrong))):
        ILQR(SWING, horizon=5, **wrong)
