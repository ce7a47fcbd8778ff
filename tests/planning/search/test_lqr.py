from dataclasses import replace

import pytest
import torch

import bayeswm as bwm
from bayeswm.base.errors import SpecError
from bayeswm.planning import LQR, Objective, quadratic, riccati
from tests.planning.linear_systems import linear_problem, starts

HORIZON = 25


@pytest.mark.parametrize("offset", [0.0, 0.3])
@pytest.mark.parametrize("seed", range(3))
def test_linear_quadratic_optimum(seed, offset):
    p, x0 = linear_problem(seed, offset=offset), starts(4)
    plan = LQR(p.objective, horizon=HORIZON).plan(p.model(), x0)
    for i in range(4):
        actions, best = p.optimum(x0[i], HORIZON)
        assert float((plan.cost[i] - best).abs() / best) <= 1e-8
        torch.testing.assert_close(plan.actions[i], actions, rtol=1e-7, atol=1e-9)


def test_where_it_is_linearised_does_not_matter_for_a_linear_system():
    p, x0 = linear_problem(0, offset=0.2), starts(1)[0]
    goal, rest = starts(1, seed=3)[0], torch.tensor([0.5, -0.2])
    away = LQR(p.objective, horizon=HORIZON, goal=goal, rest=rest).plan(p.model(), x0)
    torch.testing.assert_close(away.actions, p.optimum(x0, HORIZON)[0], rtol=1e-7, atol=1e-8)


def test_a_goal_elsewhere_is_a_shifted_problem():
    p, x0, goal = linear_problem(0), starts(1)[0], starts(1, seed=5)[0]
    objective = quadratic(p.Q, p.R, terminal=p.last, goal=goal)
    plan = LQR(objective, horizon=HORIZON).plan(p.model(), x0)
    # y = x - goal moves by y' = A y + (A - 1) goal
    shifted = replace(p, c=(p.A - torch.eye(4)) @ goal)
    torch.testing.assert_close(plan.actions, shifted.optimum(x0 - goal, HORIZON)[0], rtol=1e-7, atol=1e-8)


def test_noise_does_not_change_it():
    p, x0 = linear_problem(0), starts(1)[0]
    quiet = LQR(p.objective, horizon=10).plan(p.model(), x0)
    noisy = LQR(p.objective, horizon=10).plan(p.model(noise=0.3), x0, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(noisy.actions, quiet.actions)
    torch.testing.assert_close(noisy.feedback.gains, quiet.feedback.gains)


@pytest.mark.statistical
def test_expected_cost_of_its_feedback_under_noise():
    # x'P[0]x plus what each step's noise adds: sd^2 tr P[t]
    p, x0, sd, n = linear_problem(0), starts(1)[0], 0.1, 4000
    model = p.model(noise=sd)
    plan = LQR(p.objective, horizon=10).plan(model, x0, generator=torch.Generator().manual_seed(0))
    A, B, Q, R = (v.expand(10, *v.shape) for v in (p.A, p.B, torch.diag(p.Q), torch.diag(p.R)))
    P = riccati(A, B, Q, R, last=torch.diag(p.last))[1]
    exact = x0 @ P[0] @ x0 + sd**2 * P[1:].diagonal(dim1=-2, dim2=-1).sum()
    r = bwm.rollout(model, x0, plan.feedback, horizon=10, particles=n, generator=torch.Generator().manual_seed(1))
    states = torch.cat((x0.expand(1, n, 1, 4), r.particles), -2)
    actions = torch.stack([plan.feedback(states[..., t, :], t) for t in range(10)], -2)
    costs = p.objective.cost(states, actions, torch.zeros(1, 0))[0]
    error = costs.std() / n**0.5
    assert float((costs.mean() - exact).abs() / error) < 4.42  # p > 1e-5


def test_uncertain_worlds_enter_by_their_mean():
    p, x0 = linear_problem(0), starts(1)[0]
    law = torch.distributions.Normal(p.A, 0.05)
    worlds = bwm.KnownDynamics(structure=bwm.structures.Linear(p.schema(1e3), A=law, B=p.B)).draw(
        5, generator=torch.Generator().manual_seed(0)
    )
    worlds = worlds.reweight(torch.arange(5.0))
    mean = (worlds.weight[:, None, None] * worlds.parameters["A"]).sum(0)
    plan = LQR(p.objective, horizon=HORIZON).plan(worlds, x0)
    certain = replace(p, A=mean, c=torch.zeros(4, dtype=torch.float64))
    torch.testing.assert_close(plan.actions, certain.optimum(x0, HORIZON)[0], rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("discount", [1.0, 0.9])
def test_stationary_is_the_beginning_of_a_long_horizon(discount):
    p, x0 = linear_problem(1, offset=0.2), starts(1)[0]
    objective = replace(quadratic(p.Q, p.R, goal=starts(1, seed=4)[0]), discount=discount)
    long = LQR(objective, horizon=300).plan(p.model(), x0).feedback
    always = LQR(objective, horizon=5, stationary=True).plan(p.model(), x0).feedback
    torch.testing.assert_close(always.gains[0], long.gains[0], rtol=1e-7, atol=1e-9)
    torch.testing.assert_close(always.actions[0], long.actions[0], rtol=1e-6, atol=1e-8)
    torch.testing.assert_close(always.gains[0], always.gains[-1], rtol=0, atol=0)


def test_costs_of_changes():
    p, x0 = linear_problem(0), starts(1)[0]
    objective = replace(p.objective, change=0.7)
    first = LQR(objective, horizon=8).plan(p.model(), x0)
    plan = LQR(objective, horizon=8).plan(p.model(), x0, previous=first)
    H, g, _ = p.condensed(x0, 8)
    # the sum of squared differences of successive actions, the first from what was done before
    D = torch.kron(torch.eye(8) - torch.diag(torch.ones(7), -1), torch.eye(2)).double()
    for found, before in ((plan, first.action), (first, None)):
        rows = D if before is not None else D[2:]
        target = torch.zeros(len(rows), dtype=torch.float64)
        if before is not None:
            target[:2] = before
        exact = torch.linalg.solve(H + 0.7 * rows.T @ rows, -g + 0.7 * rows.T @ target)
        torch.testing.assert_close(found.actions, exact.view(8, 2), rtol=1e-7, atol=1e-9)


def test_bounds_clip():
    p, x0 = linear_problem(0), 5 * starts(1)[0]
    plan = LQR(p.objective, horizon=10).plan(p.model(bound=0.2), x0)
    assert float(plan.actions.abs().max()) == pytest.approx(0.2)
    x = starts(6) * 10
    assert float(plan.feedback(x, 0).abs().max()) <= 0.2


def test_upright_pendulum_is_held():
    model = bwm.KnownDynamics(structure=bwm.structures.Pendulum.gymnasium())
    objective = quadratic(torch.tensor([1.0, 0.1]), torch.tensor([0.001]))
    x0 = torch.tensor([[0.1, 0.0], [-0.05, 0.3]])
    plan = LQR(objective, horizon=60, stationary=True).plan(model, x0)
    r = bwm.rollout(model, x0, plan.feedback, horizon=100)
    assert float(r.mean[:, -1].abs().max()) < 1e-6
    # what was planned is what the policy does
    torch.testing.assert_close(r.mean[:, :60], plan.predictive.mean)


def test_without_context_the_feedback_is_for_any_batch_of_states():
    p = linear_problem(0)
    plan = LQR(p.objective, horizon=5).plan(p.model(), starts(3))
    assert plan.feedback.gains.shape == (5, 2, 4)
    assert plan.feedback(starts(7), 2).shape == (7, 2)


def test_a_context_is_seen():
    schema = bwm.Schema(
        state=[bwm.Variable("x")],
        action=[bwm.Variable("u", bounds=(-100.0, 100.0))],
        context=[bwm.Variable("wind")],
        time_step=0.1,
    )
    drift = bwm.structures.FromFunction(lambda x, u, c: x + u + c, schema=schema)
    objective = quadratic(torch.tensor([1.0]), torch.tensor([1e-9]))
    plan = LQR(objective, horizon=4).plan(
        bwm.KnownDynamics(structure=drift), torch.zeros(2, 1), context=torch.tensor([[0.5], [-2.0]])
    )
    torch.testing.assert_close(
        plan.actions[:, :3, 0], torch.tensor([[-0.5] * 3, [2.0] * 3]).double(), rtol=1e-6, atol=0
    )


def test_an_action_without_cost_or_effect_is_refused():
    p = linear_problem(0)
    objective = Objective(stage=lambda x, u, c, t: x.square().sum(-1))
    with pytest.raises(SpecError, match="rises with every action"):
        LQR(objective, horizon=5).plan(p.model(), starts(1)[0])


@pytest.mark.parametrize("wrong", [{"goal": torch.zeros(3)}, {"rest": torch.full((2,), float("nan"))}])
def test_goals_of_another_shape_are_refused(wrong):
    p = linear_problem(0)
    with pytest.raises(SpecError, match="finite"):
        LQR(p.objective, horizon=5, **wrong).plan(p.model(), starts(1)[0])
