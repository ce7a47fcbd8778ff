"""Have the chains met, and how much do their draws say: R-hat and effective sample size."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def rank_normalise(draws: Tensor) -> Tensor:
    """Return the normal scores of the pooled ranks of each quantity (ties share their mean rank).

    Parameters
    ----------
    draws : Tensor, shape (chains, draws, D)
        Draws of each quantity.

    Returns
    -------
    Tensor, shape (chains, draws, D)

    Examples
    --------
    >>> rank_normalise(torch.tensor([[[1.0], [5.0], [1000.0]]])).flatten().numpy().round(2).tolist()
    [-0.87, 0.0, 0.87]
    """
    flat = draws.reshape(-1, draws.shape[-1])
    ranks = torch.empty_like(flat, dtype=torch.float64)
    for i, column in enumerate(flat.unbind(-1)):
        _, inverse, counts = column.unique(return_inverse=True, return_counts=True)
        last = counts.cumsum(0).double()
        ranks[:, i] = (last - (counts - 1) / 2)[inverse]
    return torch.special.ndtri((ranks - 0.375) / (len(flat) + 0.25)).view(draws.shape)


def r_hat(draws: Tensor) -> Tensor:
    """Return the rank-normalised split R-hat of each quantity, the worse of bulk and tails (Vehtari et al. 2021).

    Parameters
    ----------
    draws : Tensor, shape (chains, draws, D)
        At least 4 draws a chain.

    Returns
    -------
    Tensor, shape (D,)
        Near 1 where the chains agree (below 1.01 is the usual demand); NaN for a quantity that never moves.

    Examples
    --------
    >>> g = torch.Generator().manual_seed(0)
    >>> met = torch.randn(4, 500, 1, generator=g, dtype=torch.float64)
    >>> apart = met + torch.arange(4)[:, None, None]
    >>> bool(r_hat(met) < 1.01), bool(r_hat(apart) > 1.5)
    (True, True)
    """
    halves = _split(draws)
    ordered = halves.reshape(-1, halves.shape[-1]).sort(0).values
    folded = (halves - (ordered[(len(ordered) - 1) // 2] + ordered[len(ordered) // 2]) / 2).abs()
    return torch.maximum(_potential(rank_normalise(halves)), _potential(rank_normalise(folded)))


def ess_bulk(draws: Tensor) -> Tensor:
    """Return how many independent draws the middle of each quantity's law is worth (Vehtari et al. 2021).

    Parameters
    ----------
    draws : Tensor, shape (chains, draws, D)
        At least 4 draws a chain.

    Returns
    -------
    Tensor, shape (D,)
        NaN for a quantity that never moves.

    Examples
    --------
    >>> g = torch.Generator().manual_seed(0)
    >>> float(ess_bulk(torch.randn(4, 500, 1, generator=g, dtype=torch.float64))) > 1500
    True
    """
    return ess_mean(rank_normalise(_split(draws)), split=False)


def ess_mean(draws: Tensor, *, split: bool = True) -> Tensor:
    """Return how many independent draws the mean of each quantity is worth, shape (D,).

    The autocorrelations are summed up to Geyer's initial monotone sequence, over all chains together.

    Parameters
    ----------
    draws : Tensor, shape (chains, draws, D)
        At least 4 draws a chain.
    split : bool
        Cut each chain in two, so that a drift counts against it. Parts of fewer than 3 draws say nothing: NaN.

    Examples
    --------
    >>> steps = torch.randn(4, 500, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    >>> float(ess_mean(steps.cumsum(1))) < 50
    True
    """
    draws = _split(draws) if split else draws
    chains, n, _ = draws.shape
    covariance = _autocovariance(draws)
    within = covariance[:, 0].mean(0) * n / (n - 1)
    total = within * (n - 1) / n + draws.mean(1).var(0)
    rho = 1 - (within - covariance.mean(0)) / total
    rho[0] = 1.0
    # the last lags rest on a few products: they end the sum at the latest
    if n < 3:
        # halves of two draws have no lag to sum
        return torch.full_like(total, float("nan"))
    even, odd = rho[0 : n - 2 : 2], rho[1 : n - 1 : 2]
    pairs = even[: len(odd)] + odd
    kept = (pairs > 0).cumprod(0).bool()
    kept[-1] = False
    tau = -1 + 2 * torch.where(kept, pairs.cummin(0).values, 0.0).sum(0)
    # the first term after the kept ones still lowers the error of the sum
    tau = tau + even.gather(0, kept.sum(0)[None])[0].clamp(min=0)
    size = chains * n
    return torch.where(total > 0, size / tau.clamp(min=1 / math.log10(size)), float("nan"))


def _split(draws: Tensor) -> Tensor:
    half = draws.shape[1] // 2
    return torch.cat((draws[:, :half], draws[:, draws.shape[1] - half :]), 0)


def _potential(draws: Tensor) -> Tensor:
    n = draws.shape[1]
    within = draws.var(1).mean(0)
    return ((n - 1) / n + draws.mean(1).var(0) / within).sqrt()


def _autocovariance(draws: Tensor) -> Tensor:
    """Return the autocovariance along the draws (divided by their number), shape (chains, draws, D)."""
    n = draws.shape[1]
    transformed = torch.fft.rfft(draws - draws.mean(1, keepdim=True), n=2 * n, dim=1)
    return torch.fft.irfft(transformed.abs().square(), n=2 * n, dim=1)[:, :n] / n
