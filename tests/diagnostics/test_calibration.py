"""Calibration of a known truth: the numbers are known exactly."""

import math

import numpy as np
import pytest
import torch
import xarray as xr
from scipy import stats

import bayeswm as bwm
from bayeswm.diagnostics import calibration, calibration_of, calibration_of_parts, forecast
from tests.diagnostics.recordings import Linear, record

HORIZON, PARTICLES = 6, 1500


@pytest.fixture(scope="module")
def exact(linear: Linear) -> xr.Dataset:
    """The truth against its own data, one window of each episode, so that windows are independent."""
    return calibration(linear.truth, linear.data, horizon=HORIZON, particles=PARTICLES)


@pytest.fixture(scope="module")
def narrow(linear: Linear) -> xr.Dataset:
    return calibration(linear.model(0.5), linear.data, horizon=HORIZON, particles=PARTICLES)


def every(data: xr.Dataset) -> list[tuple[int, str]]:
    return [(h, v) for h in data.horizon.values.tolist() for v in data.variable.values.tolist()]


def p_of_z(z: float) -> float:
    return float(2 * stats.norm.sf(abs(z)))


# --- a true and a false model -----------------------------------------------------------------------------------------


@pytest.mark.statistical
def test_coverage_of_the_truth_is_nominal_at_each_horizon(exact: xr.Dataset) -> None:
    for h, v in every(exact):
        for level in (0.5, 0.8, 0.9, 0.95):
            inside = round(exact.coverage.sel(horizon=h, variable=v, level=level).item() * 400)
            assert stats.binomtest(inside, 400, level).pvalue > 1e-5, (h, v, level)


@pytest.mark.statistical
def test_pit_of_the_truth_is_uniform_one_horizon_at_a_time(exact: xr.Dataset) -> None:
    for h, v in every(exact):
        assert stats.kstest(exact.pit.sel(horizon=h, variable=v).values, "uniform").pvalue > 1e-5, (h, v)


@pytest.mark.statistical
def test_half_the_noise_is_found_too_narrow_by_the_exact_amount(narrow: xr.Dataset) -> None:
    for h, v in every(narrow):
        for level in (0.5, 0.8, 0.9, 0.95):
            expected = 2 * stats.norm.cdf(0.5 * stats.norm.ppf(0.5 + level / 2)) - 1
            inside = round(narrow.coverage.sel(horizon=h, variable=v, level=level).item() * 400)
            assert stats.binomtest(inside, 400, expected).pvalue > 1e-5, (h, v, level)
            assert stats.binomtest(inside, 400, level).pvalue < 1e-5, (h, v, level)


@pytest.mark.statistical
@pytest.mark.parametrize("share", [1.0, 0.5])
def test_scores_have_their_expected_values(linear: Linear, share: float, request: pytest.FixtureRequest) -> None:
    found = request.getfixturevalue("exact" if share == 1 else "narrow")
    scale = linear.variance(HORIZON).sqrt()
    for h, v in every(found):
        s = float(scale[h - 1, 0 if v == "x" else 1])
        at = found.sel(horizon=h, variable=v)
        crps = s * (math.sqrt(2 * (1 + share**2) / math.pi) - share / math.sqrt(math.pi))
        assert p_of_z((at.crps.item() - crps) / at.crps_se.item()) > 1e-5
        assert p_of_z((at.mse.item() - s**2) / at.mse_se.item()) > 1e-5
        log_score = -0.5 * math.log(2 * math.pi * (share * s) ** 2) - 0.5 / share**2
        assert p_of_z((at.log_score.item() - log_score) / at.log_score_se.item()) > 1e-5


def test_widths_are_exact_at_the_first_step_and_close_later(linear: Linear, narrow: xr.Dataset) -> None:
    scale = 0.5 * linear.variance(HORIZON).sqrt().numpy()
    expected = 2 * stats.norm.ppf(0.95) * scale
    found = narrow.width.sel(level=0.9).values
    assert np.allclose(found[0], expected[0], rtol=1e-5)
    # a quantile at 0.95 of 1500 draws has a relative error of 0.033, a width at most 0.047; 400 windows: 0.0024
    assert np.allclose(found, expected, rtol=5 * 0.0024)


# --- what the data set is ---------------------------------------------------------------------------------------------


def test_layout(exact: xr.Dataset) -> None:
    assert exact.coverage.dims == ("horizon", "variable", "level")
    assert exact.pit.dims == ("window", "horizon", "variable")
    assert exact.horizon.values.tolist() == [1, 2, 3, 4, 5, 6]
    assert exact.horizon.dtype.kind == "i"
    assert exact.time.values.tolist() == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.5, 0.6])
    assert exact.time.attrs["units"] == "s"
    assert exact.unit.values.tolist() == ["m", "m/s"]
    assert exact.attrs["recordings"] == exact.attrs["windows"] == 400
    for name in ("coverage", "width", "crps", "mse", "rmse", "log_score"):
        assert {f"{name}_se", f"{name}_lower", f"{name}_upper"} <= set(exact)
        rounding = 1e-12 * abs(exact[name])  # at the first step all widths are equal
        assert bool((exact[f"{name}_lower"] <= exact[name] + rounding).all())
        assert bool((exact[name] <= exact[f"{name}_upper"] + rounding).all())
    assert np.allclose(exact.rmse**2, exact.mse)


def test_log_score_says_how_well_it_is_known(exact: xr.Dataset) -> None:
    assert exact.log_score_mc_se.sel(horizon=1).values.tolist() == [0, 0]
    assert np.isinf(exact.log_score_kernels.sel(horizon=1)).all()
    later = exact.sel(horizon=slice(2, None))
    assert bool((later.log_score_mc_se > 0).all())
    assert bool((later.log_score_kernels > 20).all())
    assert bool((later.log_score_kernels < PARTICLES).all())


def test_coverage_rises_with_the_level_and_counts_pit_values(exact: xr.Dataset) -> None:
    assert bool((exact.coverage.diff("level") >= 0).all())
    inside = (abs(exact.pit - 0.5) <= exact.level / 2).mean("window")
    assert np.allclose(inside.transpose(*exact.coverage.dims), exact.coverage)


def test_coverage_counts_outcomes_inside_the_predicted_interval(linear: Linear) -> None:
    (part,) = forecast(linear.truth, linear.data, horizon=3, particles=30)
    low, high = part.predictive.interval(0.8)
    inside = ((part.outcomes >= low) & (part.outcomes <= high)).double().mean(0)
    found = calibration_of(part.predictive, part.outcomes, levels=[0.8])
    assert np.allclose(found.coverage.values[..., 0], inside.numpy(), atol=1e-12)


def test_same_seed_same_answer_and_parts_join(linear: Linear) -> None:
    first, second = (calibration(linear.truth, linear.data[:20], horizon=3, seed=4) for _ in range(2))
    xr.testing.assert_identical(first, second)
    joined = calibration_of_parts(forecast(linear.truth, linear.data[:20], horizon=1, chunk=7), seed=4)
    whole = calibration(linear.truth, linear.data[:20], horizon=1, seed=4)
    assert joined.start.values.tolist() == [0, 1, 2, 3, 4, 5] * 20
    for name in ("crps", "log_score", "coverage_se", "pit"):  # the first step does not depend on drawn noise
        assert np.allclose(joined[name], whole[name], rtol=1e-12)


def test_windows_of_a_recording_stay_together(linear: Linear) -> None:
    long = record(linear.truth, episodes=10, steps=60, seed=5)
    found = calibration(linear.truth, long, horizon=2, stride=1)
    assert found.attrs["recordings"] == 10
    assert found.sizes["window"] == 10 * 59
    assert np.unique(found.recording).tolist() == list(range(10))
    whole, apart = forecast(linear.truth, long, horizon=2, stride=1), forecast(linear.truth, long, horizon=2, stride=1)
    by_recording = calibration_of_parts(whole)
    (part,) = apart
    alone = calibration_of(part.predictive, part.outcomes)
    assert np.allclose(by_recording.crps, alone.crps, rtol=1e-12)
    assert not np.allclose(by_recording.crps_se, alone.crps_se, rtol=1e-3)


# --- hard cases -------------------------------------------------------------------------------------------------------


def test_a_single_recording_has_values_but_no_errors(linear: Linear) -> None:
    with pytest.warns(bwm.UndefinedWarning, match="one recording") as caught:
        found = calibration(linear.truth, linear.data[:1], horizon=2)
    assert len(caught) == 1
    assert bool(found.crps.notnull().all())
    assert bool(found.crps_se.isnull().all())


def test_few_recordings_say_so(linear: Linear) -> None:
    with pytest.warns(bwm.EstimateWarning, match="3 recordings"):
        calibration(linear.truth, linear.data[:3], horizon=2)


def test_a_system_without_noise_met_by_its_own_data_is_inside_every_interval() -> None:
    model = bwm.KnownDynamics(structure=bwm.structures.Pendulum.gymnasium(), noise=0.0)
    start = torch.randn(6, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    path = bwm.rollout(model, start, torch.zeros(4, 1), particles=1).mean
    data = bwm.Trajectories(model.schema, state=torch.cat((start[:, None], path), 1), action=torch.zeros(6, 4, 1))
    found = calibration(model, data, horizon=4)
    assert bool((found.coverage == 1).all())
    assert bool((found.pit == 0.5).all())
    assert np.allclose(found.crps, 0, atol=1e-12)
    assert np.allclose(found.width, 0, atol=1e-12)
    missed = bwm.Trajectories(model.schema, state=data.states() + 0.1 * torch.arange(5)[:, None], action=data.action)
    found = calibration(model, missed, horizon=4)
    assert bool((found.coverage == 0).all())
    assert bool((found.log_score == -np.inf).all())
    assert bool(found.log_score_se.isnull().all())


def test_missing_outcomes_do_not_count(linear: Linear) -> None:
    state = linear.data.states()[:50].clone()
    state[:25, 3, 0] = float("nan")
    data = bwm.Trajectories(linear.truth.schema, state=state, action=linear.data.action[:50], allow_missing=True)
    gaps = calibration(linear.truth, data, horizon=4)
    whole = calibration(linear.truth, linear.data[:50], horizon=4)
    assert int(gaps.pit.isnull().sum()) == 25
    seen = whole.pit.sel(horizon=3, variable="x")[25:]
    inside = (abs(seen - 0.5) <= 0.45).mean()
    assert gaps.coverage.sel(horizon=3, variable="x", level=0.9).item() == pytest.approx(inside.item())
    assert np.allclose(gaps.crps.sel(variable="v"), whole.crps.sel(variable="v"), rtol=1e-12)


def test_any_batch_shape_and_no_density(linear: Linear) -> None:
    g = torch.Generator().manual_seed(0)
    p = linear.truth.predictive(torch.zeros(3, 4, 2), torch.zeros(3, 4, 1), of="function")
    labels = torch.arange(3)[:, None].expand(3, 4)
    with pytest.warns(bwm.EstimateWarning):
        found = calibration_of(p, torch.randn(3, 4, 1, 2, generator=g), cluster=labels)
    assert found.sizes["window"] == 12
    assert found.attrs["recordings"] == 3
    assert "log_score" not in found


def test_bad_arguments_are_named(linear: Linear) -> None:
    p = linear.truth.predictive(torch.zeros(6, 2), torch.zeros(6, 1))
    with pytest.raises(bwm.SpecError, match=r"0\.9 is a 90 % interval"):
        calibration_of(p, torch.zeros(6, 1, 2), levels=[90])
    with pytest.raises(bwm.SpecError, match="levels between 0 and 1"):
        calibration(linear.truth, linear.data, horizon=2, levels=[])
    with pytest.raises(bwm.DataError, match=r"expected outcomes of shape \(6, 1, 2\)"):
        calibration_of(p, torch.zeros(6, 2))
    with pytest.raises(bwm.DataError, match=r"recordings of shape \(6,\)"):
        calibration_of(p, torch.zeros(6, 1, 2), cluster=torch.zeros(5))
    with pytest.raises(bwm.DataError, match="at least one forecast"):
        calibration_of_parts([])
