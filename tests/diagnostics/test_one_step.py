"""Calibration one step at a time beside that of the free run, where both are known."""

import math

import numpy as np
import pytest
import torch
from scipy import stats

import bayeswm as bwm
from bayeswm.base.predictive import Predictive
from bayeswm.diagnostics import calibration_of_parts, forecast, forecast_of, one_step, teacher_forcing
from tests.diagnostics.recordings import CONTROL, NOISE, TRANSITION, Linear
from tests.models import sensed

HORIZON = 6


def test_each_step_is_forecast_from_the_state_before(linear: Linear) -> None:
    (part,) = one_step(forecast(linear.truth, linear.data[:20], horizon=HORIZON))
    windows = linear.data[:20].windows(HORIZON)
    expected = windows.states()[:, :-1] @ TRANSITION.T + windows.action @ CONTROL.T
    assert torch.allclose(part.predictive.mean, expected, rtol=1e-12)
    assert torch.allclose(part.predictive.stddev, torch.tensor(NOISE).double().expand_as(expected))
    assert torch.equal(part.outcomes, windows.states()[:, 1:])


def test_the_first_step_is_that_of_the_free_run(linear: Linear) -> None:
    found = teacher_forcing(forecast(linear.model(0.7), linear.data[:50], horizon=3), bootstrap=50).isel(horizon=0)
    for name in ("coverage", "width", "pit", "coverage_se"):
        assert np.allclose(found[name], found[f"one_step_{name}"], rtol=1e-6)


@pytest.mark.statistical
def test_both_coverages_are_exact_for_a_model_with_too_little_noise(linear: Linear) -> None:
    """Noise and its growth are both half: 2 Phi(z / 2) - 1 for one step and for all."""
    found = teacher_forcing(forecast(linear.model(0.5), linear.data, horizon=HORIZON), levels=(0.9,), bootstrap=50)
    exact = 2 * stats.norm.cdf(0.5 * stats.norm.isf(0.05)) - 1
    error = (exact * (1 - exact) / 400) ** 0.5
    assert 2 * stats.norm.sf(np.abs(found.one_step_coverage - exact).max() / error) > 1e-5
    # a hundred particles move the free run's ends, by about 1 / sqrt(200) of a standard deviation
    assert float(np.abs(found.coverage - exact).max()) < 4.42 * error + 0.01
    assert np.allclose(found.one_step_width.isel(level=0), 2 * 1.6448536 * 0.5 * np.array(NOISE), rtol=1e-4)


def pushed(by: float) -> bwm.KnownDynamics:
    schema = bwm.Schema(state=[bwm.Variable("x")], time_step=1.0)
    structure = bwm.structures.FromFunction(lambda x, _: x + by, schema=schema, name="pushed")
    return bwm.KnownDynamics(structure=structure, noise=0.1)


def test_a_wrong_world_is_right_one_step_ahead_and_wrong_at_the_end() -> None:
    """The truth pushes by 0.05 at each step beside noise of 0.1: after h steps 0.05 h beside 0.1 sqrt(h)."""
    truth, model = pushed(0.05), pushed(0.0)
    g = torch.Generator().manual_seed(0)
    path = bwm.rollout(truth, torch.zeros(300, 1).double(), horizon=20, particles=1, generator=g).particles[0, 0]
    state = torch.cat((torch.zeros(300, 1, 1).double(), path), 1)
    data = bwm.Trajectories(truth.schema, state=state)
    found = teacher_forcing(forecast(model, data, horizon=20), levels=(0.9,), bootstrap=50).isel(level=0, variable=0)
    z, h = stats.norm.isf(0.05), np.arange(1, 21)

    def inside(shift: np.ndarray) -> np.ndarray:
        return stats.norm.cdf(z - shift) - stats.norm.cdf(-z - shift)

    error = 4.42 * (0.25 / 300) ** 0.5
    assert np.abs(found.one_step_coverage - inside(np.full(20, 0.5))).max() < error
    assert np.abs(found.coverage - inside(0.5 * np.sqrt(h))).max() < error + 0.01
    assert float(found.one_step_coverage[-1]) > 0.75 > 0.45 > float(found.coverage[-1])


def test_gaps_take_the_same_outcomes_from_both(linear: Linear) -> None:
    state = linear.data.states()[:40].clone()
    state[:20, 2] = math.nan
    data = bwm.Trajectories(linear.truth.schema, state=state, action=linear.data.action[:40], allow_missing=True)
    found = teacher_forcing(forecast(linear.truth, data, horizon=4), bootstrap=50)
    missing = found.one_step_pit.isnull().sum("window").values
    assert missing.tolist() == [[0, 0], [20, 20], [20, 20], [0, 0]]  # what was not recorded, and what follows it
    assert np.array_equal(missing, found.pit.isnull().sum("window"))


def test_a_hidden_state_is_forecast_from_the_measurements_before() -> None:
    """Innovations are white and standard normal if the model is right: PIT values are uniform, step by step."""
    data, model = sensed.record(episodes=150, steps=12, seed=3), sensed.model()
    found = teacher_forcing(forecast(model, data, horizon=6), bootstrap=50).sel(variable="x")
    for h in range(6):
        assert stats.kstest(found.one_step_pit.isel(horizon=h), "uniform").pvalue > 1e-5
    assert bool((found.one_step_width[2:] < found.width[2:]).all())


def test_every_diagnostic_of_steps_takes_them(linear: Linear) -> None:
    parts = list(forecast(linear.truth, linear.data[:50], horizon=4))
    found = calibration_of_parts(one_step(parts), bootstrap=50)
    other = teacher_forcing(parts, bootstrap=50)
    assert np.allclose(found.coverage, other.one_step_coverage)


def test_a_predictive_alone_is_refused() -> None:
    model = bwm.KnownDynamics(structure=bwm.structures.Pendulum.gymnasium(), noise=1.0)
    p: Predictive = model.predictive(torch.zeros(2, 2), torch.zeros(2, 1))
    with pytest.raises(bwm.SpecError, match="knows its model"):
        teacher_forcing(forecast_of(p, torch.zeros(2, 1, 2)))
