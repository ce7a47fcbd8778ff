"""Whether all numbers of a tensor are small enough, in one pass."""

from __future__ import annotations

import math

from torch import Tensor


def all_below(values: Tensor, limit: float = math.inf) -> bool:
    """Return whether every magnitude is below a limit; NaN is not.

    The smallest and the largest number are found in one pass without further memory; ``isfinite().all()`` takes several
    times as long.

    Examples
    --------
    >>> import torch
    >>> all_below(torch.tensor([1.0, -3.0])), all_below(torch.tensor([1.0, -3.0]), 3.0)
    (True, False)
    >>> all_below(torch.tensor([1.0, float("nan")])), all_below(torch.empty(0))
    (False, True)
    """
    if not values.numel():
        return True
    low, high = values.detach().aminmax()
    return -limit < low.item() and high.item() < limit
