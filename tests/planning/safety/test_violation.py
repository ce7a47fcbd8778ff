"""How often a plan breaks a constraint, against exact probabilities."""

import pytest
import torch
from scipy import stats

import bayeswm as bwm
from bayeswm.planning import CEM, ChanceConstraint, GaussianTightening, Objective
from bayeswm.planning.safety.violation import violation
from tests.planning.walls import BEHIND, START, TRUTH, WALL, exact_moments, imagined

POSITIVE = lambda x, u, c, t: x[..., 0]  # noqa: E731


@pytest.mark.statistical
def test_rates_and_their_errors_are_those_of_normals() -> None:
    paths = torch.randn(1, 20_000, 1, 3, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64) + 1.5
    found = violation(ChanceConstraint(POSITIVE), imagined(paths))
    p = float(stats.norm.sf(1.5))
    assert found.by_step.value.shape == (1, 3)
    for rate, error, exact in (
        *zip(found.by_step.value[0], found.by_step.standard_error[0], [p] * 3, strict=True),
        (found.jointly.value[0], found.jointly.standard_error[0], 1 - (1 - p) ** 3),
    ):
        assert float(error) == pytest.approx((exact * (1 - exact) / 20_000) ** 0.5, rel=0.1)
        assert abs(float(rate) - exact) < 4.42 * float(error)


def test_drawn_worlds_are_the_clusters_of_the_error() -> None:
    paths = torch.tensor([-1.0, 1.0, 1.0, 1.0]).view(4, 1, 1, 1, 1).expand(4, 100, 1, 1, 1)
    found = violation(ChanceConstraint(POSITIVE), imagined(paths, exhaustive=False)).jointly
    assert float(found.value) == 0.25
    assert float(found.standard_error) == pytest.approx((0.25 * 0.75 / 3) ** 0.5)


def planned(**settings: float | None) -> bwm.planning.Plan:
    chance = ChanceConstraint(WALL, by=GaussianTightening(exact_moments), **settings)  # pyright: ignore[reportArgumentType]
    planner = CEM(BEHIND, horizon=4, particles=1, samples=64, elites=8, iterations=10, constraints=[chance])
    return planner.plan(TRUTH, START.expand(2, 2), generator=torch.Generator().manual_seed(0))


def test_a_plan_reports_each_constraint_for_each_start_on_new_noise() -> None:
    plan = planned()
    g = torch.Generator().manual_seed(1)
    (found,) = plan.violation(generator=g, particles=4000)
    assert found.by_step.value.shape == (2, 4)
    assert found.jointly.value.shape == (2,)
    assert bool((found.jointly.value >= found.by_step.value.amax(-1)).all())
    sd = exact_moments(None, START, plan.actions[0]).stddev[..., 0]
    mean = exact_moments(None, START, plan.actions[0]).mean[..., 0]
    exact = torch.special.ndtr((mean - 1.0) / sd)
    error = (exact * (1 - exact) / 4000).sqrt()
    assert bool(((found.by_step.value[0] - exact).abs() <= 4.42 * error + 1e-3).all())


def test_a_soft_constraint_gives_way_where_the_penalty_is_small() -> None:
    g = torch.Generator().manual_seed(1)
    hard, soft, none = (
        float(planned(penalty=p).violation(generator=g, particles=2000)[0].jointly.value[0]) for p in (None, 0.1, 0.0)
    )
    assert hard < 0.2 < soft <= none


def test_without_a_plan_that_keeps_the_promise_the_fallback_is_used() -> None:
    chance = ChanceConstraint(WALL, by=GaussianTightening(exact_moments))
    away = torch.tensor([8.0, 0.0]).double()  # nothing brings it back in time
    planner = CEM(BEHIND, horizon=3, particles=1, constraints=[chance], fallback=torch.tensor([-1.0]))
    g = torch.Generator().manual_seed(0)
    plan = planner.plan(TRUTH, torch.stack((START, away)), generator=g)
    assert plan.feasible.tolist() == [True, False]
    assert plan.fallback.tolist() == [False, True]
    assert bool((plan.actions[1] == -1.0).all())
    # without one, what breaks it least
    least = CEM(BEHIND, horizon=3, particles=1, constraints=[chance]).plan(TRUTH, away, generator=g)
    assert (bool(least.feasible), bool(least.fallback)) == (False, False)
    assert float(least.actions.mean()) < -0.9


def test_without_constraints_there_is_nothing_to_report() -> None:
    planner = CEM(Objective(terminal=lambda x, c: x[..., 0]), horizon=2, particles=2)
    g = torch.Generator().manual_seed(0)
    assert planner.plan(TRUTH, START, generator=g).violation(generator=g) == ()
