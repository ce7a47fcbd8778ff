"""Ranks, and tests of their uniformity: exact laws, honest sizes, ties."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from bayeswm.base import DataError
from bayeswm.base.random import make_generator
from bayeswm.diagnostics import rank_among, uniformity
from bayeswm.diagnostics.uniformity import _chi_square, _ecdf
from tests.statistical.checks import BUDGET

F64 = torch.float64


@given(st.lists(st.integers(-3, 3), min_size=1, max_size=12), st.integers(-3, 3), st.integers(0, 5))
def test_a_rank_lies_between_the_draws_below_and_those_not_above(draws: list[int], truth: int, seed: int) -> None:
    values = torch.tensor(draws, dtype=F64)
    rank = int(rank_among(values, torch.tensor(truth, dtype=F64), generator=make_generator(seed)))
    assert sum(v < truth for v in draws) <= rank <= sum(v <= truth for v in draws)


@pytest.mark.statistical
def test_equal_numbers_are_ordered_at_random() -> None:
    ranks = rank_among(torch.ones(9, 400), torch.ones(400), generator=make_generator(0))
    assert float(uniformity(ranks, draws=9).combined) > BUDGET


def test_ranks_of_nan_and_of_other_shapes_are_refused() -> None:
    with pytest.raises(DataError, match="NaN"):
        rank_among(torch.tensor([1.0, math.nan]), torch.tensor(0.0), generator=make_generator(0))
    with pytest.raises(DataError, match=r"expected draws of shape \(n, \*\(2,\)\)"):
        rank_among(torch.zeros(3), torch.zeros(2), generator=make_generator(0))
    with pytest.raises(DataError, match="from 0 to 3"):
        uniformity(torch.tensor([0, 4]), draws=3)
    with pytest.raises(DataError, match="at least 2"):
        uniformity(torch.tensor([0]), draws=3)


def test_chi_square_is_scipys() -> None:
    ranks = torch.randint(0, 32, (300, 1), generator=make_generator(0))
    edges = torch.arange(32) * 20 // 32
    expected = torch.bincount(edges, minlength=20).numpy() * 300 / 32
    seen = torch.bincount(ranks[:, 0] * 20 // 32, minlength=20).numpy()
    assert float(_chi_square(ranks, 31)) == pytest.approx(stats.chisquare(seen, expected).pvalue, rel=1e-9)


def test_the_ecdfs_statistic_is_a_binomial_tail() -> None:
    # two possible ranks: the only threshold is 1, and the count of zeros is binomial with probability 1/2
    n, zeros = 40, 28
    ranks = torch.cat((torch.zeros(zeros, 1), torch.ones(n - zeros, 1))).long()
    exact = stats.binomtest(zeros, n).pvalue
    p = float(_ecdf(ranks, 1, make_generator(0)))
    # 1,000 simulations: 4 standard errors
    assert abs(p - exact) < 4 * math.sqrt(exact * (1 - exact) / 1000) + 1e-3


@pytest.mark.statistical
def test_p_values_of_uniform_ranks_are_honest() -> None:
    ranks = torch.randint(0, 32, (80, 400), generator=make_generator(1))
    found = uniformity(ranks, draws=31)
    for p in found:
        # at most 5 % below 0.05, within 4 standard errors (chi-square at 5 expected a bin: itself within 1 %)
        assert float((p < 0.05).double().mean()) < 0.06 + 4 * math.sqrt(0.05 * 0.95 / 400)
    assert float((found.ecdf < 0.05).double().mean()) > 0.05 - 4 * math.sqrt(0.05 * 0.95 / 400)


def test_one_draw_has_two_ranks_and_no_spread() -> None:
    found = uniformity(torch.arange(20) % 2, draws=1)
    assert float(found.spread) == 1.0
    assert float(found.shift) == pytest.approx(1.0)
