"""Bands that the empirical distribution of uniform values stays in as a whole, exactly."""

from __future__ import annotations

import torch
from torch import Tensor

from bayeswm.base.errors import SpecError


def ecdf_band(n: int, points: Tensor, *, level: float = 0.95) -> tuple[Tensor, Tensor]:
    """Return the ends of a band that holds the whole empirical distribution function of n uniform values.

    At each point the band is a central interval of the binomial law; how wide an interval is found so that the whole
    curve lies inside with the probability ``level`` at least, by a recursion from point to point.

    Parameters
    ----------
    n : int
        Independent values.
    points : Tensor, shape (K,)
        Where the curve is looked at, rising, between 0 and 1, ends excluded.
    level : float
        Probability that the whole curve lies inside.

    Returns
    -------
    tuple of Tensor, shape (K,)
        Lower and upper ends, as shares of n, both inside.

    Raises
    ------
    SpecError
        For arguments out of range.

    References
    ----------
    Säilynoja, Bürkner and Vehtari (2022), Graphical test for discrete uniformity, algorithm 1.

    Examples
    --------
    >>> low, high = ecdf_band(50, torch.tensor([0.25, 0.5, 0.75]))
    >>> low.numpy().round(2).tolist(), high.numpy().round(2).tolist()
    ([0.12, 0.34, 0.6], [0.4, 0.66, 0.88])
    """
    points = points.detach().cpu().double()
    rising = points.ndim == 1 and len(points) > 0 and bool((points.diff() > 0).all())
    if n < 1 or not 0 < level < 1 or not rising or not bool(((points > 0) & (points < 1)).all()):
        raise SpecError(
            f"expected n >= 1, 0 < level < 1 and rising points between 0 and 1, got {n}, {level} and {points.tolist()}"
        )
    count = torch.arange(n + 1, dtype=torch.float64)
    below = _log_binomial(count[-1], count, points[:, None]).exp().cumsum(-1)
    # pointwise tails: with the first the whole curve stays inside often enough (Bonferroni), with the second too seldom
    low, high = (1.0 - level) / len(points), 1.0 - level
    for _ in range(25):
        tail = 0.5 * (low + high)
        if _inside(n, points, _ends(below, tail)) >= level:
            low = tail
        else:
            high = tail
    # a step away from the jump, where rounding would decide
    lower, upper = _ends(below, low * (1 - 1e-9))
    return lower.double() / n, upper.double() / n


def _ends(below: Tensor, tail: float) -> tuple[Tensor, Tensor]:
    """Return the counts at which binomial distribution functions (K, n + 1) reach tail / 2 and 1 - tail / 2."""
    low = (below < tail / 2).sum(-1)
    return low, torch.maximum((below < 1 - tail / 2).sum(-1).clamp(max=below.shape[1] - 1), low)


def _inside(n: int, points: Tensor, ends: tuple[Tensor, Tensor]) -> float:
    at, mass, before = torch.zeros(1, dtype=torch.float64), torch.ones(1, dtype=torch.float64), 0.0
    for point, low, high in zip(points.tolist(), *(e.tolist() for e in ends), strict=True):
        here = torch.arange(low, high + 1, dtype=torch.float64)
        share = torch.tensor((point - before) / (1 - before), dtype=torch.float64)
        more, left = here - at[:, None], (n - at)[:, None]
        step = torch.where(more >= 0, _log_binomial(left, more.clamp(min=0), share), float("-inf"))
        mass, at, before = mass @ step.exp(), here, point
    return float(mass.sum())


def _log_binomial(n: Tensor, k: Tensor, p: Tensor) -> Tensor:
    ways = torch.lgamma(n + 1) - torch.lgamma(k + 1) - torch.lgamma(n - k + 1)
    return ways + torch.special.xlogy(k, p) + torch.special.xlogy(n - k, 1 - p)
