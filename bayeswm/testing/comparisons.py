"""Comparing tensors: up to rounding, and by p-values that share one budget."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def worst(difference: Tensor, limit: Tensor) -> tuple[float, tuple[int, ...]]:
    """Return the largest ratio of difference to limit and where it is; NaN counts as infinite.

    Examples
    --------
    >>> worst(torch.tensor([0.1, -4.0]), torch.tensor(2.0))
    (2.0, (1,))
    """
    if difference.numel() == 0:
        return 0.0, ()
    ratio = difference.detach().abs() / limit.detach()
    ratio = torch.where(ratio.isnan() & (difference == 0), 0.0, ratio).nan_to_num(nan=math.inf, posinf=math.inf)
    flat = int(ratio.argmax())
    where = tuple(int(i) for i in torch.unravel_index(torch.tensor(flat), ratio.shape)) if ratio.ndim else ()
    return float(ratio.flatten()[flat]), where


def normal_tail(z: Tensor) -> Tensor:
    """Return the two-sided p-value of a standard normal statistic.

    Examples
    --------
    >>> round(float(normal_tail(torch.tensor(1.96, dtype=torch.float64))), 3)
    0.05
    """
    return torch.special.erfc(z.double().abs() / math.sqrt(2.0))


def mean_p_value(samples: Tensor, mean: Tensor, variance: Tensor) -> Tensor:
    """Return p-values that samples along the first axis have this mean, their variance being known.

    Parameters
    ----------
    samples : Tensor, shape (n, ...)
        Independent draws.
    mean, variance : Tensor, broadcastable to (...)
        Of the law that they should come from.

    Returns
    -------
    Tensor, shape (...)
    """
    error = (variance.double() / len(samples)).sqrt()
    gap = samples.double().mean(0) - mean.double()
    return _tail(gap, error)


def variance_p_value(samples: Tensor, mean: Tensor, variance: Tensor) -> Tensor:
    """Return p-values that samples along the first axis have this variance around this mean.

    The standard error comes from the fourth moment of the samples, and is at least what it is for a Gaussian: with a
    smaller one, samples that scatter too little would count as evidence too easily.

    Returns
    -------
    Tensor, shape (...)
    """
    squares = (samples.double() - mean.double()).square()
    variance = variance.double().expand(squares.shape[1:])
    n = len(samples)
    error = torch.maximum(squares.var(0), 2 * variance.square()).div(n).sqrt()
    return _tail(squares.mean(0) - variance, error)


def distribution_p_value(samples: Tensor, points: Tensor, cdf: Tensor) -> Tensor:
    """Return p-values that samples along the first axis have these values of their cdf.

    The largest gap to the empirical cdf, with the bound of Dvoretzky, Kiefer, Wolfowitz and Massart, which holds for
    every law, jumps included, and every n.

    Parameters
    ----------
    samples : Tensor, shape (n, ...)
        Independent draws.
    points, cdf : Tensor, shape (k, ...)
        Where, and what the cdf is said to be there.

    Returns
    -------
    Tensor, shape (...)

    Examples
    --------
    >>> points = torch.tensor([0.25, 0.5, 0.75])
    >>> float(distribution_p_value(torch.zeros(100), points, cdf=points)) < 1e-40
    True
    """
    n = len(samples)
    share = torch.stack([(samples <= x).double().mean(0) for x in points])
    distance = (share - cdf.double()).abs().amax(0)
    distance = torch.where(samples.isnan().any(0), math.inf, distance)
    return (2 * torch.exp(-2 * n * distance.square())).clamp(max=1.0).nan_to_num(nan=0.0)


def _tail(gap: Tensor, error: Tensor) -> Tensor:
    tiny = error <= 0
    z = torch.where(tiny, torch.where(gap == 0, 0.0, math.inf), gap / torch.where(tiny, 1.0, error))
    return normal_tail(z).nan_to_num(nan=0.0)
