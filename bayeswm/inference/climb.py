"""From where chains may start to where the density is high: L-BFGS for many points at once."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

# pairs that remember the curvature; steps over which a gain of so little ends the climb
_MEMORY, _PATIENCE, _GAIN = 8, 10, 0.1


def climb(
    target: Callable[[Tensor], tuple[Tensor, Tensor]], start: Tensor, *, steps: int, reach: float, worth: float
) -> tuple[Tensor, Tensor]:
    """Move each point uphill on its own, all of them in one batch (Nocedal & Wright 2006, algorithms 7.4 and 3.1).

    A step that gains too little is not taken, and the next one of that point is four times shorter. The climb ends
    early once three in four points, and all those near the highest, gain less than 0.1 in 10 steps. No point goes
    further from its start than ``reach``, so that where the density has no bound (the neck of a funnel) the chains
    stay near it.

    Parameters
    ----------
    target : callable
        Takes (n, D), returns the log density (n,) and its gradient (n, D); -inf and 0 where it is not finite.
    start : Tensor, shape (n, D)
        Points of finite density.
    steps : int
        Batched evaluations at most.
    reach : float
        Largest distance from the start.
    worth : float
        How much lower than the highest point one may be and still be waited for.

    Returns
    -------
    tuple of Tensor, shapes (n, D) and (n,)
        The points and the log density there.

    Examples
    --------
    >>> far = torch.tensor([[1.0, -1.0], [30.0, 40.0]], dtype=torch.float64)
    >>> scale = torch.tensor([1.0, 0.01], dtype=torch.float64)
    >>> def target(z):
    ...     return -0.5 * (z / scale).square().sum(-1), -z / scale**2
    >>> z, value = climb(target, far, steps=60, reach=100.0, worth=22.0)
    >>> bool((value > -0.1).all())
    True
    """
    value, gradient = target(start)
    z, share = start, torch.ones(len(start), dtype=start.dtype)
    # before anything is known of the curvature a step has length 1
    size = 1 / gradient.norm(dim=-1).clamp(min=1e-300)
    pairs: list[tuple[Tensor, Tensor, Tensor]] = []
    seen = [value]
    for _ in range(steps):
        uphill = _direction(gradient, size, pairs)
        new = z + share[:, None] * uphill
        away = new - start
        new = start + away * (reach / away.norm(dim=-1).clamp(min=reach))[:, None]
        step = new - z
        new_value, new_gradient = target(new)
        taken = new_value.isfinite() & (new_value >= value + 1e-4 * (step * gradient).sum(-1))
        change = gradient - new_gradient
        curvature = (step * change).sum(-1)
        known = taken & (curvature > 1e-10 * step.norm(dim=-1) * change.norm(dim=-1))
        pair = torch.where(known[:, None], step, 0.0), torch.where(known[:, None], change, 0.0)
        pairs = [*pairs[1 - _MEMORY :], (*pair, torch.where(known, 1 / curvature, 0.0))]
        size = torch.where(known, curvature / change.square().sum(-1).clamp(min=1e-300), size)
        z = torch.where(taken[:, None], new, z)
        value, gradient = torch.where(taken, new_value, value), torch.where(taken[:, None], new_gradient, gradient)
        share = torch.where(taken, (2 * share).clamp(max=1.0), share / 4)
        seen.append(value)
        if len(seen) > _PATIENCE:
            rising = value - seen[-1 - _PATIENCE] >= _GAIN
            near = value >= value.max() - worth
            if not bool((rising & near).any()) and int(rising.sum()) <= len(rising) // 4:
                break
    return z, value


def _direction(gradient: Tensor, size: Tensor, pairs: list[tuple[Tensor, Tensor, Tensor]]) -> Tensor:
    """Apply the remembered inverse curvature to the gradient; pairs are (step, change of slope, 1 / their product)."""
    left, shares = gradient, []
    for step, change, weight in reversed(pairs):
        shares.append(weight * (step * left).sum(-1))
        left = left - shares[-1][:, None] * change
    found = size[:, None] * left
    for (step, change, weight), share in zip(pairs, reversed(shares), strict=True):
        found = found + (share - weight * (change * found).sum(-1))[:, None] * step
    return found
