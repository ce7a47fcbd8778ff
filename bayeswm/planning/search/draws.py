"""Random candidates: the same draws for every start, so that a plan does not depend on what else is planned."""

from __future__ import annotations

import torch
from torch import Tensor

from bayeswm.base.errors import SpecError
from bayeswm.base.random import standard_normal, uniform
from bayeswm.planning.problem import Problem


def evenly(problem: Problem, count: int, generator: torch.Generator | None) -> Tensor:
    """Draw action sequences uniformly between the bounds, shape (count, *(1 for each axis of starts), H, A).

    Raises
    ------
    SpecError
        Without a generator, or for more than fits into memory.
    """
    low, high = problem.limits.low, problem.limits.high
    drawn = uniform(_shape(problem, count), _needed(generator), dtype=low.dtype, device=low.device)
    return low + (high - low) * drawn


def normally(problem: Problem, count: int, generator: torch.Generator | None, *, exponent: float = 0.0) -> Tensor:
    """Draw standard normal noise of a given colour along the horizon, shaped as in :func:`evenly`.

    Raises
    ------
    SpecError
        Without a generator.
    """
    low = problem.limits.low
    white = standard_normal(_shape(problem, count), _needed(generator), dtype=low.dtype, device=low.device)
    return white if exponent == 0 else colored(white, exponent)


def colored(white: Tensor, exponent: float) -> Tensor:
    """Filter white noise so that its power falls with the frequency as ``1 / f^exponent``; the variance stays.

    0 is white noise, 1 pink, 2 red, which changes slowly. The lowest power is that of one period over the horizon, also
    for the mean (Timmer & Koenig 1995; used for planning by Pinneri et al. 2020).

    Parameters
    ----------
    white : Tensor, shape (..., H, A)
        Standard normal noise.
    exponent : float
        How fast the power falls.

    Returns
    -------
    Tensor, shape (..., H, A)
        Noise of variance 1 at each step, the same at all.

    Examples
    --------
    >>> white = torch.randn(1000, 30, 1, generator=torch.Generator().manual_seed(0))
    >>> [round(float(colored(white, exponent).diff(dim=-2).std()), 1) for exponent in (0.0, 1.0, 2.0)]
    [1.4, 0.9, 0.5]
    """
    steps = white.shape[-2]
    frequency = torch.fft.rfftfreq(steps, dtype=white.dtype, device=white.device).clamp(min=1.0 / steps)
    gain = frequency ** (-exponent / 2)
    # of both signs of each frequency; the mean and the highest one of an even number of steps have one only
    both = torch.cat((gain, gain[1 : (steps + 1) // 2]))
    gain = gain / both.square().mean().sqrt()
    return torch.fft.irfft(torch.fft.rfft(white, dim=-2) * gain[:, None], n=steps, dim=-2)


def _shape(problem: Problem, count: int) -> tuple[int, ...]:
    problem.check_fits(count)
    return (count, *(1,) * len(problem.starts), problem.horizon, len(problem.limits.low))


def _needed(generator: torch.Generator | None) -> torch.Generator:
    if generator is None:
        raise SpecError("expected generator=torch.Generator to draw candidates, got none")
    return generator
