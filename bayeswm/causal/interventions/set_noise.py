"""Interventions on noise: what is done to the standard normal number of a mechanism."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.distributions import Normal

from bayeswm.base.errors import SpecError
from bayeswm.base.laws import Gaussian, Law
from bayeswm.causal.interventions.assignment import Assignment
from bayeswm.causal.interventions.overwrite import changed


class SetNoise(NamedTuple):
    """The noise instead of a standard normal number z: offset + gain * z, or offset + bend(z) where there is a bend."""

    offset: Tensor
    gain: Tensor
    bend: Callable[[Tensor], Tensor] | None = None

    @classmethod
    def of(cls, todo: Iterable[tuple[Assignment, Tensor | None]], like: Tensor) -> SetNoise:
        """Return what interventions on one noise make of it in turn, each with its values if it is hard."""
        zero, one = like.new_zeros(()), like.new_ones(())
        found = cls(zero, one)
        for done, given in todo:
            if given is not None:
                found = cls(given.to(like), zero)
            elif isinstance(done.value, Normal):
                found = cls(done.value.loc.to(like), done.value.scale.to(like))
            elif done.stochastic:
                found = cls(zero, one, done.drawn)
            else:
                found = found._replace(offset=found.offset + done.value.by)
        return found


def with_noise(law: Law, todo: Sequence[Assignment], *, column: int, step: int | Tensor) -> Gaussian:
    """Return the law of a next state of one block, the noise of one column of which is set, shifted or drawn.

    Parameters
    ----------
    law : Law
        With independent normal columns.
    todo : sequence of Assignment
        Values of the standard normal noise, shifts of it, or normal laws in its place, applied in turn.
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
        raise SpecError(f"{todo[0].name}: expected independent Gaussian noise, got {type(law).__name__}")
    found = SetNoise.of(((one, one.values(step) if one.hard else None) for one in todo), law.mean)
    mean, spread = list(law.mean.unbind(-1)), list(law.spread.unbind(-1))
    mean[column], spread[column] = mean[column] + found.offset * spread[column], found.gain * spread[column]
    centre, scale = (torch.stack(torch.broadcast_tensors(*v), -1) for v in (mean, spread))
    return Gaussian(centre, None if law.scale is None else scale, noisy=law.noisy)


def settled(one: Assignment, state: Tensor, *, step: int | Tensor, drawn: Tensor | None) -> Assignment:
    """Return what is done to a noise, with its value in this step where it is one of the state or was drawn before.

    Parameters
    ----------
    one : Assignment
        Of a noise.
    state : Tensor, shape (worlds, particles, *batch, S)
        The state before the step.
    step : int or Tensor
        Index of the step.
    drawn : Tensor, shape (worlds, particles, *batch), optional
        The draw of a law.

    Raises
    ------
    SpecError
        For several steps at once, or a callable that does not return one number for each state.
    """
    if drawn is None and (one.stochastic or not callable(one.value)):
        return one
    at = torch.as_tensor(step)
    if at.numel() != 1:
        raise SpecError(f"expected one step at a time for {one}, got {at.numel()} steps at once")
    value = changed(one, state[..., 0], state, step=step, given=drawn)
    return Assignment(one.name, value.expand(state.shape[:-1] if drawn is None else value.shape)[..., None], int(at))
