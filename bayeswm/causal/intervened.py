"""Worlds and models under interventions, behind the interface that they had."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Self, overload, override

import torch
from torch import Tensor

from bayeswm.base.errors import DataError, SpecError, UnknownVariableError
from bayeswm.base.laws import Gaussian, Law
from bayeswm.base.model import DynamicsModel
from bayeswm.base.predictive import Predictive
from bayeswm.base.schema import Schema
from bayeswm.base.trajectories import Trajectories
from bayeswm.base.trees import tree_map
from bayeswm.base.worlds import Belief, MarkovWorlds, Noise, Worlds
from bayeswm.causal.boundary_law import CarryingLaw, Overwrite, ReplayedLaw, changed, overwritten
from bayeswm.causal.intervention import Assignment, Change, Intervention
from bayeswm.causal.mechanism import Mechanism
from bayeswm.causal.structural import StructuralWorlds


class IntervenedWorlds(Worlds):
    """Worlds in which variables are set; made by :func:`intervene`.

    Parameters
    ----------
    worlds : Worlds
        The system without the interventions.
    interventions : sequence of Intervention
        In the order in which they are applied.
    replay : Tensor, shape (worlds, particles, *batch, H, n), optional
        Noise of each step that is known, as in a counterfactual.

    Attributes
    ----------
    at_boundary : tuple of str
        Variables of the state that are overwritten after the step, since the system's step is one block: what happens
        within the slice does not see them, the next step does. Empty for a :class:`StructuralModel`, whose mechanisms
        are replaced inside the slice.

    Raises
    ------
    UnknownVariableError, SpecError
        For a name that the system does not have, with the closest ones; for an intervention that it cannot take.
    """

    def __init__(self, worlds: Worlds, interventions: Iterable[Intervention], *, replay: Tensor | None = None) -> None:
        self.inner, self.interventions, self.replay = worlds, tuple(interventions), replay
        self.schema = worlds.schema
        by_group: dict[str, list[Assignment]] = {g: [] for g in ("state", "action", "context", "noise", "parameter")}
        for one in (a for i in self.interventions for a in i.assignments):
            by_group[group_of(worlds.schema, one.name, worlds.parameters)].append(one)
        self._by_group = {k: tuple(v) for k, v in by_group.items()}
        self._check()
        self.parameters, self.log_weight, self.exhaustive = worlds.parameters, worlds.log_weight, worlds.exhaustive
        self.state_is_measured, self.confounded = worlds.state_is_measured, worlds.confounded
        sliced = isinstance(worlds, StructuralWorlds)
        states = self._by_group["state"]
        self.at_boundary = () if sliced else tuple(dict.fromkeys(one.name for one in states))
        early = (*self._by_group["action"], *self._by_group["context"], *(() if sliced else states))
        # drawn one step ahead and carried, so that the law of a step is that given what is set
        self._carried = tuple(one for one in early if one.stochastic)
        lagged = any("[t-" in c for one in states if isinstance(one.value, Mechanism) for c in one.value.causes)
        static = isinstance(worlds, StructuralWorlds) and worlds.static and not lagged
        # a mechanism acts within a slice, and the start is not made by one
        self._first = () if static else tuple(s for s in states if s.active(0) and not isinstance(s.value, Mechanism))
        self._at_start = tuple(one for one in self._first if one.stochastic)
        extra = 0
        if isinstance(worlds, StructuralWorlds):
            for one in states:
                fresh = isinstance(one.value, Mechanism) and worlds.wired(one.value, one.name, extra=0)[1]
                extra += int(one.stochastic or fresh)
        self._events = tuple(dict.fromkeys(one.when for one in early if one.when is not None))
        self._remembers = bool(self._carried or self._events)
        self._own_size = worlds.noise_size + extra
        self.noise_size = self._own_size + len(self._carried) - (0 if replay is None else worlds.noise_size)
        self.episode_noise_size = worlds.episode_noise_size + len(self._carried) + len(self._at_start)
        self._variants: dict[tuple[bool, ...], Worlds] = {}

    def _check(self) -> None:
        if self._by_group["action"]:
            self.inner.check_actionable()
        sliced = isinstance(self.inner, StructuralWorlds)
        for group, given in self._by_group.items():
            for one in given:
                if one.when is not None and group not in ("action", "context"):
                    raise SpecError(f"{one.name}: expected an action or context to be set when= an event happens")
                if isinstance(one.value, Mechanism) and not (sliced and group == "state"):
                    raise SpecError(f"{one.name}: expected a variable of a StructuralModel for a Mechanism")
                simple = one.hard or (isinstance(one.value, Change) and one.value.additive)
                if group == "noise" and not simple:
                    raise SpecError(f"{one.name}: expected values or a shift for noise, got {one}")
                if group == "parameter" and not (isinstance(one.value, Change) or (one.hard and one.constant)):
                    raise SpecError(f"{one.name}: expected a number or a change such as shift(0.1), got {one}")

    # --- the system -----------------------------------------------------------------------------------------------

    @override
    def start(self, belief: Belief, context: Tensor | None = None, noise: Noise | None = None) -> Any:
        noise = Noise() if noise is None else noise
        episode, eta = noise.episode, None
        if self._carried or self._at_start:
            if episode is None:
                raise SpecError(
                    "expected noise.episode for the first draws of stochastic interventions, got none; use a rollout"
                )
            episode, eta = episode[..., : self.inner.episode_noise_size], episode[..., self.inner.episode_noise_size :]
        if episode is not None and not self.inner.episode_noise_size:
            episode = None
        carry = self._variant(0).start(belief, context, noise._replace(episode=episode))
        if self._first:
            self._check_carry(carry)
            drawn = {one: one.values(0).to(carry) for one in self._first if one.hard}
            lead = torch.broadcast_shapes(carry.shape[:-1], *(v.shape for v in drawn.values()))
            lead = lead if eta is None else torch.broadcast_shapes(lead, eta.shape[:-1])
            drawn = {one: v.expand(lead) for one, v in drawn.items()}
            for i, one in enumerate(self._at_start):
                drawn[one] = one.drawn(self._some(eta)[..., len(self._carried) + i]).expand(lead)
            carry = Overwrite(self._first, self.schema.state.columns, step=0, drawn=drawn)(carry.expand(*lead, -1))
        if not self._remembers:
            return carry
        if self._events and isinstance(belief, Trajectories):
            raise SpecError("expected a state to start from, got a history: when events happened in it is not known")
        state = self._variant(0).state(carry)
        eta = state.new_zeros(*state.shape[:-1], 0) if eta is None else eta
        return carry, eta[..., : len(self._carried)], state.new_zeros(*state.shape[:-1], len(self._events)).bool()

    @override
    def transition(self, carry: Any, action: Tensor, context: Tensor | None = None, *, step: int | Tensor = 0) -> Law:
        worlds = self._variant(step)
        carry, eta, happened = self._split(carry)
        draws = {one: one.drawn(eta[..., i]) for i, one in enumerate(self._carried)} if eta is not None else {}
        state = worlds.state(carry)
        happened = self._happened(happened, state, step)
        action = self._set("action", action, state, step=step, draws=draws, happened=happened)
        if context is not None:
            context = self._set("context", context, state, step=step, draws=draws, happened=happened)
        carry = _met(carry, state, action, context)
        noises = [one for one in self._by_group["noise"] if one.active(step)]
        states = [one for one in self._by_group["state"] if one.active(step + 1)]
        if isinstance(worlds, StructuralWorlds):
            law: Law = worlds.transition(
                carry,
                action,
                context,
                step=step,
                changes=states,
                noise_changes=noises,
                noise_size=self._own_size,
            )
        else:
            if noises or states:
                self._check_carry(carry)
            law = worlds.transition(carry, action, context, step=step)
            for one in noises:
                law = self._with_noise(law, one, step=step)
            if states:
                given = {one: one.values(step + 1).to(law.mean) for one in states if one.hard}
                given |= {one: draws[one] for one in states if one.stochastic}
                lead = torch.broadcast_shapes(law.mean.shape[:-1], *(v.shape for v in given.values()))
                given = {one: v.expand(lead) for one, v in given.items()}
                law = overwritten(law, Overwrite(states, self.schema.state.columns, step=step + 1, drawn=given))
        if self.replay is not None:
            law = self._replayed(law, step, worlds=worlds)
        return law if happened is None else CarryingLaw(law, len(self._carried), happened)

    def _happened(self, before: Tensor | None, state: Tensor, step: int | Tensor) -> Tensor | None:
        """Return which events have happened by a step, shape (worlds, particles, *batch, events)."""
        if before is None or not self._events:
            return before
        now = [torch.as_tensor(event(state, step)).expand(state.shape[:-1]) for event in self._events]
        return before | torch.stack(now, -1).bool()

    def _replayed(self, law: Law, step: int | Tensor, *, worlds: Worlds) -> Law:
        replay = self.replay
        if replay is None or isinstance(step, Tensor) or step >= replay.shape[-2]:
            raise SpecError(f"expected a step below {0 if replay is None else replay.shape[-2]}, one at a time")
        found = ReplayedLaw(law, replay[..., step, :], state=worlds.state)
        if found.noise_size:
            return found
        pushed = found.push(found.noise[..., :0])
        return Gaussian(pushed) if isinstance(pushed, Tensor) else found

    def _with_noise(self, law: Law, one: Assignment, *, step: int | Tensor) -> Law:
        if not isinstance(law, Gaussian):
            raise SpecError(f"{one.name}: expected independent Gaussian noise, got {type(law).__name__}")
        column = self.schema.state.column(one.name.removeprefix("noise."))
        mean, spread = law.mean.clone(), law.spread.clone()
        by = one.values(step).to(mean) if one.hard else one.value.by
        mean[..., column] = mean[..., column] + by * spread[..., column]
        if one.hard:
            spread[..., column] = 0.0
        return Gaussian(mean, None if law.scale is None else spread, noisy=law.noisy)

    def _set(
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
        todo = [one for one in self._by_group[group] if one.active(step)]
        if not todo:
            return values
        names, columns = getattr(self.schema, group).columns, list(values.unbind(-1))
        for one in todo:
            index = names.index(one.name)
            given = one.values(step) if one.hard else draws.get(one)
            new = changed(one, columns[index], state, step=step, given=given)
            if one.when is not None and happened is not None:
                new = torch.where(happened[..., self._events.index(one.when)], new, columns[index])
            columns[index] = new
        return torch.stack(torch.broadcast_tensors(*columns), -1)

    def _variant(self, step: int | Tensor) -> Worlds:
        """Return the system with the parameters that hold in a step."""
        given = self._by_group["parameter"]
        active = tuple(one.active(step) for one in given)
        if not any(active):
            return self.inner
        if active not in self._variants:
            values: dict[str, Any] = {}
            for one, on in zip(given, active, strict=True):
                if on:
                    old = values.get(one.name, self.inner.parameters[one.name])
                    values[one.name] = one.value.apply(old) if isinstance(one.value, Change) else one.value
            self._variants[active] = self.inner.replace(**values)
        return self._variants[active]

    def _check_carry(self, carry: Any) -> None:
        """Refuse to set a state of which the carry is only a belief, or knows more."""
        if not isinstance(carry, Tensor) or carry.shape[-1] != self.schema.state.size:
            names = [one.name for group in ("state", "noise") for one in self._by_group[group]]
            raise SpecError(
                f"expected a known state to set {names}, got a belief about it or more than it as the carry of "
                f"{type(self.inner).__name__}; start from a state, or intervene on actions, context or parameters"
            )

    def _split(self, carry: Any) -> tuple[Any, Tensor | None, Tensor | None]:
        return carry if self._remembers else (carry, None, None)

    def _some(self, eta: Tensor | None) -> Tensor:
        if eta is None:
            raise SpecError("expected draws of stochastic interventions, got none")
        return eta

    @override
    def state(self, carry: Any) -> Tensor:
        return self.inner.state(self._split(carry)[0])

    @override
    def measurement(self, carry: Any) -> Law:
        return self.inner.measurement(self._split(carry)[0])

    @override
    def state_law(self, carry: Any) -> Law | None:
        return None if self._events else self.inner.state_law(self._split(carry)[0])

    @override
    def initial_noise_size(self, belief: Belief) -> int:
        return self.inner.initial_noise_size(belief)

    @override
    def filter(
        self,
        carry: Any,
        action: Tensor,
        context: Tensor | None,
        measurement: Tensor,
        mask: Tensor | None = None,
        *,
        step: int | Tensor = 0,
    ) -> tuple[Any, Tensor]:
        if self._carried:
            raise SpecError("expected interventions that are not drawn: their draws are not in what was measured")
        own, eta, happened = self._split(carry)
        happened = self._happened(happened, self.inner.state(own), step)
        if not isinstance(self.inner, MarkovWorlds):
            worlds, state = self._variant(step), self.inner.state(own)
            action = self._set("action", action, state, step=step, draws={}, happened=happened)
            if context is not None:
                context = self._set("context", context, state, step=step, draws={}, happened=happened)
            found, log_prob = worlds.filter(own, action, context, measurement, mask, step=step)
            return (found, eta, happened) if self._remembers else found, log_prob
        if (mask is not None and not bool(mask.all())) or bool(measurement.isnan().any()):
            raise DataError("expected every state to be measured, got missing ones; use a model with sensor noise")
        log_prob = self.transition(carry, action, context, step=step).log_prob(measurement)
        found = measurement.expand(*log_prob.shape, measurement.shape[-1])
        return (found, eta, happened) if self._remembers else found, log_prob

    @override
    def smooth(self, trajectory: Trajectories, *, generator: torch.Generator | None = None) -> tuple[Noise, Tensor]:
        if self._carried or not isinstance(self.inner, MarkovWorlds):
            raise SpecError("expected a measured state and no draws to find noise under interventions")
        states = trajectory.states().to(self.device, self.dtype)
        action, context = (v.to(states) for v in (trajectory.action, trajectory.step_context()))
        inside = trajectory.step_mask.to(self.device)
        carry, noise, total = self.start(states[:, 0], context[:, 0]), list[Tensor](), states.new_zeros(())
        for t in range(trajectory.horizon):
            on = inside[:, t]
            given = (torch.where(on[:, None], v[:, t], 0.0) for v in (action, context))
            law = self.transition(carry, *given, step=t)
            after = states[:, t + 1].expand(len(self), 1, *states[:, t + 1].shape)
            if not bool(on.all()):
                after = torch.where(on[:, None], after, law.mean)
            noise.append(torch.where(on[:, None], law.abduct(after), float("nan")))
            total = total + torch.where(on, law.log_prob(after), 0.0)
            if self._remembers:
                own, eta, happened = self._split(carry)
                carry = after, eta, self._happened(happened, self.inner.state(own), t)
            else:
                carry = after
        return Noise(step=torch.stack(noise, -2)), total

    @override
    def finish(self, predictive: Predictive) -> Predictive:
        for group, given in self._by_group.items():
            for one in given:
                one.check_horizon(predictive.horizon - (0 if group == "state" else 1))
        return self.inner.finish(predictive)

    # --- the collection -------------------------------------------------------------------------------------------

    def _on(self, worlds: Worlds, replay: Tensor | None) -> Self:
        return type(self)(worlds, self.interventions, replay=replay)

    @override
    def _with(self, *, parameters: Mapping[str, Tensor], log_weight: Tensor, exhaustive: bool) -> Self:
        inner = self.inner._with(parameters=parameters, log_weight=log_weight, exhaustive=exhaustive)
        if self.replay is not None and len(inner) != len(self):
            raise SpecError("expected all worlds, since their noise is known")
        return self._on(inner, self.replay)

    @override
    def _replaced(self, parameters: Mapping[str, Tensor]) -> Self:
        return self._on(self.inner._replaced(parameters), self.replay)

    @override
    def to(self, target: torch.device | str | torch.dtype) -> Self:
        return self._on(self.inner.to(target), None if self.replay is None else self.replay.to(target))


def _met(carry: Any, state: Tensor, *given: Tensor | None) -> Any:
    """Return a carry with an axis of particles where what is done differs between them, as structures expect."""
    shapes = [v.shape[:-1] for v in given if v is not None and v.ndim == state.ndim]
    lead = torch.broadcast_shapes(state.shape[:-1], *shapes)
    if lead == state.shape[:-1]:
        return carry
    return tree_map(lambda v: v.expand(*lead, *v.shape[len(lead) :]), carry)


class IntervenedModel(DynamicsModel):
    """A model whose worlds are intervened on; made by :func:`intervene`."""

    def __init__(self, model: DynamicsModel, interventions: Iterable[Intervention]) -> None:
        self.inner, self.interventions = model, tuple(interventions)

    @property
    @override
    def schema(self) -> Schema:
        return self.inner.schema

    @override
    def fit(self, trajectories: Trajectories, *, seed: int | None = None, progress: bool = True) -> Self:
        """Refuse: which data came under the interventions is not known.

        Raises
        ------
        SpecError
            Always.
        """
        raise SpecError("expected to fit the model first, and to intervene on it then")

    @override
    def draw(self, worlds: int, *, generator: torch.Generator | None = None) -> IntervenedWorlds:
        """Draw worlds from the posterior and intervene in each."""
        return IntervenedWorlds(self.inner.draw(worlds, generator=generator), self.interventions)

    @override
    def prior(self, worlds: int, *, generator: torch.Generator) -> IntervenedWorlds:
        return IntervenedWorlds(self.inner.prior(worlds, generator=generator), self.interventions)

    @override
    def condition(self, trajectories: Trajectories, *, in_training: bool = False) -> DynamicsModel:
        """Return the intervened model given trajectories of the system without the interventions."""
        return IntervenedModel(self.inner.condition(trajectories, in_training=in_training), self.interventions)

    @override
    def __repr__(self) -> str:
        return f"IntervenedModel({self.inner!r}, {', '.join(map(repr, self.interventions))})"


@overload
def intervene(model: DynamicsModel, *interventions: Intervention) -> IntervenedModel: ...
@overload
def intervene(model: Worlds, *interventions: Intervention) -> IntervenedWorlds: ...
def intervene(model: DynamicsModel | Worlds, *interventions: Intervention) -> IntervenedModel | IntervenedWorlds:
    """Return the same system, with variables set.

    The result is a model (or worlds) as any other: rollouts, propagation, planners and diagnostics take it.

    Parameters
    ----------
    model : DynamicsModel or Worlds
        A fitted model, or worlds drawn from one.
    *interventions : Intervention
        Made by :func:`do`. Several of the same variable are applied in turn, others at once; a callable sees the state
        before the interventions of its own slice.

    Returns
    -------
    IntervenedModel or IntervenedWorlds
        With the cost of the system itself and one operation more for each variable that is set. ``at_boundary`` of the
        worlds names variables of the state that are set after the step, since the system's step is one block.

    Raises
    ------
    UnknownVariableError, SpecError
        For a name that the system does not have, with the closest ones; for an intervention that it cannot take. A step
        beyond the horizon is refused at the end of a rollout.

    Examples
    --------
    >>> import bayeswm as bwm
    >>> model = bwm.KnownDynamics(structure=bwm.structures.Pendulum.gymnasium())
    >>> held = intervene(model, bwm.causal.do(velocity=0.0))
    >>> r = bwm.rollout(held, torch.tensor([0.1, 1.0]), torch.ones(3, 1))
    >>> r.mean[:, 1].tolist(), held.draw(1).at_boundary
    ([0.0, 0.0, 0.0], ('velocity',))
    """
    for one in interventions:
        if not isinstance(one, Intervention):
            raise SpecError(f"expected interventions made by do(...), got {type(one).__name__}")
    if isinstance(model, Worlds):
        if isinstance(model, IntervenedWorlds):
            return IntervenedWorlds(model.inner, (*model.interventions, *interventions), replay=model.replay)
        return IntervenedWorlds(model, interventions)
    before = model.interventions if isinstance(model, IntervenedModel) else ()
    system = model.inner if isinstance(model, IntervenedModel) else model
    names = [a.name for i in interventions for a in i.assignments]
    columns = {*model.schema.state.columns, *model.schema.action.columns, *model.schema.context.columns}
    parameters: Mapping[str, Tensor] = {}
    if any(n not in columns and n.removeprefix("noise.") not in columns for n in names):
        parameters = system.draw(1, generator=torch.Generator().manual_seed(0)).parameters
    for name in names:
        group_of(model.schema, name, parameters)
    return IntervenedModel(system, (*before, *interventions))


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
