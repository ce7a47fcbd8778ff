"""How many whole trajectories are inside, against the exact numbers."""

import math

import numpy as np
import pytest
import torch
import xarray as xr
from scipy import stats

import bayeswm as bwm
from bayeswm.diagnostics import Bonferroni, SupT, forecast_of, tube_coverage
from bayeswm.diagnostics.tube_coverage import window_tubes
from tests.diagnostics.paths import autoregressive, of_moments, of_paths

# what 90 % intervals hold of whole trajectories, if the model is exact; from 2 million paths but for white noise
JOINT = {
    0.0: {5: 0.9**5, 10: 0.9**10, 20: 0.9**20, 50: 0.9**50},
    0.9: {5: 0.7185, 10: 0.597, 20: 0.4335, 50: 0.172},
    1.0: {5: 0.740, 10: 0.6585, 20: 0.577, 50: 0.4765},
}


@pytest.mark.statistical
@pytest.mark.parametrize("coefficient", JOINT)
@pytest.mark.parametrize(
    ("count", "steps"), [(3000, (10,)), pytest.param(20_000, (5, 10, 20, 50), marks=pytest.mark.slow)]
)
def test_intervals_are_no_tube(coefficient: float, count: int, steps: tuple[int, ...]) -> None:
    paths, sd = autoregressive(coefficient, count, steps=50, seed=3)
    for h in steps:
        spread, exact = sd[:h].expand(count, h, 1), JOINT[coefficient][h]
        part = forecast_of(of_moments(torch.zeros_like(spread), spread), paths[:, :h])
        found = window_tubes(part, Bonferroni(), level=0.9)
        error = math.hypot((exact * (1 - exact) / count) ** 0.5, 3e-4)
        assert 2 * stats.norm.sf(abs(float(found["intervals_as_tube"].mean()) - exact) / error) > 1e-5
        one = found["pointwise_coverage"].mean(0)
        assert 2 * stats.norm.sf(float((one - 0.9).abs().max()) / (0.09 / count) ** 0.5) > 1e-5
        # Bonferroni holds at least the level, and (1 - 0.1 / H)^H of white noise
        held, error = float(found["coverage"].mean()), 4.42 * (0.09 / count) ** 0.5
        assert held > 0.9 - error
        if coefficient == 0:
            assert held == pytest.approx((1 - 0.1 / h) ** h, abs=error)


def draws(windows: int = 40) -> tuple[bwm.Predictive, torch.Tensor]:
    g = torch.Generator().manual_seed(0)
    paths = torch.randn(101, 1, windows, 5, 2, generator=g, dtype=torch.float64)
    return of_paths(paths[1:]), paths[0, 0]


@pytest.mark.parametrize(
    ("over", "dims"), [(("horizon", "variable"), ()), (("horizon",), ("variable",)), (("variable",), ("horizon",))]
)
def test_labels_and_averages(over: tuple[str, ...], dims: tuple[str, ...]) -> None:
    p, came = draws()
    found = tube_coverage(forecast_of(p, came), SupT(over), level=0.8, bootstrap=50)
    assert found.coverage.dims == found.intervals_as_tube.dims == dims
    tube = SupT(over)(p, level=0.8)
    assert np.allclose(found.coverage, tube.contains(came).double().mean(0))
    assert np.allclose(found.width, tube.width.mean(0))
    assert found.width.dims == found.pointwise_coverage.dims == ("horizon", "variable")
    assert found.attrs["level"] == 0.8
    assert "SupT" in found.attrs["method"]
    assert bool((found.coverage_lower <= found.coverage).all())
    assert bool((found.coverage <= found.coverage_upper).all())


def test_parts_are_as_the_whole() -> None:
    p, came = draws()
    parts = [forecast_of(p[at], came[at], recording=torch.arange(40)[at]) for at in (slice(0, 15), slice(15, 40))]
    whole, some = (tube_coverage(f, bootstrap=50) for f in (forecast_of(p, came), parts))
    xr.testing.assert_allclose(whole, some, rtol=1e-12)


def test_what_was_not_recorded_does_not_count() -> None:
    p, came = draws()
    gaps = came.clone()
    gaps[:10] = math.nan  # nothing of these
    gaps[10:20, 3:] = math.nan  # a part of these
    found = window_tubes(forecast_of(p, gaps), SupT(), level=0.9)
    tube = SupT()(p, level=0.9)
    assert bool(found["coverage"][:10].isnan().all())
    inside = ((came >= tube.lower) & (came <= tube.upper))[10:20, :3].flatten(1).all(-1)
    assert torch.equal(found["coverage"][10:20].bool(), inside)
    assert torch.equal(found["coverage"][20:].bool(), tube.contains(came)[20:])
    assert torch.equal(found["pointwise_coverage"].isnan(), gaps.isnan())


def test_windows_without_a_tube_do_not_count() -> None:
    p, came = draws(3)
    paths = p.particles.clone()
    paths[:, :, 1, 4] = float("nan")
    with pytest.warns(bwm.UndefinedWarning, match="every particle diverged"):
        found = window_tubes(forecast_of(of_paths(paths), came), SupT(), level=0.8)
    assert found["coverage"].isnan().tolist() == [False, True, False]
