"""Ranks of a truth among draws, and whether ranks are uniform, as functions of tensors."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from bayeswm.base.errors import DataError
from bayeswm.base.random import make_generator, uniform

_SIMULATIONS = 1000  # of uniform ranks, for the ECDF's p-value: none is below 1 / 1001
_THRESHOLDS = 100  # at most, where the ECDF is looked at


class Uniformity(NamedTuple):
    """P-values of the hypothesis that ranks are uniform, each of the shape of one repetition's ranks.

    ``chi_square`` counts ranks in bins and sees any shape; ``shift`` and ``spread`` test the mean and the mean square
    around the middle, which sees what usually goes wrong, posteriors that lie wrong or are too wide or too narrow, with
    more power; ``ecdf`` is that of simultaneous bands around the empirical distribution function. ``combined`` is the
    smallest of the first three times 3: valid however they depend on each other, and not bounded below as the
    simulated ``ecdf`` is.
    """

    combined: Tensor
    chi_square: Tensor
    shift: Tensor
    spread: Tensor
    ecdf: Tensor


def rank_among(draws: Tensor, truth: Tensor, *, generator: torch.Generator) -> Tensor:
    """Return how many draws are below the truth, in 0 .. n; ties are put in a random order.

    Parameters
    ----------
    draws : Tensor, shape (n, ...)
        Draws.
    truth : Tensor, shape (...)
        What they are compared with.
    generator : torch.Generator
        Orders ties, so that ranks of a quantity that takes few values are uniform too.

    Returns
    -------
    Tensor, shape (...), int64

    Raises
    ------
    DataError
        For NaN, or shapes that differ.

    Examples
    --------
    >>> rank_among(torch.tensor([1.0, 2.0, 5.0]), torch.tensor(3.0), generator=make_generator(0))
    tensor(2)
    """
    if draws.shape[1:] != truth.shape:
        raise DataError(f"expected draws of shape (n, *{tuple(truth.shape)}), got {tuple(draws.shape)}")
    if bool(draws.isnan().any()) or bool(truth.isnan().any()):
        raise DataError("expected numbers to rank, got NaN")
    draws, truth = draws.double(), truth.double()
    equal = (draws == truth).sum(0)
    tie = (uniform(tuple(equal.shape), generator, dtype=torch.float64).to(equal.device) * (equal + 1)).floor()
    return (draws < truth).sum(0) + tie.long()


def uniformity(ranks: Tensor, *, draws: int, seed: int = 0) -> Uniformity:
    """Test whether ranks are uniform on 0 .. draws.

    Parameters
    ----------
    ranks : Tensor, shape (repetitions, ...)
        From independent repetitions.
    draws : int
        The largest possible rank.
    seed : int
        Of the simulated uniform ranks that the ECDF's p-value is taken from.

    Returns
    -------
    Uniformity
        Of shape (...).

    Raises
    ------
    DataError
        If there are fewer than 2 repetitions, or ranks outside 0 .. draws.

    References
    ----------
    Talts, Betancourt, Simpson, Vehtari and Gelman (2018), Validating Bayesian inference algorithms with
    simulation-based calibration; Saeilynoja, Buerkner and Vehtari (2022), Graphical test for discrete uniformity and
    its applications in goodness-of-fit evaluation and multiple sample comparison, eq. 11.

    Examples
    --------
    >>> even, crowded = torch.arange(200) % 10, torch.arange(200) % 3
    >>> found = uniformity(torch.stack((even, crowded), 1), draws=9)
    >>> (found.combined < 0.01).tolist(), (found.ecdf < 0.01).tolist()
    ([False, True], [False, True])
    """
    n = len(ranks)
    if n < 2:
        raise DataError(f"expected ranks of at least 2 repetitions, got {n}")
    if bool(((ranks < 0) | (ranks > draws)).any()):
        raise DataError(f"expected ranks from 0 to {draws}, got {int(ranks.min())} to {int(ranks.max())}")
    flat = ranks.reshape(n, -1).cpu()
    # moments of the uniform law on (k + 1/2) / (draws + 1) - 1/2, k = 0 .. draws
    grid = (torch.arange(draws + 1).double() + 0.5) / (draws + 1) - 0.5
    second, fourth = float(grid.square().mean()), float(grid.pow(4).mean())
    u = (flat.double() + 0.5) / (draws + 1) - 0.5
    variance = fourth - second**2
    shift = _two_sided(u.mean(0) / math.sqrt(second / n))
    gap = u.square().mean(0) - second
    # two ranks have the same distance from the middle: no spread to test
    spread = torch.ones_like(shift) if variance <= 0 else _two_sided(gap / math.sqrt(variance / n))
    chi_square = _chi_square(flat, draws)
    combined = (3 * torch.stack((chi_square, shift, spread)).amin(0)).clamp(max=1.0)
    found = Uniformity(combined, chi_square, shift, spread, _ecdf(flat, draws, make_generator(seed)))
    return Uniformity(*(p.reshape(ranks.shape[1:]) for p in found))


def _two_sided(z: Tensor) -> Tensor:
    return torch.special.erfc(z.abs() / math.sqrt(2))


def _chi_square(ranks: Tensor, draws: int) -> Tensor:
    """Return the p-values of counts in bins that hold at least 5 expected ranks each."""
    n = len(ranks)
    bins = max(min(n // 5, draws + 1, 20), 2)
    # bins of unequal numbers of ranks: each expects its share
    share = torch.bincount(torch.arange(draws + 1) * bins // (draws + 1), minlength=bins).double() / (draws + 1)
    seen = torch.nn.functional.one_hot(ranks * bins // (draws + 1), bins).sum(0)
    statistic = ((seen - n * share).square() / (n * share)).sum(-1)
    return torch.special.gammaincc(torch.full_like(statistic, (bins - 1) / 2), statistic / 2)


def _ecdf(ranks: Tensor, draws: int, generator: torch.Generator) -> Tensor:
    """Return p-values of the least binomial tail probability over the distribution function's thresholds."""
    n = len(ranks)
    step = -(-draws // _THRESHOLDS)
    at = torch.arange(1, draws + 1, step)
    # log P(Bin(n, z) = c) for each threshold and count
    z, c = (at.double() / (draws + 1))[:, None], torch.arange(n + 1).double()
    choose = torch.lgamma(torch.tensor(n + 1.0).double()) - torch.lgamma(c + 1) - torch.lgamma(n - c + 1)
    mass = (choose + c * z.log() + (n - c) * torch.log1p(-z)).exp()
    below, above = mass.cumsum(1), mass.flip(1).cumsum(1).flip(1)
    tail = 2 * torch.minimum(below, above)

    def least(ranks: Tensor) -> Tensor:
        """Return the least tail probability of ranks (n, columns), shape (columns,)."""
        sort = ranks.mT.contiguous().sort(1).values
        count = torch.searchsorted(sort, at.expand(len(sort), -1).contiguous())  # ranks below each threshold
        return tail.gather(1, count.mT).amin(0)

    drawn = (uniform((n, _SIMULATIONS), generator, dtype=torch.float64).cpu() * (draws + 1)).long()
    null = least(drawn)
    found = least(ranks)
    return (1 + (null[:, None] <= found * (1 + 1e-12)).sum(0)) / (1.0 + _SIMULATIONS)
