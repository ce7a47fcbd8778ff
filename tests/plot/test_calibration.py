"""Pictures of calibration show the numbers of the data set."""

import itertools

import numpy as np
import pytest
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

import bayeswm as bwm
from bayeswm.plot import calibration_curve, coverage_by_horizon, pit_histogram
from tests.plot.forecasts import axes


def bars(ax: Axes) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """The points and the bars' ends (n, 2) of each variable."""
    found = {}
    for container in ax.containers:
        line, _, (segments,) = container.lines
        found[container.get_label()] = (line.get_ydata(), np.array([s[:, 1] for s in segments.get_segments()]))
    return found


def test_coverage_by_horizon_shows_the_data_set(dataset: xr.Dataset) -> None:
    ax = coverage_by_horizon(dataset, level=0.8, ax=axes())
    for name, (points, ranges) in bars(ax).items():
        at = dataset.isel(level=1).sel(variable=name)
        assert np.allclose(points, at.coverage)
        assert np.allclose(ranges[:, 0], at.coverage_lower)
        assert np.allclose(ranges[:, 1], at.coverage_upper)
    assert set(bars(ax)) == {"angle", "velocity"}
    assert ax.lines[0].get_ydata()[0] == 0.8
    assert {t.get_text() for t in ax.texts} == {"angle", "velocity", "nominal"}
    assert ax.get_xlabel() == "time ahead (s)"


def test_names_beside_the_lines_do_not_overlap(dataset: xr.Dataset) -> None:
    ax = coverage_by_horizon(dataset, ax=Figure(figsize=(6, 3.6), layout="constrained").subplots())
    ax.figure.canvas.draw()
    boxes = sorted((t.get_window_extent().y0, t.get_window_extent().y1) for t in ax.texts)
    assert all(upper[0] >= lower[1] - 1 for lower, upper in itertools.pairwise(boxes))


@pytest.mark.parametrize("limits", [(0.0, 1.0), (-3.0, 4.0), (0.85, 1.0), (1.0, 0.0)])
def test_names_stay_beside_their_lines_when_the_limits_change(dataset: xr.Dataset, limits: tuple[float, float]) -> None:
    ax = coverage_by_horizon(dataset, ax=Figure(figsize=(6, 3.6), layout="constrained").subplots())
    ax.set_ylim(*limits)
    ax.figure.canvas.draw()
    ends = {name: points[-1] for name, (points, _) in bars(ax).items()} | {"nominal": 0.9}
    frame, extents = ax.get_window_extent(), []
    for text in ax.texts:
        height = ends[text.get_text()]
        assert text.get_visible() == (min(limits) <= height <= max(limits))
        if text.get_visible():
            box = text.get_window_extent()
            extents.append((box.y0, box.y1))
            beside = ax.transData.transform((0.0, height))[1]
            # moved by no more than the three labels together are high
            assert abs(0.5 * (box.y0 + box.y1) - beside) < 0.16 * frame.height
            assert frame.y0 - 10 < 0.5 * (box.y0 + box.y1) < frame.y1 + 10
    assert all(upper[0] >= lower[1] - 1 for lower, upper in itertools.pairwise(sorted(extents)))


def test_calibration_curve_shows_levels_and_pit_values(dataset: xr.Dataset) -> None:
    ax = calibration_curve(dataset, horizon=3, ax=axes())
    for name, (points, ranges) in bars(ax).items():
        at = dataset.sel(horizon=3, variable=name)
        assert np.allclose(points, at.coverage)
        assert np.allclose(ranges, np.stack((at.coverage_lower, at.coverage_upper), -1))
    diagonal, *curves = [line for line in ax.lines if len(line.get_xdata()) in (2, 201)]
    assert np.array_equal(diagonal.get_xdata(), diagonal.get_ydata())
    for name, curve in zip(("angle", "velocity"), curves, strict=True):
        at = dataset.sel(horizon=3, variable=name)
        seen = np.interp(dataset.level, curve.get_xdata(), curve.get_ydata())
        assert np.allclose(seen, at.coverage, atol=1e-9)
        assert (np.diff(curve.get_ydata()) >= 0).all()


def test_histogram_has_area_one_and_counts_windows(dataset: xr.Dataset) -> None:
    ax = pit_histogram(dataset, "velocity", horizon=2, bins=5, ax=axes())
    heights = np.array([bar.get_height() for bar in ax.patches])
    counts = np.histogram(dataset.pit.sel(variable="velocity", horizon=2), np.linspace(0, 1, 6))[0]
    assert np.allclose(heights / 5, counts / 60)


def test_requests_that_the_data_set_cannot_answer(dataset: xr.Dataset) -> None:
    with pytest.raises(bwm.SpecError, match=r"one of the levels \[0\.5, 0\.8, 0\.9, 0\.95\], got 0\.7; pass"):
        coverage_by_horizon(dataset, level=0.7, ax=axes())
    with pytest.raises(bwm.SpecError, match="horizon from 1 to 8 steps, got 9"):
        calibration_curve(dataset, horizon=9, ax=axes())
    with pytest.raises(bwm.SpecError, match=r"expected a data set with 'coverage'.*calibration"):
        coverage_by_horizon(xr.Dataset(), ax=axes())
    with pytest.raises(bwm.UnknownVariableError, match="did you mean 'angle'"):
        pit_histogram(dataset, "angel", horizon=1, ax=axes())


def test_missing_errors_still_draw(dataset: xr.Dataset) -> None:
    single = dataset.copy()
    for end in ("coverage_lower", "coverage_upper"):
        single[end] = xr.full_like(dataset[end], np.nan)
    ax = coverage_by_horizon(single, ax=axes())
    ax.figure.canvas.draw()
    assert np.allclose(ax.containers[0].lines[0].get_ydata(), dataset.coverage.sel(variable="angle").isel(level=2))
