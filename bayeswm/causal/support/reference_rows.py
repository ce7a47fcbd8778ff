"""Where a log's states and actions lie, and how far others are from them."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from bayeswm.base.errors import DataError

# rows of the log that distances are taken to; more of them are thinned out evenly
_ROWS = 2048
# standard deviations below which a column counts as constant, as a share of its size
_CONSTANT = 1e-9


class ReferenceRows:
    """Rows of a log in units of their own standard deviations.

    Parameters
    ----------
    rows : Tensor, shape (n, d)
        Coordinates of the logged states and actions.
    recording : Tensor of int, shape (n,)
        Where each row came from.
    level : float
        Share of the log's own rows that count as inside its support.

    Attributes
    ----------
    radius : float
        Distance up to which a point is inside the support: the quantile ``level`` of the distances of the log's own
        rows to the nearest row of another recording (to another row, where there is only one recording).

    Raises
    ------
    DataError
        For fewer than two rows: there is nothing to compare a row with.

    Examples
    --------
    >>> rows = ReferenceRows(torch.arange(9.0)[:, None], torch.arange(9), level=0.9)
    >>> rows.distance(torch.tensor([[3.5], [20.0]])).div(rows.radius).round(decimals=3)
    tensor([ 0.5000, 12.0000], dtype=torch.float64)
    """

    def __init__(self, rows: Tensor, recording: Tensor, *, level: float) -> None:
        rows = rows.double()
        if len(rows) < 2:
            raise DataError(f"expected a log of at least two steps, to see how far they are apart, got {len(rows)}")
        kept = torch.linspace(0, len(rows) - 1, min(len(rows), _ROWS), device=rows.device).round().long()
        self.total, recording = len(rows), recording[kept]
        self.center = rows.mean(0)
        # a column that never changes has no scale: whatever departs from it is far away
        least = _CONSTANT * self.center.abs().clamp(min=1.0)
        self.scale = rows.std(0).clamp(min=least)
        self.rows = self._standard(rows[kept])
        apart = recording[:, None] != recording
        if not bool(apart.any()):
            apart = ~torch.eye(len(recording), dtype=torch.bool, device=recording.device)
        own = _between(self.rows, self.rows).masked_fill(~apart, torch.inf).amin(-1)
        self.radius = float(own.quantile(level, interpolation="higher"))
        covariance = self.rows.mT @ self.rows / max(len(self.rows) - 1, 1)
        # Scott's rule, with the covariance of the rows as the kernel's shape
        value, vector = torch.linalg.eigh(covariance)
        width = len(self.rows) ** (-1 / (self.rows.shape[1] + 4))
        self.kernel = vector / (width * value.clamp(min=_CONSTANT**2).sqrt())
        self._density = self._log_kernels(self.rows).logsumexp(0)

    def distance(self, points: Tensor) -> Tensor:
        """Return how far points (k, d) are from the nearest row, in standard deviations, shape (k,)."""
        return _between(self._standard(points.double()), self.rows).amin(-1)

    def effective_rows(self, points: Tensor, weight: Tensor) -> float:
        """Return how many of the rows (of at most 2,048) effectively speak about points (k, d) of weight (k,).

        The rows are weighed by the density of the points over that of the rows, both by Gaussian kernels of the same
        width; the effective sample size of these weights, ``(sum w)^2 / sum w^2``, is that of an importance sample.
        """
        density = (self._log_kernels(self._standard(points.double())) + weight.log()[:, None]).logsumexp(0)
        log_weight = density - self._density
        return math.exp(2 * float(log_weight.logsumexp(0)) - float((2 * log_weight).logsumexp(0)))

    def _standard(self, points: Tensor) -> Tensor:
        return (points - self.center) / self.scale

    def _log_kernels(self, points: Tensor) -> Tensor:
        """Return the kernel of each point (k, d) at each row, shape (k, n), but for a constant."""
        return -0.5 * _between(points @ self.kernel, self.rows @ self.kernel).square()


def _between(first: Tensor, second: Tensor) -> Tensor:
    """Return distances (k, n), of equal points exactly 0."""
    return torch.cdist(first, second, compute_mode="donot_use_mm_for_euclid_dist")
