"""Sums over all pairs of points of exp(delta), block by block, so that no block leaves the core's cache."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

# doubles in the largest temporary: what a core keeps close to it
CHUNK = 2**17
# -log q / k(0) from which on a point is infinitely far: it adds less than exp(-FAR / 2), and exp(FAR) is finite
FAR = 600.0
# exponents up to which exp(x) - 1 is a short series, since the difference itself would have lost digits
SMALL = 1e-2


def sweep(
    left: Tensor,
    right: Tensor,
    by: Tensor,
    *,
    small: bool,
    out: Tensor,
    back: tuple[Tensor, Tensor] | None = None,
    reduction: tuple[Tensor, Tensor, Tensor] | None = None,
) -> None:
    """Fill in E @ by for E = exp(left @ right') - 1, and what else is asked for.

    Parameters
    ----------
    left, right : Tensor, shape (B, k, n, D + 2)
        Sides of the exponents, of k tasks.
    by : Tensor, shape (B, k, n, c)
        What E is multiplied with.
    small : bool
        No exponent is larger than ``SMALL``.
    out : Tensor, shape (B, k, n, c)
        Is filled in.
    back : pair of Tensor, shape (B, k, n), optional
        A row, and where to put its product with E.
    reduction : three Tensors, optional
        C of shape (k, n, n), what to multiply C * (E + 1), or C * E if exponents are small, with (B, k, n, c), and
        where to put it. Then E is taken to be symmetric, and half of it is computed.

    Examples
    --------
    >>> one, out = torch.ones(1, 1, 1, 1, dtype=torch.float64), torch.empty(1, 1, 1, 1, dtype=torch.float64)
    >>> sweep(one, one, one, small=False, out=out)
    >>> round(float(out), 4)  # e - 1
    1.7183
    """
    n, symmetric = left.shape[-2], reduction is not None
    for filled in (out, *([back[1]] if back else []), *([reduction[2]] if reduction else [])):
        filled.zero_()
    for tasks, rows in _blocks(left.shape):
        # of a symmetric matrix what is on the diagonal and right of it
        columns = slice(rows.start if symmetric else 0, n)
        e = left[(*tasks, rows)] @ right[(*tasks, columns)].mT
        e = _series(e) if small else e.exp_()
        _add_product(e, by[tasks], out[tasks], rows=rows, symmetric=symmetric)
        if back is not None:
            back[1][tasks] += (back[0][(*tasks, None, rows)] @ e)[..., 0, :]
        if reduction is not None:
            c, by_q, reduced = reduction[0][tasks[1], rows, columns], reduction[1][tasks], reduction[2][tasks]
            _add_product(e.mul_(c), by_q, reduced, rows=rows, symmetric=True)
    if not small:
        out -= by.sum(-2, keepdim=True)
        if back is not None:
            back[1].sub_(back[0].sum(-1, keepdim=True))


def _blocks(shape: torch.Size) -> Iterator[tuple[tuple[slice, slice], slice]]:
    """Split tasks (B, k) and rows n so that blocks of (B, k, rows, n) are small."""
    batch, k, n, _ = shape
    deep, wide, high = (max(CHUNK // size, 1) for size in (k * n * n, n * n, n))
    for i in range(0, batch, deep):
        for j in range(0, k, wide):
            for start in range(0, n, high):
                yield (slice(i, i + deep), slice(j, j + wide)), slice(start, min(start + high, n))


def _add_product(e: Tensor, by: Tensor, out: Tensor, *, rows: slice, symmetric: bool) -> None:
    """Add what some rows of a matrix contribute to its product; of a symmetric one, from the diagonal on."""
    if not symmetric:
        out[..., rows, :] = e @ by
        return
    out[..., rows, :] += e @ by[..., rows.start :, :]
    if rows.stop < out.shape[-2]:
        out[..., rows.stop :, :] += e[..., rows.stop - rows.start :].mT @ by[..., rows, :]


def _series(x: Tensor) -> Tensor:
    """Return exp(x) - 1 for small x."""
    return x * (1 + x * (1 / 2 + x * (1 / 6 + x * (1 / 24 + x / 120))))
