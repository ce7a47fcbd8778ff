"""Imagined trajectories as forecasts that their worlds may map, such as those of a recalibrated model."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from bayeswm.base.laws import Law
from bayeswm.base.predictive import Predictive
from bayeswm.base.rollout import divergence_limit
from bayeswm.base.worlds import Worlds


def finished(worlds: Worlds, laws: Sequence[Law], states: Tensor, *, fresh_worlds: bool) -> Tensor:
    """Return trajectories as :meth:`Worlds.finish` maps them, for all candidates in one call.

    Parameters
    ----------
    worlds : Worlds
        Where they were imagined.
    laws : sequence of Law
        For each step, the law in each world given the particle's past.
    states : Tensor, shape (worlds, particles, *batch, H + 1, S)
        What the steps led to, the start included.
    fresh_worlds : bool
        Whether each particle met a new world at each step.

    Returns
    -------
    Tensor, shape (worlds, particles, *batch, H + 1, S)
        The start as it was; particles that diverged are left as they are.
    """
    limit = divergence_limit(states.dtype)
    reached = states[..., 1:, :].movedim(-2, 0)
    diverged = ~(reached.detach().abs() < limit).all(-1)
    lost = bool(diverged.any())
    forecast = Predictive(
        worlds.schema.state,
        laws,
        worlds.log_weight,
        exhaustive=worlds.exhaustive,
        time_step=worlds.schema.time_step,
        particles=reached,
        initial=states[..., 0, :],
        diverged=diverged.cummax(0).values if lost else None,
        fresh_worlds=fresh_worlds,
    )
    mapped = worlds.finish(forecast).particles
    if lost:
        mapped = torch.where(diverged.movedim(0, -1)[..., None], states[..., 1:, :], mapped)
    return torch.cat((states[..., :1, :], mapped), -2)
