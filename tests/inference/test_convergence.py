import math

import pytest
import torch
from arviz_stats.base import array_stats
from torch import Tensor

from bayeswm.base.random import make_generator
from bayeswm.inference.convergence import ess_bulk, ess_mean, r_hat, rank_normalise

F64 = torch.float64


def autoregression(phi: float, chains: int, draws: int) -> Tensor:
    x = torch.randn(chains, draws, 2, generator=make_generator(0), dtype=F64)
    for t in range(1, draws):
        x[:, t] += phi * x[:, t - 1]
    x[..., 1] = x[..., 1].round(decimals=1)  # ties
    return x


@pytest.mark.parametrize("phi", [-0.5, 0.0, 0.5, 0.9])
@pytest.mark.parametrize(("chains", "draws"), [(4, 500), (16, 201), (1, 300)])
def test_equal_to_arviz(phi: float, chains: int, draws: int) -> None:
    x, axes = autoregression(phi, chains, draws), {"chain_axis": 0, "draw_axis": 1}
    for i in range(2):
        one = x[..., i].numpy()
        assert float(ess_bulk(x)[i]) == pytest.approx(float(array_stats.ess(one, method="bulk", **axes)), rel=1e-9)
        assert float(ess_mean(x)[i]) == pytest.approx(float(array_stats.ess(one, method="mean", **axes)), rel=1e-9)
        if chains > 1:  # ArviZ has no R-hat of a single chain
            assert float(r_hat(x)[i]) == pytest.approx(float(array_stats.rhat(one, method="rank", **axes)), rel=1e-9)


@pytest.mark.statistical
def test_effective_size_of_an_autoregression() -> None:
    phi, size = 0.8, 64 * 2000
    x = autoregression(phi, 64, 2000)[..., :1]
    x[:, :200] = x[:, 200:400]  # away from the start, which is not stationary
    exact = size * (1 - phi) / (1 + phi)
    assert float(ess_mean(x)) == pytest.approx(exact, rel=0.05)  # 5 %: error of the sum of autocorrelations, 64 chains


def test_ranks_of_ties_are_shared() -> None:
    scores = rank_normalise(torch.tensor([[[1.0], [1.0], [2.0]]], dtype=F64)).flatten()
    expected = torch.special.ndtri((torch.tensor([1.5, 1.5, 3.0], dtype=F64) - 0.375) / 3.25)
    torch.testing.assert_close(scores, expected)


def test_only_ranks_count() -> None:
    x = autoregression(0.5, 4, 200)[..., :1]
    torch.testing.assert_close(ess_bulk(x), ess_bulk(x.exp()))
    heavy = x * torch.tensor([1.0, 1.0, 1.0, 20.0])[:, None, None]
    assert float(r_hat(x)) < 1.02
    assert float(r_hat(heavy)) > 1.1  # same centre, other spread: the folded ranks see it


def test_what_never_moves_is_not_a_number() -> None:
    still = torch.ones(4, 50, 1, dtype=F64)
    assert math.isnan(float(r_hat(still)))
    assert math.isnan(float(ess_bulk(still)))
