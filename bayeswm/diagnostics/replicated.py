"""What each world makes of recorded starts and actions: replicated data."""

from __future__ import annotations

import warnings
from collections.abc import Iterator

import torch
from torch import Tensor

from bayeswm.base.errors import DataError, DivergenceWarning, SpecError
from bayeswm.base.random import systematic
from bayeswm.base.rollout import rollout
from bayeswm.base.schema import Variables
from bayeswm.base.trajectories import Trajectories
from bayeswm.base.worlds import Worlds

# Bytes of paths and laws in one part.
_PART = 2**26


def equally_weighted(worlds: Worlds, count: int, *, generator: torch.Generator) -> Worlds:
    """Return ``count`` worlds of equal weight: as they are, or resampled where there are fewer or weights differ.

    Examples
    --------
    >>> import bayeswm as bwm
    >>> model = bwm.KnownDynamics(structure=bwm.structures.Pendulum(), noise=0.1)
    >>> len(equally_weighted(model.draw(1), 5, generator=torch.Generator()))
    5
    """
    weight = worlds.log_weight
    if len(worlds) == count and bool((weight - weight[0]).abs().max() < 1e-9):
        return worlds
    return worlds[systematic(weight, count, generator)]


def replicate(worlds: Worlds, trajectories: Trajectories, *, generator: torch.Generator) -> Iterator[Tensor]:
    """Run worlds from the recorded starts under the recorded actions, each once.

    Parameters
    ----------
    worlds : Worlds
        Each makes one replication.
    trajectories : Trajectories
        Where episodes start, and what is done; where the state is hidden, a start is the first measurement.
    generator : torch.Generator
        Source of the noise.

    Yields
    ------
    Tensor, shape (worlds in this part, episodes, T + 1, S)
        States, or where these are hidden measurements; NaN after the end of an episode, as in the data, infinite where
        the system left the finite numbers.

    Raises
    ------
    SpecError, DataError
        If the data do not fit, or miss part of a start or an action.

    Examples
    --------
    >>> import bayeswm as bwm
    >>> model = bwm.KnownDynamics(structure=bwm.structures.Pendulum(), noise=0.1)
    >>> data = bwm.Trajectories(model.schema, state=torch.zeros(3, 6, 2), action=torch.zeros(3, 5, 1))
    >>> [part.shape for part in replicate(model.draw(1), data, generator=torch.Generator())]
    [torch.Size([1, 3, 6, 2])]
    """
    trajectories = worlds.comparable(trajectories)
    measured = worlds.state_is_measured
    seen = recorded(worlds, trajectories)
    begin = seen[:, 0]
    if measured and bool(begin.isnan().any()):
        raise DataError("expected episodes that start from a recorded state, some miss part of it")
    nothing = torch.zeros_like(trajectories.lengths)
    start = begin if measured else trajectories._slices(nothing, nothing)
    inside = trajectories.step_mask[..., None]
    actions = torch.where(inside, trajectories.action, 0.0)
    context = torch.where(inside, trajectories.step_context(), 0.0) if trajectories.schema.context.size else None
    size = worlds.schema.state.size
    share = max(1, _PART // (3 * 8 * max(1, len(trajectories) * trajectories.horizon * size)))
    for at in range(0, len(worlds), share):
        part = worlds[at : at + share]
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore", DivergenceWarning)  # said by infinite values
            made = rollout(
                part,
                start,
                actions,
                particles=1,
                generator=generator,
                context=context,
                of="state" if measured else "measurement",
            )
        paths = made.particles[:, 0].masked_fill(made.diverged[:, 0, ..., None], float("inf"))
        paths = torch.cat((begin.to(paths)[None, :, None].expand(len(paths), -1, 1, -1), paths), 2)
        after = torch.cat((torch.ones_like(inside[:, :1]), inside), 1).to(paths.device)
        yield torch.where(after, paths, float("nan"))


def recorded(worlds: Worlds, trajectories: Trajectories) -> Tensor:
    """Return what replications are compared with, shape (episodes, T + 1, S): states, or measurements."""
    return trajectories.states() if worlds.state_is_measured else trajectories.measured_as(worlds.schema)


def measured_variables(worlds: Worlds) -> Variables:
    """Return the variables of :func:`recorded`."""
    return worlds.schema.state if worlds.state_is_measured else worlds.schema.measured


def simulated(worlds: Worlds, trajectories: Trajectories, *, generator: torch.Generator) -> Trajectories:
    """Return the trajectories with states as one world makes them.

    Raises
    ------
    SpecError
        If the state is hidden: then nothing says where it starts.
    DataError
        If the system leaves the finite numbers.

    Examples
    --------
    >>> import bayeswm as bwm
    >>> model = bwm.KnownDynamics(structure=bwm.structures.Pendulum(), noise=0.1)
    >>> data = bwm.Trajectories(model.schema, state=torch.zeros(3, 6, 2), action=torch.zeros(3, 5, 1))
    >>> simulated(model.draw(1), data, generator=torch.Generator()).state.std() > 0
    tensor(True)
    """
    if not worlds.state_is_measured:
        raise SpecError(
            "expected a model whose state is measured, got a hidden one: the design must say where it starts, pass a "
            "function that takes worlds and a generator and returns Trajectories"
        )
    (states,) = replicate(worlds, trajectories, generator=generator)
    if bool(states.isinf().any()):
        raise DataError("the simulated system left the finite numbers")
    return Trajectories(
        worlds.schema,
        state=states[0],
        action=trajectories.action if worlds.schema.action.size else None,
        context=trajectories.context if worlds.schema.context.size else None,
        lengths=trajectories.lengths,
        episode=trajectories.episode,
        start=trajectories.start,
    )
