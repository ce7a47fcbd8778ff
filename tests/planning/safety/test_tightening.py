"""Gaussian tightening against normal quantiles, and what it promises on a system for which it is exact."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

import bayeswm as bwm
from bayeswm.base.predictive import Predictive
from bayeswm.planning import ChanceConstraint, GaussianTightening, HalfSpaces
from bayeswm.planning.safety.tightening import gaussian_excess, margin_moments
from tests.planning.walls import STEPS, TRUTH, WALL, exact_moments, imagined, pushed_to_the_wall


@given(st.floats(0.001, 0.45), st.floats(0.01, 10.0), st.floats(-3, 6))
def test_one_half_space_keeps_the_normal_quantile_away(probability: float, sd: float, away: float) -> None:
    mean = torch.tensor([[away * sd]], dtype=torch.float64)
    excess = gaussian_excess(mean, torch.full_like(mean, sd**2), probability=probability, jointly=False)
    z = stats.norm.isf(probability)
    if abs(away - z) > 1e-6:
        assert bool(excess == 0) == (away > z)
    expected = max(0.0, stats.norm.sf(away) - probability) + max(0.0, z - away)
    assert float(excess) == pytest.approx(expected, abs=1e-7)


@given(st.lists(st.floats(0.5, 4.0), min_size=2, max_size=6), st.floats(0.01, 0.3), st.booleans())
def test_half_spaces_and_steps_share_the_probability(away: list[float], probability: float, jointly: bool) -> None:
    mean = torch.tensor(away, dtype=torch.float64)[:, None].expand(-1, 2)
    tail = stats.norm.sf(away)
    total = 2 * tail.sum() if jointly else 2 * tail.max()
    excess = gaussian_excess(mean, torch.ones_like(mean), probability=probability, jointly=jointly)
    if abs(total - probability) > 1e-7:
        assert bool(excess == 0) == (total < probability)


@given(st.integers(0, 10**6))
def test_the_excess_falls_with_the_probability(seed: int) -> None:
    mean = torch.randn(3, 4, 2, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    for jointly in (False, True):
        by = [gaussian_excess(mean, torch.ones_like(mean), probability=p, jointly=jointly) for p in (0.01, 0.1, 0.4)]
        assert bool((by[0] >= by[1]).all() & (by[1] >= by[2]).all())


def test_without_spread_the_margin_decides() -> None:
    for margin, kept in ((0.1, True), (1e-9, True), (-1e-9, False), (-0.1, False)):
        mean = torch.tensor([[margin]], dtype=torch.float64)
        excess = gaussian_excess(mean, torch.zeros_like(mean), probability=0.05, jointly=False)
        assert bool(excess == 0) == kept
        assert math.isfinite(float(excess))


def test_moments_are_those_of_all_particles_in_their_worlds_weights() -> None:
    g = torch.Generator().manual_seed(0)
    paths = torch.randn(3, 50, 2, 4, 2, generator=g, dtype=torch.float64)
    log_weight = torch.tensor([0.5, 0.3, 0.2]).double().log()
    safe = HalfSpaces(torch.tensor([[1.0, 2.0], [-1.0, 0.0]]).double(), torch.tensor([3.0, 1.0]).double())
    mean, variance = margin_moments(safe, imagined(paths, log_weight=log_weight))
    projected = safe.margins(paths)
    weight = torch.tensor([0.5, 0.3, 0.2]).double()[:, None, None, None]
    center = (weight * projected.mean(1)).sum(0)
    torch.testing.assert_close(mean, center)
    # weights of the posterior itself: within and between worlds
    within, means = projected.var(1), projected.mean(1)
    between = (weight * (means - center).square()).sum(0) - (weight * (1 - weight) * within / 50).sum(0)
    torch.testing.assert_close(variance, (weight * within).sum(0) + between.clamp(min=0))


def test_a_particle_that_diverged_leaves_no_moments() -> None:
    paths = torch.ones(1, 20, 2, 3, 1).double()
    paths[0, 3, 1, 2] = float("nan")
    safe = HalfSpaces(torch.tensor([[-1.0]]), torch.tensor([0.0]))
    chance = ChanceConstraint(safe, by=GaussianTightening())
    assert chance.excess(imagined(paths)).tolist() == [0.0, float("inf")]


def test_a_forecast_replaces_the_particles() -> None:
    g = torch.Generator().manual_seed(0)
    exact = ChanceConstraint(WALL, by=GaussianTightening(exact_moments))
    plan = pushed_to_the_wall(exact, particles=1, generator=g, spreads=(0.5,))
    actions = 0.3 * torch.randn(7, STEPS, 1, generator=g, dtype=torch.float64)
    sampled = plan.problem.again(particles=40_000, generator=g)
    shown = sampled.imagined(sampled.trajectories(actions), actions)
    found = exact.excess(shown), ChanceConstraint(WALL, by=GaussianTightening()).excess(shown)
    assert bool((found[0] > 0).any())
    # moments of 40,000: margins in standard deviations to 1 % or so, summed over 6 steps
    torch.testing.assert_close(*found, rtol=0.02, atol=0.05)


def test_a_forecast_of_another_shape_is_refused() -> None:
    chance = ChanceConstraint(
        WALL,
        by=GaussianTightening(lambda worlds, state, actions, context: exact_moments(worlds, state, actions[:, :3])),
    )
    g = torch.Generator().manual_seed(0)
    with pytest.raises(bwm.SpecError, match="forecast over the batch and steps"):
        pushed_to_the_wall(chance, particles=1, generator=g)


def test_a_forecast_is_asked_for_the_steps_that_count() -> None:
    asked: list[int] = []

    def forecast(worlds: object, state: torch.Tensor, actions: torch.Tensor, context: torch.Tensor) -> Predictive:
        asked.append(actions.shape[-2])
        return exact_moments(worlds, state, actions)

    chance = ChanceConstraint(WALL, steps=2, by=GaussianTightening(forecast))
    pushed_to_the_wall(chance, particles=1, generator=torch.Generator().manual_seed(0), spreads=(0.5,))
    assert set(asked) == {2}


def at_most(rate: torch.Tensor, limit: float, *, draws: int) -> bool:
    return bool((rate <= limit + 4 * (limit * (1 - limit) / draws) ** 0.5).all())


@pytest.mark.statistical
def test_a_plan_that_runs_into_a_wall_breaks_it_as_often_as_allowed() -> None:
    """Open loop on the true system, 10,000 times: 5 % at each step at which the wall is reached, nowhere more."""
    g = torch.Generator().manual_seed(0)
    chance = ChanceConstraint(WALL, by=GaussianTightening(exact_moments))
    plan = pushed_to_the_wall(chance, particles=1, generator=g)
    assert bool(plan.feasible)
    rate = plan.violation(generator=g, particles=10_000, worlds=TRUTH.draw(1))[0].by_step.value
    assert at_most(rate, 0.05, draws=10_000)
    # from the second step on the wall is in reach
    assert bool((rate[1:] >= 0.05 - 4 * (0.05 * 0.95 / 10_000) ** 0.5).all())


@pytest.mark.statistical
def test_all_steps_together_stay_within_the_probability() -> None:
    g = torch.Generator().manual_seed(0)
    chance = ChanceConstraint(WALL, jointly=True, by=GaussianTightening(exact_moments))
    plan = pushed_to_the_wall(chance, particles=1, generator=g, spreads=(0.5, 0.1, 0.02))
    found = plan.violation(generator=g, particles=10_000, worlds=TRUTH.draw(1))[0]
    assert at_most(found.jointly.value, 0.05, draws=10_000)
    assert float(found.jointly.value) > 0.015  # Boole's bound, not nothing
