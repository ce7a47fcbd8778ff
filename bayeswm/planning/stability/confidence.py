"""Exact confidence intervals of shares."""

from __future__ import annotations

import torch
from torch import Tensor

from bayeswm.base.errors import SpecError


def clopper_pearson(successes: Tensor, trials: int, level: float = 0.95) -> tuple[Tensor, Tensor]:
    """Return the exact confidence interval of a probability (Clopper & Pearson 1934).

    Parameters
    ----------
    successes : Tensor of int
        How many of the trials succeeded; any shape.
    trials : int
        How many there were, independent of each other; at least 1.
    level : float
        Probability that the interval holds the true value, at least; between 0 and 1.

    Returns
    -------
    tuple of Tensor, shape of successes, float64
        Lower and upper end.

    Raises
    ------
    SpecError
        If the numbers do not fit together.

    Examples
    --------
    >>> clopper_pearson(torch.tensor([0, 9, 10]), 10)
    (tensor([0.0000, 0.5550, 0.6915], dtype=torch.float64), tensor([0.3085, 0.9975, 1.0000], dtype=torch.float64))
    """
    if trials < 1 or not 0 < level < 1:
        raise SpecError(f"expected trials >= 1 and a level between 0 and 1, got {trials} and {level}")
    if successes.is_floating_point() or bool(((successes < 0) | (successes > trials)).any()):
        raise SpecError(f"expected whole numbers of successes from 0 to {trials}, got {successes}")
    tail = (1 - level) / 2
    lower = _reaching(successes, trials, tail)
    # failures are successes of the other side
    return lower, 1 - _reaching(trials - successes, trials, tail)


def _reaching(count: Tensor, trials: int, tail: float) -> Tensor:
    """Return the probability at which ``count`` or more successes have probability ``tail``; 0 for none."""
    distinct, place = count.unique(return_inverse=True)
    k = torch.arange(trials + 1, dtype=torch.float64, device=count.device)
    ways = torch.lgamma(k[-1] + 1) - torch.lgamma(k + 1) - torch.lgamma(k[-1] - k + 1)
    low = torch.zeros(len(distinct), 1, dtype=torch.float64, device=count.device)
    high = torch.ones_like(low)
    above = k >= distinct[:, None]
    for _ in range(60):
        middle = (low + high) / 2
        log_mass = ways + k * middle.log() + (k[-1] - k) * torch.log1p(-middle)
        reached = torch.where(above, log_mass.exp(), 0.0).sum(-1, keepdim=True) >= tail
        low, high = torch.where(reached, low, middle), torch.where(reached, middle, high)
    return torch.where(distinct > 0, ((low + high) / 2)[:, 0], 0.0)[place]
