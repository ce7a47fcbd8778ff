import math
from dataclasses import dataclass
from typing import override

import pytest
import torch

import bayeswm as bwm
from bayeswm.base.errors import SpecError
from bayeswm.planning import (
    Constraint,
    CVaR,
    Entropic,
    Gradient,
    Mean,
    MeanDeviation,
    Objective,
    quadratic,
    saturating,
    tip_distance,
)
from bayeswm.planning.search.box_qp import box_qp
from tests.planning.linear_systems import linear_problem, starts


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("seed", range(3))
def test_linear_quadratic_optimum(seed):
    p = linear_problem(seed, offset=0.1)
    x0 = starts(4)
    plan = Gradient(p.objective, horizon=25, restarts=1).plan(p.model(), x0)
    for i in range(4):
        best = p.optimum(x0[i], 25)[1]
        assert 0 <= float(plan.cost[i] - best) <= 1e-3 * float(best) + 1e-9


def test_bounds_that_bind():
    p = linear_problem(1)
    bound, horizon, x0 = 0.3, 15, starts(1)[0]
    H, g, r = p.condensed(x0, horizon)
    ends = torch.full_like(g, bound)
    exact = box_qp(2 * H, 2 * g, -ends, ends, iterations=200)[0]
    best = exact @ H @ exact + 2 * g @ exact + r
    plan = Gradient(p.objective, horizon=horizon, restarts=1).plan(p.model(bound), x0)
    assert bool((exact.abs() == bound).any())
    assert -1e-9 <= float((plan.cost - best) / best) <= 1e-3
    assert bool((plan.actions.abs() <= bound).all())


def test_uncertain_worlds_with_noise_reach_the_optimum_of_the_sampled_expectation():
    # the mean over drawn worlds and noise is one quadratic function of the actions: dense algebra knows its least
    p, horizon, x0 = linear_problem(2), 12, starts(1)[0]
    law = torch.distributions.Normal(p.A, 0.05)
    structure = bwm.structures.Linear(p.schema(1e3), A=law, B=p.B, c=p.c)
    worlds = bwm.KnownDynamics(structure=structure, noise=0.1).draw(6, generator=seeded())
    plan = Gradient(p.objective, horizon=horizon, restarts=1, particles=3).plan(worlds, x0, generator=seeded(1))
    noise = 0.1 * plan.problem.noise.step[:, :, 0]
    size = horizon * p.B.shape[1]
    H, g, r = torch.zeros(size, size).double(), torch.zeros(size).double(), 0.0
    for w in range(6):
        one = type(p)(worlds.parameters["A"][w], p.B, p.c, p.Q, p.R, p.last)
        for k in range(3):
            parts = one.condensed(x0, horizon, push=noise[w, k])
            H, g, r = H + parts[0] / 18, g + parts[1] / 18, r + parts[2] / 18
    best = float(r - g @ torch.linalg.solve(H, g))
    assert -1e-9 <= float(plan.cost) / best - 1 <= 1e-3


@pytest.mark.parametrize("risk", [MeanDeviation(2.0), CVaR(0.3), Entropic(0.05)])
def test_the_risk_is_what_falls(risk):
    p, x0 = linear_problem(2), 2 * starts(1)[0]
    law = torch.distributions.Normal(p.B, 0.3)
    worlds = bwm.KnownDynamics(structure=bwm.structures.Linear(p.schema(1e3), A=p.A, B=law)).draw(8, generator=seeded())
    cautious = Gradient(p.objective, horizon=8, restarts=1, iterations=100, risk=risk).plan(worlds, x0)
    neutral = Gradient(p.objective, horizon=8, restarts=1, iterations=100).plan(worlds, x0)
    of_neutral = risk(-neutral.returns, neutral.log_weight)
    assert float(cautious.cost) < 0.999 * float(of_neutral)
    assert float(Mean()(-cautious.returns, cautious.log_weight)) > float(neutral.cost)


def test_a_deviation_of_0_has_a_derivative():
    p, x0 = linear_problem(0), starts(1)[0]
    plan = Gradient(p.objective, horizon=10, restarts=1, risk=MeanDeviation(1.0)).plan(p.model(), x0)
    best = float(p.optimum(x0, 10)[1])
    assert float(plan.cost) == pytest.approx(best, rel=1e-3)


def test_a_start_at_the_target_has_a_derivative():
    structure = bwm.structures.Pendulum.gymnasium()
    distance = tip_distance(structure.schema, ["angle"], lengths=[1.0], target=[0.0, 1.0])
    planner = Gradient(saturating(distance, 0.5), horizon=15, restarts=1)
    plan = planner.plan(bwm.KnownDynamics(structure=structure), torch.zeros(2))
    assert float(plan.cost) < 1e-12
    pushed = planner.plan(bwm.KnownDynamics(structure=structure), torch.tensor([0.0, 0.4]))
    assert float(pushed.cost) < 0.5 * float(pushed.history[0])


def exploding():
    schema = bwm.Schema(state=[bwm.Variable("x")], action=[bwm.Variable("u", bounds=(-1.0, 1.0))], time_step=1.0)
    return bwm.KnownDynamics(structure=bwm.structures.FromFunction(lambda x, u: x + u + 100 * x**3, schema=schema))


def test_what_diverges_never_wins():
    # rest is a fixed point that random actions leave for ever
    objective = Objective(stage=lambda x, u, c, t: 0.01 * u[..., 0] ** 2 - x[..., 0].clamp(max=1e30))
    plan = Gradient(objective, horizon=12, restarts=6).plan(exploding(), torch.zeros(1), generator=seeded())
    assert float(plan.diverged) > 0
    assert bool(plan.actions.isfinite().all())
    assert math.isfinite(float(plan.cost))
    assert not bool(plan.fallback)


def test_where_all_diverges_the_fallback_is_used_and_said():
    objective = Objective(stage=lambda x, u, c, t: x[..., 0] ** 2)
    plan = Gradient(objective, horizon=12, restarts=3).plan(
        exploding(), torch.tensor([[5.0], [0.0]]), generator=seeded()
    )
    assert plan.fallback.tolist() == [True, False]
    assert bool((plan.actions[0] == 0).all())
    assert plan.diverged.tolist()[0] == 1.0


@dataclass(frozen=True)
class Below(Constraint):
    limit: float
    penalty: float | None = None

    @override
    def excess(self, imagined):
        return (imagined.states[..., 0] - self.limit).clamp(min=0.0).amax((0, 1, -1))

    @override
    def broken(self, imagined):
        return imagined.reached[..., 0] > self.limit


def pushed_mass():
    schema = bwm.Schema(
        state=[bwm.Variable("x"), bwm.Variable("v")],
        action=[bwm.Variable("u", bounds=(-1.0, 1.0))],
        time_step=0.1,
    )
    A = torch.tensor([[1.0, 0.1], [0.0, 1.0]], dtype=torch.float64)
    B = torch.tensor([[0.005], [0.1]], dtype=torch.float64)
    return bwm.KnownDynamics(structure=bwm.structures.Linear(schema, A=A, B=B))


FAR = quadratic(torch.tensor([1.0, 0.01]), torch.tensor([0.001]), goal=torch.tensor([1.0, 0.0]))


def test_a_hard_constraint_is_kept_at_little_cost():
    free = Gradient(FAR, horizon=18, restarts=2).plan(pushed_mass(), torch.zeros(2), generator=seeded())
    assert float(free.predictive.mean[..., 0].max()) > 0.5
    kept = Gradient(FAR, horizon=18, restarts=2, iterations=40, constraints=[Below(0.5)])
    plan = kept.plan(pushed_mass(), torch.zeros(2), generator=seeded())
    assert bool(plan.feasible)
    assert 0.45 < float(plan.predictive.mean[..., 0].max()) <= 0.5
    assert float(plan.cost) > float(free.cost)


def test_a_soft_constraint_costs_what_it_says():
    costs = []
    for penalty in (0.0, 10.0, 1000.0):
        planner = Gradient(FAR, horizon=18, restarts=1, iterations=40, constraints=[Below(0.5, penalty)])
        costs.append(float(planner.plan(pushed_mass(), torch.zeros(2)).predictive.mean[..., 0].max()))
    assert costs[0] > costs[1] >= costs[2] - 1e-3
    assert costs[2] < 0.52


def test_an_infeasible_problem_says_so():
    plan = Gradient(FAR, horizon=5, restarts=2, constraints=[Below(-1.0)]).plan(
        pushed_mass(), torch.zeros(2), generator=seeded()
    )
    assert not bool(plan.feasible)
    assert bool(plan.actions.isfinite().all())


def test_limits_on_changes():
    plan = Gradient(FAR, horizon=20, restarts=1, change=0.2).plan(pushed_mass(), torch.zeros(2))
    assert float(plan.actions.diff(dim=-2).abs().max()) <= 0.2 + 1e-9
    after = Gradient(FAR, horizon=20, restarts=1, change=0.2).plan(pushed_mass(), torch.zeros(2), previous=plan)
    assert abs(float(after.action - plan.action)) <= 0.2 + 1e-9


def test_same_generator_same_plan_and_starts_do_not_meet():
    p = linear_problem(0)
    planner = Gradient(p.objective, horizon=10, restarts=3, iterations=60)
    model, x0 = p.model(bound=2.0, noise=0.1), starts(3)
    together = planner.plan(model, x0, generator=seeded())
    again = planner.plan(model, x0, generator=seeded())
    assert bool((together.actions == again.actions).all())
    alone = planner.plan(model, x0[1], generator=seeded())
    torch.testing.assert_close(alone.actions, together.actions[1], rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(alone.cost, together.cost[1], rtol=1e-6, atol=0)


def test_a_plan_goes_on_where_the_last_one_ended():
    structure = bwm.structures.Pendulum.gymnasium()
    model = bwm.KnownDynamics(structure=structure)
    objective = Objective(stage=lambda x, u, c, t: 1 - torch.cos(x[..., 0]) + 0.01 * x[..., 1] ** 2)
    planner = Gradient(objective, horizon=25, iterations=10)
    first = planner.plan(model, torch.tensor([torch.pi, 0.0]), generator=seeded())
    after = first.predictive.mean[0]
    warm = planner.plan(model, after, previous=first, generator=seeded(1))
    cold = Gradient(objective, horizon=25, iterations=1, restarts=1).plan(model, after)
    assert float(warm.history[0]) < float(cold.history[0])


def test_half_of_the_restarts_go_on():
    p = linear_problem(0)
    plan = Gradient(p.objective, horizon=6, restarts=5, iterations=3).plan(p.model(), starts(2), generator=seeded())
    assert plan.memory["others"].shape == (2, 2, 6, 2)
    later = plan.shifted(1)
    torch.testing.assert_close(later["others"][..., 0, :], plan.memory["others"][..., 1, :])
    costs = plan.problem.score(torch.cat((plan.memory["actions"][None], plan.memory["others"]))).cost
    assert bool((costs.diff(dim=0) >= 0).all())


def test_parameters_get_no_gradient_and_grad_mode_stays():
    p = linear_problem(0)
    worlds = p.model().draw(1)
    watched = {k: v.clone().requires_grad_() for k, v in worlds.parameters.items()}
    worlds.parameters.update(watched)
    plan = Gradient(p.objective, horizon=5, restarts=1, iterations=5).plan(worlds, starts(1)[0])
    assert all(v.grad is None for v in watched.values())
    assert not plan.actions.requires_grad
    assert not plan.memory["actions"].requires_grad
    assert torch.is_grad_enabled()


def test_within_inference_mode():
    p, x0 = linear_problem(0), starts(1)[0]
    planner = Gradient(p.objective, horizon=8, restarts=1)
    outside = planner.plan(p.model(), x0)
    with torch.inference_mode():
        inside = planner.plan(p.model(), x0.clone())
        inside = planner.plan(p.model(), x0.clone(), previous=inside, done=0)
    torch.testing.assert_close(inside.cost, outside.cost, rtol=1e-3, atol=0)


def test_a_cost_of_nothing_that_is_done_is_no_error():
    objective = Objective(terminal=lambda x, c: torch.ones(()) + 0 * x[..., 0].detach())
    plan = Gradient(objective, horizon=3, restarts=1).plan(pushed_mass(), torch.zeros(2))
    assert float(plan.cost) == 1.0


def test_single_precision():
    p = linear_problem(0)
    model = p.model()
    model.dtype = torch.float32
    plan = Gradient(p.objective, horizon=15, restarts=1).plan(model, starts(1)[0])
    assert plan.actions.dtype == torch.float32
    assert float(plan.cost) <= 1.001 * float(p.optimum(starts(1)[0], 15)[1])


@pytest.mark.parametrize("wrong", [{"restarts": 0}, {"iterations": 0}, {"memory": 0}])
def test_settings_that_make_no_sense(wrong):
    with pytest.raises(SpecError, match=next(iter(wrong))):
        Gradient(FAR, horizon=5, **wrong)


def test_restarts_need_a_generator():
    with pytest.raises(SpecError, match="generator"):
        Gradient(FAR, horizon=5).plan(pushed_mass(), torch.zeros(2))
