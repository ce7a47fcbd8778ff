"""Importance weights and what they are worth."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from bayeswm.base.errors import FitError

# draws that a tail of 5 takes, the least from which its shape is told
_FEWEST = 25


class Weights(NamedTuple):
    """Smoothed importance weights.

    ``log_weight`` has shape (n,) and is normalised; ``size`` is the effective sample size, ``pareto_k`` the shape of
    the tail: below 0.7 the weights can be relied on.
    """

    log_weight: Tensor
    size: float
    pareto_k: float


def smooth_weights(log_ratio: Tensor) -> Weights:
    """Return Pareto-smoothed importance weights (Vehtari, Simpson, Gelman, Yao & Gabry 2024).

    Parameters
    ----------
    log_ratio : Tensor, shape (n,)
        Log of the new density over the old one at each draw, up to a constant.

    Returns
    -------
    Weights

    Raises
    ------
    FitError
        If the effective sample size is below a tenth of the draws, or Pareto k above 0.7.

    Examples
    --------
    >>> draws = torch.randn(4000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    >>> weights = smooth_weights(0.5 * draws)  # towards N(0.5, 1)
    >>> round(float(weights.log_weight.exp() @ draws), 1), weights.pareto_k < 0.7
    (0.5, True)
    """
    weights = pareto_smooth(log_ratio)
    _, size, k = weights
    if size < 0.1 * len(log_ratio) or not k <= 0.7:
        raise FitError(
            f"expected weights worth a tenth of {len(log_ratio)} draws and Pareto k <= 0.7, got {size:.0f} and "
            f"{k:.2f}: the new data say too much; fit again on Trajectories.concatenate([old, new])"
        )
    return weights


def pareto_smooth(log_ratio: Tensor) -> Weights:
    """Return Pareto-smoothed importance weights, whatever they are worth.

    Parameters
    ----------
    log_ratio : Tensor, shape (n,)
        Log of the new density over the old one at each draw, up to a constant; Pareto k is infinite where fewer
        than 25 are finite.

    Examples
    --------
    >>> draws = torch.randn(4000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    >>> pareto_smooth(draws**2).pareto_k > 0.7  # towards a law with heavier tails
    True
    """
    from arviz_stats.base.array import array_stats

    finite = log_ratio.isfinite()
    size, k = 0.0, float("inf")
    log_weight = log_ratio
    if int(finite.sum()) >= _FEWEST:
        # draws of zero density keep the weight zero: the tail is fitted to the others
        known = log_ratio[finite].detach().double()
        if float(known.max() - known.min()) < 1e-12:
            smoothed, shape = known.numpy(), 0.0  # equal weights have no tail
        else:
            smoothed, shape = array_stats.psislw(-known.numpy())
        log_weight = torch.full_like(log_ratio, -torch.inf, dtype=torch.float64)
        log_weight[finite] = torch.log_softmax(torch.as_tensor(smoothed, dtype=torch.float64), 0)
        size, k = float(1 / log_weight.exp().square().sum()), float(shape)
    return Weights(log_weight, size, k)
