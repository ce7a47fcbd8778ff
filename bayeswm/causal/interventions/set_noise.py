"""Interventions on the noise of a system that is one block."""

from __future__ import annotations

from torch import Tensor

from bayeswm.base.errors import SpecError
from bayeswm.base.laws import Gaussian, Law
from bayeswm.causal.interventions.assignment import Assignment


def with_noise(law: Law, one: Assignment, *, column: int, step: int | Tensor) -> Gaussian:
    """Return the law of a next state, the noise of one column of which is set or shifted.

    Parameters
    ----------
    law : Law
        With independent normal columns.
    one : Assignment
        A value of the standard normal noise, or a shift of it.
    column : int
        Of the state.
    step : int or Tensor
        Index of the step.

    Raises
    ------
    SpecError
        If the noise is not independent and normal.
    """
    if not isinstance(law, Gaussian):
        raise SpecError(f"{one.name}: expected independent Gaussian noise, got {type(law).__name__}")
    mean, spread = law.mean.clone(), law.spread.clone()
    by = one.values(step).to(mean) if one.hard else one.value.by
    mean[..., column] = mean[..., column] + by * spread[..., column]
    if one.hard:
        spread[..., column] = 0.0
    return Gaussian(mean, None if law.scale is None else spread, noisy=law.noisy)
