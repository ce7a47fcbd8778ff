"""Where episodes start: given states, a law of them, or a function that draws them."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from bayeswm.base.errors import DataError, SpecError
from bayeswm.base.laws import Law
from bayeswm.base.random import standard_normal

Start = Tensor | Law | Callable[[int, torch.Generator], Tensor]


def draw_starts(start: Start, rows: int, *, generator: torch.Generator, like: Tensor) -> Tensor:
    """Return one start state for each row.

    Parameters
    ----------
    start : Tensor of shape (S,) or (rows, S), Law of means (1, 1, S), or callable
        Known states, a law, or a function of the number of rows and a generator that returns states (rows, S).
    rows : int
        How many.
    generator : torch.Generator
        Source of randomness.
    like : Tensor, shape (S,)
        Number format and size of a state.

    Returns
    -------
    Tensor, shape (rows, S)

    Raises
    ------
    DataError, SpecError
        For a wrong shape, NaN, or a law in several worlds.

    Examples
    --------
    >>> from bayeswm.base.laws import Gaussian
    >>> law = Gaussian(torch.zeros(1, 1, 2), torch.tensor([0.1, 0.0]))
    >>> draw_starts(law, 3, generator=torch.Generator().manual_seed(0), like=torch.zeros(2)).shape
    torch.Size([3, 2])
    """
    if isinstance(start, Law):
        if start.mean.ndim != 3 or start.mean.shape[:2] != (1, 1):
            raise SpecError(f"expected a law of start states with means of shape (1, 1, S), got {start.mean.shape}")
        law = start.map(lambda v: v.unsqueeze(2))
        shape = (1, 1, rows, law.noise_size)
        found = law.push(standard_normal(shape, generator, dtype=law.mean.dtype, device=law.mean.device))[0, 0]
    else:
        found = torch.as_tensor(start(rows, generator) if callable(start) else start)
    found = found.to(like)
    if found.shape not in ((len(like),), (rows, len(like)), (1, len(like))) or not bool(found.isfinite().all()):
        raise DataError(f"expected finite start states of shape {(rows, len(like))}, got {tuple(found.shape)}")
    return found.expand(rows, len(like))
