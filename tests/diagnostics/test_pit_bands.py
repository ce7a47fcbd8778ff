"""The band of an empirical distribution function holds the whole curve as often as it says."""

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import bayeswm as bwm
from bayeswm.diagnostics import ecdf_band


def test_coverage_by_enumeration() -> None:
    """Five values at three points: all ways to fall into four cells."""
    points, n = torch.tensor([0.2, 0.5, 0.7]).double(), 5
    low, high = (end * n for end in ecdf_band(n, points, level=0.8))
    share = [0.2, 0.3, 0.2, 0.3]
    inside = 0.0
    for cells in itertools.product(range(n + 1), repeat=4):
        if sum(cells) == n:
            counts = torch.tensor(list(itertools.accumulate(cells))[:3]).double()
            if bool(((counts >= low - 1e-9) & (counts <= high + 1e-9)).all()):
                ways = math.factorial(n) / math.prod(math.factorial(c) for c in cells)
                inside += ways * math.prod(s**c for s, c in zip(share, cells, strict=True))
    assert 0.8 <= inside < 1


@pytest.mark.statistical
def test_coverage_by_simulation() -> None:
    points, n, times = torch.arange(1, 50).double() / 50, 200, 4000
    low, high = ecdf_band(n, points, level=0.9)
    u = torch.rand(times, n, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    curve = torch.searchsorted(u.sort(-1).values, points.expand(times, -1).contiguous(), right=True) / n
    inside = float(((curve >= low - 1e-6) & (curve <= high + 1e-6)).all(-1).double().mean())
    # the level is reached from above, by less than a step of the discrete law
    assert 0.9 - 4 * math.sqrt(0.09 / times) < inside < 0.93


@settings(max_examples=30)
@given(st.integers(1, 300), st.integers(1, 12))
def test_symmetric_and_around_the_diagonal(n: int, count: int) -> None:
    points = torch.arange(1, count + 1).double() / (count + 1)
    low, high = ecdf_band(n, points)
    assert bool((low <= points + 1e-12).all())
    assert bool((high >= points - 1e-12).all())
    assert torch.allclose(low, 1 - high.flip(0), atol=1 / n + 1e-9)
    wider = ecdf_band(n, points, level=0.99)
    assert bool((wider[0] <= low).all())
    assert bool((wider[1] >= high).all())


def test_bad_arguments_are_named() -> None:
    for n, points, level in ((0, [0.5], 0.9), (5, [0.5, 0.5], 0.9), (5, [0.0], 0.9), (5, [], 0.9), (5, [0.5], 1.0)):
        with pytest.raises(bwm.SpecError, match="rising points between 0 and 1"):
            ecdf_band(n, torch.tensor(points), level=level)
