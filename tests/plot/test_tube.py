"""The chart of a tube shows the numbers of the tube, and the interval inside it."""

import numpy as np
import pytest
import torch
from matplotlib.axes import Axes

import bayeswm as bwm
from bayeswm.diagnostics import SupT, Tube
from bayeswm.plot import tube_chart
from tests.plot.forecasts import axes


@pytest.fixture(scope="module")
def tube(predictive: bwm.Predictive) -> Tube:
    return SupT()(predictive, level=0.8)


def ends(ax: Axes, label: str, time: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Lower and upper ends of a band at the given times."""
    (band,) = [c for c in ax.collections if c.get_label() == label]
    corners = np.asarray(band.get_paths()[0].vertices)
    at = [corners[np.isclose(corners[:, 0], t), 1] for t in time]
    return np.array([y.min() for y in at]), np.array([y.max() for y in at])


def test_it_shows_the_tube_and_the_interval_inside(predictive: bwm.Predictive, tube: Tube) -> None:
    ax = tube_chart(predictive, tube, "velocity", row=1, ax=axes())
    time = np.arange(1, 9) * predictive.time_step
    low, high = ends(ax, "80 % tube", time)
    assert np.allclose(low, tube.lower[1, :, 1])
    assert np.allclose(high, tube.upper[1, :, 1])
    inner = ends(ax, "80 % interval of each step", time)
    for drawn, expected in zip(inner, predictive[1].interval(0.8), strict=True):
        assert np.allclose(drawn, expected[:, 1])
    assert ((low < inner[0]) & (inner[1] < high)).all()
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("time (s)", "velocity (rad/s)")
    (mean,) = ax.lines
    assert np.allclose(mean.get_ydata(), [1.0, *predictive[1].mean[:, 1].tolist()])


@pytest.mark.parametrize("rows", [8, 9])
def test_what_came_stands_at_its_times(predictive: bwm.Predictive, tube: Tube, rows: int) -> None:
    came = torch.randn(3, rows, 2, generator=torch.Generator().manual_seed(1))
    ax = tube_chart(predictive, tube, "angle", observed=came, row=2, ax=axes())
    (line,) = [found for found in ax.lines if found.get_label() == "observed"]
    assert np.allclose(line.get_ydata(), came[2, :, 0])
    assert np.allclose(line.get_xdata(), np.arange(9 - rows, 9) * predictive.time_step)


def test_bad_requests_are_named(predictive: bwm.Predictive, tube: Tube) -> None:
    with pytest.raises(bwm.UnknownVariableError, match="did you mean 'angle'"):
        tube_chart(predictive, tube, "angel", row=0, ax=axes())
    with pytest.raises(bwm.SpecError, match="row= to choose one of 3"):
        tube_chart(predictive, tube, "angle", ax=axes())
    with pytest.raises(bwm.SpecError, match=r"tube of shape \(8, 2\)"):
        tube_chart(predictive[0], tube, "angle", ax=axes())
    infinite = Tube(
        tube.lower, tube.upper / 0.0, level=0.8, over=tube.over, variables=tube.variables, time_step=tube.time_step
    )
    with pytest.raises(bwm.SpecError, match="finite ends of 'angle'"):
        tube_chart(predictive, infinite, "angle", row=0, ax=axes())
