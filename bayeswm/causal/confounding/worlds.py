"""Worlds whose steps have hidden causes, drawn from their law given the state: what actions that are set do."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self, override

import torch
from torch import Tensor

from bayeswm.base.errors import NotInvertible, SpecError
from bayeswm.base.laws import Law
from bayeswm.base.schema import Schema
from bayeswm.base.trajectories import Trajectories
from bayeswm.base.worlds import Belief, MarkovWorlds, Noise, Worlds
from bayeswm.causal.confounding.log import Recipe, with_context, without_recorded
from bayeswm.causal.confounding.mixed_law import MixedLaw
from bayeswm.causal.confounding.place import Place
from bayeswm.causal.confounding.regression import LinearMap

# names of the parameters that say how hidden causes are drawn
PREFIX = "confounding."


@dataclass(frozen=True)
class Wiring:
    """What the inputs of a step's outcome are, besides the state.

    Parameters
    ----------
    mediators, causes : int
        Coordinates that are drawn: what the action acts through, and hidden causes.
    logged : bool
        Draw causes as they were in the log, given state and action, not as they are when the action is set.

    Examples
    --------
    >>> Wiring(causes=1).size
    1
    """

    mediators: int = 0
    causes: int = 0
    logged: bool = False

    @property
    def size(self) -> int:
        """Coordinates that are drawn in a step; with a front door, logged actions stand for themselves."""
        return self.mediators + (0 if self.logged and self.mediators else self.causes)


class CausalWorlds(MarkovWorlds):
    """Worlds of a :class:`CausalDynamics` with hidden causes; outcomes are those of the worlds inside.

    Parameters
    ----------
    inner : MarkovWorlds
        Which take the causes as context, and with a front door what the action acts through as their action.
    recipe : Recipe
        How a log becomes one of theirs.
    wiring : Wiring
        What is drawn.
    parameters : mapping of str to Tensor, shape (worlds, ...)
        How it is drawn: ``cause.weight``, ``cause.root``, ``mediator.weight``, ``mediator.root`` and ``control``.
    confounded : str, optional
        Why these worlds do not say what actions do.
    """

    def __init__(
        self,
        inner: Worlds,
        recipe: Recipe,
        wiring: Wiring,
        *,
        parameters: Mapping[str, Tensor],
        confounded: str | None = None,
    ) -> None:
        if not isinstance(inner, MarkovWorlds):
            raise SpecError(
                f"expected dynamics whose state is measured without error, got {type(inner).__name__}: hidden causes "
                "of single steps cannot be told from errors of sensors"
            )
        self.inner, self.recipe, self.wiring, self.causes = inner, recipe, wiring, dict(parameters)
        self.schema: Schema = recipe.public
        self.parameters = {**inner.parameters, **{PREFIX + k: v for k, v in self.causes.items()}}
        self.log_weight, self.exhaustive = inner.log_weight, inner.exhaustive
        self.noise_size = wiring.size + inner.noise_size
        self.confounded = confounded

    # --- the system -------------------------------------------------------------------------------------------------

    @property
    @override
    def dtype(self) -> torch.dtype:
        return self.inner.dtype

    @override
    def transition(
        self, carry: Tensor, action: Tensor, context: Tensor | None = None, *, step: int | Tensor = 0
    ) -> Law:
        context = action.new_empty(*action.shape[:-1], 0) if context is None else context
        count = (len(self), *(1,) * (carry.ndim - 2))
        lead = torch.broadcast_shapes(carry.shape[:-1], action.shape[:-1], context.shape[:-1], count)
        state, action, context = (v.to(carry).expand(*lead, v.shape[-1]) for v in (carry, action, context))
        place = Place(state, action, context, step)
        return MixedLaw(self, place, drawn=self.wiring.size, noise_size=self.inner.noise_size)

    def outcome(self, at: Place, drawn: Tensor) -> Law:
        """Return the law of the next state given the coordinates that are drawn (an :class:`Outcome`)."""
        through, causes = drawn.split([self.wiring.mediators, drawn.shape[-1] - self.wiring.mediators], -1)
        action, phi = at.action, self.recipe.features(at.state, at.context)
        if self.wiring.mediators:
            both = self.recipe.with_action(phi, at.action)
            action = self._map("mediator").push(both, through)
        if self.wiring.mediators and self.wiring.logged:
            cause = at.action
        else:
            given = self.recipe.with_action(phi, at.action) if self.wiring.logged else phi
            cause = self._calibrated(self._map("cause").push(given, causes), phi, at.action)
        context = torch.cat(_columns(at.context, cause), -1) if at.context.shape[-1] else cause
        lead = torch.broadcast_shapes(at.state.shape[:-1], action.shape[:-1], context.shape[:-1])
        state, action, context = (v.expand(*lead, v.shape[-1]) for v in (at.state, action, context))
        return self.inner.transition(state, action, context, step=at.step)

    def picked(self, index: Tensor) -> CausalWorlds:
        """Return some worlds."""
        return self[index]

    def _map(self, name: str) -> LinearMap:
        return LinearMap(self.causes[f"{name}.weight"], self.causes[f"{name}.root"])

    def _calibrated(self, cause: Tensor, phi: Tensor, action: Tensor) -> Tensor:
        """Return the cause as the outcome knows it: in the units of the first stage that the log was made with."""
        control = self.causes.get("control")
        if control is None:
            return cause
        lead = torch.broadcast_shapes(cause.shape[:-1], phi.shape[:-1])
        parts = [v.expand(*lead, v.shape[-1]) for v in (cause, phi, action)]
        return LinearMap(control, control).mean(torch.cat(parts, -1))

    @override
    def start(self, belief: Belief, context: Tensor | None = None, noise: Noise | None = None) -> Tensor:
        if isinstance(belief, Trajectories):
            belief = with_context(belief, self.schema)
        return super().start(belief, context, noise)

    @override
    def comparable(self, trajectories: Trajectories) -> Trajectories:
        """Return a log without what is recorded only, for worlds that say what went together in one.

        Raises
        ------
        SpecError
            For a log with columns that tell the causes, where the worlds say what actions that are set do.
        """
        told = [name for name in self.recipe.needed if name in trajectories.schema.context.names]
        if told and not self.wiring.logged:
            raise SpecError(
                f"expected data in which actions were set, got the log that tells causes by ({', '.join(told)}): this "
                "model says what actions do, and a log shows what went together with actions that somebody chose; "
                f"judge the model's .behavioural by the log, or leave ({', '.join(told)}) out of data in which actions "
                "were set"
            )
        return super().comparable(without_recorded(trajectories, self.schema))

    @override
    def smooth(self, trajectory: Trajectories, *, generator: torch.Generator | None = None) -> tuple[Noise, Tensor]:
        """Find the noise of episodes of which the causes were recorded: exactly.

        Raises
        ------
        NotInvertible
            If columns of the log that tell them are missing.
        """
        whole = self._whole(trajectory)
        noise, log_density = self.inner.smooth(whole, generator=generator)
        return self._with_causes(noise, trajectory, whole), log_density

    @override
    def abduct(self, trajectory: Trajectories, *, generator: torch.Generator | None = None) -> Noise:
        whole = self._whole(trajectory)
        return self._with_causes(self.inner.abduct(whole, generator=generator), trajectory, whole)

    def _whole(self, trajectory: Trajectories) -> Trajectories:
        """Return episodes as the worlds inside see them."""
        missing = [name for name in self.recipe.needed if name not in trajectory.schema.context.names]
        if missing or self.wiring.logged:
            raise NotInvertible(
                f"expected episodes with the recorded ({', '.join(self.recipe.needed)}) as context, from which the "
                f"hidden causes follow, got none of ({', '.join(missing)}); pass the log as it was given to fit"
            )
        return self.recipe.outcome_log(trajectory).to(self.device).to(self.dtype)

    def _with_causes(self, noise: Noise, trajectory: Trajectories, whole: Trajectories) -> Noise:
        if noise.step is None:
            raise NotInvertible("expected noise of each step from the worlds inside, got none")
        drawn = self._drawn(trajectory, whole)
        lead = torch.broadcast_shapes(noise.step.shape[:-1], drawn.shape[:-1])
        step = torch.cat([v.expand(*lead, v.shape[-1]) for v in (drawn, noise.step)], -1)
        inside = trajectory.step_mask.to(self.device)[..., None]
        return Noise(step=torch.where(inside, step, float("nan")))

    def _drawn(self, trajectory: Trajectories, whole: Trajectories) -> Tensor:
        """Return the drawn coordinates that led to recorded causes, shape (worlds, 1, episodes, H, k)."""
        public = with_context(trajectory, self.schema).to(self.device).to(self.dtype)
        inside = public.step_mask[..., None]

        def shown(values: Tensor) -> Tensor:
            return torch.where(inside, values, 0.0)[None, None]

        state, action = shown(public.states()[:, :-1]), shown(public.action)
        phi = self.recipe.features(state, shown(public.step_context()))
        cause = shown(whole.step_context())[..., self.schema.context.size :]
        control = self.causes.get("control")
        if control is not None:  # back from the first stage that the log was made with
            size = cause.shape[-1]
            lead = (len(self), *cause.shape[1:-1])
            rest = torch.cat([v.expand(*lead, v.shape[-1]) for v in (phi, action)], -1)
            offset = LinearMap(control[..., size:], control).mean(rest)
            cause = LinearMap(torch.linalg.inv(control[..., :size]), control).mean((cause - offset).expand(*lead, -1))
        drawn = self._map("cause").abduct(phi, cause)
        if not self.wiring.mediators:
            return drawn
        through = self._map("mediator").abduct(self.recipe.with_action(phi, action), shown(whole.action))
        return torch.cat((through, drawn), -1)

    # --- the collection ---------------------------------------------------------------------------------------------

    def _around(self, inner: Worlds, causes: Mapping[str, Tensor]) -> Self:
        return type(self)(inner, self.recipe, self.wiring, parameters=causes, confounded=self.confounded)

    @override
    def _with(self, *, parameters: Mapping[str, Tensor], log_weight: Tensor, exhaustive: bool) -> Self:
        own, causes = _split(parameters)
        return self._around(self.inner._with(parameters=own, log_weight=log_weight, exhaustive=exhaustive), causes)

    @override
    def _replaced(self, parameters: Mapping[str, Tensor]) -> Self:
        own, causes = _split(parameters)
        return self._around(self.inner._replaced(own), causes)

    @override
    def to(self, target: torch.device | str | torch.dtype) -> Self:
        return self._around(self.inner.to(target), {k: v.to(target) for k, v in self.causes.items()})


def _split(parameters: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    own = {k: v for k, v in parameters.items() if not k.startswith(PREFIX)}
    return own, {k.removeprefix(PREFIX): v for k, v in parameters.items() if k.startswith(PREFIX)}


def _columns(*values: Any) -> list[Tensor]:
    lead = torch.broadcast_shapes(*(v.shape[:-1] for v in values))
    return [v.expand(*lead, v.shape[-1]) for v in values]
