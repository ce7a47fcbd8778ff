"""Worlds: many frozen draws of a whole system, as one batched object."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Self, override

import torch
from torch import Tensor

from bayeswm.base.errors import ConfoundedError, DataError, SpecError, UnknownVariableError
from bayeswm.base.laws import Gaussian, Law
from bayeswm.base.magnitudes import any_missing
from bayeswm.base.schema import Schema
from bayeswm.base.shapes import common_shape
from bayeswm.base.structure import Structure
from bayeswm.base.trajectories import Trajectories

if TYPE_CHECKING:
    from bayeswm.base.predictive import Predictive

Belief = Tensor | Law | Trajectories


class Noise(NamedTuple):
    """Standard normal noise of a rollout, by when it is drawn; None for a part that the system does not have.

    ``initial`` and ``episode`` have shape (worlds, particles, *batch, n), ``step`` (worlds, particles, *batch, H, n).
    """

    initial: Tensor | None = None
    episode: Tensor | None = None
    step: Tensor | None = None


class Worlds(ABC):
    """A posterior over worlds, drawn: each world is one complete system with explicit noise.

    The carry is whatever a world needs to go on (for a Markov system its state); callers pass it on and look at it
    through :meth:`state` and :meth:`measurement` only. Leading axes are (worlds, particles, *batch).

    Attributes
    ----------
    schema : Schema
        Variables of the system.
    parameters : mapping of str to Tensor, shape (worlds, ...)
        What differs between worlds.
    log_weight : Tensor, shape (worlds,)
        Logarithms of the weights, normalised.
    exhaustive : bool
        Whether these worlds are the whole posterior (members of an ensemble, a known system) or draws from it.
    noise_size, episode_noise_size : int
        Noise coordinates of a step and of an episode.
    state_is_measured : bool
        Whether sensors report the state itself without error, so that :meth:`filter` gives the state's own density.
    confounded : str or None
        Why these worlds do not say what an action does, where they only say what went together in a log; None, the
        default, where they do. Planners refuse them, and so do interventions on actions.
    """

    schema: Schema
    parameters: Mapping[str, Tensor]
    log_weight: Tensor
    exhaustive: bool
    noise_size: int
    episode_noise_size: int = 0
    state_is_measured: bool = False
    confounded: str | None = None

    # --- the system -----------------------------------------------------------------------------------------------

    @abstractmethod
    def start(self, belief: Belief, context: Tensor | None = None, noise: Noise | None = None) -> Any:
        """Return the carry at the start.

        Parameters
        ----------
        belief : Tensor of shape (*batch, S), Law or Trajectories
            A known state, a law of it (pushed forward from ``noise.initial``), or the history that led to it: what was
            measured, first state included, and what was done.
        context : Tensor, shape (*batch, C), optional
            Context.
        noise : Noise, optional
            Its ``initial`` and ``episode`` parts are used: they settle what is not known of the start. Without them a
            system with a hidden state keeps its belief in the carry, for :meth:`filter`.
        """

    @abstractmethod
    def transition(self, carry: Any, action: Tensor, context: Tensor | None = None, *, step: int | Tensor = 0) -> Law:
        """Return the law of the next carry in each world."""

    def step(
        self, carry: Any, action: Tensor, context: Tensor | None = None, *, noise: Tensor, step: int | Tensor = 0
    ) -> Any:
        """Return the next carry: the transition's law, pushed."""
        return self.transition(carry, action, context, step=step).push(noise)

    @abstractmethod
    def state(self, carry: Any) -> Tensor:
        """Return the state, shape (worlds, particles, *batch, S)."""

    @abstractmethod
    def measurement(self, carry: Any) -> Law:
        """Return the law of what the sensors report."""

    @abstractmethod
    def filter(  # noqa: PLR0917 (the hot path names its arguments by position)
        self,
        carry: Any,
        action: Tensor,
        context: Tensor | None,
        measurement: Tensor,
        mask: Tensor | None = None,
        *,
        step: int | Tensor = 0,
    ) -> tuple[Any, Tensor]:
        """Predict one step and update on a measurement.

        Returns
        -------
        tuple of carry and Tensor, shape (worlds, particles, *batch)
            The carry given the measurement, and the log density of the measurement.
        """

    def state_law(self, carry: Any) -> Law | None:  # noqa: ARG002
        """Return what a carry knows of the state, as a law that :meth:`start` takes in these worlds.

        It spares those who filter along the way, such as a control loop, to filter the whole history again. None where
        a carry knows more than a law of the state can say: then only the history will do.
        """
        return None

    @abstractmethod
    def smooth(self, trajectory: Trajectories, *, generator: torch.Generator | None = None) -> tuple[Noise, Tensor]:
        """Draw all noise given whole episodes.

        Returns
        -------
        tuple of Noise and Tensor, shape (worlds, particles, episodes)
            A posterior draw of the noise in each world (NaN after an episode's end), and the log density of the
            episodes there: of all that was measured, or, where the state is measured, of what followed the first one.
        """

    def abduct(self, trajectory: Trajectories, *, generator: torch.Generator | None = None) -> Noise:
        """Draw all noise given whole episodes, as :meth:`smooth`, where their density is of no interest.

        A leaf whose density costs something brings its own; it has to give the same noise.
        """
        return self.smooth(trajectory, generator=generator)[0]

    def beginning(self, trajectory: Trajectories) -> Law:
        """Return what is believed of each episode's first state, given what was measured there alone.

        The initial noise that :meth:`smooth` finds pushes this law; a rollout from it replays the episode.

        Raises
        ------
        SpecError
            If these worlds cannot say.
        """
        raise SpecError(f"{type(self).__name__} does not say how {len(trajectory)} episode(s) began")

    def comparable(self, trajectories: Trajectories) -> Trajectories:
        """Return recorded data as forecasts of these worlds are held against them.

        Raises
        ------
        SpecError
            If they do not fit.
        """
        self.schema.check_same(trajectories.schema, who="the model")
        return trajectories

    def initial_noise_size(self, belief: Belief) -> int:
        """Return the number of noise coordinates that :meth:`start` takes for this belief."""
        return belief.noise_size if isinstance(belief, Law) else 0

    def log_likelihood(  # noqa: PLR0917 (hot path)
        self, carry: Any, measurements: Tensor, actions: Tensor, context: Tensor
    ) -> Tensor:
        """Return the log density of measured episodes step by step, by filtering along them.

        Parameters
        ----------
        carry : opaque
            What :meth:`start` returned for the beginning of the episodes.
        measurements : Tensor, shape (*batch, H, M)
            What was measured after each action; NaN for what was not.
        actions : Tensor, shape (*batch, H, A)
            Actions.
        context : Tensor, shape (*batch, H, C)
            Context of each step.

        Returns
        -------
        Tensor, shape (worlds, particles, *batch, H)
            The log density of each measurement given those before it.
        """
        steps: list[Tensor] = []
        for t in range(measurements.shape[-2]):
            seen = ~measurements[..., t, :].isnan()
            mask = None if bool(seen.all()) else seen
            carry, log_prob = self.filter(
                carry, actions[..., t, :], context[..., t, :], measurements[..., t, :], mask, step=t
            )
            steps.append(log_prob)
        return torch.stack(steps, -1)

    @property
    def maps_forecasts(self) -> bool:
        """Whether :meth:`finish` may answer with anything else than what the steps led to."""
        return type(self).finish is not Worlds.finish

    def finish(self, predictive: Predictive) -> Predictive:
        """Return what a rollout of these worlds answers with, given what its steps led to; as it is, by default.

        Worlds that have been recalibrated map it. It comes after the last step: carries, laws of transitions and what
        a policy sees are not mapped.
        """
        return predictive

    # --- the collection -------------------------------------------------------------------------------------------

    @abstractmethod
    def _with(self, *, parameters: Mapping[str, Tensor], log_weight: Tensor, exhaustive: bool) -> Self:
        """Return worlds of the same system with other parameters and weights."""

    def __len__(self) -> int:
        return self.log_weight.shape[0]

    def __repr__(self) -> str:
        kind = "the posterior" if self.exhaustive else "draws"
        return f"{type(self).__name__}({len(self)} worlds ({kind}), state=({', '.join(self.schema.state.names)}))"

    @property
    def weight(self) -> Tensor:
        """Weights, shape (worlds,), summing to 1."""
        return self.log_weight.exp()

    @property
    def dtype(self) -> torch.dtype:
        """Number format of the parameters."""
        return next((v.dtype for v in self.parameters.values()), self.log_weight.dtype)

    @property
    def device(self) -> torch.device:
        """Where the parameters are."""
        return self.log_weight.device

    def check_actionable(self) -> None:
        """Refuse worlds that do not say what an action does.

        Raises
        ------
        ConfoundedError
            With the reason.
        """
        if self.confounded is not None:
            raise ConfoundedError(f"expected worlds that say what an action does, got others: {self.confounded}")

    def replace(self, **values: float | Tensor) -> Self:
        """Return the worlds with some parameters set: a scalar in every world, or one value a world.

        Raises
        ------
        UnknownVariableError
            For a name that is no parameter.
        """
        parameters = dict(self.parameters)
        for name, value in values.items():
            if name not in parameters:
                raise UnknownVariableError.of(name, parameters)
            old = parameters[name]
            new = torch.as_tensor(value, dtype=old.dtype, device=old.device)
            if not bool(new.isfinite().all()):
                raise SpecError(f"{name}: expected a finite value, got {value}")
            try:
                parameters[name] = new.expand_as(old).clone()
            except RuntimeError:
                raise SpecError(
                    f"{name}: expected a shape that fits {tuple(old.shape)}, got {tuple(new.shape)}"
                ) from None
        return self._replaced(parameters)

    def _replaced(self, parameters: Mapping[str, Tensor]) -> Self:
        """Return worlds with values that were set by hand; a leaf may look at them first."""
        return self._with(parameters=parameters, log_weight=self.log_weight, exhaustive=self.exhaustive)

    def to(self, target: torch.device | str | torch.dtype) -> Self:
        """Return the worlds on another device or in another number format; rollouts follow."""
        moved = {k: v.to(target) if v.is_floating_point() else v for k, v in self.parameters.items()}
        log_weight = self.log_weight if isinstance(target, torch.dtype) else self.log_weight.to(target)
        return self._with(parameters=moved, log_weight=log_weight, exhaustive=self.exhaustive)

    def reweight(self, log_weight: Tensor, *, exhaustive: bool | None = None) -> Self:
        """Return the same worlds under other weights, shape (worlds,), which need not be normalised.

        Raises
        ------
        SpecError
            If the number of weights differs, or no weight is finite.
        """
        if log_weight.shape != self.log_weight.shape:
            raise SpecError(f"expected weights of shape {tuple(self.log_weight.shape)}, got {tuple(log_weight.shape)}")
        log_weight = torch.log_softmax(log_weight.to(self.log_weight), 0)
        if bool(log_weight.isnan().any()):
            raise SpecError("expected at least one world with a finite log weight and none with NaN")
        exhaustive = self.exhaustive if exhaustive is None else exhaustive
        return self._with(parameters=self.parameters, log_weight=log_weight, exhaustive=exhaustive)

    def __getitem__(self, index: int | slice | Sequence[int] | Tensor) -> Self:
        """Return some worlds; they count as the posterior only if all are still there."""
        if isinstance(index, Sequence):
            index = torch.as_tensor(index) if len(index) else slice(0, 0)
        picked = torch.arange(len(self), device=self.device)[index].reshape(-1)
        if len(picked) == 0:
            raise SpecError("expected at least one world in the selection, got none")
        whole = self.exhaustive and len(picked) == len(self) == len(picked.unique())
        return self._with(
            parameters={k: v[picked] for k, v in self.parameters.items()},
            log_weight=torch.log_softmax(self.log_weight[picked], 0),
            exhaustive=whole,
        )


class MarkovWorlds(Worlds):
    """Worlds whose carry is the state and whose sensors report it exactly; a leaf adds ``transition``."""

    state_is_measured = True

    @override
    def start(self, belief: Belief, context: Tensor | None = None, noise: Noise | None = None) -> Tensor:
        if isinstance(belief, Trajectories):
            self.schema.check_same(belief.schema, who="the model")
            rows = torch.arange(len(belief), device=belief.device)
            belief = belief.states()[rows, belief.lengths]
            if bool(belief.isnan().any()):
                raise DataError("expected a fully recorded last state in the history, got missing values")
        if isinstance(belief, Law):
            initial = None if noise is None else noise.initial
            if belief.noise_size and initial is None:
                raise SpecError("expected noise.initial to draw from a belief that is a law, got none")
            if initial is None:
                initial = belief.mean.new_zeros(*belief.mean.shape[:-1], 0)
            drawn = belief.push(initial).to(self.device, self.dtype)
            return drawn.expand(max(len(self), drawn.shape[0]), *drawn.shape[1:])
        return belief.to(self.log_weight.device, self.dtype).expand(len(self), 1, *belief.shape)

    @override
    def beginning(self, trajectory: Trajectories) -> Gaussian:
        return Gaussian(self.start(trajectory.states()[:, 0]))

    @override
    def state(self, carry: Tensor) -> Tensor:
        return carry

    @override
    def measurement(self, carry: Tensor) -> Law:
        return Gaussian(carry)

    @override
    def filter(
        self,
        carry: Tensor,
        action: Tensor,
        context: Tensor | None,
        measurement: Tensor,
        mask: Tensor | None = None,
        *,
        step: int | Tensor = 0,
    ) -> tuple[Tensor, Tensor]:
        if mask is not None and not bool(mask.all()):
            raise DataError("expected every state to be measured, got missing ones; use a model with sensor noise")
        if any_missing(measurement):
            raise DataError("expected a measured state, got NaN; use a model with sensor noise and a mask")
        law = self.transition(carry, action, context, step=step)
        log_prob = law.log_prob(measurement)
        return measurement.expand(*log_prob.shape, measurement.shape[-1]), log_prob

    @override
    def state_law(self, carry: Tensor) -> Law:
        return Gaussian(carry)

    @override
    def smooth(self, trajectory: Trajectories, *, generator: torch.Generator | None = None) -> tuple[Noise, Tensor]:
        law, after, inside = self._of_episodes(trajectory)
        return Noise(step=_solved(law, after, inside)), _inside(law.log_prob(after), inside).sum(-1)

    @override
    def abduct(self, trajectory: Trajectories, *, generator: torch.Generator | None = None) -> Noise:
        return Noise(step=_solved(*self._of_episodes(trajectory)))

    def _of_episodes(self, trajectory: Trajectories) -> tuple[Law, Tensor, Tensor | None]:
        """Return the law of every step of recorded episodes, what came, and where: see :meth:`_along`."""
        self.schema.check_same(trajectory.schema, who="the model")
        states, action, context = (
            v.to(self.device, self.dtype) for v in (trajectory.states(), trajectory.action, trajectory.step_context())
        )
        if any_missing(states[:, 0]):
            raise DataError(
                "expected every state to be measured, got a missing first one; use a model with sensor noise"
            )
        return self._along(self.start(states[:, 0]), states[:, 1:], action, context=context)

    @override
    def log_likelihood(self, carry: Tensor, measurements: Tensor, actions: Tensor, context: Tensor) -> Tensor:
        law, after, inside = self._along(carry, measurements, actions, context=context)
        return _inside(law.log_prob(after), inside)

    def _along(
        self, carry: Tensor, states: Tensor, actions: Tensor, *, context: Tensor
    ) -> tuple[Law, Tensor, Tensor | None]:
        """Return the law of every step of known states at once (time is one more batch axis), and what came.

        NaN after the end of an episode is filled, so that no gradient meets it; the mask says where, and is None where
        no episode ends early.
        """
        inside = None
        if any_missing(states):
            missing = states.isnan()
            inside = ~missing.all(-1)
            if bool((missing.any(-1) & inside).any()) or bool((inside.cummin(-1).values != inside).any()):
                raise DataError("expected every state to be measured, got missing ones; use a model with sensor noise")
            states = torch.where(missing, 0.0, states)
            actions, context = (torch.where(inside[..., None], v, 0.0) for v in (actions, context))
        carry = carry.expand(*common_shape(carry.shape[:2], (len(self), 1)), *states.shape[:-2], -1)
        later = states[..., :-1, :].expand(*carry.shape[:2], *states[..., :-1, :].shape)
        before = torch.cat((carry[..., None, :], later), -2)
        steps = torch.arange(states.shape[-2], device=states.device)
        law = self.transition(before, actions, context, step=steps)
        if inside is None:  # the moments of a law may be costly
            return law, states, inside
        return law, torch.where(inside[..., None], states, law.mean), inside


def _inside(log_prob: Tensor, inside: Tensor | None) -> Tensor:
    return log_prob if inside is None else torch.where(inside, log_prob, 0.0)


def _solved(law: Law, after: Tensor, inside: Tensor | None) -> Tensor:
    noise = law.abduct(after)
    return noise if inside is None else torch.where(inside[..., None], noise, float("nan"))


class StructureWorlds(MarkovWorlds):
    """A structure with drawn parameters and its process noise.

    Parameters
    ----------
    structure : Structure
        Transition function, bound to the schema.
    schema : Schema
        Variables.
    parameters : mapping of str to Tensor, shape (worlds, ...)
        Parameters of the structure; ``process_noise`` of shape (worlds, S), if there, is the standard deviation of the
        noise and takes precedence over the structure's own.
    log_weight : Tensor, shape (worlds,), optional
        Equal weights by default.
    exhaustive : bool
        Whether these worlds are the posterior.
    noisy : tuple of int, optional
        State columns with process noise; all by default. Columns that :meth:`replace` gives noise are added.
    law : callable, optional
        ``law(mean, scale, parameters=, inputs=)`` returns the law of the next state around the structure's mean, with
        one noise coordinate for each column; Gaussian by default.
    """

    def __init__(
        self,
        structure: Structure,
        schema: Schema,
        parameters: Mapping[str, Tensor],
        *,
        log_weight: Tensor | None = None,
        exhaustive: bool,
        noisy: tuple[int, ...] | None = None,
        law: Callable[..., Law] | None = None,
    ) -> None:
        self.structure, self.law = structure, law
        self.schema = schema
        self.parameters = dict(parameters)
        self._own = {k: v for k, v in self.parameters.items() if k != "process_noise"}
        if log_weight is None:
            if not self.parameters:
                raise SpecError("expected parameters or log_weight=, to say how many worlds there are, got neither")
            first = next(iter(self.parameters.values()))
            log_weight = torch.zeros(len(first), dtype=torch.float64, device=first.device)
        self.log_weight = torch.log_softmax(log_weight.double(), 0)
        self.exhaustive = exhaustive
        self.noisy = noisy
        self.noise_size = schema.state.size if noisy is None else len(noisy)

    @override
    def transition(
        self, carry: Tensor, action: Tensor, context: Tensor | None = None, *, step: int | Tensor = 0
    ) -> Law:
        if context is None:
            context = action.new_empty(*action.shape[:-1], 0)
        mean, scale = self.structure.batched(self._own, carry, action, context, step)
        size = self.schema.state.size
        if mean.ndim != carry.ndim or mean.shape[-1] != size or (scale is not None and scale.shape[-1:] != (size,)):
            shapes = tuple(mean.shape[2:]), None if scale is None else tuple(scale.shape[2:])
            raise SpecError(
                f"{self.structure.name}: expected the mean (and scale) of the next state of shape (*batch, {size}), "
                f"got {shapes[0]} and {shapes[1]}"
            )
        noise = self.parameters.get("process_noise")
        if self.noisy == ():
            scale = None
        elif noise is not None:
            scale = noise.view(noise.shape[0], *(1,) * (mean.ndim - 2), noise.shape[1])
        if self.law is not None:
            return self.law(mean, scale, parameters=self.parameters, inputs=(carry, action, context))
        return Gaussian(mean, scale, noisy=self.noisy)

    @override
    def _replaced(self, parameters: Mapping[str, Tensor]) -> Self:
        for name, p in self.structure.parameters().items():
            if p.positive and name in parameters and bool((parameters[name] <= 0).any()):
                raise SpecError(f"{self.structure.name}: expected {name} > 0, got {float(parameters[name].min()):g}")
        new = super()._replaced(parameters)
        scale = parameters.get("process_noise")
        if self.noisy is not None and scale is not None and scale is not self.parameters["process_noise"]:
            # noise that was set is never dropped
            given = (scale != 0).flatten(0, -2).any(0).nonzero().squeeze(-1).tolist()
            new.noisy = tuple(sorted({*self.noisy, *given}))
            new.noise_size = len(new.noisy)
        return new

    @override
    def _with(self, *, parameters: Mapping[str, Tensor], log_weight: Tensor, exhaustive: bool) -> Self:
        return type(self)(
            self.structure,
            self.schema,
            parameters,
            log_weight=log_weight,
            exhaustive=exhaustive,
            noisy=self.noisy,
            law=self.law,
        )
