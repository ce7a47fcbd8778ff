"""The fan shows the numbers of the predictive."""

import numpy as np
import pytest
import torch
from matplotlib.axes import Axes
from matplotlib.colors import to_hex

import bayeswm as bwm
from bayeswm.plot import fan_chart
from bayeswm.plot.axes import AMBER, BLUE
from tests.plot.forecasts import axes, pendulum


def outline(ax: Axes, label: str) -> np.ndarray:
    """The corners of a band."""
    (band,) = [c for c in ax.collections if c.get_label() == label]
    return band.get_paths()[0].vertices


def ends(ax: Axes, label: str, time: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Lower and upper ends of a band at the given times."""
    corners = outline(ax, label)
    at = [corners[np.isclose(corners[:, 0], t), 1] for t in time]
    return np.array([y.min() for y in at]), np.array([y.max() for y in at])


def test_fan_shows_the_predictive(predictive: bwm.Predictive) -> None:
    ax = fan_chart(predictive, "velocity", row=1, levels=(0.5, 0.9), ax=axes())
    time = np.arange(1, 9) * predictive.time_step
    for level in (0.5, 0.9):
        low, high = ends(ax, f"{100 * level:g} % interval", time)
        expected = predictive[1].interval(level)
        assert np.allclose(low, expected[0][:, 1])
        assert np.allclose(high, expected[1][:, 1])
    low, high = ends(ax, "epistemic part (90 %)", time)
    share = (predictive[1].epistemic_variance / predictive[1].variance)[:, 1].sqrt()
    assert np.allclose(high - low, share * (expected[1] - expected[0])[:, 1])
    (line,) = ax.lines
    assert np.allclose(line.get_xdata(), np.arange(9) * predictive.time_step)
    assert np.allclose(line.get_ydata(), [1.0, *predictive[1].mean[:, 1].tolist()])
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("time (s)", "velocity (rad/s)")


def test_epistemic_part_lies_inside_in_another_colour(predictive: bwm.Predictive) -> None:
    ax = fan_chart(predictive, "angle", row=0, ax=axes())
    wide, part = outline(ax, "90 % interval"), outline(ax, "epistemic part (90 %)")
    assert np.ptp(part[:, 1]) < np.ptp(wide[:, 1])
    colors = {c.get_label(): to_hex(c.get_facecolor()[0]) for c in ax.collections}
    assert colors["epistemic part (90 %)"] == AMBER.lower()
    assert colors["90 % interval"] == BLUE.lower()
    labels = [t.get_text() for t in ax.get_legend().get_texts()]
    assert labels == ["90 % interval", "50 % interval", "epistemic part (90 %)", "mean"]


def test_a_known_system_has_no_epistemic_band() -> None:
    g = torch.Generator().manual_seed(0)
    p = bwm.rollout(pendulum(uncertain=False), torch.ones(2), torch.zeros(4, 1), generator=g)
    labels = [c.get_label() for c in fan_chart(p, "angle", ax=axes()).collections]
    assert labels == ["90 % interval", "50 % interval"]


@pytest.mark.parametrize("with_start", [True, False])
@pytest.mark.parametrize("batched", [True, False])
def test_observations_stand_at_their_times(predictive: bwm.Predictive, with_start: bool, batched: bool) -> None:
    rows = 9 if with_start else 8
    came = torch.randn(3, rows, 2, generator=torch.Generator().manual_seed(1))
    ax = fan_chart(predictive, "angle", observed=came if batched else came[2], row=2, ax=axes())
    (dots,) = [line for line in ax.lines if line.get_label() == "observed"]
    assert np.allclose(dots.get_ydata(), came[2, :, 0])
    assert np.allclose(dots.get_xdata(), np.arange(9 - rows, 9) * predictive.time_step)


def test_a_forecast_over_no_step_is_refused() -> None:
    model = bwm.KnownDynamics(structure=bwm.structures.Pendulum.gymnasium(), noise=0.1)
    empty = bwm.rollout(model, torch.zeros(2), torch.zeros(0, 1), generator=torch.Generator().manual_seed(0))
    with pytest.raises(bwm.SpecError, match="at least 1 step, got horizon 0"):
        fan_chart(empty, "angle", ax=axes())


def test_bad_requests_are_named(predictive: bwm.Predictive) -> None:
    with pytest.raises(bwm.UnknownVariableError, match="did you mean 'angle'"):
        fan_chart(predictive, "angel", row=0, ax=axes())
    with pytest.raises(bwm.SpecError, match="row= to choose one of 3"):
        fan_chart(predictive, "angle", ax=axes())
    with pytest.raises(bwm.SpecError, match="row below 3"):
        fan_chart(predictive, "angle", row=3, ax=axes())
    with pytest.raises(bwm.SpecError, match="no row for a single"):
        fan_chart(predictive[0], "angle", row=0, ax=axes())
    with pytest.raises(bwm.SpecError, match=r"0\.9 is a 90 % interval"):
        fan_chart(predictive, "angle", row=0, levels=(90,), ax=axes())
    with pytest.raises(bwm.DataError, match=r"shape \(8, 2\), or \(9, 2\) with the start"):
        fan_chart(predictive, "angle", row=0, observed=torch.zeros(5, 2), ax=axes())
