"""Sums over all pairs of points of exp(delta), block by block, so that no block leaves the core's cache."""

from __future__ import annotations

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
    batch, tasks, n, _ = left.shape
    square = max(n * n, 1)
    height = min(max(CHUNK // max(n, 1), 1), n)
    wide = min(max(CHUNK // square, 1), tasks)
    deep = min(max(CHUNK // (square * tasks), 1), batch)
    buffer = left.new_empty(deep * wide * height * n)
    out.zero_()
    for i in range(0, batch, deep):
        for k in range(0, tasks, wide):
            some = slice(i, i + deep), slice(k, k + wide)
            _sweep_some(
                [v[some] for v in (left, right, by, out)],
                buffer,
                small=small,
                height=height,
                back=None if back is None else [v[some] for v in back],
                reduction=None if reduction is None else [reduction[0][some[1]], *(v[some] for v in reduction[1:])],
            )


def _sweep_some(
    sides: list[Tensor],
    buffer: Tensor,
    *,
    small: bool,
    height: int,
    back: list[Tensor] | None,
    reduction: list[Tensor] | None,
) -> None:
    left, right, by, out = sides
    n = left.shape[-2]
    single = height == n
    if back is not None:
        back[1].zero_()
    if reduction is not None:
        reduction[2].zero_()
    for j in range(0, n, height):
        rows = slice(j, min(j + height, n))
        # of a symmetric matrix what is on the diagonal and above
        columns = slice(0 if reduction is None else j, n)
        part, across = left[..., rows, :], right[..., columns, :].mT
        shape = (*part.shape[:-1], across.shape[-1])
        e = buffer[: shape[0] * shape[1] * shape[2] * shape[3]].view(shape)
        torch.matmul(part, across, out=e)
        e = _series(e) if small else e.exp_()
        _add_product(e, by, out, rows=rows, columns=columns, symmetric=reduction is not None, single=single)
        if back is not None:
            back[1] += (back[0][..., None, rows] @ e)[..., 0, :]
        if reduction is not None:
            c, by_q, reduced = reduction
            c = c[:, rows, columns]
            _add_product(e.mul_(c), by_q, reduced, rows=rows, columns=columns, symmetric=True, single=single)
    if not small:
        out -= by.sum(-2, keepdim=True)
        if back is not None:
            back[1] -= back[0].sum(-1, keepdim=True)


def _add_product(
    e: Tensor, by: Tensor, out: Tensor, *, rows: slice, columns: slice, symmetric: bool, single: bool
) -> None:
    """Add what a block of a matrix contributes to the product with it."""
    if single:
        torch.matmul(e, by, out=out)
        return
    out[..., rows, :] += e @ by[..., columns, :]
    if symmetric and rows.stop < columns.stop:
        out[..., rows.stop :, :] += e[..., rows.stop - rows.start :].mT @ by[..., rows, :]


def _series(x: Tensor) -> Tensor:
    """Return exp(x) - 1 for small x."""
    return x * (1 + x * (1 / 2 + x * (1 / 6 + x * (1 / 24 + x / 120))))
