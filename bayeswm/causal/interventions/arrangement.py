"""Interventions on a system, sorted by what they act on and when."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor
from torch.distributions import Normal

from bayeswm.base.errors import SpecError, UnknownVariableError
from bayeswm.base.schema import Schema
from bayeswm.base.worlds import Worlds
from bayeswm.causal.interventions.assignment import Assignment
from bayeswm.causal.interventions.changes import Change
from bayeswm.causal.interventions.intervention import Intervention
from bayeswm.causal.interventions.overwrite import changed, check_elementwise
from bayeswm.causal.structural.mechanism import Mechanism
from bayeswm.causal.structural.worlds import StructuralWorlds


class Arrangement:
    """Interventions on a system, sorted.

    Parameters
    ----------
    worlds : Worlds
        The system.
    interventions : sequence of Intervention
        In the order in which they are applied.
    replayed : bool
        Whether the noise of the system is known, as in a counterfactual, so that laws of noise need draws of their own.

    Attributes
    ----------
    by_group : dict of str to tuple of Assignment
        What acts on state, action, context, noise and parameter.
    sliced : bool
        Whether mechanisms are replaced inside the slice.
    carried : tuple of Assignment
        Stochastic ones that are drawn one step ahead and carried, so that the law of a step is that given what is set.
    first, at_start : tuple of Assignment
        What is set in the state at the start, and which of these are drawn.
    events : tuple of callable
        Events from which on something acts.
    late : tuple of Assignment
        What of the state, the noise and the parameters waits for an event, the same for all.
    bounded : bool
        Whether an action that is set has bounds.
    extra : int
        Further noise coordinates of a slice.

    Raises
    ------
    UnknownVariableError, SpecError
        For a name that the system does not have, with the closest ones; for an intervention that it cannot take.
    """

    def __init__(self, worlds: Worlds, interventions: Iterable[Intervention], *, replayed: bool = False) -> None:
        self.schema, self.sliced = worlds.schema, isinstance(worlds, StructuralWorlds)
        by_group: dict[str, list[Assignment]] = {g: [] for g in ("state", "action", "context", "noise", "parameter")}
        for one in (a for i in interventions for a in i.assignments):
            by_group[group_of(worlds.schema, one.name, worlds.parameters)].append(one)
        self.by_group = {k: tuple(v) for k, v in by_group.items()}
        self._check()
        self.late = tuple(a for g in ("state", "noise", "parameter") for a in self.by_group[g] if a.when is not None)
        states = self.by_group["state"]
        early = (*self.by_group["action"], *self.by_group["context"], *(() if self.sliced else states))
        noises = (a for a in self.by_group["noise"] if replayed or not (self.sliced or isinstance(a.value, Normal)))
        self.carried = tuple(one for one in (*early, *noises) if one.stochastic)
        lagged = any("[t-" in c for one in states if isinstance(one.value, Mechanism) for c in one.value.causes)
        static = isinstance(worlds, StructuralWorlds) and worlds.static and not lagged
        # a mechanism acts within a slice, and the start is not made by one
        self.first = () if static else tuple(s for s in states if _at_start(s))
        self.at_start = tuple(one for one in self.first if one.stochastic)
        self.events = tuple(
            dict.fromkeys(a.when for given in self.by_group.values() for a in given if a.when is not None)
        )
        self._check_late(static=static)
        for one in self.by_group["noise"]:
            if static and not one.stochastic and callable(one.value):
                raise SpecError(f"{one.name}: expected values, a law or a shift in a slice without a past, got {one}")
        actions = {one.name for one in self.by_group["action"]}
        self.bounded = any(v.bounds is not None and v.name in actions for v in worlds.schema.action)
        self.extra = 0
        if isinstance(worlds, StructuralWorlds):
            for one in states:
                fresh = isinstance(one.value, Mechanism) and worlds.wired(one.value, one.name, extra=0)[1]
                self.extra += int(one.stochastic or fresh)

    @property
    def remembers(self) -> bool:
        """Whether something is carried from step to step."""
        return bool(self.carried or self.events)

    @property
    def at_boundary(self) -> tuple[str, ...]:
        """Variables of the state that are overwritten after the step."""
        return () if self.sliced else tuple(dict.fromkeys(one.name for one in self.by_group["state"]))

    def active(self, group: str, step: int | Tensor, *, waiting: bool = False) -> list[Assignment]:
        """Return what acts on a group in a step; with ``waiting``, before the event of :attr:`late`."""
        return [a for a in self.by_group[group] if a.active(step) and not (waiting and a.when is not None)]

    def started(self, happened: Tensor) -> Tensor:
        """Return where the event of :attr:`late` has happened, of all events (worlds, particles, *batch, events)."""
        return happened[..., [event is self.late[0].when for event in self.events].index(True)]

    def happened(self, before: Tensor | None, state: Tensor, step: int | Tensor) -> Tensor | None:
        """Return which events have happened by a step, shape (worlds, particles, *batch, events)."""
        if before is None or not self.events:
            return before
        now = [_truth(event(state, step), state) for event in self.events]
        return before | torch.stack(now, -1)

    def changed(
        self,
        group: str,
        values: Tensor,
        state: Tensor,
        *,
        step: int | Tensor,
        draws: Mapping[Assignment, Tensor],
        happened: Tensor | None,
    ) -> Tensor:
        """Return actions or context with what is set, each column from the values as they were proposed."""
        todo = self.active(group, step)
        if not todo:
            return values
        names, columns = getattr(self.schema, group).columns, list(values.unbind(-1))
        for one in todo:
            index = names.index(one.name)
            given = one.values(step) if one.hard else draws.get(one)
            one.check_rows(state.shape[2:-1])
            new = changed(one, columns[index], state, step=step, given=given)
            if one.when is not None and happened is not None:
                new = torch.where(happened[..., self.events.index(one.when)], new, columns[index])
            columns[index] = new
        return torch.stack(torch.broadcast_tensors(*columns), -1)

    def check_horizon(self, horizon: int) -> None:
        """Refuse steps beyond the horizon.

        Raises
        ------
        SpecError
            Naming the step.
        """
        for group, given in self.by_group.items():
            for one in given:
                one.check_horizon(horizon - (0 if group == "state" else 1))

    def _check_late(self, *, static: bool) -> None:
        if self.late and static:
            raise SpecError("expected when= in a system with a past, got a slice by itself; use a callable")
        events = dict.fromkeys(one.when for one in self.late)
        if len(events) > 1:
            raise SpecError(
                f"expected one event for all that is set in state, noise and parameters, got {len(events)} in "
                f"{list(self.late)}; use the same function"
            )

    def _check(self) -> None:
        for group, given in self.by_group.items():
            for one in given:
                if isinstance(one.value, Mechanism) and not (self.sliced and group == "state"):
                    raise SpecError(f"{one.name}: expected a variable of a StructuralModel for a Mechanism")
                if group == "noise" and isinstance(one.value, Change) and not one.value.additive:
                    raise SpecError(f"{one.name}: expected values, a law, a callable or a shift for noise, got {one}")
                same = isinstance(one.value, Change) or (isinstance(one.value, Tensor) and one.value.ndim <= 1)
                if group == "parameter" and not same:
                    raise SpecError(
                        f"{one.name}: expected a number, one for each step, or a change such as shift(0.1), got {one}; "
                        "a parameter belongs to a world and is the same in all its trajectories: for a law, give the "
                        f"model another prior, or draw worlds and set worlds.replace({one.name}=values), one for each"
                    )


def _at_start(one: Assignment) -> bool:
    return one.active(0) and one.when is None and not isinstance(one.value, Mechanism)


def _truth(found: object, state: Tensor) -> Tensor:
    values = torch.as_tensor(found)
    if values.dtype != torch.bool:
        raise SpecError(f"expected when= to return truth values, such as state[..., 0] > 1.0, got {values.dtype}")
    check_elementwise(values, state, what="expected when=")
    return values.expand(state.shape[:-1])


def group_of(schema: Schema, name: str, parameters: Iterable[str]) -> str:
    """Return what a name belongs to: state, action, context, noise or parameter.

    Raises
    ------
    UnknownVariableError, SpecError
        With the closest names; for a variable of several columns.
    """
    for group in ("state", "action", "context"):
        variables = getattr(schema, group)
        if name in variables.columns or name in variables.names:
            if any(len(v.columns) > 1 and name in (v.name, *v.columns) for v in variables):
                raise SpecError(f"{name}: expected a variable of one column, got a rotation")
            return group
    if name.startswith("noise.") and name.removeprefix("noise.") in schema.state.columns:
        return "noise"
    parameters = tuple(parameters)
    if name in parameters:
        return "parameter"
    noises = tuple(f"noise.{c}" for c in schema.state.columns)
    known = (*schema.state.columns, *schema.action.columns, *schema.context.columns, *parameters)
    raise UnknownVariableError.of(name, (*known, *noises) if name.startswith("noise.") else known)
