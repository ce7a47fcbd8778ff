"""The report puts together what the diagnostics give one by one, in one pass."""

import pytest
import torch
import xarray as xr

import bayeswm as bwm
from bayeswm.diagnostics import calibration, errors, forecast, forecast_of, report, report_of, scores, tube_coverage
from bayeswm.diagnostics.forecast import gather
from bayeswm.diagnostics.report import summarise_variances, window_variances
from tests.diagnostics.recordings import Linear

SETTINGS = {"worlds": 1, "particles": 100, "seed": 3}


@pytest.fixture(scope="module")
def found(linear: Linear) -> xr.Dataset:
    return report(linear.model(0.5), linear.data[:100], horizon=3, bootstrap=100, **SETTINGS)


def test_it_has_what_each_diagnostic_gives(linear: Linear, found: xr.Dataset) -> None:
    model, data = linear.model(0.5), linear.data[:100]
    alone = calibration(model, data, horizon=3, levels=(0.5, 0.9), bootstrap=100, **SETTINGS)
    for name in alone.data_vars:
        xr.testing.assert_allclose(found[name], alone[name], rtol=1e-6)
    growth = errors(model, data, horizon=3, bootstrap=100, **SETTINGS)
    for name in ("r2", "correlation", "one_step_rmse", "one_step_rmse_se"):
        xr.testing.assert_allclose(found[name], growth[name])
    tubes = tube_coverage(forecast(model, data, horizon=3, **SETTINGS), bootstrap=100, seed=3)
    for end in ("", "_se", "_lower", "_upper"):
        assert float(found[f"tube_coverage{end}"]) == float(tubes[f"coverage{end}"])
    assert found.attrs["calibration_p_value"] == alone.attrs["calibration_p_value"]
    energy = scores(forecast(model, data, horizon=3, **SETTINGS), bootstrap=100, seed=3)  # 100 draws are all
    for name in ("energy_score", "energy_score_se"):
        xr.testing.assert_allclose(found[name], energy[name])
    assert found.energy_scale.values == pytest.approx(energy.scale.values)


def test_parts_of_the_variance_are_the_exact_ones(linear: Linear, found: xr.Dataset) -> None:
    exact = 0.5 * linear.variance(3).sqrt().numpy()
    # 200 windows of 100 particles; the windows share their world but not their noise: sd's error 1 / sqrt(2 * 20,000)
    assert found.total_sd.values == pytest.approx(exact, rel=0.03)
    assert found.aleatoric_sd.values == pytest.approx(found.total_sd.values, rel=1e-6)
    assert (found.epistemic_sd == 0).all()


def test_a_part_that_is_undefined_is_left_out() -> None:
    prior = bwm.KnownDynamics(
        structure=bwm.structures.Pendulum(mass=torch.distributions.LogNormal(0.0, 0.3)), noise=0.1
    )
    g = torch.Generator().manual_seed(0)
    p = bwm.rollout(prior, torch.zeros(5, 2), torch.zeros(5, 3, 1), worlds=1, particles=10, generator=g)
    assert sorted(window_variances(forecast_of(p, torch.zeros(5, 3, 2)))) == ["aleatoric", "total"]


def test_the_verdict_tells_the_truth_from_a_model_of_half_the_noise(linear: Linear, found: xr.Dataset) -> None:
    # the exact coverage of the 90 % interval of half the sd is 2 Phi(0.822) - 1 = 0.589
    for line in found.attrs["verdict"].splitlines()[:2]:
        assert "too narrow from the first step on" in line
    assert "calibration refuted" in found.attrs["verdict"] or "p = 0.001" in found.attrs["verdict"]
    right = report(linear.truth, linear.data, horizon=3, bootstrap=100, **SETTINGS)
    lines = right.attrs["verdict"].splitlines()
    assert lines[0].startswith("x: 90 % intervals hold at all 3 steps (0.3 s; ")
    assert lines[1].startswith("v: 90 % intervals hold at all 3 steps")
    assert right.attrs["calibration_p_value"] > 1e-3


def test_another_level_than_the_usual_ones(linear: Linear) -> None:
    r = report(linear.truth, linear.data[:50], horizon=2, level=0.7, bootstrap=50, **SETTINGS)
    assert r.level.values.tolist() == [0.5, 0.7]
    assert "70 % intervals" in r.attrs["verdict"]
    with pytest.raises(bwm.SpecError, match="levels between 0 and 1"):
        report(linear.truth, linear.data[:50], horizon=2, level=90, **SETTINGS)


def test_a_predictive_alone_has_no_errors_of_one_step(linear: Linear) -> None:
    p = bwm.rollout(
        linear.truth,
        torch.zeros(200, 2).double(),
        torch.zeros(200, 3, 1),
        particles=50,
        generator=torch.Generator().manual_seed(0),
    )
    r = report_of(forecast_of(p, torch.zeros(200, 3, 2).double()), bootstrap=50)
    assert "one_step_rmse" not in r
    assert "rmse" in r
    assert "too wide" in r.attrs["verdict"]  # every outcome is the mean


def test_the_epistemic_share_is_that_of_the_mean_variances() -> None:
    # one step of x' = a x + e from x = 2: a has sd 0.3, e 0.4; share 0.36 / (0.36 + 0.16), and 0 from x = 0
    schema = bwm.Schema(state=[bwm.Variable("x"), bwm.Variable("v")], time_step=0.1)
    law = torch.distributions.Normal(torch.eye(2).double(), 0.3 * torch.eye(2).double() + 1e-12)
    model = bwm.KnownDynamics(structure=bwm.structures.Linear(schema, A=law), noise=0.4)
    start = torch.tensor([2.0, 0.0]).double().expand(6, 2)
    g = torch.Generator().manual_seed(0)
    p = bwm.rollout(model, start, worlds=2000, particles=2, horizon=1, generator=g)
    r = report_of(forecast_of(p, start[:, None]), bootstrap=20)
    # 2000 worlds: the variance between them has a relative error of sqrt(2 / 2000) = 0.032, which moves the share by
    # 0.032 * 0.69 * 0.31 = 0.007
    assert r.epistemic_share.values[0] == pytest.approx([0.36 / 0.52, 0.0], abs=0.03)
    assert r.epistemic_share.values == pytest.approx((r.epistemic_sd**2 / r.total_sd**2).values, abs=1e-9)


def test_no_variance_has_no_share() -> None:
    model = bwm.KnownDynamics(structure=bwm.structures.Pendulum.gymnasium(), noise=0.0)
    p = model.predictive(torch.zeros(6, 2), torch.zeros(6, 1))
    found = gather(forecast_of(p, torch.zeros(6, 1, 2)), window_variances)
    assert summarise_variances(found, bootstrap=20, seed=0).epistemic_share.isnull().all()
