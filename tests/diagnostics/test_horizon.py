"""Errors by horizon of a system whose errors are known."""

import numpy as np
import pytest
import torch
from scipy import stats

import bayeswm as bwm
from bayeswm.diagnostics import calibration_of_parts, errors, errors_of_parts, forecast
from tests.diagnostics.recordings import Linear
from tests.models import sensed

HORIZON = 6


@pytest.mark.statistical
def test_free_running_error_grows_as_the_exact_variance_and_one_step_error_does_not(linear: Linear) -> None:
    found = errors(linear.truth, linear.data, horizon=HORIZON, particles=1500)
    exact = linear.variance(HORIZON).numpy()
    for values, se, truth in (
        (found.mse, found.mse_se, exact),
        (found.one_step_mse, found.one_step_mse_se, np.broadcast_to(exact[0], exact.shape)),
    ):
        p = 2 * stats.norm.sf(np.abs((values.values - truth) / se.values))
        assert p.min() > 1e-5


def test_one_step_and_free_running_agree_at_the_first_step(linear: Linear) -> None:
    found = errors(linear.truth, linear.data, horizon=3)
    assert np.allclose(found.mse.sel(horizon=1), found.one_step_mse.sel(horizon=1), rtol=1e-9)
    assert np.allclose(found.rmse**2, found.mse)
    assert np.allclose(found.one_step_rmse**2, found.one_step_mse)


def test_r2_and_correlation_are_those_of_numpy(linear: Linear) -> None:
    (part,) = forecast(linear.truth, linear.data, horizon=4)
    found = errors_of_parts([part])
    start = part.windows.states()[:, :1]
    m, y = (part.predictive.mean - start).numpy(), (part.outcomes - start).numpy()
    for h in range(4):
        for v in range(2):
            assert found.correlation.values[h, v] == pytest.approx(np.corrcoef(m[:, h, v], y[:, h, v])[0, 1], rel=1e-9)
            r2 = 1 - ((m - y)[:, h, v] ** 2).mean() / y[:, h, v].var()
            assert found.r2.values[h, v] == pytest.approx(r2, rel=1e-9)


@pytest.mark.statistical
def test_error_of_the_correlation_is_that_of_the_delta_method(linear: Linear) -> None:
    """For independent Gaussian pairs the standard error of a correlation r is (1 - r^2) / sqrt(n)."""
    found = errors(linear.truth, linear.data, horizon=HORIZON, bootstrap=4000)
    expected = (1 - found.correlation**2) / np.sqrt(400)
    # its own scatter over data sets of 400 pairs is about 1 / sqrt(2 * 400) = 3.5 %, fourth moments make it about 5 %
    assert np.allclose(found.correlation_se, expected, rtol=5 * 0.05)


def test_one_rollout_serves_both_diagnostics(linear: Linear) -> None:
    parts = list(forecast(linear.truth, linear.data[:30], horizon=4))
    assert np.allclose(errors_of_parts(parts).mse, calibration_of_parts(parts).mse, rtol=1e-9)


def test_missing_states_are_left_out_of_both_errors(linear: Linear) -> None:
    state = linear.data.states()[:40].clone()
    state[:20, 2] = float("nan")
    data = bwm.Trajectories(linear.truth.schema, state=state, action=linear.data.action[:40], allow_missing=True)
    gaps, whole = (errors(linear.truth, d, horizon=4) for d in (data, linear.data[:40]))
    rest = errors(linear.truth, linear.data[20:40], horizon=4)
    assert np.allclose(gaps.one_step_mse.sel(horizon=[2, 3]), rest.one_step_mse.sel(horizon=[2, 3]), rtol=1e-9)
    assert np.allclose(gaps.mse.sel(horizon=[1, 3, 4]), whole.mse.sel(horizon=[1, 3, 4]), rtol=1e-9)


def test_a_variable_that_never_changes_has_no_r2() -> None:
    model = bwm.KnownDynamics(structure=bwm.structures.Pendulum(), noise=0.0)
    data = bwm.Trajectories(model.schema, state=torch.zeros(6, 4, 2), action=torch.zeros(6, 3, 1))
    found = errors(model, data, horizon=3)
    assert bool((found.mse < 1e-30).all())
    assert bool(found.r2.isnull().all())
    assert bool(found.correlation.isnull().all())


def test_no_forecast_is_an_error() -> None:
    with pytest.raises(bwm.DataError, match="at least one forecast"):
        errors_of_parts([])


def test_one_step_errors_of_a_hidden_state_are_those_of_the_filter() -> None:
    """The squared innovation has the exact variance C P C' + r^2; the free run is worse, from its second step on."""
    data, model = sensed.record(episodes=400, steps=12, seed=3), sensed.model()
    found = errors(model, data, horizon=6).sel(variable="x")
    worlds = model.draw(1)
    carry, expected = worlds.start(data.histories(6)[1::2]), []
    later = data.windows(6)[1::2]
    for t in range(6):
        law = worlds.transition(carry, later.action[:, t])
        expected.append(float(law.variance[0, 0, 0, 0]) + sensed.SENSOR**2)
        carry, _ = worlds.filter(carry, later.action[:, t], None, later.states()[:, t + 1, :1], step=t)
    # windows from the beginning know less: look at the last steps, where the filter has settled
    z = (found.one_step_mse.values[3:] - torch.tensor(expected[3:]).numpy()) / found.one_step_mse_se.values[3:]
    assert abs(z).max() < 5
    assert bool((found.mse[2:] > found.one_step_mse[2:]).all())
