"""Pictures of calibration at all levels and of events show the numbers of the data set."""

import numpy as np
import pytest
import torch
import xarray as xr

import bayeswm as bwm
from bayeswm.diagnostics import event_reliability, forecast_of, reliability
from bayeswm.plot import pit_ecdf, reliability_diagram
from tests.plot.forecasts import axes, pendulum


@pytest.fixture(scope="module")
def one() -> bwm.diagnostics.Forecast:
    g = torch.Generator().manual_seed(0)
    start, torque = torch.randn(60, 2, generator=g), torch.zeros(60, 6, 1)
    made, truth = (bwm.rollout(pendulum(uncertain=False), start, torque, particles=n, generator=g) for n in (100, 1))
    return forecast_of(made, truth.particles[0, 0])


def test_pit_ecdf_shows_curve_and_band(one: bwm.diagnostics.Forecast) -> None:
    found = reliability(one, bootstrap=10)
    ax = pit_ecdf(found, "velocity", horizon=4, ax=axes())
    at = found.sel(horizon=4, variable="velocity")
    assert np.allclose(ax.lines[-1].get_ydata()[1:-1], at.ecdf_difference)
    corners = ax.collections[0].get_paths()[0].vertices
    assert corners[:, 1].min() == pytest.approx(at.band_lower.min().item())
    assert corners[:, 1].max() == pytest.approx(at.band_upper.max().item())
    with pytest.raises(bwm.SpecError, match="horizon from 1 to 6 steps, got 7"):
        pit_ecdf(found, "velocity", horizon=7, ax=axes())
    with pytest.raises(bwm.UnknownVariableError, match="did you mean 'angle'"):
        pit_ecdf(found, "angel", horizon=1, ax=axes())
    with pytest.raises(bwm.SpecError, match=r"diagnostics\.reliability"):
        pit_ecdf(xr.Dataset(), "angle", horizon=1, ax=axes())


def test_reliability_diagram_shows_bins_with_windows(one: bwm.diagnostics.Forecast) -> None:
    found = event_reliability(one, lambda x: (x[..., 0] > 0.5).any(-1), bootstrap=50)
    ax = reliability_diagram(found, ax=axes())
    there = found["count"].values > 0
    assert np.allclose(ax.collections[-1].get_offsets()[:, 0], found.probability.values[there])
    assert np.allclose(ax.collections[-1].get_offsets()[:, 1], found.frequency.values[there])
    by_step = event_reliability(one, lambda x: (x[..., 0] > 0.5).cummax(-1).values, bootstrap=10)
    assert reliability_diagram(by_step, horizon=2, ax=axes()).get_ylabel() == "observed frequency"
    with pytest.raises(bwm.SpecError, match="expected horizon= for an event by each step"):
        reliability_diagram(by_step, ax=axes())
    with pytest.raises(bwm.SpecError, match="up to 6 steps, got 9"):
        reliability_diagram(by_step, horizon=9, ax=axes())
    with pytest.raises(bwm.SpecError, match=r"diagnostics\.event_reliability"):
        reliability_diagram(xr.Dataset(), ax=axes())
