"""Adaptive levels keep their bound for any sequence."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import bayeswm as bwm
from bayeswm.diagnostics import AdaptiveConformal, needed_level
from tests.diagnostics.recordings import Linear

sequences = st.lists(st.sampled_from([0.0, 0.3, 0.9, 1.0, math.nan]) | st.floats(0, 1), min_size=1, max_size=60)


@settings(deadline=None)
@given(sequences, st.floats(0.05, 0.95), st.floats(1e-3, 2.0), st.integers(1, 5))
def test_bound_for_any_sequence(needed: list[float], level: float, rate: float, delay: int) -> None:
    adaptive = AdaptiveConformal(level=level, rate=rate)
    issued = [adaptive.level] * delay
    misses = 0
    for value in needed:
        now = issued.pop(0)
        issued.append(adaptive.update(torch.tensor(value, dtype=torch.float64), issued=now))
        misses += value > float(now)
    count = sum(not math.isnan(v) for v in needed)
    assert int(adaptive.count) == count
    if count:
        gap = abs(misses / count - (1 - level))
        assert math.isclose(1 - float(adaptive.coverage), misses / count, abs_tol=1e-12)
        assert gap <= float(adaptive.bound(delay=delay)) + 1e-12


@given(st.floats(0.05, 0.95), st.floats(1e-3, 1.0))
def test_bound_of_a_missing_delay_is_the_published_one(level: float, rate: float) -> None:
    adaptive = AdaptiveConformal(level=level, rate=rate)
    adaptive.update(torch.tensor(0.5))
    adaptive.update(torch.tensor(1.0))
    assert math.isclose(float(adaptive.bound()), (max(level, 1 - level) + rate) / (2 * rate))


def test_sequences_that_force_the_ends() -> None:
    always, never = AdaptiveConformal(level=0.9, rate=0.3), AdaptiveConformal(level=0.9, rate=0.3)
    for _ in range(50):
        always.update(torch.tensor(1.0))
        never.update(torch.tensor(0.0))
    # what only everything holds is held by the infinite interval; what anything holds is missed by the empty one
    assert float(always.coverage) >= 0.9 - float(always.bound())
    assert float(never.coverage) <= 0.9 + float(never.bound())
    assert 0.5 < float(never.coverage) < 1


def test_follows_a_shift(linear: Linear) -> None:
    g = torch.Generator().manual_seed(0)
    adaptive = AdaptiveConformal(level=0.9, rate=0.02, shape=(1, 1))
    scores = torch.special.erf(torch.randn(4000, generator=g).double().abs() / math.sqrt(2))
    for t, score in enumerate(scores):
        wide = score if t < 2000 else torch.special.erf(torch.erfinv(score) * 2)  # errors twice as large from here
        adaptive.update(wide.view(1, 1))
    # intervals that hold 90 % of errors of sd 2 are those of level P(|z| < 2 * 1.645)
    assert abs(float(adaptive.level) - math.erf(2 * 1.6449 / math.sqrt(2))) < 0.05


def test_model_of_the_levels(linear: Linear) -> None:
    adaptive = AdaptiveConformal(level=0.8, rate=0.05, shape=(2, 2))
    adaptive.update(torch.tensor([[1.0, 0.0], [1.0, math.nan]]))
    assert torch.allclose(adaptive.level, torch.tensor([[0.84, 0.79], [0.84, 0.8]]).double())
    model = adaptive.recalibrated(linear.truth)
    before, after = (
        bwm.rollout(m, torch.zeros(2), torch.zeros(2, 1), particles=4000, generator=torch.Generator().manual_seed(0))
        for m in (linear.truth, model)
    )
    for h, s in ((0, 0), (0, 1), (1, 0), (1, 1)):
        low, high = after.interval(0.8)
        used = float(adaptive.level[h, s])
        expected = bwm.diagnostics.maps.as_points(before).interval(used)
        # ends between two neighbours of 4000 draws
        assert abs(float((low - expected[0])[h, s])) < 0.01
        assert abs(float((high - expected[1])[h, s])) < 0.01


def test_needed_level(linear: Linear) -> None:
    p = linear.truth.predictive(torch.zeros(2), torch.zeros(1))
    for level in (0.3, 0.9):
        low, high = p.interval(level)
        assert torch.allclose(needed_level(p, low), torch.tensor(level).double(), atol=1e-6)
        assert torch.allclose(needed_level(p, high), torch.tensor(level).double(), atol=1e-6)
    assert needed_level(p, torch.full((1, 2), math.nan)).isnan().all()


def test_requests_that_make_no_sense(linear: Linear) -> None:
    with pytest.raises(bwm.SpecError, match="rate > 0"):
        AdaptiveConformal(rate=0.0)
    with pytest.raises(bwm.DataError, match="shape"):
        AdaptiveConformal(shape=(2,)).update(torch.zeros(3))
    with pytest.raises(bwm.DataError, match="between 0 and 1"):
        AdaptiveConformal().update(torch.tensor(1.5))
    with pytest.raises(bwm.SpecError, match=r"shape=\(H, S\)"):
        AdaptiveConformal().recalibrated(linear.truth)
