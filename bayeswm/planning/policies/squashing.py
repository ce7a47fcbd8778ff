"""Smooth ways to keep an action within its bounds."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

# maps any number to [-1, 1], with value 0 and slope 1 at 0
Squash = Callable[[Tensor], Tensor]


def saturating_sine(x: Tensor) -> Tensor:
    """Return ``(9 sin(2 x / 3) + sin(2 x)) / 8``, which is flat at -1 and 1 and turns round beyond.

    Unlike tanh it reaches the bounds, at ``x = 3 pi / 4``, and has moments in closed form.

    Parameters
    ----------
    x : Tensor
        Any numbers. The slope at 0 is 1.

    Returns
    -------
    Tensor
        As large as ``x``, from -1 to 1.

    References
    ----------
    Deisenroth and Rasmussen (2011), PILCO, where the argument is 1.5 times as steep.

    Examples
    --------
    >>> x = torch.pi * torch.tensor([0.0, 0.75, 1.0], dtype=torch.float64)
    >>> saturating_sine(x).numpy().round(4).tolist()
    [0.0, 1.0, 0.9743]
    """
    return (9 * torch.sin(x * (2 / 3)) + torch.sin(2 * x)) / 8
