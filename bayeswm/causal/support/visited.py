"""Where worlds were taken, and what they do not know there."""

from __future__ import annotations

from typing import Any, NamedTuple, Self, override

import torch
from torch import Tensor

from bayeswm.base.laws import Law
from bayeswm.base.mixture import split_moments
from bayeswm.base.worlds import MarkovWorlds, Worlds
from bayeswm.base.wrapped import WrappedWorlds
from bayeswm.causal.structural.worlds import StructuralWorlds

# points of a step, and rows of a log, that the worlds are asked about
_POINTS = 256


class Visit(NamedTuple):
    """What was done where, by the last axes of tensors whose leading axes broadcast; None without context."""

    state: Tensor
    action: Tensor
    context: Tensor | None


class Points(NamedTuple):
    """States, actions and contexts (k, .) of one step, and their weights (k,), summing to 1."""

    state: Tensor
    action: Tensor
    context: Tensor
    weight: Tensor


class WatchedWorlds(WrappedWorlds):
    """Worlds that write down what is done where, step by step."""

    def __init__(self, inner: Worlds, seen: list[Visit]) -> None:
        super().__init__(inner)
        self.seen = seen

    @override
    def transition(self, carry: Any, action: Tensor, context: Tensor | None = None, *, step: int | Tensor = 0) -> Law:
        self.seen.append(Visit(self.inner.state(carry), action, context))
        return self.inner.transition(carry, action, context, step=step)

    @override
    def _around(self, inner: Worlds) -> Self:
        return type(self)(inner, self.seen)


def points_of(worlds: Worlds, visit: Visit) -> Points:
    """Return what was done in all worlds and particles as one list of points, thinned out evenly."""
    parts = [visit.state, visit.action, visit.state.new_empty(0) if visit.context is None else visit.context]
    lead = torch.broadcast_shapes(*(v.shape[:-1] for v in parts))
    weight = worlds.weight.to(visit.state).view(-1, *(1,) * (len(lead) - 1)).expand(lead).flatten()
    state, action, context = (v.expand(*lead, v.shape[-1]).flatten(0, -2) for v in parts)
    return thinned(Points(state, action, context, weight))


def thinned(points: Points) -> Points:
    """Return some of many points, evenly spaced."""
    n = len(points.state)
    kept = torch.linspace(0, n - 1, min(n, _POINTS), device=points.state.device).round().long()
    weight = points.weight[kept]
    return Points(points.state[kept], points.action[kept], points.context[kept], weight / weight.sum())


def coordinates(worlds: Worlds, points: Points) -> Tensor:
    """Return features (k, d) that lie close together if the points do: sine and cosine of angles.

    In a slice, what is set is part of the state itself.
    """
    schema = worlds.schema
    state = schema.state.embed(points.state)
    if isinstance(worlds, StructuralWorlds):
        return state
    return torch.cat((state, schema.action.embed(points.action), schema.context.embed(points.context)), -1)


def epistemic_variance(worlds: Worlds, points: Points) -> Tensor | None:
    """Return the mean epistemic variance of the next state at some points, shape (S,); None where it is undefined."""
    sliced = isinstance(worlds, StructuralWorlds)
    if sliced or not isinstance(worlds, MarkovWorlds) or (len(worlds) == 1 and not worlds.exhaustive):
        return None
    state, action, context = (v.to(worlds.device, worlds.dtype) for v in points[:3])
    law = worlds.transition(worlds.start(state), action, context)
    weight = worlds.weight.to(law.mean).view(-1, *(1,) * (law.mean.ndim - 2))
    split = split_moments(law.mean, law.variance, weight, exhaustive=worlds.exhaustive, resolved=True)
    return (split.between.clamp(min=0) * points.weight.to(law.mean)[:, None]).sum(0)
