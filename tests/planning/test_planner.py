"""What every planner that samples has to do."""

import dataclasses

import pytest
import torch
from torch import Tensor

import bayeswm as bwm
from bayeswm.base import Schema, Variable
from bayeswm.planning import CEM, ICEM, ILQR, LQR, MPPI, CVaR, Gradient, Objective, Planner, RandomShooting
from bayeswm.structures import FromFunction
from tests.hidden_models import hidden_velocity_worlds
from tests.planning.systems import NotAbove, explosive_model, linear_model, spring_worlds, squares

START = torch.tensor([[1.0, 0.0], [-0.5, 0.3], [0.0, 2.0]], dtype=torch.float64)
PLANNERS = [
    RandomShooting(squares(), horizon=6, particles=3, samples=40),
    CEM(squares(), horizon=6, particles=3, samples=40, elites=6, iterations=3),
    ICEM(squares(), horizon=6, particles=3, samples=40, elites=6, iterations=3),
    MPPI(squares(), horizon=6, particles=3, samples=40, iterations=2),
    MPPI(squares(), horizon=6, particles=3, samples=40, smooth=True, spread=0.3, control_weight=0.1),
]
BY_DERIVATIVES = [
    Gradient(squares(), horizon=6, particles=3, restarts=2, iterations=2),
    ILQR(squares(), horizon=6, particles=3, iterations=2),
    LQR(squares(), horizon=6, particles=3),
]
NAMES = ["RandomShooting", "CEM", "ICEM", "MPPI", "SMPPI"]
every_planner = pytest.mark.parametrize("planner", PLANNERS, ids=NAMES)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@every_planner
def test_better_than_doing_nothing(planner: Planner) -> None:
    plan = planner.plan(spring_worlds(), START, generator=generator())
    assert plan.actions.shape == (3, 6, 1)
    nothing = plan.problem.score(torch.zeros(1, 3, 6, 1).double()).cost[0]
    assert bool((plan.cost < nothing).all())
    assert not bool(plan.fallback.any())
    assert bool(plan.feasible.all())


@every_planner
def test_same_generator_same_plan(planner: Planner) -> None:
    one, two = (planner.plan(spring_worlds(), START, generator=generator()) for _ in range(2))
    other = planner.plan(spring_worlds(), START, generator=generator(1))
    assert torch.equal(one.actions, two.actions)
    assert not torch.equal(one.actions, other.actions)


@every_planner
def test_global_randomness_is_neither_used_nor_changed(planner: Planner) -> None:
    torch.manual_seed(0)
    before = torch.get_rng_state()
    one = planner.plan(spring_worlds(), START, generator=generator())
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(1)
    assert torch.equal(one.actions, planner.plan(spring_worlds(), START, generator=generator()).actions)


@every_planner
@pytest.mark.parametrize("fresh", [False, True])
def test_a_start_alone_and_in_a_batch(planner: Planner, fresh: bool) -> None:
    planner = dataclasses.replace(planner, fresh_worlds=fresh)
    together = planner.plan(spring_worlds(), START, generator=generator())
    again = planner.plan(spring_worlds(), START, generator=generator(5), previous=together)
    for i in range(3):
        alone = planner.plan(spring_worlds(), START[i], generator=generator())
        torch.testing.assert_close(alone.actions, together.actions[i], rtol=0, atol=1e-9)
        torch.testing.assert_close(alone.history, together.history[:, i], rtol=0, atol=1e-9)
        later = planner.plan(spring_worlds(), START[i], generator=generator(5), previous=alone)
        torch.testing.assert_close(later.actions, again.actions[i], rtol=0, atol=1e-9)


@every_planner
def test_a_start_beside_one_that_diverges(planner: Planner) -> None:
    """The other start's trouble leads to another look at it, and must not change this one."""
    model = explosive_model(lambda x, u: torch.where(x.abs() > 5, torch.full_like(x, 1e160), torch.full_like(x, 0.5)))
    alone = planner.plan(model, torch.tensor([1.0]), generator=generator())
    both = planner.plan(model, torch.tensor([[1.0], [6.0]]), generator=generator())
    torch.testing.assert_close(alone.actions, both.actions[0], rtol=0, atol=1e-12)
    assert both.fallback.tolist() == [False, True]


@every_planner
def test_bounds_and_rates_are_kept(planner: Planner) -> None:
    planner = dataclasses.replace(planner, bounds=(-0.7, 0.4), change=0.25)
    first = planner.plan(spring_worlds(), 5 * START, generator=generator())
    second = planner.plan(spring_worlds(), -5 * START, generator=generator(), previous=first, done=2)
    for plan in (first, second):
        assert bool((plan.actions >= -0.7).all())
        assert bool((plan.actions <= 0.4).all())
        assert float(plan.actions.diff(dim=-2).abs().max()) <= 0.25 + 1e-12
    assert float((second.action - first.actions[:, 1]).abs().max()) <= 0.25 + 1e-12


@every_planner
def test_bounds_that_leave_out_zero(planner: Planner) -> None:
    planner = dataclasses.replace(planner, bounds=(0.5, 1.0))
    plan = planner.plan(spring_worlds(), START, generator=generator())
    assert bool(((plan.actions >= 0.5) & (plan.actions <= 1.0)).all())
    explosive = planner.plan(explosive_model(), torch.ones(1), generator=generator())
    assert explosive.fallback.tolist() is True
    assert torch.equal(explosive.actions, torch.full((6, 1), 0.5).double())


@every_planner
def test_everything_diverges(planner: Planner) -> None:
    model = explosive_model(lambda x, u: torch.full_like(x, 1e160))
    plan = planner.plan(model, torch.ones(2, 1), generator=generator())
    assert plan.fallback.tolist() == [True, True]
    assert plan.feasible.tolist() == [False, False]
    assert plan.diverged.tolist() == pytest.approx([1.0, 1.0])
    assert torch.equal(plan.actions, torch.zeros(2, 6, 1).double())
    held = dataclasses.replace(planner, fallback=torch.tensor([-0.3]))
    assert torch.equal(
        held.plan(model, torch.ones(2, 1), generator=generator()).actions,
        torch.full((2, 6, 1), -0.3).double().float().double(),
    )
    number = dataclasses.replace(planner, fallback=-0.5)
    assert torch.equal(
        number.plan(model, torch.ones(2, 1), generator=generator()).actions, torch.full((2, 6, 1), -0.5).double()
    )
    by_state = dataclasses.replace(planner, fallback=lambda state: -0.1 * state)
    found = by_state.plan(model, torch.tensor([[1.0], [2.0]]), generator=generator()).actions
    torch.testing.assert_close(found[:, 3, 0], torch.tensor([-0.1, -0.2]).double())
    # and after it the search begins afresh
    after = planner.plan(explosive_model(), torch.ones(2, 1), generator=generator(), previous=plan)
    assert bool(after.actions.isfinite().all())
    assert not bool(after.fallback.any())


@every_planner
def test_a_cost_that_is_no_number_never_wins(planner: Planner) -> None:
    def stage(x: Tensor, u: Tensor, c: Tensor, t: Tensor) -> Tensor:
        return torch.where(u[..., 0] > 0.2, float("nan"), x.square().sum(-1))

    some = dataclasses.replace(planner, objective=Objective(stage=stage), horizon=2, bounds=(-2.0, 1.0))
    plan = some.plan(spring_worlds(), START, generator=generator())
    assert bool(plan.actions.isfinite().all())
    assert bool((plan.actions <= 0.2).all())
    assert not bool(plan.fallback.any())
    nothing = dataclasses.replace(planner, objective=Objective(stage=lambda x, u, c, t: x[..., 0] * float("nan")))
    plan = nothing.plan(spring_worlds(), START, generator=generator())
    assert plan.fallback.tolist() == [True, True, True]
    assert torch.equal(plan.actions, torch.zeros(3, 6, 1).double())


@every_planner
def test_a_hard_constraint_that_can_be_kept(planner: Planner) -> None:
    kept = dataclasses.replace(planner, constraints=(NotAbove(0.1),), horizon=2)
    plan = kept.plan(spring_worlds(), -START, generator=generator())
    assert bool(plan.feasible.all())
    assert float(plan.actions.max()) <= 0.1


@every_planner
def test_a_hard_constraint_that_cannot_be_kept(planner: Planner) -> None:
    broken = dataclasses.replace(planner, constraints=(NotAbove(-3.0),))
    plan = broken.plan(spring_worlds(), START, generator=generator())
    assert plan.feasible.tolist() == [False, False, False]
    assert not bool(plan.fallback.any())
    # what breaks it least is lower than what would be done without it
    free = planner.plan(spring_worlds(), START, generator=generator())
    assert bool((plan.actions.amax((-1, -2)) <= free.actions.amax((-1, -2))).all())
    assert float((plan.actions.amax((-1, -2)) - free.actions.amax((-1, -2))).mean()) < 0
    held = dataclasses.replace(broken, fallback=torch.tensor([-1.5])).plan(
        spring_worlds(), START, generator=generator()
    )
    assert held.fallback.tolist() == [True, True, True]
    assert torch.equal(held.actions, torch.full((3, 6, 1), -1.5).double())


@every_planner
def test_a_warm_start_helps(planner: Planner) -> None:
    few = dataclasses.replace(planner, samples=12, **({"elites": 3} if hasattr(planner, "elites") else {}))
    worlds = spring_worlds(noise=0.0)
    first = planner.plan(worlds, START, generator=generator())
    cold = few.plan(worlds, START, generator=generator(3))
    warm = few.plan(worlds, START, generator=generator(3), previous=first, done=0)
    assert float((warm.cost - cold.cost).mean()) < 0


@every_planner
def test_a_model_is_drawn_and_a_hidden_state_filtered(planner: Planner) -> None:
    plan = planner.plan(linear_model(bounds=2.0), START, generator=generator())
    assert len(plan.problem.worlds) == 1
    worlds = hidden_velocity_worlds()
    g = generator(5)
    history = bwm.Trajectories(
        worlds.schema,
        observation=torch.randn(2, 4, 2, generator=g, dtype=torch.float64),
        action=torch.randn(2, 3, 1, generator=g, dtype=torch.float64),
    )
    bounded = dataclasses.replace(planner, bounds=(-1.0, 1.0))
    plan = bounded.plan(worlds, history, generator=generator())
    assert plan.actions.shape == (2, 6, 1)
    assert plan.predictive.mean.shape == (2, 6, 2)


@every_planner
def test_single_precision(planner: Planner) -> None:
    plan = planner.plan(spring_worlds().to(torch.float32), START.float(), generator=generator())
    assert plan.actions.dtype == torch.float32
    assert plan.predictive.mean.dtype == torch.float32


@every_planner
def test_nothing_carries_a_gradient(planner: Planner) -> None:
    state = START.clone().requires_grad_()
    plan = planner.plan(spring_worlds(), state, generator=generator())
    assert not plan.actions.requires_grad


@every_planner
def test_a_plan_of_something_else_is_refused(planner: Planner) -> None:
    plan = planner.plan(spring_worlds(), START, generator=generator())
    with pytest.raises(bwm.SpecError, match="other starts, another horizon"):
        planner.plan(spring_worlds(), START[:2], generator=generator(), previous=plan)
    with pytest.raises(bwm.SpecError, match="other starts, another horizon"):
        dataclasses.replace(planner, horizon=5).plan(spring_worlds(), START, generator=generator(), previous=plan)


@every_planner
def test_no_generator(planner: Planner) -> None:
    with pytest.raises(bwm.SpecError, match="generator"):
        planner.plan(spring_worlds(noise=0.0), START)


@pytest.mark.parametrize("earlier", [*PLANNERS, *BY_DERIVATIVES], ids=lambda p: type(p).__name__)
@pytest.mark.parametrize("later", [*PLANNERS, *BY_DERIVATIVES], ids=lambda p: type(p).__name__)
def test_any_planner_goes_on_with_the_plan_of_another(earlier: Planner, later: Planner) -> None:
    worlds = spring_worlds(worlds=1)
    plan = earlier.plan(worlds, START[:1], generator=generator())
    after = dataclasses.replace(later, change=0.3).plan(worlds, START[:1], generator=generator(), previous=plan)
    assert float((after.action - plan.action).abs().max()) <= 0.3 + 1e-9


@every_planner
def test_a_limit_on_change_holds_from_plan_to_plan(planner: Planner) -> None:
    """Whatever was done of the last plan: nothing, some of it, or all and more."""
    slow = dataclasses.replace(planner, change=0.2)
    before = torch.tensor([1.5], dtype=torch.float64)
    first = slow.plan(spring_worlds(), START, generator=generator(), before=before)
    assert float((first.action - before).abs().max()) <= 0.2 + 1e-12
    for done, last in ((0, before), (1, first.action), (3, first.actions[:, 2]), (9, first.actions[:, -1])):
        again = slow.plan(spring_worlds(), -9 * START, generator=generator(1), previous=first, done=done)
        assert float((again.action - last).abs().max()) <= 0.2 + 1e-12
    # what is said to have been done counts more than what was planned
    told = slow.plan(spring_worlds(), START, generator=generator(), previous=first, before=-before)
    assert float((told.action + before).abs().max()) <= 0.2 + 1e-12


def test_what_is_no_plan_or_action_of_before() -> None:
    planner, worlds = PLANNERS[1], spring_worlds()
    plan = planner.plan(worlds, START, generator=generator())
    for done in (-1, 1.5):
        with pytest.raises(bwm.SpecError, match="done >= 0"):
            planner.plan(worlds, START, generator=generator(), previous=plan, done=done)
    with pytest.raises(bwm.SpecError, match="expected a Plan"):
        planner.plan(worlds, START, generator=generator(), previous=plan.actions)
    with pytest.raises(bwm.DataError, match=r"action before of shape \(3, 1\)"):
        planner.plan(worlds, START, generator=generator(), before=torch.zeros(2, 1))
    with pytest.raises(bwm.DataError, match="finite action before"):
        planner.plan(worlds, START, generator=generator(), before=torch.tensor(float("nan")))


def test_arguments_of_the_wrong_kind() -> None:
    with pytest.raises(bwm.SpecError, match=r"expected an Objective, got a function; try Objective\(stage=...\)"):
        CEM(lambda x, u, c, t: x[..., 0], horizon=3)
    for risk in (CVaR, 0.1):
        with pytest.raises(bwm.SpecError, match=r"expected risk=Mean\(\), CVaR\(0.1\) or another Risk, got"):
            CEM(squares(), horizon=3, risk=risk)
    for constraints in (NotAbove(0.1), [NotAbove], "no"):
        with pytest.raises(bwm.SpecError, match="expected a sequence of Constraint, got"):
            CEM(squares(), horizon=3, constraints=constraints)
    with pytest.raises(bwm.SpecError, match="expected a model or worlds, got a FromFunction"):
        PLANNERS[1].plan(linear_model().structure, START, generator=generator())
    with pytest.raises(bwm.SpecError, match=r"generator=torch.Generator, got 0; make one"):
        PLANNERS[1].plan(spring_worlds(), START, generator=0)


def test_bounds_beyond_those_of_the_schema() -> None:
    """What the system cannot do is refused, not planned."""
    with pytest.raises(bwm.DataError, match="expected u between -2 and 2, got -3"):
        dataclasses.replace(PLANNERS[1], bounds=(-3.0, 1.0)).plan(spring_worlds(), START, generator=generator())
    with pytest.raises(bwm.SpecError, match=r"expected bounds=\(low, high\), got 2.0"):
        dataclasses.replace(PLANNERS[1], bounds=2.0).plan(spring_worlds(), START, generator=generator())


def test_a_search_that_cannot_fit_into_memory() -> None:
    """A horizon of 1e5 for many candidates is refused, with what it would need."""
    long = dataclasses.replace(PLANNERS[0], horizon=100_000, samples=10_000_000)
    with pytest.raises(bwm.SpecError, match=r"needs [\d.]+ GB"):
        long.plan(spring_worlds(noise=0.0), START, generator=generator())


def test_settings_that_make_no_sense() -> None:
    for name in ("horizon", "worlds", "particles"):
        for bad in (0, -1, 2.5, True):
            with pytest.raises(bwm.SpecError, match=f"{name} >= 1"):
                CEM(squares(), **{"horizon": 3, name: bad})


def test_systems_without_actions_or_bounds() -> None:
    still = Schema(state=[Variable("x")], time_step=0.1)
    drifting = bwm.KnownDynamics(structure=FromFunction(lambda x, u: x, schema=still, name="drift"))
    with pytest.raises(bwm.SpecError, match="a system with actions"):
        PLANNERS[1].plan(drifting, torch.zeros(1), generator=generator())
    free = Schema(state=[Variable("x")], action=[Variable("push")], time_step=0.1)
    pushed = bwm.KnownDynamics(structure=FromFunction(lambda x, u: x + u, schema=free, name="pushed"))
    with pytest.raises(bwm.SpecError, match=r"bounds of the action\(s\) push"):
        PLANNERS[1].plan(pushed, torch.zeros(1), generator=generator())


@pytest.mark.parametrize("wrong", [float("nan"), 1.5, torch.tensor([-3.0]), torch.zeros(2)])
def test_a_fallback_that_cannot_be_done_is_refused_before_it_is_needed(wrong: float | Tensor) -> None:
    held = dataclasses.replace(PLANNERS[1], fallback=wrong)
    with pytest.raises(bwm.DataError, match=r"expected (u between -1 and 1|a fallback action of shape \(1,\))"):
        held.plan(explosive_model(), torch.zeros(1), generator=generator())


@pytest.mark.parametrize("wrong", [float("nan"), [0.0, 1.0]])
def test_a_fallback_by_state_that_makes_no_sense(wrong: float | list[float]) -> None:
    everything = explosive_model(lambda x, u: torch.full_like(x, 1e160))
    held = dataclasses.replace(PLANNERS[1], fallback=lambda state: torch.tensor(wrong))
    with pytest.raises(bwm.DataError, match="fallback action"):
        held.plan(everything, torch.ones(1), generator=generator())
