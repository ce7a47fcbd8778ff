"""Noise that recorded episodes do not settle, as one vector."""

from __future__ import annotations

from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from bayeswm.base.worlds import Belief, Noise, Worlds


def slack(dtype: torch.dtype) -> float:
    """Return the departure from what should hold exactly, as a share of the numbers involved, that rounding explains.

    Examples
    --------
    >>> slack(torch.float64), slack(torch.float32)
    (1e-09, 0.0001)
    """
    return 1e-9 if dtype == torch.float64 else 1e-4


class Fit(NamedTuple):
    """What values of the free noise make of recorded episodes.

    Attributes
    ----------
    noise : Noise
        All noise: free, and what follows from it and the records.
    solved : Tensor, shape (worlds, particles, episodes, R)
        Residuals in standard deviations: their density under N(0, I) is that of what was recorded, times
    log_scale : Tensor, shape (worlds, particles, episodes)
        the exponential of minus this.
    gap : Tensor, shape (worlds, particles, episodes, G)
        What has to be 0.
    """

    noise: Noise
    solved: Tensor
    log_scale: Tensor
    gap: Tensor


class FreeNoise(Protocol):
    """Recorded episodes, and the noise that they do not settle."""

    @property
    def worlds(self) -> Worlds:
        """The system."""
        ...

    @property
    def start(self) -> Belief:
        """Where the episodes begin."""
        ...

    @property
    def size(self) -> int:
        """Values of the free noise in each episode."""
        ...

    @property
    def episodes(self) -> int:
        """Episodes."""
        ...

    @property
    def records(self) -> int:
        """Residuals and gaps of an episode."""
        ...

    def fit(self, values: Tensor) -> Fit:
        """Return what values (worlds, particles, episodes, size) make of the records."""
        ...
