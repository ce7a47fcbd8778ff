"""Worlds seen through sensors: the state is hidden, what was recorded are measurements of some of its columns."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self, override

import torch
from torch import Tensor

from bayeswm.base.errors import SpecError
from bayeswm.base.laws import Gaussian, Law, MultivariateGaussian
from bayeswm.base.random import standard_normal
from bayeswm.base.schema import Schema
from bayeswm.base.trajectories import Trajectories
from bayeswm.base.worlds import Belief, MarkovWorlds, Noise, Worlds
from bayeswm.inference.cloud import Cloud, CloudLaw
from bayeswm.inference.filtering import Filter, Filtered, filter_along, first_belief
from bayeswm.inference.gaussian_belief import GaussianBelief, Sensors
from bayeswm.inference.gaussian_filter import Move
from bayeswm.inference.particle_filter import ParticleFilter
from bayeswm.models.belief_law import BeliefLaw

Carry = Tensor | GaussianBelief | Cloud
_SENSOR_NOISE = "sensor_noise"


class SensedWorlds(Worlds):
    """Worlds whose state is measured by noisy sensors.

    The carry is a known state (a tensor), as in rollouts, which then cost what they cost without sensors; or a belief,
    as after ``start`` from a history without noise, and after ``filter``.

    Parameters
    ----------
    dynamics : MarkovWorlds
        How the state moves, with Gaussian laws.
    schema : Schema
        Of the dynamics; where it has an observation, its variables are those of the state that are measured.
    sensor_noise : Tensor, shape (worlds, M)
        Standard deviations of the sensors' noise, in the variables' units; it becomes a parameter. 0 is an exact sensor
        of a column that has process noise.
    belief : Gaussian
        What is believed of a state at the start of an episode, mean and scale of shape (1, 1, S); an infinite scale
        says nothing: then the first measurement tells.
    method : Unscented, LinearGaussian or ParticleFilter
        How beliefs are moved.

    Raises
    ------
    SpecError
        If sensors measure what is no state column, or their noise is below 0.
    """

    def __init__(
        self, dynamics: MarkovWorlds, *, schema: Schema, sensor_noise: Tensor, belief: Gaussian, method: Filter
    ) -> None:
        if not schema.state.flat:
            raise SpecError("expected states of real numbers and angles with sensor noise, got other kinds")
        self.dynamics, self.schema, self.belief, self.method = dynamics, schema, belief, method
        self.columns = tuple(schema.state.column(name) for name in schema.measured.columns)
        if not bool((sensor_noise >= 0).all()):
            raise SpecError(f"expected sensor noise >= 0, got {float(sensor_noise.min()):g}")
        self.parameters = {**dynamics.parameters, _SENSOR_NOISE: sensor_noise}
        self.log_weight, self.exhaustive = dynamics.log_weight, dynamics.exhaustive
        self.noise_size = dynamics.noise_size

    @property
    def sensors(self) -> Sensors:
        """What is measured, and how well."""
        return Sensors(self.columns, self.parameters[_SENSOR_NOISE])

    # --- start ----------------------------------------------------------------------------------------------------

    @override
    def start(self, belief: Belief, context: Tensor | None = None, noise: Noise | None = None) -> Carry:
        if isinstance(belief, Tensor):
            return belief.to(self.device, self.dtype).expand(len(self), 1, *belief.shape)
        initial = None if noise is None else noise.initial
        if isinstance(belief, Trajectories):
            found = self._filtered(belief)[1].beliefs[-1]
            return found if initial is None else found.draw(initial)
        if initial is not None or not belief.noise_size:
            pushed = belief.push(belief.mean.new_zeros(*belief.mean.shape[:-1], 0) if initial is None else initial)
            return self._in_each_world(pushed)
        mean, covariance = (self._in_each_world(v) for v in (belief.mean, belief.covariance))
        known = GaussianBelief(mean, covariance.diagonal(dim1=-2, dim2=-1).sqrt().diag_embed())
        if bool((covariance - known.covariance).any()):
            known = GaussianBelief(mean, torch.linalg.cholesky(covariance))
        return self.method.begin(known.mean, known.root)

    @override
    def initial_noise_size(self, belief: Belief) -> int:
        if isinstance(belief, Trajectories):
            return self.schema.state.size + isinstance(self.method, ParticleFilter)
        return super().initial_noise_size(belief)

    @override
    def beginning(self, trajectory: Trajectories) -> Gaussian:
        return self._beginning(trajectory.measured_as(self.schema)[:, 0])[0]

    def _beginning(self, measured: Tensor) -> tuple[Gaussian, Tensor]:
        mean, scale = (v.to(self.device, self.dtype) for v in (self.belief.mean, self.belief.spread))
        lead = (*(1,) * measured.ndim, -1)
        mean, scale, log_prob = first_belief(
            mean.view(lead), scale.view(lead), measured=measured.to(self.device, self.dtype), sensors=self.sensors
        )
        return Gaussian(mean, scale), log_prob

    def _in_each_world(self, values: Tensor) -> Tensor:
        values = values.to(self.device, self.dtype)
        return values.expand(max(len(self), values.shape[0]), *values.shape[1:])

    # --- the system -----------------------------------------------------------------------------------------------

    @override
    def transition(self, carry: Carry, action: Tensor, context: Tensor | None = None, *, step: int | Tensor = 0) -> Law:
        if isinstance(carry, Tensor):
            return self.dynamics.transition(carry, action, context, step=step)
        passage = self.method.passage(carry, self._move(carry, action, context, step=step))  # pyright: ignore[reportArgumentType]
        settled = passage.settled()
        scale = passage.scale
        if isinstance(settled, Cloud) and scale is not None:
            scale = (settled.weight * scale.square()).sum(-2).sqrt()  # pushed noise moves all particles alike
        return BeliefLaw(settled, scale, noisy=self._noisy(), exact=self.method.exact)

    def _noisy(self) -> tuple[int, ...] | None:
        return getattr(self.dynamics, "noisy", None)

    def _move(self, carry: Carry, action: Tensor, context: Tensor | None, *, step: int | Tensor) -> Move:
        """Return the transition of points, whose axis comes after the particles."""
        axes = self.state(carry).ndim

        def beside(values: Tensor, points: int) -> Tensor:
            if values.ndim == axes:
                return values[:, :, None].expand(-1, -1, points, *values.shape[2:])
            return values.expand(points, *values.shape) if values.ndim == axes - 2 else values

        def move(states: Tensor) -> tuple[Tensor, Tensor | None]:
            given = beside(action, states.shape[2])
            factors = None if context is None else beside(context, states.shape[2])
            law = self.dynamics.transition(states, given, factors, step=step)
            if not isinstance(law, Gaussian):
                raise SpecError(f"expected Gaussian laws to filter with, got {type(law).__name__}")
            return law.mean, law.scale

        return move

    @override
    def state(self, carry: Carry) -> Tensor:
        return carry if isinstance(carry, Tensor) else carry.mean

    @override
    def measurement(self, carry: Carry) -> Law:
        index = list(self.columns)
        if isinstance(carry, Cloud):
            noise = self._per_world(carry.center.ndim)
            spread = (carry.spread[..., index].square() + noise.square()).sqrt()
            return CloudLaw(carry.center[..., index], spread, carry.log_weight)
        mean = self.state(carry)[..., index]
        noise = self._per_world(mean.ndim)
        if isinstance(carry, Tensor):
            return Gaussian(mean, noise)
        root = carry.root[..., index, :]
        covariance = root @ root.mT + torch.diag_embed(noise.square().expand(mean.shape))
        return MultivariateGaussian(mean, torch.linalg.cholesky(covariance))

    def _per_world(self, axes: int) -> Tensor:
        noise = self.parameters[_SENSOR_NOISE]
        return noise.view(len(self), *(1,) * (axes - 2), noise.shape[-1])

    # --- filtering ------------------------------------------------------------------------------------------------

    @override
    def filter(
        self,
        carry: Carry,
        action: Tensor,
        context: Tensor | None,
        measurement: Tensor,
        mask: Tensor | None = None,
        *,
        step: int | Tensor = 0,
    ) -> tuple[Carry, Tensor]:
        seen = ~measurement.isnan()
        seen = seen if mask is None else seen & mask
        belief = self._belief(carry)
        passage = self.method.passage(belief, self._move(belief, action, context, step=step))  # pyright: ignore[reportArgumentType]
        measurement = measurement.to(self.device, self.dtype)
        return passage.predicted().update(measurement, None if bool(seen.all()) else seen, self.sensors)

    @override
    def state_law(self, carry: Carry) -> Law:
        return Gaussian(carry) if isinstance(carry, Tensor) else carry.law()

    @override
    def log_likelihood(self, carry: Carry, measurements: Tensor, actions: Tensor, context: Tensor) -> Tensor:
        needed = (~measurements.isnan()).any(-1).flip(-1).cummax(-1).values.flip(-1)
        belief = self._belief(carry)
        return self._along(belief, measurements, actions=actions, context=context, inside=needed).log_prob

    @override
    def smooth(self, trajectory: Trajectories, *, generator: torch.Generator | None = None) -> tuple[Noise, Tensor]:
        if generator is None:
            raise SpecError("expected generator=torch.Generator, since the noise of a hidden state is drawn, got none")
        begun, found, first = self._filtered(trajectory, keep=True)
        inside = trajectory.step_mask.to(self.device)
        last = found.beliefs[-1]
        shape = (*last.mean.shape[:-1], last.noise_size)
        state = last.draw(standard_normal(shape, generator, dtype=self.dtype, device=self.device))
        path = [state]
        for t in reversed(range(len(found.passages))):
            state = torch.where(inside[:, t, None], found.passages[t].draw_before(state, generator), state)
            path.insert(0, state)
        states = torch.stack(path, -2)
        action, context = self._given(trajectory, inside)
        steps = torch.arange(trajectory.horizon, device=self.device)
        law = self.dynamics.transition(states[..., :-1, :], action, context, step=steps)
        spread = law.variance.sqrt()
        noise = torch.where(spread > 0, (states[..., 1:, :] - law.mean) / torch.where(spread > 0, spread, 1.0), 0.0)
        noisy = self._noisy()
        if noisy is not None:
            noise = noise[..., list(noisy)]
        noise = torch.where(inside[..., None], noise[..., : self.noise_size], float("nan"))
        initial = (states[..., 0, :] - begun.mean) / begun.spread
        return Noise(initial=initial, step=noise), first + found.log_prob.sum(-1)

    def smoothed(self, trajectory: Trajectories) -> GaussianBelief:
        """Return what is believed of each state given the whole episode (Rauch-Tung-Striebel).

        Parameters
        ----------
        trajectory : Trajectories
            What was measured.

        Returns
        -------
        GaussianBelief
            ``mean`` of shape (worlds, 1, episodes, T + 1, S) and ``covariance`` (..., S, S); after an episode's end as
            at its end.

        Raises
        ------
        SpecError
            With a particle filter: average what :meth:`smooth` draws instead.
        """
        if isinstance(self.method, ParticleFilter):
            raise SpecError("expected a Gaussian filter, got a particle filter; average draws of smooth() instead")
        _, found, _ = self._filtered(trajectory, keep=True)
        inside = trajectory.step_mask.to(self.device)
        later: Any = found.beliefs[-1]
        out = [later]
        for t in reversed(range(len(found.passages))):
            passage: Any = found.passages[t]
            before, on = passage.smoothed(later), inside[:, t]
            later = GaussianBelief(
                torch.where(on[:, None], before.mean, later.mean),
                torch.where(on[:, None, None], before.root, later.root),
            )
            out.insert(0, later)
        return GaussianBelief(torch.stack([b.mean for b in out], -2), torch.stack([b.root for b in out], -3))

    def _belief(self, carry: Carry) -> GaussianBelief | Cloud:
        if not isinstance(carry, Tensor):
            return carry
        return self.method.begin(carry, carry.new_zeros(*carry.shape, carry.shape[-1]))

    def _given(self, trajectory: Trajectories, inside: Tensor) -> tuple[Tensor, Tensor]:
        given = (v.to(self.device, self.dtype) for v in (trajectory.action, trajectory.step_context()))
        action, context = (torch.where(inside[..., None], v, 0.0) for v in given)
        return action, context

    def _filtered(self, trajectory: Trajectories, *, keep: bool = False) -> tuple[Gaussian, Filtered, Tensor]:
        """Filter along episodes: the law at the start, what was found, the log density of the first measurement."""
        measured = trajectory.measured_as(self.schema).to(self.device, self.dtype)
        inside = trajectory.step_mask.to(self.device)
        law, first = self._beginning(measured[:, 0])
        begun = self.method.begin(law.mean, torch.diag_embed(law.spread))
        action, context = self._given(trajectory, inside)
        found = self._along(begun, measured[:, 1:], actions=action, context=context, inside=inside, keep=keep)
        return law, found, first

    def _along(
        self,
        belief: GaussianBelief | Cloud,
        measured: Tensor,
        *,
        actions: Tensor,
        context: Tensor,
        inside: Tensor,
        keep: bool = False,
    ) -> Filtered:
        def moves(t: int) -> Move:
            action, factors = (torch.where(inside[..., t, None], v[..., t, :], 0.0) for v in (actions, context))
            return self._move(belief, action, factors, step=t)

        return filter_along(
            self.method, belief, moves, measured=measured, inside=inside, sensors=self.sensors, keep=keep
        )

    # --- the collection -------------------------------------------------------------------------------------------

    def _around(self, dynamics: MarkovWorlds, sensor_noise: Tensor) -> Self:
        return type(self)(
            dynamics, schema=self.schema, sensor_noise=sensor_noise, belief=self.belief, method=self.method
        )

    @override
    def _with(self, *, parameters: Mapping[str, Tensor], log_weight: Tensor, exhaustive: bool) -> Self:
        own = {k: v for k, v in parameters.items() if k != _SENSOR_NOISE}
        moved = self.dynamics._with(parameters=own, log_weight=log_weight, exhaustive=exhaustive)
        return self._around(moved, parameters[_SENSOR_NOISE])

    @override
    def _replaced(self, parameters: Mapping[str, Tensor]) -> Self:
        own = {k: v for k, v in parameters.items() if k != _SENSOR_NOISE}
        return self._around(self.dynamics._replaced(own), parameters[_SENSOR_NOISE])
