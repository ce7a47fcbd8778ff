"""The test of calibration has its level on trajectories, whatever their dependence, and finds wrong spreads."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from torch import Tensor

import bayeswm as bwm
from bayeswm.diagnostics import calibration_test, cauchy_combination
from bayeswm.diagnostics.calibration_test import NormalSums, independent_test, normal_sums, score_statistic
from benchmarks.validity import SIZES, ks, p_values, pit

F64 = torch.float64


def rejected(p: Tensor) -> float:
    return float((p <= 0.05).double().mean())


# --- the experiment of docs/validity.md -------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.statistical
@pytest.mark.parametrize(("system", "n", "steps"), SIZES)
def test_size_over_four_thousand_repetitions(system: str, n: int, steps: int) -> None:
    found = p_values(system, n, steps=steps, scale=1.0, repetitions=4000)
    assert 0.04 <= rejected(found["simulated"]) <= 0.065


@pytest.mark.statistical
@pytest.mark.parametrize(
    ("system", "pooled"),
    [("random walk", 0.75), pytest.param("AR(0.9)", 0.60, marks=pytest.mark.slow)],
)
def test_size_is_right_where_pooled_uniformity_rejects(system: str, pooled: float) -> None:
    found = p_values(system, 50, steps=20, scale=1.0, repetitions=200, pool=4000)
    # 3.5 binomial standard errors
    assert rejected(found["simulated"]) == pytest.approx(0.05, abs=3.5 * math.sqrt(0.05 * 0.95 / 200))
    assert rejected(found["pooled KS"]) == pytest.approx(pooled, abs=3.5 * math.sqrt(pooled * (1 - pooled) / 200))


@pytest.mark.slow
@pytest.mark.statistical
@pytest.mark.parametrize(
    ("system", "scale", "power"),
    [("random walk", 0.8, 0.80), ("AR(0.9)", 0.8, 0.90), ("random walk", 1.25, 0.75), ("AR(0.9)", 1.25, 0.85)],
)
def test_power_against_wrong_spreads(system: str, scale: float, power: float) -> None:
    assert rejected(p_values(system, 50, steps=20, scale=scale, repetitions=1000)["simulated"]) >= power


@pytest.mark.statistical
def test_ways_to_combine_ks_tests_by_step_have_the_known_sizes() -> None:
    """The walk with Kolmogorov's limit law, AR(0.9) with the exact one of 50 values.

    The known numbers do not say which law made them; these are the ones that they fit. Over 15,000 repetitions the
    Cauchy combination has 6.2 % on the walk with the exact law, and 5.0 % on AR(0.9) with the limit law.
    """
    g, repetitions = torch.Generator().manual_seed(0), 2000
    p = ks(pit("random walk", (repetitions, 50, 20), scale=1.0, generator=g).mT.contiguous(), exact=False)
    bonferroni = (20 * p.amin(-1)).clamp(max=1)
    simes = (p.sort(-1).values * 20 / torch.arange(1, 21)).amin(-1)
    cauchy = cauchy_combination(p, dim=-1)
    for values, size in ((bonferroni, 0.026), (simes, 0.030), (cauchy, 0.048), (p[:, 9], 0.047)):
        assert rejected(values) == pytest.approx(size, abs=4 * math.sqrt(size / repetitions))
    p = ks(pit("AR(0.9)", (repetitions, 50, 20), scale=1.0, generator=g).mT.contiguous())
    assert rejected(cauchy_combination(p, dim=-1)) == pytest.approx(0.061, abs=4 * math.sqrt(0.061 / repetitions))


# --- what it computes -------------------------------------------------------------------------------------------------


def test_statistic_by_hand() -> None:
    z = torch.tensor([0.3, -1.2, 0.5, 2.0], dtype=F64)
    sums = normal_sums(torch.special.ndtr(z))
    expected = 4 * z.mean() ** 2 + (z.square().sum() - 4) ** 2 / 8
    assert float(score_statistic(sums)) == pytest.approx(float(expected), rel=1e-12)


@given(st.integers(0, 2**31), st.integers(1, 3), st.integers(1, 4))
def test_p_values_are_ranks_and_mirror_symmetric(seed: int, steps: int, variables: int) -> None:
    g = torch.Generator().manual_seed(seed)
    came = torch.rand(5, steps, variables, generator=g, dtype=F64)
    drawn = torch.rand(39, 5, steps, variables, generator=g, dtype=F64)
    found, mirrored = calibration_test(came, drawn), calibration_test(1 - came, 1 - drawn)
    for p in (found.p_value, found.p_by_cell):
        assert bool(((p >= 1 / 40) & (p <= 1)).all())
        assert torch.allclose(p * 40, (p * 40).round())
    assert found.p_by_cell.shape == (steps, variables)
    assert torch.allclose(found.by_cell, mirrored.by_cell)
    assert float(found.statistic) == pytest.approx(float(found.by_cell.sum()))
    # rounding can break or make ties between simulations only where z^2 sums agree to 1e-12
    assert float(found.p_value) == pytest.approx(float(mirrored.p_value), abs=1 / 40)


def test_parts_add_up_and_missing_outcomes_do_not_count() -> None:
    g = torch.Generator().manual_seed(0)
    u = torch.rand(8, 3, generator=g, dtype=F64)
    gaps = u.clone()
    gaps[5:, 1] = float("nan")
    first, second, whole = normal_sums(gaps[:4]), normal_sums(gaps[4:]), normal_sums(gaps)
    assert whole.number.tolist() == [8, 5, 8]
    for a, b, c in zip(first, second, whole, strict=True):
        assert torch.allclose(a + b, c)
    gaps[:, 1] = float("nan")
    drawn = torch.rand(99, 8, 3, generator=g, dtype=F64)
    found = calibration_test(gaps, drawn)
    without = calibration_test(u[:, [0, 2]], drawn[:, :, [0, 2]])
    assert bool(found.by_cell[1].isnan())
    assert float(found.p_value) == float(without.p_value)


def test_nothing_recorded_is_undefined_and_edges_are_finite() -> None:
    assert bool(calibration_test(torch.full((3, 2), float("nan")), torch.rand(99, 3, 2)).p_value.isnan())
    assert bool(independent_test(normal_sums(torch.full((3, 2), float("nan")))).p_value.isnan())
    ends = calibration_test(torch.tensor([[0.0], [1.0]]), torch.rand(99, 2, 1))
    assert bool(ends.statistic.isfinite())
    assert float(ends.p_value) == 0.01


def test_bad_arguments_are_named() -> None:
    with pytest.raises(bwm.DataError, match=r"expected simulated values of shape \(simulations, 5, 2\)"):
        calibration_test(torch.rand(5, 2), torch.rand(99, 4, 2))
    with pytest.raises(bwm.DataError, match="at least 19 simulated data sets, got 18"):
        calibration_test(torch.rand(5, 2), torch.rand(18, 5, 2))
    with pytest.raises(bwm.DataError, match="between 0 and 1"):
        calibration_test(torch.tensor([[1.5]]), torch.rand(99, 1, 1))


def test_cauchy_combination_matches_its_definition_and_stays_accurate_in_the_tail() -> None:
    p = torch.tensor([0.01, 0.4, 0.9], dtype=F64)
    expected = stats.cauchy.sf(stats.cauchy.isf(p.numpy()).mean())
    assert float(cauchy_combination(p)) == pytest.approx(expected, rel=1e-9)
    assert float(cauchy_combination(torch.tensor([1e-40, 0.5]).double())) == pytest.approx(2e-40, rel=1e-6)
    assert float(cauchy_combination(torch.tensor([1.0, 1.0]))) == pytest.approx(1.0)


def test_without_simulation_the_scale_has_its_exact_law() -> None:
    n, second = torch.tensor([50.0]).double(), torch.tensor([80.0]).double()
    found = independent_test(NormalSums(n, torch.zeros(1).double(), second))
    pair = torch.tensor([stats.chi2.sf(30**2 / 100, 2), 2 * stats.chi2.sf(80, 50)])
    assert float(found.p_value) == pytest.approx(float(cauchy_combination(pair)), rel=1e-6)
