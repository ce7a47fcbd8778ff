"""The distribution function of a mixture at one step, and its inverse."""

from __future__ import annotations

import torch
from torch import Tensor

from bayeswm.base.density import facing
from bayeswm.base.mixture import Step, solve_quantile, weighted_mean


def step_cdf(step: Step, x: Tensor, *, work: int) -> Tensor:
    """Return P(X <= x) for each variable, marginal over worlds.

    Parameters
    ----------
    step : Step
        The mixture.
    x : Tensor, shape (*more, *batch, S)
        Where to look.
    work : int
        Values that may be in work at one time; beyond it the first axis of x is taken one by one.

    Returns
    -------
    Tensor, shape (*more, *batch, S); NaN where no particle is left
    """
    mean = step.law.mean
    if x.ndim > mean.ndim - 2 and mean.numel() * len(x) > work:
        return torch.stack([step_cdf(step, part, work=work) for part in x])
    step = facing(step, x)
    return weighted_mean(step.law.cdf(x), step.log_weight.exp(), valid=step.valid)


def step_quantile(step: Step, probability: Tensor, *, work: int) -> Tensor:
    """Return quantiles of each variable, marginal over worlds and without gradients.

    Parameters
    ----------
    step : Step
        The mixture.
    probability : Tensor, shape (*q, *1, 1)
        Between 0 and 1, ends excluded; as many axes of size 1 as the batch and the variables have.
    work : int
        As for :func:`step_cdf`.

    Returns
    -------
    Tensor, shape (*q, *batch, S); NaN where no particle is left

    Examples
    --------
    >>> from bayeswm.base.laws import Gaussian
    >>> law = Gaussian(torch.tensor([0.0, 2.0]).view(2, 1, 1), torch.ones(2, 1, 1))
    >>> step = Step(law, torch.full((2,), 0.5).log(), exhaustive=True, resolved=True)
    >>> round(float(step_quantile(step, torch.tensor([0.5]), work=2**21)), 4)
    1.0
    """
    law, valid = step.law, step.valid
    with torch.no_grad():
        mean = law.mean.double()
        spread = law.variance.double().sqrt()
        low, high = mean - 8 * spread, mean + 8 * spread
        narrow = torch.where(spread > 0, spread, float("inf"))
        if valid is not None:
            low = torch.where(valid[..., None], low, float("inf"))
            high = torch.where(valid[..., None], high, float("-inf"))
            narrow = torch.where(valid[..., None], narrow, float("inf"))
        low, high, narrow = low.amin((0, 1)), high.amax((0, 1)), narrow.amin((0, 1))
        shape = torch.broadcast_shapes(low.shape, probability.shape)
        # moves the cdf by less than 1e-11
        resolution = torch.where(narrow.isfinite(), 1e-11 * narrow, 0.0) + 1e-30
        x = solve_quantile(
            lambda x: step_cdf(step, x, work=work),
            low.expand(shape),
            high.expand(shape),
            probability=probability,
            resolution=resolution,
        )
    return x.to(law.mean.dtype)
