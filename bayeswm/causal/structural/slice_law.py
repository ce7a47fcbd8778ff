"""The law of a slice: its variables one after another, each a mechanism of those before."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any, override

import torch
from torch import Tensor
from torch.distributions import Normal

from bayeswm.base.errors import NotInvertible, SpecError
from bayeswm.base.laws import Gaussian, Law
from bayeswm.base.shapes import common_shape
from bayeswm.causal.interventions.changes import Change
from bayeswm.causal.interventions.set_noise import SetNoise
from bayeswm.causal.structural.node import Altered, Node, Source, Value, Wired
from bayeswm.causal.structural.pushed_law import ORDERS, Moments, PushedLaw
from bayeswm.causal.structural.regression import DrawnRegression

# learned functions cost more than those that are known, and their own error is larger than that of the rule
_LEARNED_ORDERS = {1: 31, 2: 15, 3: 9, 4: 6, 5: 5, 6: 4, 7: 3, 8: 3}


class SliceLaw(PushedLaw):
    """The law of all variables of a slice, given what came before.

    Density and inverse are exact: with all variables known, each mechanism's noise follows from its parents. A variable
    that was clamped or drawn from a law other than the normal one has no such inverse.

    Parameters
    ----------
    nodes : sequence of Node
        In topological order.
    known : Tensor, shape (worlds, particles, *batch, n)
        State before, action, context, parameters and values of interventions.
    noise_size : int
        Noise coordinates.
    step : int or Tensor
        Index of the step that leads here.
    world : int, optional
        Column of what is known that holds the index of each point's world, for learned mechanisms.
    """

    def __init__(
        self,
        nodes: tuple[Node, ...],
        known: Tensor,
        *,
        noise_size: int,
        step: int | Tensor,
        world: int | None = None,
    ) -> None:
        self.nodes, self.known, self.noise_size, self.step = nodes, known, noise_size, step
        self.world, self.orders = world, ORDERS if world is None else _LEARNED_ORDERS

    @property
    @override
    def lead(self) -> torch.Size:
        return self.known.shape[:-1]

    @property
    @override
    def like(self) -> Tensor:
        return self.known

    @property
    @override
    def used(self) -> tuple[int, ...]:
        return tuple(sorted({c for node in self.nodes if (c := node.coordinate) is not None}))

    @property
    @override
    def inner(self) -> tuple[int, ...]:
        """The noise of variables that others of the slice depend on, and of those that were changed after it."""
        sources: set[int] = set()
        bent: set[int | None] = set()
        for node in self.nodes:
            active: Wired | None = node.mechanism
            for one in node.altered:
                value = one.assignment.value
                if one.mechanism is not None or one.column is not None or one.assignment.stochastic:
                    active = one.mechanism  # none where the variable was set or drawn
                elif not isinstance(value, Change):
                    return self.used  # a function of the state
                additive = value.additive if isinstance(value, Change) else isinstance(value, Normal)
                if not additive and one.column is None and one.mechanism is None:
                    bent.add(node.coordinate)
            if active is not None and node.bent:
                bent.add(node.coordinate)
            sources |= {s.column for s in (() if active is None else active.sources) if s.inside}
        found = {node.coordinate for node in self.nodes if node.column in sources} | bent
        return tuple(c for c in self.used if c in found)

    @override
    def given(self, noise: Tensor) -> tuple[Tensor, Tensor]:
        columns: list[Tensor | None] = [None] * len(self.nodes)
        shape, inner = common_shape(self.lead, noise.shape[:-1]), self.inner
        left = self.known.new_zeros(*shape, len(columns))
        for node in self.nodes:
            columns[node.column], found = self._made(node, columns, noise)
            if found.coordinate is not None and found.coordinate not in inner:
                left[..., node.column] = found.scale.square()
        return torch.stack([c.expand(shape) for c in columns if c is not None], -1), left

    @override
    def push(self, noise: Tensor) -> Tensor:
        return self.values(noise)

    @override
    def values(self, noise: Tensor) -> Tensor:
        columns: list[Tensor | None] = [None] * len(self.nodes)
        for node in self.nodes:
            columns[node.column], _ = self._made(node, columns, noise)
        shape = common_shape(self.lead, noise.shape[:-1])
        return torch.stack([c.expand(shape) for c in columns if c is not None], -1)

    @override
    def conditional(self, noise: Tensor) -> tuple[Tensor, Tensor]:
        values = self.values(noise)
        columns = list(values.unbind(-1))
        means, scales = values.clone(), torch.zeros_like(values)
        for node in self.nodes:
            found = self.value_of(node, columns)
            if found.coordinate is not None and not found.changes:
                means[..., node.column], scales[..., node.column] = found.location, found.scale
        return means, scales

    @override
    def abduct(self, next_state: Tensor, *, tolerance: float | None = None) -> Tensor:
        law, coordinates = self.by_parents(next_state)
        if coordinates is None:
            raise NotInvertible(
                f"expected mechanisms with additive noise, got {self._changed()}: its noise does not follow from its "
                "value; ask for a counterfactual of what happened before the intervention"
            )
        found = law.abduct(next_state, tolerance=tolerance)
        noise = found.new_zeros(*found.shape[:-1], self.noise_size)
        for column, coordinate in enumerate(coordinates):
            if coordinate is not None:
                noise[..., coordinate] = found[..., column]
        return noise

    @override
    def log_prob(self, state: Tensor, *, marginal: bool = False, tolerance: float | None = None) -> Tensor:
        if marginal:
            if drawn := [node for node in self.nodes if node.drawn]:
                raise SpecError(
                    f"expected normal noise for a density, got {self._changed(drawn)}; use cdf or particles"
                )
            return self.marginal_log_prob(state)
        law, coordinates = self.by_parents(state)
        if coordinates is None:
            raise SpecError(f"expected mechanisms with additive noise for a joint density, got {self._changed()}")
        return law.log_prob(state, tolerance=tolerance)

    @override
    def map(self, change: Callable[[Tensor], Tensor]) -> Law:
        return SliceLaw(self.nodes, change(self.known), noise_size=self.noise_size, step=self.step, world=self.world)

    @override
    def affine_moments(self) -> Moments | None:
        if self.inner:
            return super().affine_moments()
        # variables that do not depend on each other's noise are independent
        mean, scale = self.conditional(self.known.new_zeros(*(1,) * len(self.lead), self.noise_size))
        return Moments(mean, torch.diag_embed(scale.square()))

    # --- one variable ---------------------------------------------------------------------------------------------

    def by_parents(self, state: Tensor) -> tuple[Gaussian, list[int | None] | None]:
        """Return the law of each variable given its parents in a known slice, and the coordinates, if all have one."""
        state = state.expand(common_shape(state.shape, (*self.lead, state.shape[-1])))
        columns: list[Tensor | None] = list(state.unbind(-1))
        mean, scale = torch.zeros_like(state), torch.zeros_like(state)
        coordinates: list[int | None] = [None] * len(columns)
        for node in self.nodes:
            found = self.value_of(node, columns)
            if found.changes:
                return Gaussian(mean, scale), None
            mean[..., node.column], scale[..., node.column] = found.location, found.scale
            coordinates[node.column] = found.coordinate
        return Gaussian(mean, scale), coordinates

    def _made(self, node: Node, columns: list[Any], noise: Tensor) -> tuple[Tensor, Value]:
        """Return what noise makes of a variable, and of what it was made."""
        found = self.value_of(node, columns)
        value = found.location
        if found.coordinate is not None:
            value = value + found.scale * noise[..., found.coordinate]
        for change in found.changes:
            value = change(value)
        return value, found

    def _changed(self, nodes: Sequence[Node] | None = None) -> str:
        return ", ".join(repr(a.assignment) for node in nodes or self.nodes for a in (*node.noise, *node.altered))

    def value_of(self, node: Node, columns: list[Any]) -> Value:
        """Return what a variable is given those before it, by their columns."""
        mechanism, altered = node.mechanism, node.altered
        for i, one in enumerate(node.altered):  # the parents of a mechanism that was replaced may come later
            if one.mechanism is not None:
                mechanism, altered = one.mechanism, node.altered[i + 1 :]
        found = self._mechanism(mechanism, columns)
        if node.noise:
            found = self._with_noise(found, node)
        for one in altered:
            found = self._altered(found, one, columns)
        return found

    def _with_noise(self, found: Value, node: Node) -> Value:
        given = ((a.assignment, None if a.column is None else self.known[..., a.column]) for a in node.noise)
        offset, gain, bend = SetNoise.of(given, self.known)
        location, scale = found.location + found.scale * offset, found.scale
        if bend is not None and found.coordinate is not None:
            one = torch.ones_like(scale)
            return Value(torch.zeros_like(location), one, found.coordinate, (lambda z: location + scale * bend(z),))
        return Value(location, scale * gain, None if node.noise_known else found.coordinate)

    def _altered(self, found: Value, altered: Altered, columns: list[Any]) -> Value:
        value, zero = altered.assignment.value, self.known.new_zeros(())
        if altered.column is not None:
            return Value(self.known[..., altered.column], zero, None)
        if isinstance(value, Normal):
            return Value(value.loc.to(zero), value.scale.to(zero), altered.coordinate)
        if altered.assignment.stochastic:
            return Value(zero, torch.ones_like(zero), altered.coordinate, (altered.assignment.drawn,))
        if isinstance(value, Change):
            if value.additive and not found.changes:
                return found._replace(location=value.apply(found.location))
            return found._replace(changes=(*found.changes, value.apply))
        shape = common_shape(self.lead, *(c.shape for c in columns if c is not None))
        blank = self.known.new_full((), float("nan"))
        state = torch.stack([(blank if c is None else c).expand(shape) for c in columns], -1)
        return Value(torch.as_tensor(value(state, self.step)).to(zero), zero, None)

    def _scattered(self, worlds: int) -> Tensor | None:
        """Return each point's world, where a change of the leading axes has moved it from its place."""
        if self._moved is None or (self.lead[0] == worlds and not self._moved):
            return None
        return self.known[..., self.world]

    @cached_property
    def _moved(self) -> bool | None:
        if self.world is None:
            return None
        index = self.known[..., self.world]
        places = torch.arange(len(index), device=index.device).view(-1, *(1,) * (index.ndim - 1))
        return bool((index != places).any())

    def _mechanism(self, wired: Wired, columns: list[Any]) -> Value:
        parents = [columns[s.column] if s.inside else self.known[..., s.column] for s in wired.sources]
        if isinstance(wired.fn, DrawnRegression):
            location, scale = wired.fn(parents, self.lead, self._scattered(len(wired.fn.worlds)))
            return Value(location.to(self.known), scale.to(self.known), wired.coordinate)
        location = torch.as_tensor(wired.fn(*parents)).to(self.known)
        if isinstance(wired.scale, Source):
            return Value(location, self.known[..., wired.scale.column], wired.coordinate)
        return Value(location, self.known.new_tensor(wired.scale), wired.coordinate)
