"""Normal numbers that are kept between bounds."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from bayeswm.base.laws import Gaussian
from bayeswm.causal.interventions.changes import Clamp


class Kept:
    """Independent normal numbers, some of them kept between bounds.

    Parameters
    ----------
    mean, sd : Tensor, shape (..., S)
        Before the bounds.
    bounds : tuple of Clamp or None
        Of each column.
    """

    def __init__(self, mean: Tensor, sd: Tensor, *, bounds: tuple[Clamp | None, ...]) -> None:
        self.normal, self.bounds = Gaussian(mean, sd), bounds
        found = [
            (m, s.square()) if bound is None else _clamped(m, s, bound)
            for m, s, bound in zip(mean.unbind(-1), sd.unbind(-1), bounds, strict=True)
        ]
        self.mean, self.variance = (torch.stack(v, -1) for v in zip(*found, strict=True))

    def cdf(self, state: Tensor) -> Tensor:
        """Return P(column <= state), shape (..., S)."""
        found = list(self.normal.cdf(state).unbind(-1))
        for i, bound in enumerate(self.bounds):
            if bound is not None and bound.low is not None:
                found[i] = torch.where(state[..., i] < bound.low, 0.0, found[i])
            if bound is not None and bound.high is not None:
                found[i] = torch.where(state[..., i] >= bound.high, 1.0, found[i])
        return torch.stack(found, -1)


def _clamped(mean: Tensor, sd: Tensor, bound: Clamp) -> tuple[Tensor, Tensor]:
    """Return mean and variance of a normal number that is kept between bounds."""
    noisy = sd > 0
    safe = torch.where(noisy, sd, 1.0)
    # of the standard normal number: what lies within the bounds, and the masses at them
    first, second, inside = torch.zeros_like(mean), torch.zeros_like(mean), torch.ones_like(mean)
    for edge, sign in ((bound.low, 1.0), (bound.high, -1.0)):
        if edge is not None:
            z = (edge - mean) / safe
            density, mass = torch.exp(-0.5 * z.square()) / math.sqrt(2 * math.pi), torch.special.ndtr(sign * z)
            first = first + sign * density + z * mass
            second = second + sign * z * density + z.square() * mass
            inside = inside - mass
    variance = (second + inside - first.square()).clamp(min=0) * safe.square()
    return torch.where(noisy, mean + safe * first, bound.apply(mean)), torch.where(noisy, variance, 0.0)
