"""Points and weights for expectations over normal numbers."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from torch import Tensor


@lru_cache(maxsize=32)
def hermite_grid(size: int, order: int) -> tuple[Tensor, Tensor]:
    """Return the product of Gauss-Hermite rules over independent N(0, 1) numbers, in double precision.

    Exact for polynomials of a degree below twice the order in each number. Kept: not to be changed in place.

    Parameters
    ----------
    size : int
        Numbers.
    order : int
        Points along each.

    Returns
    -------
    tuple of Tensor, shape (order ** size, size), and Tensor, shape (order ** size,)
        Points, the last number the fastest, and weights that sum to 1.

    Examples
    --------
    >>> points, weight = hermite_grid(2, 3)
    >>> round((weight * points[:, 0] ** 4).sum().item(), 6)
    3.0
    """
    with torch.inference_mode(False):  # kept, they must serve gradients later
        nodes, weight = (torch.from_numpy(v) for v in np.polynomial.hermite_e.hermegauss(order))
        one = torch.ones(1, dtype=torch.float64)  # in front: there may be no numbers
        points = torch.cartesian_prod(one, *[nodes] * size).view(-1, 1 + size)[:, 1:]
        weights = torch.cartesian_prod(one, *[weight / weight.sum()] * size).view(-1, 1 + size).prod(-1)
    return points, weights


@lru_cache(maxsize=32)
def sobol_normal(size: int, count: int) -> tuple[Tensor, Tensor]:
    """Return quasi-random N(0, 1) numbers and equal weights, always the same, where a grid has too many points.

    Parameters
    ----------
    size : int
        Numbers.
    count : int
        Points.

    Returns
    -------
    tuple of Tensor, shape (count, size), and Tensor, shape (count,)
        In double precision. Kept: not to be changed in place.

    Examples
    --------
    >>> points, weight = sobol_normal(9, 4096)
    >>> abs((weight * points[:, 0] ** 2).sum().item() - 1) < 0.01
    True
    """
    with torch.inference_mode(False):
        unit = torch.quasirandom.SobolEngine(size, scramble=True, seed=0).draw(count, dtype=torch.float64)
        return torch.special.ndtri(unit.clamp(1e-9, 1 - 1e-9)), torch.full((count,), 1 / count, dtype=torch.float64)
