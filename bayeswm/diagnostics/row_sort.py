"""Sorting of many rows: by NumPy on a CPU, and there the faster of two ways on the processor at hand."""

from __future__ import annotations

import functools
import time

import numpy as np
import torch
from torch import Tensor

# up to this many float64 NumPy sorts in registers; beyond it partitions first, by stores that are slow on Zen 4
_REGISTERS = 256


def by_numpy(rows: Tensor) -> bool:
    """Whether NumPy may sort: on a CPU it is four to ten times faster than torch, but knows no gradients.

    Examples
    --------
    >>> by_numpy(torch.zeros(3)), by_numpy(torch.zeros(3, requires_grad=True))
    (True, False)
    """
    return rows.device.type == "cpu" and not rows.requires_grad and rows.dtype in (torch.float64, torch.float32)


def sorted_rows(rows: Tensor) -> Tensor:
    """Return the last axis in rising order, NaN last.

    Examples
    --------
    >>> sorted_rows(torch.tensor([3.0, 1.0, 2.0])).tolist()
    [1.0, 2.0, 3.0]
    """
    return torch.from_numpy(np.sort(rows.numpy(), axis=-1)) if by_numpy(rows) else rows.sort(-1).values


def order_of_rows(rows: Tensor) -> Tensor:
    """Return the indices that put the last axis into rising order, NaN last.

    Examples
    --------
    >>> order_of_rows(torch.tensor([3.0, 1.0, 2.0])).tolist()
    [1, 2, 0]
    """
    return torch.from_numpy(np.argsort(rows.numpy(), axis=-1)) if by_numpy(rows) else rows.argsort(-1)


def sort_rows(block: np.ndarray, work: np.ndarray) -> np.ndarray:
    """Return rows in rising order; both arrays are overwritten, and the result is a view of one of them.

    Rows of 257 to 1,024 float64 may be sorted by quarters where that is faster. The result is the same.

    Parameters
    ----------
    block : array, shape (rows, n)
        Rows, C-contiguous. One that holds NaN may lose its other values.
    work : array, of the shape and type of ``block``
        Room for intermediate results.

    Returns
    -------
    array, shape (rows, n)

    Examples
    --------
    >>> sort_rows(np.array([[3.0, 1.0, 2.0]]), np.empty((1, 3))).tolist()
    [[1.0, 2.0, 3.0]]
    """
    n = block.shape[1]
    if n % 4 == 0 and _REGISTERS < n <= 4 * _REGISTERS and block.dtype == np.float64 and _quarters_pay():
        return sort_by_quarters(block, work)
    block.sort(axis=1)
    return block


def sort_by_quarters(block: np.ndarray, work: np.ndarray) -> np.ndarray:
    """Sort as :func:`sort_rows` does, by short sorts and elementwise comparisons.

    Of two sorted runs, one rising and one falling, the elementwise minima are the lower half of all values (the first
    stage of Batcher's bitonic merge). Two stages leave every value in its quarter of the row.

    Examples
    --------
    >>> sort_by_quarters(np.array([[4.0, 1.0, 3.0, 2.0]]), np.empty((1, 4))).tolist()
    [[1.0, 2.0, 3.0, 4.0]]
    """
    rows, n = block.shape
    quarter = n // 4
    # torch's elementwise functions are some three times faster here; falling runs are rising ones of opposite sign
    a, b = torch.from_numpy(block), torch.from_numpy(work)
    a4, b4 = (v.view(rows, 2, 2, quarter) for v in (a, b))
    a2, b2 = (v.view(rows, 2, n // 2) for v in (a, b))
    a.view(rows, 4, quarter)[:, 1:3].neg_()
    block.reshape(-1, quarter).sort(axis=1)
    a4[:, :, 1].neg_()
    _halve(a4, b4)
    work.reshape(-1, quarter).sort(axis=1)
    b2[:, 1].neg_()
    torch.minimum(b2[:, 0], b2[:, 1], out=a2[:, 0])
    torch.maximum(b2[:, 0], b2[:, 1], out=a2[:, 1])
    _halve(a4, b4)
    work.reshape(-1, quarter).sort(axis=1)
    return work


def _halve(values: torch.Tensor, out: torch.Tensor) -> None:
    torch.minimum(values[:, :, 0], values[:, :, 1], out=out[:, :, 0])
    torch.maximum(values[:, :, 0], values[:, :, 1], out=out[:, :, 1])


@functools.cache
def _quarters_pay() -> bool:
    """Whether quarters are faster here: some milliseconds once. It decides on time alone, never on a number."""
    given = np.sin(np.arange(32_000.0) ** 2).reshape(32, 1000)
    work = np.empty_like(given)

    def best(*, quarters: bool) -> float:
        seconds = []
        for _ in range(5):
            block = given.copy()
            began = time.perf_counter()
            sort_by_quarters(block, work) if quarters else block.sort(axis=1)
            seconds.append(time.perf_counter() - began)
        return min(seconds)

    return best(quarters=True) < 0.9 * best(quarters=False)
