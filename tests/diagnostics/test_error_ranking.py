"""Rankings by uncertainty against plain definitions and SciPy's."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

import bayeswm as bwm
from bayeswm.diagnostics import ood_auroc, rank_correlation, sparsification_error

tied = st.integers(0, 2**31).map(
    lambda seed: torch.randint(0, 6, (2, 25, 2), generator=torch.Generator().manual_seed(seed)).double()
)


@given(tied)
def test_rank_correlation_and_auroc_are_those_of_scipy(values: torch.Tensor) -> None:
    a, b = values
    expected = [stats.spearmanr(a[:, i], b[:, i]).statistic for i in range(2)]
    assert rank_correlation(a, b).numpy() == pytest.approx(expected)
    pairs = [stats.mannwhitneyu(b[:10, i], a[:, i]).statistic / 250 for i in range(2)]
    assert ood_auroc(a, b[:10]).numpy() == pytest.approx(pairs)


@given(tied)
def test_sparsification_is_its_mean_over_orders_of_ties(values: torch.Tensor) -> None:
    error, uncertainty = values[0, :, 0], values[1, :, 0]
    g, n = np.random.default_rng(0), 25
    count = np.arange(1, n + 1)
    best = np.cumsum(np.sort(error.numpy())) / count
    area = (error.mean().item() - best).sum()
    orders = np.stack([np.lexsort((g.random(n), uncertainty.numpy())) for _ in range(400)])
    areas = ((np.cumsum(error.numpy()[orders], 1) / count - best).sum(1)) / area
    found = float(sparsification_error(error, uncertainty))
    assert abs(found - areas.mean()) < 6 * areas.std() / 20 + 1e-9


@given(tied)
def test_only_the_order_matters(values: torch.Tensor) -> None:
    error, u = values
    for score in (sparsification_error, rank_correlation):
        assert torch.allclose(score(error, u), score(3 * error, u.exp()), equal_nan=True)
    assert torch.allclose(ood_auroc(error, u), ood_auroc(error.exp(), u.exp()))
    assert torch.allclose(ood_auroc(error, u) + ood_auroc(u, error), torch.ones(2).double())


def test_best_random_and_worst_ranking() -> None:
    error = torch.arange(1.0, 101.0)
    turn = torch.stack([torch.randperm(100, generator=torch.Generator().manual_seed(i)) for i in range(300)], 1)
    assert float(sparsification_error(error, error)) == 0
    assert float(sparsification_error(error, -error)) > 1.5
    assert float(sparsification_error(error, torch.zeros(100))) == pytest.approx(1)
    shuffled = sparsification_error(error[:, None].expand(100, 300), turn.double())
    assert abs(float(shuffled.mean()) - 1) < 5 * float(shuffled.std()) / 300**0.5


def test_gaps_do_not_count_and_nothing_to_rank_is_undefined() -> None:
    error, u = torch.rand(20, generator=torch.Generator().manual_seed(0)), torch.arange(20.0)
    gaps = torch.where(u % 3 == 0, float("nan"), error)
    for score in (sparsification_error, rank_correlation):
        assert float(score(gaps, u)) == pytest.approx(float(score(error[u % 3 != 0], u[u % 3 != 0])))
        assert math.isnan(float(score(torch.ones(20), u)))
        assert math.isnan(float(score(torch.full((20,), math.nan), u)))
        with pytest.raises(bwm.DataError, match="one shape"):
            score(error, u[:3])
    assert float(ood_auroc(gaps, u)) == float(ood_auroc(error[u % 3 != 0], u))
    assert math.isnan(float(ood_auroc(error[:0], u)))
    with pytest.raises(bwm.DataError, match=r"\(n, \.\.\.\)"):
        ood_auroc(error[:, None], u)
