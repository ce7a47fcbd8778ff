"""Calibration at all levels: exact values for wrong spreads, and what happens at the edges."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

import bayeswm as bwm
from bayeswm.diagnostics import ecdf_band, forecast, reliability
from tests.diagnostics.gaussians import gaussian_forecast
from tests.diagnostics.recordings import Linear

N = 1000
# N(0, 1) without chance: its quantiles
EVEN = torch.special.ndtri((torch.arange(N, dtype=torch.float64) + 0.5) / N)
ZERO, ONE = torch.zeros(N, dtype=torch.float64), torch.ones(N, dtype=torch.float64)


@settings(max_examples=8)
@given(st.floats(0.3, 3.0))
def test_a_wrong_spread_has_the_exact_coverage(share: float) -> None:
    found = reliability(gaussian_forecast(ZERO, share * ONE, EVEN), bootstrap=2).squeeze()
    level = found.level.values
    exact = 2 * stats.norm.cdf(share * stats.norm.ppf(0.5 + level / 2)) - 1
    assert np.allclose(found.coverage, exact, atol=1.01 / N)
    assert found.ece.item() == pytest.approx(np.abs(exact - level).mean(), abs=1.01 / N)
    assert np.allclose(found.ecdf_difference, stats.norm.cdf(share * stats.norm.ppf(level)) - level, atol=1.01 / N)
    assert found.sharpness.item() == pytest.approx(share)
    assert found.spread_skill.item() == pytest.approx(share / float(EVEN.square().mean().sqrt()))


def test_ence_by_hand() -> None:
    """Two bins: spread 1 with error 2, spread 2 with error 3."""
    scale = torch.tensor([1.0, 2.0, 1.0, 2.0, 1.0, 2.0]).double()
    came = torch.tensor([2.0, 3.0, -2.0, -3.0, 2.0, 3.0]).double()
    found = reliability(gaussian_forecast(torch.zeros(6).double(), scale, came), bins=2, bootstrap=20)
    assert found.ence.item() == pytest.approx((1 / 1 + 1 / 2) / 2)


def test_band_is_that_of_as_many_windows_as_were_recorded(linear: Linear) -> None:
    state = linear.data.states()[:60].clone()
    state[:20, 2, 0] = float("nan")
    data = bwm.Trajectories(linear.truth.schema, state=state, action=linear.data.action[:60], allow_missing=True)
    found = reliability(forecast(linear.truth, data, horizon=3), bootstrap=20)
    level = torch.tensor(found.level.values.tolist(), dtype=torch.float64)
    for n, h, v in ((100, 2, "x"), (120, 2, "v"), (120, 1, "x")):  # two windows of each episode
        low, high = ecdf_band(n, level)
        at = found.sel(horizon=h, variable=v)
        assert np.allclose(at.band_lower, low - level)
        assert np.allclose(at.band_upper, high - level)
        assert bool(at.ecdf_difference.notnull().all())


def test_the_truth_is_calibrated_and_half_the_noise_is_not(linear: Linear) -> None:
    right, narrow = (reliability(forecast(linear.model(s), linear.data, horizon=6), bootstrap=200) for s in (1.0, 0.5))
    assert bool((abs(right.spread_skill - 1) < 5 * right.spread_skill_se).all())
    assert np.allclose(narrow.spread_skill / right.spread_skill, 0.5, rtol=0.1)
    out = (narrow.ecdf_difference > narrow.band_upper) | (narrow.ecdf_difference < narrow.band_lower)
    assert bool(out.any("level").all())
    assert bool((narrow.ece > right.ece).all())
    assert {"ece_se", "ence_lower", "sharpness_upper"} <= set(narrow)


def test_edges() -> None:
    with pytest.raises(bwm.SpecError, match="points >= 1 and bins >= 1"):
        reliability(gaussian_forecast(ZERO, ONE, EVEN), points=0)
    certain = reliability(gaussian_forecast(ZERO, 0 * ONE, ZERO), bootstrap=20)
    assert bool((certain.coverage == 1).all())
    assert math.isnan(certain.spread_skill.item())
    assert certain.sharpness.item() == 0
    few = reliability(gaussian_forecast(ZERO[:5], ONE[:5], EVEN[:5]), bootstrap=20)
    assert few.ence.item() > 0  # more bins than windows
