"""Whether numbers of a tensor are missing or too large, in one pass without further memory."""

from __future__ import annotations

import math

from torch import Tensor


def all_below(values: Tensor, limit: float = math.inf) -> bool:
    """Return whether every magnitude is below a limit; NaN is not.

    The smallest and the largest number are found in one pass; ``isfinite().all()`` takes several times as long.

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


def any_missing(values: Tensor) -> bool:
    """Return whether a number is NaN, from the largest one, which then is NaN.

    Examples
    --------
    >>> import torch
    >>> any_missing(torch.tensor([1.0, float("nan")])), any_missing(torch.tensor([1.0, float("inf")]))
    (True, False)
    """
    return bool(values.numel()) and math.isnan(values.detach().amax().item())
