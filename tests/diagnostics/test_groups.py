"""Calibration of groups finds where a model that is right on average is wrong."""

import math

import numpy as np
import pytest
import torch

import bayeswm as bwm
from bayeswm.diagnostics import adversarial_groups, conditional_calibration, distance_from, forecast, reliability
from tests.diagnostics.gaussians import gaussian_forecast
from tests.diagnostics.recordings import Linear

N = 1000
EVEN = torch.special.ndtri((torch.arange(N, dtype=torch.float64) + 0.5) / N)
ZERO, ONE = torch.zeros(2 * N, dtype=torch.float64), torch.ones(2 * N, dtype=torch.float64)
# two regimes: sd 1 and sd 3, forecast with sd 2 in both
TWO = gaussian_forecast(ZERO, 2 * ONE, torch.cat((EVEN, 3 * EVEN)))
REGIME = torch.arange(2 * N) // N


def test_regimes_are_told_apart() -> None:
    found = conditional_calibration(TWO, lambda part: REGIME, bootstrap=100).squeeze(["horizon", "variable"])
    assert found["count"].values.tolist() == [N, N]
    for group, share in ((0, 2.0), (1, 2 / 3)):
        exact = math.erf(share * 1.6448536269514722 / math.sqrt(2))
        at = found.sel(group=group)
        assert at.coverage.item() == pytest.approx(exact, abs=1.01 / N)
        assert at.spread_skill.item() == pytest.approx(share, rel=0.01)
        assert at.coverage_lower.item() <= exact <= at.coverage_upper.item()
    whole = reliability(TWO, bootstrap=2)
    assert found.coverage.mean().item() == pytest.approx(whole.coverage.sel(level=0.9).item())


def test_a_quantity_is_cut_into_equal_groups() -> None:
    value = torch.linspace(0, 1, 2 * N).double()
    found = conditional_calibration(TWO, lambda part: value, bins=4, bootstrap=20)
    assert found["count"].values.tolist() == [N // 2] * 4
    assert np.allclose(found.group, [0.125, 0.375, 0.625, 0.875], atol=1e-3)
    tied = conditional_calibration(TWO, lambda part: torch.zeros(2 * N), bins=3, bootstrap=20)
    assert tied["count"].sum().item() == 2 * N


def test_bad_groups_are_named() -> None:
    with pytest.raises(bwm.DataError, match="a finite number for each of 2000 windows"):
        conditional_calibration(TWO, lambda part: torch.zeros(3))
    with pytest.raises(bwm.DataError, match="with NaN"):
        conditional_calibration(TWO, lambda part: ZERO * float("nan"))
    with pytest.raises(bwm.DataError, match="at most 100 groups, got 2000"):
        conditional_calibration(TWO, lambda part: torch.arange(2 * N))
    with pytest.raises(bwm.SpecError, match="bins >= 1"):
        conditional_calibration(TWO, lambda part: REGIME, bins=0)


def test_distance_from_the_training_data(linear: Linear) -> None:
    (part,) = forecast(linear.truth, linear.data[:50], horizon=6)
    train = linear.data[100:110]
    states = train.states().flatten(0, 1)
    start = linear.data.states()[:50, 0]
    gap = (start[:, None] - states) / states.std(0)
    assert torch.allclose(distance_from(train)(part), gap.norm(dim=-1).amin(-1))
    assert bool((distance_from(linear.data)(part) == 0).all())
    with pytest.raises(bwm.SpecError, match=r"from diagnostics\.forecast"):
        distance_from(train)(TWO)


def test_the_whole_is_one_group_and_small_groups_look_worse() -> None:
    found = adversarial_groups(TWO, shares=(0.02, 0.2, 1.0)).squeeze()
    whole = reliability(TWO, bootstrap=2)
    assert found.worst_ece.sel(share=1.0).item() == pytest.approx(whole.ece.item())
    assert bool((found.worst_ece.diff("share") < 0).all())
    assert bool((found.expected.diff("share") < 0).all())
    again = adversarial_groups(TWO, shares=(0.02, 0.2, 1.0)).squeeze()
    assert found.identical(again)
    with pytest.raises(bwm.SpecError, match="shares in"):
        adversarial_groups(TWO, shares=(0.0,))


@pytest.mark.statistical
def test_what_calibrated_forecasts_give_is_expected() -> None:
    came = torch.randn(N, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    found = adversarial_groups(gaussian_forecast(ZERO[:N], ONE[:N], came), shares=(0.05,), groups=500).squeeze()
    # both are the largest of 500 errors of 50 windows each
    assert found.worst_ece.item() == pytest.approx(found.expected.item(), rel=0.3)
