"""Parameters with a population and episodes: which numbers that adds, and steps where each lane has its own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import override

import torch
from torch import Tensor
from torch.distributions import Distribution, Normal

from bayeswm.base.hierarchy import Hierarchical
from bayeswm.base.schema import Schema, Variable
from bayeswm.base.structure import Parameter, Parameters, Structure

LOCATION, SCALE, EPISODE = "location", "scale", "episode"


def levels_of(structure: Structure) -> dict[str, Hierarchical]:
    """Return the parameters of a structure that differ between episodes."""
    return {k: p.value for k, p in structure.parameters().items() if isinstance(p.value, Hierarchical)}


def sites(levels: Mapping[str, Hierarchical], episodes: int) -> dict[str, Tensor | Distribution]:
    """Return the law or value of every number behind the levels, under the names ``<parameter>.<level>``.

    Examples
    --------
    >>> from torch.distributions import HalfNormal
    >>> list(sites({"mass": Hierarchical(1.0, HalfNormal(0.1), relative=True)}, 3))
    ['mass.location', 'mass.scale', 'mass.episode']
    """
    one = torch.ones(episodes, dtype=torch.float64)
    found: dict[str, Tensor | Distribution] = {}
    for name, law in levels.items():
        for part, value in ((LOCATION, law.location), (SCALE, law.scale)):
            given = value if isinstance(value, Distribution) else torch.as_tensor(value, dtype=torch.float64)
            found[f"{name}.{part}"] = given
        found[f"{name}.{EPISODE}"] = Normal(0 * one, one)
    return found


def in_episodes(levels: Mapping[str, Hierarchical], parameters: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the parameters of each episode (W, E) from those of :func:`sites`, locations and scales of shape (W,)."""
    found: dict[str, Tensor] = {}
    for name, law in levels.items():
        location, scale = (parameters[f"{name}.{part}"][:, None] for part in (LOCATION, SCALE))
        found[name] = law.value(location, scale, parameters[f"{name}.{EPISODE}"])
    return found


def step_in_lanes(  # noqa: PLR0917 (hot path)
    structure: Structure,
    shared: Parameters,
    own: Parameters,
    state: Tensor,
    action: Tensor,
    context: Tensor,
    step: int | Tensor,
) -> tuple[Tensor, Tensor | None]:
    """Return ``structure.batched`` where some parameters differ from lane to lane.

    Parameters
    ----------
    structure : Structure
        Whose step it is.
    shared : mapping of str to Tensor, shape (W, ...)
        One value a world.
    own : mapping of str to Tensor, broadcastable to (W, P, *batch)
        One value a lane.
    state : Tensor, shape (W, P, *batch, S)
        States.
    action, context : Tensor, broadcastable to (W, P, *batch, A) and (W, P, *batch, C)
        What is done.
    step : int or Tensor, broadcastable to (*batch,)
        Index of the step.

    Returns
    -------
    tuple of Tensor, shape (W, P, *batch, S), and Tensor or None
        Mean of the next state and standard deviation of its noise.
    """
    worlds = max([1, *(len(v) for v in shared.values())])
    lead = torch.broadcast_shapes(
        (worlds, *(1,) * (state.ndim - 2)), state.shape[:-1], *(v.shape for v in own.values())
    )
    lead = torch.broadcast_shapes(lead, action.shape[:-1], context.shape[:-1])

    count = lead.numel()

    def lanes(values: Tensor, columns: int) -> Tensor:
        tail = values.shape[values.ndim - columns :]
        return values.expand(*lead, *tail).reshape(count, *tail)

    each = {k: lanes(v, 0) for k, v in own.items()}
    for name, v in shared.items():
        each[name] = lanes(v.view(len(v), *(1,) * (len(lead) - 1), *v.shape[1:]), v.ndim - 1)
    when = lanes(torch.as_tensor(step, device=state.device), 0)

    def one(values: dict[str, Tensor], x: Tensor, a: Tensor, c: Tensor, t: Tensor) -> tuple[Tensor, ...]:  # noqa: PLR0917
        mean, scale = structure.transition(values, x, a, c, t)
        return (mean,) if scale is None else (mean, scale)

    out = torch.func.vmap(one)(each, lanes(state, 1), lanes(action, 1), lanes(context, 1), when)
    full = [v.unflatten(0, lead) for v in out]
    return full[0], full[1] if len(full) > 1 else None


class PerEpisode(Structure):
    """A structure with the numbers of its episode as further, constant columns of the state.

    Parameters
    ----------
    structure : Structure
        With parameters that differ between episodes.
    schema : Schema
        Its variables; measured ones may be fewer.
    """

    def __init__(self, structure: Structure, schema: Schema) -> None:
        self.inner, self.levels = structure, levels_of(structure)
        self.size = schema.state.size
        measured = schema.measured
        added = [Variable(f"{name}_{EPISODE}".replace(".", "_")) for name in self.levels]
        self._schema = replace(schema, state=[*schema.state, *added], observation=list(measured))

    @property
    @override
    def schema(self) -> Schema:
        return self._schema

    @override
    def parameters(self) -> dict[str, Parameter]:
        shared = {k: p for k, p in self.inner.parameters().items() if k not in self.levels}
        parts = {f"{name}.{part}": Parameter(0.0) for name in self.levels for part in (LOCATION, SCALE)}
        return {**shared, **parts}

    @override
    def transition(
        self, parameters: Parameters, state: Tensor, action: Tensor, context: Tensor, step: int | Tensor
    ) -> tuple[Tensor, Tensor | None]:
        lifted = {k: v[None] for k, v in parameters.items()}
        mean, scale = self.batched(lifted, state[None, None], action, context, step)
        return mean[0, 0], None if scale is None else scale[0, 0]

    @override
    def batched(
        self, parameters: Parameters, state: Tensor, action: Tensor, context: Tensor, step: int | Tensor
    ) -> tuple[Tensor, Tensor | None]:
        x, z = state[..., : self.size], state[..., self.size :]
        own: dict[str, Tensor] = {}
        for i, (name, law) in enumerate(self.levels.items()):
            location, scale = (_in_front(parameters[f"{name}.{part}"], z.ndim - 1) for part in (LOCATION, SCALE))
            own[name] = law.value(location, scale, z[..., i])
        shared = {k: parameters[k] for k in self.inner.parameters() if k not in self.levels}
        mean, scale = step_in_lanes(self.inner, shared, own, x, action, context, step)
        z = z.expand(*mean.shape[:-1], -1)
        return torch.cat((mean, z), -1), None if scale is None else torch.cat((scale, torch.zeros_like(z)), -1)


def _in_front(values: Tensor, axes: int) -> Tensor:
    return values.view(-1, *(1,) * (axes - 1))
