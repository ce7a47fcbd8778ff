"""A linear-Gaussian system with partial measurements, by dense algebra over the whole episode."""

from typing import NamedTuple

import torch
from torch import Tensor


class Dense(NamedTuple):
    """Exact posterior of the state path (flattened, T + 1 times S) and the log density of what was measured."""

    mean: Tensor
    covariance: Tensor
    log_density: Tensor

    def at(self, t: int, size: int) -> tuple[Tensor, Tensor]:
        """Return mean and covariance of the state at one time."""
        rows = slice(t * size, (t + 1) * size)
        return self.mean[rows], self.covariance[rows, rows]


def solve(
    A: Tensor,
    offsets: Tensor,
    *,
    start: tuple[Tensor, Tensor],
    noise: Tensor,
    columns: tuple[int, ...],
    sensor: Tensor,
    measured: Tensor,
) -> Dense:
    """Condition x[0] ~ N(start), x[t + 1] = A x[t] + offsets[t] + noise e on y[t] = x[t, columns] + sensor v.

    ``start`` is a mean and a covariance; NaN in ``measured`` (T + 1, M) was not measured.
    """
    size, steps = len(A), len(offsets)
    path, cover = [start[0]], torch.zeros((steps + 1) * size, (steps + 1) * size, dtype=A.dtype)
    cover[:size, :size] = start[1]
    for t in range(steps):
        path.append(A @ path[-1] + offsets[t])
        old, new = slice(t * size, (t + 1) * size), slice((t + 1) * size, (t + 2) * size)
        cover[new, : new.start] = A @ cover[old, : new.start]
        cover[: new.start, new] = cover[new, : new.start].mT
        cover[new, new] = A @ cover[old, old] @ A.mT + noise.square().diag()
    mean = torch.cat(path)
    pick = torch.cat([t * size + torch.tensor(columns) for t in range(steps + 1)])
    seen = ~measured.flatten().isnan()
    rows, y = pick[seen], measured.flatten()[seen]
    r = sensor.square().repeat(steps + 1)[seen].diag()
    S = cover[rows][:, rows] + r
    gain = torch.linalg.solve(S, cover[rows]).mT
    log_density = torch.distributions.MultivariateNormal(mean[rows], S).log_prob(y)
    return Dense(mean + gain @ (y - mean[rows]), cover - gain @ cover[rows], log_density)
