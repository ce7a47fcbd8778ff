"""Scores of quantiles, intervals and first two moments."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import bayeswm as bwm
from bayeswm.diagnostics import (
    crps_gaussian,
    dawid_sebastiani,
    interval_score,
    log_score_gaussian,
    pinball_loss,
    weighted_interval_score,
)
from tests.diagnostics.test_univariate_scores import normal, one

numbers = st.floats(-5, 5, allow_subnormal=False)


@pytest.mark.parametrize(("level", "expected"), [(0.9, 4.125426), (0.95, 4.675606)])
def test_expected_interval_score_of_a_calibrated_gaussian(level: float, expected: float) -> None:
    y = torch.linspace(-12, 12, 200_001, dtype=torch.float64)
    density = torch.exp(-0.5 * y.square()) / math.sqrt(2 * math.pi)
    z = torch.special.ndtri(one(0.5 + level / 2))
    value = torch.trapezoid(interval_score(-z, z, y, level=level) * density, y)
    assert float(value) == pytest.approx(expected, abs=1e-6)


def test_interval_score_refuses_a_level_in_per_cent() -> None:
    with pytest.raises(bwm.SpecError, match=r"0\.9 is a 90 % interval"):
        interval_score(one(0), one(1), one(0), level=90)


def test_expected_log_score_of_a_calibrated_gaussian() -> None:
    y = torch.linspace(-12, 12, 200_001, dtype=torch.float64)
    density = torch.exp(-0.5 * y.square()) / math.sqrt(2 * math.pi)
    value = torch.trapezoid(log_score_gaussian(one(0), one(1), y) * density, y)
    assert float(value) == pytest.approx(-1.418938533, abs=1e-9)
    assert 0.5 * math.log(2 * math.pi * math.e) == pytest.approx(1.418938533, abs=1e-9)


def test_log_score_is_the_log_density() -> None:
    m, s, y = normal(9), normal(9, seed=1).exp(), normal(9, seed=2)
    assert torch.allclose(log_score_gaussian(m, s, y), torch.distributions.Normal(m, s).log_prob(y), rtol=1e-12)


def test_mean_pinball_loss_over_all_probabilities_is_half_the_crps() -> None:
    tau = (torch.arange(200_000, dtype=torch.float64) + 0.5) / 200_000
    loss = pinball_loss(torch.special.ndtri(tau), one(0.7), probability=tau).mean()
    assert float(loss) == pytest.approx(float(crps_gaussian(one(0), one(1), one(0.7))) / 2, abs=1e-8)


@given(st.lists(st.floats(0.05, 0.95), min_size=1, max_size=5, unique=True), numbers, numbers)
def test_weighted_interval_score_is_twice_the_mean_pinball_loss(levels: list[float], median: float, y: float) -> None:
    half = torch.tensor([2 * v for v in levels], dtype=torch.float64)
    low, high, middle, came = one(median) - half, one(median) + half, one(median), one(y)
    found = weighted_interval_score(low, high, came, median=middle, levels=levels)
    losses = [pinball_loss(middle, came, probability=0.5)]
    for level, a, b in zip(levels, low, high, strict=True):
        losses += [pinball_loss(a, came, probability=0.5 - level / 2)]
        losses += [pinball_loss(b, came, probability=0.5 + level / 2)]
    assert float(found) == pytest.approx(2 * float(torch.stack(losses).mean()), rel=1e-9, abs=1e-12)


@given(numbers, st.floats(0.05, 5), numbers)
def test_quantile_scores_scale_and_ignore_shifts(y: float, factor: float, shift: float) -> None:
    low, high, came = one(-1), one(2), one(y)
    for score in (
        lambda a, b, y: interval_score(a, b, y, level=0.8),
        lambda a, _, y: pinball_loss(a, y, probability=0.1),
    ):
        moved = score(factor * low + shift, factor * high + shift, factor * came + shift)
        assert float(moved) == pytest.approx(factor * float(score(low, high, came)), rel=1e-9, abs=1e-9)


def test_a_variance_of_zero_is_a_point() -> None:
    y = torch.tensor([1.0, 2.0, float("nan")], dtype=torch.float64)
    found = dawid_sebastiani(torch.ones(3).double(), torch.zeros(3).double(), y).tolist()
    assert found[:2] == [-math.inf, math.inf]
    assert math.isnan(found[2])


def test_bad_probabilities_and_counts_are_named() -> None:
    with pytest.raises(bwm.SpecError, match="ends excluded"):
        pinball_loss(one(0), one(0), probability=1.0)
    with pytest.raises(bwm.SpecError, match="ends excluded"):
        pinball_loss(one(0), one(0), probability=torch.tensor([0.5, 0.0]))
    with pytest.raises(bwm.DataError, match=r"ends of 2 interval"):
        weighted_interval_score(normal(1), normal(1), one(0), median=one(0), levels=[0.5, 0.9])


def test_scores_are_differentiable() -> None:
    m, s, y = (v.requires_grad_() for v in (normal(4), normal(4, seed=1).exp(), normal(4, seed=2)))
    assert torch.autograd.gradcheck(dawid_sebastiani, (m, s, y))
    assert torch.autograd.gradcheck(log_score_gaussian, (m, s, y))
    assert torch.autograd.gradcheck(lambda m, y: pinball_loss(m, y, probability=0.3), (m, y))
    assert torch.autograd.gradcheck(lambda m, s, y: interval_score(m - s, m + s, y, level=0.9), (m, s, y))


def test_scores_agree_with_scoringrules_and_uncertainty_toolbox() -> None:
    sr, toolbox = pytest.importorskip("scoringrules"), pytest.importorskip("uncertainty_toolbox")
    m, y, levels = normal(50), normal(50, seed=2), [0.5, 0.8, 0.9]
    observed, center = y.numpy(), m.numpy()
    theirs = sr.interval_score(observed, center - 1, center + 1, 0.1, backend="numpy")
    assert np.allclose(interval_score(m - 1, m + 1, y, level=0.9), theirs, atol=1e-6)
    theirs = sr.quantile_score(observed, center, 0.3, backend="numpy")
    assert np.allclose(pinball_loss(m, y, probability=0.3), theirs, atol=1e-6)
    low, high = (torch.stack([m + sign * (0.5 + v) for v in levels]) for sign in (-1, 1))
    alpha = 1 - np.array(levels)
    theirs = sr.weighted_interval_score(observed, center, low.numpy().T, high.numpy().T, alpha, backend="numpy")
    # version 0.11 adds the median itself where the definition has its distance to what came
    theirs += 0.5 * (np.abs(observed - center) - center) / (len(levels) + 0.5)
    assert np.allclose(weighted_interval_score(low, high, y, median=m, levels=levels), theirs, atol=1e-6)
    scale = np.exp(0.1 * center)
    theirs = toolbox.check_score(center, scale, observed, start_q=0.1, end_q=0.9, resolution=9)
    tau = torch.linspace(0.1, 0.9, 9, dtype=torch.float64)[:, None]
    ours = pinball_loss(m + torch.special.ndtri(tau) * torch.from_numpy(scale), y, probability=tau).mean()
    assert float(ours) == pytest.approx(float(theirs), abs=1e-6)
