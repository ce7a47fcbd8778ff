"""Worlds in which some parameters are drawn anew for each episode, and learned from its history."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Self, override

import torch
from torch import Tensor

from bayeswm.base.laws import Gaussian, Law, MultivariateGaussian
from bayeswm.base.shapes import common_shape
from bayeswm.base.structure import Structure
from bayeswm.base.trajectories import Trajectories
from bayeswm.base.worlds import Belief, Noise, StructureWorlds, Worlds
from bayeswm.inference.gaussian_filter import Unscented
from bayeswm.models.levels import PerEpisode
from bayeswm.models.sensed_worlds import SensedWorlds
from bayeswm.models.sensing import Sensing


class EpisodeWorlds(Worlds):
    """Worlds of a structure with :class:`~bayeswm.base.Hierarchical` parameters.

    What an episode's parameters are is part of its noise (``noise.episode``): new episodes draw them from the
    population, a history tells about them (by unscented filtering), and ``smooth`` draws them given a whole episode.
    The carry is that of :class:`SensedWorlds` for a state with the episode's numbers as further columns.

    Parameters
    ----------
    structure : Structure
        With parameters that differ between episodes.
    parameters : mapping of str to Tensor, shape (worlds, ...)
        Parameters of the structure, ``<name>.location`` and ``<name>.scale`` of those that differ, ``process_noise``
        (worlds, S), and with sensors ``sensor_noise`` (worlds, M).
    sensing : Sensing, optional
        What sensors report; by default the state is measured as it is.
    log_weight : Tensor, shape (worlds,), optional
        Equal weights by default.
    exhaustive : bool
        Whether these worlds are the posterior.
    """

    def __init__(
        self,
        structure: Structure,
        parameters: Mapping[str, Tensor],
        *,
        sensing: Sensing | None = None,
        log_weight: Tensor | None = None,
        exhaustive: bool = False,
    ) -> None:
        self.structure, self.parameters, self.sensing = structure, dict(parameters), sensing
        schema = structure.schema if sensing is None else sensing.schema
        if schema is None:  # a model binds its structure first
            raise ValueError("expected a structure bound to variables")
        self.schema = schema
        lifted = PerEpisode(structure, schema)
        self.size, self.episode_noise_size = lifted.size, len(lifted.levels)
        own = {k: v for k, v in self.parameters.items() if k != "sensor_noise"}
        noise = own["process_noise"]
        blank = noise.new_zeros(len(noise), self.episode_noise_size)
        own["process_noise"] = torch.cat((noise, blank), -1)
        noisy = tuple((noise != 0).any(0).nonzero().flatten().tolist())
        dynamics = StructureWorlds(
            lifted, lifted.schema, own, log_weight=log_weight, exhaustive=exhaustive, noisy=noisy
        )
        mean, scale = noise.new_zeros(1, 1, self.size), noise.new_full((1, 1, self.size), float("inf"))
        if sensing is not None:
            mean, scale = sensing.belief.mean, sensing.belief.spread
        belief = Gaussian(
            torch.cat((mean, blank[:1, None]), -1), torch.cat((scale, torch.ones_like(blank[:1, None])), -1)
        )
        self.inner = SensedWorlds(
            dynamics,
            schema=lifted.schema,
            sensor_noise=torch.zeros_like(noise) if sensing is None else self.parameters["sensor_noise"],
            belief=belief,
            method=Unscented() if sensing is None else sensing.method,
        )
        self.log_weight, self.exhaustive = self.inner.log_weight, exhaustive
        self.noise_size, self.state_is_measured = self.inner.noise_size, sensing is None

    # --- start ----------------------------------------------------------------------------------------------------

    @override
    def start(self, belief: Belief, context: Tensor | None = None, noise: Noise | None = None) -> Any:
        initial, episode = (None, None) if noise is None else (noise.initial, noise.episode)
        if isinstance(belief, Trajectories):
            both = None if episode is None else Noise(initial=_joined(initial, episode))
            return self.inner.start(self._lifted(belief), context, both)
        if isinstance(belief, Tensor):
            belief = Gaussian(belief.to(self.device, self.dtype)[None, None])
        if episode is None:
            mean, covariance = belief.mean, belief.covariance
            mean = mean.expand(len(self), *mean.shape[1:])
            root = mean.new_zeros(*mean.shape[:-1], *(self.size + self.episode_noise_size,) * 2)
            root[..., : self.size, : self.size] = covariance.diagonal(dim1=-2, dim2=-1).sqrt().diag_embed()
            if belief.noise_size > 1:
                root[..., : self.size, : self.size] = torch.linalg.cholesky(covariance)
            for i in range(self.size, self.size + self.episode_noise_size):
                root[..., i, i] = 1.0
            zero = mean.new_zeros(*mean.shape[:-1], self.episode_noise_size)
            return self.inner.method.begin(torch.cat((mean, zero), -1), root)
        drawn = belief.push(belief.mean.new_zeros(*belief.mean.shape[:-1], 0) if initial is None else initial)
        return _joined(drawn.expand(*common_shape(drawn.shape[:-1], episode.shape[:-1]), -1), episode)

    @override
    def initial_noise_size(self, belief: Belief) -> int:
        if isinstance(belief, Trajectories):
            return self.inner.initial_noise_size(belief) - self.episode_noise_size
        return super().initial_noise_size(belief)

    def beginning(self, trajectory: Trajectories) -> Gaussian:
        """Return what is believed of each episode's first state, given the first measurement alone."""
        law = self.inner.beginning(self._lifted(trajectory))
        return Gaussian(law.mean[..., : self.size], law.spread[..., : self.size])

    def _lifted(self, trajectory: Trajectories) -> Trajectories:
        return trajectory._like(self.inner.schema, state=None, observation=trajectory.measured_as(self.schema))

    # --- the system -----------------------------------------------------------------------------------------------

    @override
    def transition(self, carry: Any, action: Tensor, context: Tensor | None = None, *, step: int | Tensor = 0) -> Law:
        return _Visible(self.inner.transition(carry, action, context, step=step), self.size)

    @override
    def state(self, carry: Any) -> Tensor:
        return self.inner.state(carry)[..., : self.size]

    @override
    def measurement(self, carry: Any) -> Law:
        return Gaussian(self.state(carry)) if self.sensing is None else self.inner.measurement(carry)

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
        return self.inner.filter(carry, action, context, measurement, mask, step=step)

    @override
    def log_likelihood(self, carry: Any, measurements: Tensor, actions: Tensor, context: Tensor) -> Tensor:
        return self.inner.log_likelihood(carry, measurements, actions, context)

    @override
    def smooth(self, trajectory: Trajectories, *, generator: torch.Generator | None = None) -> tuple[Noise, Tensor]:
        noise, log_weight = self.inner.smooth(self._lifted(trajectory), generator=generator)
        if noise.initial is None:  # worlds with sensors always draw it
            raise ValueError("expected initial noise")
        initial, episode = noise.initial.split([self.size, self.episode_noise_size], -1)
        return Noise(None if self.sensing is None else initial, episode, noise.step), log_weight

    # --- the collection -------------------------------------------------------------------------------------------

    @override
    def _with(self, *, parameters: Mapping[str, Tensor], log_weight: Tensor, exhaustive: bool) -> Self:
        return type(self)(
            self.structure, parameters, sensing=self.sensing, log_weight=log_weight, exhaustive=exhaustive
        )


class _Visible(Law):
    """A law of the state and the episode's numbers, seen through the state's columns."""

    def __init__(self, law: Law, size: int) -> None:
        self.law, self.size = law, size
        self.noise_size, self.exact = law.noise_size, law.exact

    @property
    @override
    def mean(self) -> Tensor:
        return self.law.mean[..., : self.size]

    @property
    @override
    def variance(self) -> Tensor:
        return self.law.variance[..., : self.size]

    @property
    @override
    def covariance(self) -> Tensor:
        return self.law.covariance[..., : self.size, : self.size]

    @override
    def push(self, noise: Tensor) -> Any:
        return self.law.push(noise)

    @override
    def abduct(self, next_state: Tensor, *, tolerance: float | None = None) -> Tensor:
        return self.law.abduct(self._whole(next_state), tolerance=tolerance)

    @override
    def log_prob(self, state: Tensor, *, marginal: bool = False, tolerance: float | None = None) -> Tensor:
        if marginal or isinstance(self.law, Gaussian):
            each = self.law.log_prob(self._whole(state), marginal=True, tolerance=tolerance)[..., : self.size]
            return each if marginal else each.sum(-1)
        return MultivariateGaussian(self.mean, torch.linalg.cholesky(self.covariance)).log_prob(state)

    @override
    def cdf(self, state: Tensor) -> Tensor:
        return self.law.cdf(self._whole(state))[..., : self.size]

    @override
    def map(self, change: Callable[[Tensor], Tensor]) -> Law:
        return _Visible(self.law.map(change), self.size)

    def _whole(self, state: Tensor) -> Tensor:
        rest = self.law.mean[..., self.size :]
        lead = common_shape(state.shape[:-1], rest.shape[:-1])
        return torch.cat((state.expand(*lead, -1), rest.expand(*lead, -1)), -1)


def _joined(first: Tensor | None, second: Tensor) -> Tensor:
    return second if first is None else torch.cat((first, second), -1)
