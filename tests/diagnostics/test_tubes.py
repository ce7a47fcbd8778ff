"""Tubes of a predictive's own trajectories against exact critical values and plain leave-one-out."""

import warnings
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from torch import Tensor

import bayeswm as bwm
from bayeswm.diagnostics import Ellipsoid, Ranks, SupT
from bayeswm.diagnostics.tube import AXES, TubeMethod
from bayeswm.diagnostics.tubes import _depth, _leave_one_out_distance, leave_one_out
from tests.diagnostics.paths import autoregressive, of_paths

OVERS = (AXES, ("horizon",), ("variable",))
METHODS: tuple[Callable[..., TubeMethod], ...] = (SupT, Ranks, Ellipsoid)
# simultaneous 90 % bands of a random walk, by steps
CRITICAL = {5: 2.123, 10: 2.270, 20: 2.392, 50: 2.5225}


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("steps", CRITICAL)
def test_sup_t_reaches_the_critical_value_of_a_random_walk(steps: int) -> None:
    """Within 1 %. The quantile of 40,000 draws has a standard error of about 0.3 %."""
    paths, sd = autoregressive(1.0, 40_000, steps=steps, seed=steps)
    tube = SupT()(of_paths(paths[:, None]), level=0.9)
    critical = (tube.width / 2 / sd).mean()
    assert float(critical) == pytest.approx(CRITICAL[steps], rel=0.01)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("over", OVERS)
def test_one_step_of_one_variable_is_the_central_interval(
    method: Callable[..., TubeMethod], over: tuple[str, ...]
) -> None:
    """The standard error of the 5 % quantile of 40,000 normal draws is sqrt(0.05 * 0.95 / n) / density = 0.0106."""
    tube = method(over)(of_paths(3 + 2 * normal(40_000, 1, 1, 1)), level=0.9)
    assert float(tube.upper) == pytest.approx(3 + 2 * 1.6448536, abs=2 * 5 * 0.0106)
    assert float(tube.lower) == pytest.approx(3 - 2 * 1.6448536, abs=2 * 5 * 0.0106)


@pytest.mark.parametrize("over", OVERS)
def test_radius_of_the_ellipsoid_is_that_of_chi_square(over: tuple[str, ...]) -> None:
    """Of squared distances in K dimensions; the quantile of 20,000 draws has a standard error of 0.6 %."""
    mix = normal(6, 6, seed=5)
    paths = (normal(20_000, 6) @ mix).view(20_000, 1, 3, 2)
    tube = Ellipsoid(over)(of_paths(paths), level=0.9)
    size = {AXES: 6, ("horizon",): 3, ("variable",): 2}[over]
    assert tube.radius.square().numpy() == pytest.approx(stats.chi2.ppf(0.9, size), rel=0.03)
    inside = tube.contains(paths[:, 0]).double().mean(0)
    assert inside.numpy() == pytest.approx(0.9, abs=0.001)


# few draws: some of the rank tubes are infinite, and said to be
@pytest.mark.filterwarnings("ignore:.*of the tubes are infinite:bayeswm.base.errors.EstimateWarning")
@pytest.mark.statistical
@pytest.mark.parametrize("method", [SupT(), Ranks()])
def test_a_new_trajectory_is_inside_with_its_probability_for_few_draws(method: TubeMethod) -> None:
    """One more draw of 100, in 1,500 walks: the level is held within what leave-one-out leaves, and Monte Carlo."""
    draws, windows = 100, 1500
    paths, _ = autoregressive(1.0, (draws + 1) * windows, steps=8, seed=1)
    paths = paths.view(draws + 1, 1, windows, 8, 1)
    tube = method(of_paths(paths[1:]), level=0.9)
    coverage = float(tube.contains(paths[0, 0]).double().mean())
    error = 4.42 * (0.09 / windows) ** 0.5
    # exact for exchangeable scores; the mean of all draws is nearer to each than that of the others by 1 / n
    assert 0.9 - error - 1 / draws < coverage < 0.9 + error + 2 / draws


# few draws: some of the rank tubes are infinite, and said to be
@pytest.mark.filterwarnings("ignore:.*of the tubes are infinite:bayeswm.base.errors.EstimateWarning")
@pytest.mark.statistical
@pytest.mark.parametrize("method", [SupT(), Ranks()])
def test_a_new_world_is_inside_where_worlds_are_drawn(method: TubeMethod) -> None:
    """Worlds differ more than their particles: to take particles for independent would promise too much."""
    worlds, particles, windows, steps = 40, 4, 700, 3
    world, noise = normal(worlds + 1, 1, windows, 1, 1), 0.3 * normal(worlds + 1, particles, windows, steps, 1, seed=1)
    paths = world + noise
    new = paths[0, 0]
    drawn, naive = (
        float(method(of_paths(paths[1:], exhaustive=e), level=0.9).contains(new).double().mean()) for e in (False, True)
    )
    error = 4.42 * (0.09 / windows) ** 0.5
    assert 0.9 - error - 1 / worlds < drawn < 0.9 + error + 2 / worlds
    assert naive < drawn


def test_leave_one_out_is_that_of_the_others() -> None:
    """Against plain weighted moments of all draws of the other units, for unequal weights."""
    x = normal(6, 3, 1, 2)
    w = torch.rand(6, 3, 1, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    w = w / w.sum()
    _, scale, score = leave_one_out(x, w)
    unit = w.sum(1)[:, 0].numpy()

    def moments(keep: np.ndarray, column: int) -> tuple[float, float]:
        a, v = w[keep, :, 0].numpy().ravel(), x[keep, :, 0, column].numpy().ravel()
        share = unit[keep] / a.sum()
        a = a / a.sum()
        mean = (a * v).sum()
        return mean, ((a * (v - mean) ** 2).sum() / (1 - (share**2).sum())) ** 0.5

    for column in range(2):
        assert float(scale[0, column]) == pytest.approx(moments(np.ones(6, dtype=bool), column)[1])
        for u in range(6):
            mean, sd = moments(np.arange(6) != u, column)
            expected = np.abs(x[u, :, 0, column].numpy() - mean) / sd
            assert score[u, :, 0, column].numpy() == pytest.approx(expected)


@pytest.mark.parametrize("members", [1, 3])
def test_leave_one_out_distance_is_that_of_the_others(members: int) -> None:
    x = normal(12, members, 1, 1, 4) @ normal(4, 4, seed=5)
    w = torch.rand(12, members, 1, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    w = w / w.sum()
    distance = _leave_one_out_distance(x, w)[3]
    for u in range(12):
        keep = np.arange(12) != u
        a, v = w[keep, :, 0].numpy().ravel(), x[keep, :, 0, 0].flatten(0, 1).numpy()
        share = w[keep, :, 0].sum(1).numpy() / a.sum()
        a = a / a.sum()
        mean = a @ v
        covariance = (v - mean).T @ np.diag(a) @ (v - mean) / (1 - (share**2).sum())
        gap = x[u, :, 0, 0].numpy() - mean
        expected = np.sqrt(np.einsum("pi,ij,pj->p", gap, np.linalg.inv(covariance), gap))
        assert distance[u, :, 0, 0].numpy() == pytest.approx(expected, rel=1e-6)


def test_depth_is_the_smallest_tail_among_the_others() -> None:
    x = torch.randint(0, 5, (7, 2, 1, 1, 3), generator=torch.Generator().manual_seed(0)).double()  # with ties
    w = torch.full((7, 2, 1), 1 / 14, dtype=torch.float64)
    depth = _depth(x, w)
    for u in range(7):
        others = x[torch.arange(7) != u].flatten(0, 1)[:, 0, 0]
        for m in range(2):
            below, above = ((op(others, x[u, m, 0, 0])).double().sum(0) / 14 for op in (torch.le, torch.ge))
            assert float(depth[u, m, 0, 0]) == pytest.approx(float(torch.minimum(below, above).min()))


@given(st.integers(0, 2**31), st.sampled_from(OVERS), st.sampled_from(METHODS))
def test_tubes_are_nested_hold_their_middle_and_move_with_the_data(
    seed: int, over: tuple[str, ...], method: Callable[..., TubeMethod]
) -> None:
    paths = normal(60, 1, 2, 3, 2, seed=seed).exp()
    make = method(over)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", bwm.EstimateWarning)  # ranks of sixty draws may not be enough
        narrow, wide = (make(of_paths(paths), level=level) for level in (0.5, 0.8))
        moved = make(of_paths(5 - 3 * paths if method is not Ranks else 5 + 3 * paths), level=0.8)
    assert bool((narrow.lower >= wide.lower).all())
    assert bool((narrow.upper <= wide.upper).all())
    middle = paths.median(0).values[0] if method is Ranks else paths.mean((0, 1))
    assert bool(wide.contains(middle).all())
    assert torch.allclose(moved.width, 3 * wide.width, rtol=1e-8)
    other = 5 + 3 * paths[:, 0] if method is Ranks else 5 - 3 * paths[:, 0]
    assert torch.equal(moved.contains(other), wide.contains(paths[:, 0]))


@given(st.integers(0, 2**31), st.sampled_from(METHODS))
def test_a_weight_counts_as_often_as_its_draw(seed: int, method: Callable[..., TubeMethod]) -> None:
    """A draw without weight is not there."""
    paths = normal(100, 1, 2, 2, 1, seed=seed)
    weight = torch.cat((torch.full((80,), 1 / 80), torch.zeros(20))).double()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", bwm.EstimateWarning)
        some, rest = (method()(p, level=0.8) for p in (of_paths(paths, weight=weight), of_paths(paths[:80])))
    assert torch.allclose(some.lower, rest.lower, rtol=1e-9)
    assert torch.allclose(some.upper, rest.upper, rtol=1e-9)


@pytest.mark.parametrize("method", METHODS)
def test_trajectories_without_any_spread_give_the_trajectory(method: Callable[..., TubeMethod]) -> None:
    line = torch.arange(6.0).double().view(3, 2)
    tube = method()(of_paths(line.expand(50, 1, 3, 2)), level=0.8)
    assert torch.equal(tube.width, torch.zeros_like(line))
    assert bool(tube.contains(line))
    assert not bool(tube.contains(line + 1e-3))


@pytest.mark.parametrize("method", METHODS)
def test_a_variable_without_spread_does_not_disturb_the_others(method: Callable[..., TubeMethod]) -> None:
    paths = normal(400, 1, 3, 1)
    both = method()(of_paths(torch.cat((paths, torch.ones_like(paths)), -1)), level=0.8)
    alone = method()(of_paths(paths), level=0.8)
    assert torch.allclose(both.upper[:, :1], alone.upper, rtol=1e-6)
    assert torch.allclose(both.upper[:, 1], torch.ones(3).double(), rtol=1e-14)


@pytest.mark.parametrize("method", METHODS)
def test_too_few_draws_are_infinite_with_a_warning(method: Callable[..., TubeMethod]) -> None:
    with pytest.warns(bwm.EstimateWarning, match="too few draws"):
        tube = method()(of_paths(normal(5, 1, 3, 1)), level=0.9)
    assert bool(tube.upper.isinf().all())
    assert bool(tube.contains(1e6 * normal(3, 1)))


def test_windows_whose_particles_all_diverged_have_no_tube() -> None:
    paths = normal(60, 1, 2, 3, 1)
    paths[:, :, 1, 2] = float("inf")
    tube = SupT()(of_paths(paths), level=0.8)
    assert tube.contains(torch.zeros(2, 3, 1).double()).tolist() == [True, False]
    assert bool(tube.lower[1].isnan().all())


@pytest.mark.parametrize("level", [0.0, 1.0, -0.1, float("nan")])
@pytest.mark.parametrize("method", [SupT(), Ranks(), Ellipsoid()])
def test_levels_out_of_range_are_refused(level: float, method: TubeMethod) -> None:
    with pytest.raises(bwm.SpecError, match="level between 0 and 1"):
        method(of_paths(normal(50, 1, 3, 1)), level=level)


def test_a_batch_is_its_windows_in_single_precision_too() -> None:
    paths = normal(50, 1, 2, 3, 4, 2).float()
    whole = SupT()(of_paths(paths), level=0.8)
    assert whole.lower.dtype == torch.float32
    assert torch.equal(whole.upper[1, 2], SupT()(of_paths(paths[:, :, 1, 2]), level=0.8).upper)
