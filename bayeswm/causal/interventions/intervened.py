"""Worlds under interventions, behind the interface that they had."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Self, override

import torch
from torch import Tensor

from bayeswm.base.errors import DataError, SpecError
from bayeswm.base.laws import Gaussian, Law, MultivariateGaussian
from bayeswm.base.predictive import Predictive
from bayeswm.base.shapes import common_shape
from bayeswm.base.trajectories import Trajectories
from bayeswm.base.trees import tree_map
from bayeswm.base.worlds import Belief, MarkovWorlds, Noise, Worlds
from bayeswm.causal.counterfactuals.replayed_law import ReplayedLaw
from bayeswm.causal.interventions.arrangement import Arrangement
from bayeswm.causal.interventions.assignment import Assignment
from bayeswm.causal.interventions.boundary_law import with_changes
from bayeswm.causal.interventions.carrying_law import CarryingLaw
from bayeswm.causal.interventions.chosen_law import ChosenLaw
from bayeswm.causal.interventions.intervention import Intervention
from bayeswm.causal.interventions.overwrite import Overwrite
from bayeswm.causal.interventions.set_noise import settled
from bayeswm.causal.interventions.variants import Variants
from bayeswm.causal.structural.worlds import StructuralWorlds


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
        self.parameters, self.log_weight, self.exhaustive = worlds.parameters, worlds.log_weight, worlds.exhaustive
        self.state_is_measured, self.confounded = worlds.state_is_measured, worlds.confounded
        self._plan = plan = Arrangement(worlds, self.interventions, replayed=replay is not None)
        if plan.by_group["action"]:
            worlds.check_actionable()
        self.at_boundary = plan.at_boundary
        self._carried, self._remembers = plan.carried, plan.remembers
        self._own_size = worlds.noise_size + plan.extra
        self.noise_size = self._own_size + len(plan.carried) - (0 if replay is None else worlds.noise_size)
        self.episode_noise_size = worlds.episode_noise_size + len(plan.carried) + len(plan.at_start)
        # covariances of correlated noise that was replayed, by step
        self.correlated: dict[int, Tensor] = {}
        # actions that were set while noise was replayed, by step
        self.played: dict[int, Tensor] = {}
        self._replayed_steps = () if replay is None else replay.unbind(-2)
        self._variants = Variants(worlds, plan.by_group["parameter"])
        self._waiting = Variants(worlds, [one for one in plan.by_group["parameter"] if one.when is None])

    # --- the system -----------------------------------------------------------------------------------------------

    @override
    def start(self, belief: Belief, context: Tensor | None = None, noise: Noise | None = None) -> Any:
        noise = Noise() if noise is None else noise
        episode, eta = noise.episode, None
        if self._carried or self._plan.at_start:
            if episode is None:
                raise SpecError(
                    "expected noise.episode for the first draws of stochastic interventions, got none; use a rollout"
                )
            episode, eta = episode[..., : self.inner.episode_noise_size], episode[..., self.inner.episode_noise_size :]
        if episode is not None and not self.inner.episode_noise_size:
            episode = None
        carry = self._waiting.at(0).start(belief, context, noise._replace(episode=episode))
        if self._plan.first:
            self._check_carry(carry)
            for one in self._plan.first:
                one.check_rows(carry.shape[2:-1])
            drawn = {one: one.values(0).to(carry) for one in self._plan.first if one.hard}
            lead = common_shape(carry.shape[:-1], *(v.shape for v in drawn.values()))
            lead = lead if eta is None else common_shape(lead, eta.shape[:-1])
            drawn = {one: v.expand(lead) for one, v in drawn.items()}
            for i, one in enumerate(self._plan.at_start):
                drawn[one] = one.drawn(self._some(eta)[..., len(self._carried) + i]).expand(lead)
            carry = Overwrite(self._plan.first, self.schema.state.columns, step=0, drawn=drawn)(carry.expand(*lead, -1))
        if not self._remembers:
            return carry
        if self._plan.events and isinstance(belief, Trajectories):
            raise SpecError("expected a state to start from, got a history: when events happened in it is not known")
        state = self.inner.state(carry)
        eta = state.new_zeros(*state.shape[:-1], 0) if eta is None else eta
        return carry, eta[..., : len(self._carried)], state.new_zeros(*state.shape[:-1], len(self._plan.events)).bool()

    @override
    def transition(self, carry: Any, action: Tensor, context: Tensor | None = None, *, step: int | Tensor = 0) -> Law:
        carry, eta, happened = self._split(carry)
        draws = {one: one.drawn(eta[..., i]) for i, one in enumerate(self._carried)} if eta is not None else {}
        state = self.inner.state(carry)
        happened = self._plan.happened(happened, state, step)
        action = self._plan.changed("action", action, state, step=step, draws=draws, happened=happened)
        if (
            self.replay is not None
            and isinstance(step, int)
            and self._plan.bounded
            and self._plan.active("action", step)
        ):
            self.played[step] = action
        if context is not None:
            context = self._plan.changed("context", context, state, step=step, draws=draws, happened=happened)
        carry = _met(carry, state, action, context)
        for one in (*self._plan.active("noise", step), *self._plan.active("state", step + 1)):
            one.check_rows(state.shape[2:-1])
        law, covariance = self._law(carry, action, context, step=step, draws=draws)
        if self._plan.late and happened is not None:
            self._check_carry(carry)
            on = self._plan.started(happened)
            before, other = self._law(carry, action, context, step=step, draws=draws, waiting=True)
            law = ChosenLaw(on, law, before)
            if covariance is not None and other is not None:
                covariance = torch.where(on[..., None, None], covariance, other)
        if covariance is not None and isinstance(step, int):
            self.correlated[step] = covariance
        if self.replay is not None:
            law = self._replayed(law, step)
        return law if happened is None else CarryingLaw(law, len(self._carried), happened)

    def _law(
        self,
        carry: Any,
        action: Tensor,
        context: Tensor | None,
        *,
        step: int | Tensor,
        draws: Mapping[Assignment, Tensor],
        waiting: bool = False,
    ) -> tuple[Law, Tensor | None]:
        worlds = (self._waiting if waiting else self._variants).at(step)
        noises = [
            settled(one, self.inner.state(carry), step=step, drawn=draws.get(one))
            for one in self._plan.active("noise", step, waiting=waiting)
        ]
        states = self._plan.active("state", step + 1, waiting=waiting)
        if isinstance(worlds, StructuralWorlds):
            inside = {"changes": states, "noise_changes": noises, "noise_size": self._own_size}
            return worlds.transition(carry, action, context, step=step, **inside), None
        if noises or states:
            self._check_carry(carry)
        law = worlds.transition(carry, action, context, step=step)
        correlated = self.replay is not None and isinstance(law, MultivariateGaussian)
        changed = with_changes(law, states, noises, columns=self.schema.state.columns, step=step, draws=draws)
        return changed, law.covariance if correlated else None

    def _replayed(self, law: Law, step: int | Tensor) -> Law:
        if isinstance(step, Tensor) or step >= len(self._replayed_steps):
            raise SpecError(f"expected a step below {len(self._replayed_steps)}, one at a time")
        noise = self._replayed_steps[step]
        pushed = law.push(noise) if law.noise_size == noise.shape[-1] else None
        # a carry may hold more than the state
        if isinstance(pushed, Tensor) and pushed.shape[-1] == self.schema.state.size:
            return Gaussian(pushed)
        return ReplayedLaw(law, noise, state=self.inner.state)

    def _check_carry(self, carry: Any) -> None:
        """Refuse to set a state of which the carry is only a belief, or knows more."""
        if not isinstance(carry, Tensor) or carry.shape[-1] != self.schema.state.size:
            names = [one.name for group in ("state", "noise") for one in self._plan.by_group[group]]
            names += [one.name for one in self._plan.late if one.name not in names]
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
        return None if self._plan.events else self.inner.state_law(self._split(carry)[0])

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
        happened = self._plan.happened(happened, self.inner.state(own), step)
        if not isinstance(self.inner, MarkovWorlds):
            if self._plan.late:
                self._check_carry(own)
            worlds, state = self._variants.at(step), self.inner.state(own)
            action = self._plan.changed("action", action, state, step=step, draws={}, happened=happened)
            if context is not None:
                context = self._plan.changed("context", context, state, step=step, draws={}, happened=happened)
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
                carry = after, eta, self._plan.happened(happened, self.inner.state(own), t)
            else:
                carry = after
        return Noise(step=torch.stack(noise, -2)), total

    @override
    def finish(self, predictive: Predictive) -> Predictive:
        self._plan.check_horizon(predictive.horizon)
        if self.replay is not None and self.replay.shape[1] > 1 and any(predictive.resolved):
            # particles differ in the noise that they replay, though they start in one place
            predictive = predictive.mapped(
                predictive.laws, particles=predictive.particles, resolved=[False] * predictive.horizon
            )
        return self.inner.finish(predictive)

    # --- the collection -------------------------------------------------------------------------------------------

    def _on(self, worlds: Worlds, replay: Tensor | None) -> Self:
        return type(self)(worlds, self.interventions, replay=replay)

    @override
    def _with(self, *, parameters: Mapping[str, Tensor], log_weight: Tensor, exhaustive: bool) -> Self:
        if self.replay is not None and parameters is not self.parameters:
            raise SpecError("expected the worlds as they are, since the noise of each is known")
        inner = self.inner._with(parameters=parameters, log_weight=log_weight, exhaustive=exhaustive)
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
    lead = common_shape(state.shape[:-1], *shapes) if shapes else state.shape[:-1]
    if lead == state.shape[:-1]:
        return carry
    return tree_map(lambda v: v.expand(*lead, *v.shape[len(lead) :]), carry)
