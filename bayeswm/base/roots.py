"""Square roots of many small covariances at once, singular ones among them."""

from __future__ import annotations

import torch
from torch import Tensor

from bayeswm.base.errors import EstimateWarning
from bayeswm.base.predictive import warn_caller


def factor(covariance: Tensor) -> Tensor:
    """Return the lower Cholesky factor of many small matrices whose rows and columns come first, (S, S, ...).

    A direction without variance (a pivot of rounding size) gives a column of zeros instead of an error or an infinite
    gradient. With the lanes last, every operation runs over all of them: several times faster than LAPACK on millions
    of 2 x 2 matrices.

    Examples
    --------
    >>> factor(torch.tensor([[4.0, 2.0, 0.0], [2.0, 1.0, 0.0], [0.0, 0.0, 9.0]])).tolist()
    [[2.0, 0.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 3.0]]
    """
    size, rest, columns = covariance.shape[0], covariance, list[Tensor]()
    tiny = 100 * torch.finfo(covariance.dtype).eps
    for j in range(size):
        pivot = rest[0, 0]
        # 1 / sqrt(inf) is 0, and so is its gradient
        column = rest[:, 0] * pivot.masked_fill(pivot <= tiny * covariance[j, j], torch.inf).rsqrt()
        columns.append(torch.cat((column.new_zeros(j, *column.shape[1:]), column)) if j else column)
        if j < size - 1:
            rest = rest[1:, 1:] - column[1:, None] * column[None, 1:]
    return torch.stack(columns, 1)


def front(matrix: Tensor) -> Tensor:
    """Put rows and columns first."""
    return matrix.movedim((-2, -1), (0, 1))


def back(matrix: Tensor) -> Tensor:
    """Put rows and columns last again."""
    return matrix.movedim((0, 1), (-2, -1))


def semidefinite(covariance: Tensor) -> Tensor:
    """Return which matrices are covariances within rounding, shape (...): those that have a root.

    What :func:`factor` cuts off changes an entry by at most the square root of 100 eps of the variances; ten times
    that is allowed. NaN counts as a covariance: it is not for this function to say what happened.
    """
    with torch.no_grad():
        root, scale = back(factor(front(covariance))), covariance.diagonal(dim1=-2, dim2=-1).clamp(min=0).sqrt()
        allowed = 10 * (100 * torch.finfo(covariance.dtype).eps) ** 0.5 * scale[..., :, None] * scale[..., None, :]
        wrong = (root @ root.mT - covariance).tril().abs() > allowed
    return ~wrong.any(-1).any(-1)


def covariance_root(covariance: Tensor) -> Tensor:
    """Return lower-triangular roots of covariances, shape (..., S, S), singular ones and 0 included.

    Eigenvalues that rounding made negative are taken for 0. Larger negative ones (a cubature rule with negative
    weights, far from Gaussian) are set to 0 too, with a warning.

    Warns
    -----
    EstimateWarning
        If eigenvalues are negative beyond rounding.

    Examples
    --------
    >>> covariance_root(torch.tensor([[4.0, 2.0], [2.0, 1.0]])).tolist()
    [[2.0, 0.0], [1.0, 0.0]]
    """
    good = semidefinite(covariance)
    if not bool(good.all()):
        bad = ~good[..., None, None]
        identity = torch.eye(covariance.shape[-1], dtype=covariance.dtype, device=covariance.device)
        # no derivative of equal eigenvalues: matrices that need no repair are kept out
        value, vector = torch.linalg.eigh(torch.where(bad, (covariance + covariance.mT) / 2, identity))
        repaired = (vector * value.clamp(min=0)[..., None, :]) @ vector.mT
        covariance = torch.where(bad, repaired, covariance)
        ratio = value.detach().amin(-1) / value.detach().abs().amax(-1)
        share = float(ratio[~good].min())
        warn_caller(
            f"{int((~good).sum())} covariance(s) had negative eigenvalues, down to {share:.1%} of the largest, and "
            "were repaired by setting these to 0; use a method with positive weights (Unscented) or particles",
            EstimateWarning,
        )
    return back(factor(front(covariance)))
