"""Worlds around other worlds: everything is passed on, and a leaf says what is different."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, Self, override

import torch
from torch import Tensor

from bayeswm.base.laws import Law
from bayeswm.base.predictive import Predictive
from bayeswm.base.trajectories import Trajectories
from bayeswm.base.worlds import Belief, Noise, Worlds


class WrappedWorlds(Worlds):
    """Worlds that are those inside but for what a leaf overrides; it adds :meth:`_around`.

    Parameters
    ----------
    inner : Worlds
        The worlds inside.

    Examples
    --------
    >>> import bayeswm as bwm
    >>> class Same(WrappedWorlds):
    ...     def _around(self, inner):
    ...         return Same(inner)
    >>> worlds = Same(bwm.KnownDynamics(structure=bwm.structures.Pendulum.gymnasium()).draw(1))
    >>> worlds.to(torch.float32).step(worlds.start(torch.zeros(2)), torch.ones(1), noise=torch.empty(1, 1, 0))
    tensor([[[0.0075, 0.1500]]], dtype=torch.float64)
    """

    def __init__(self, inner: Worlds) -> None:
        self.inner = inner
        self.schema, self.parameters = inner.schema, inner.parameters
        self.log_weight, self.exhaustive = inner.log_weight, inner.exhaustive
        self.noise_size, self.episode_noise_size = inner.noise_size, inner.episode_noise_size
        self.state_is_measured, self.confounded = inner.state_is_measured, inner.confounded

    @abstractmethod
    def _around(self, inner: Worlds) -> Self:
        """Return the same around other worlds of the system."""

    @override
    def start(self, belief: Belief, context: Tensor | None = None, noise: Noise | None = None) -> Any:
        return self.inner.start(belief, context, noise)

    @override
    def comparable(self, trajectories: Trajectories) -> Trajectories:
        return self.inner.comparable(trajectories)

    @override
    def initial_noise_size(self, belief: Belief) -> int:
        return self.inner.initial_noise_size(belief)

    @override
    def transition(self, carry: Any, action: Tensor, context: Tensor | None = None, *, step: int | Tensor = 0) -> Law:
        return self.inner.transition(carry, action, context, step=step)

    @override
    def state(self, carry: Any) -> Tensor:
        return self.inner.state(carry)

    @override
    def measurement(self, carry: Any) -> Law:
        return self.inner.measurement(carry)

    @override
    def state_law(self, carry: Any) -> Law | None:
        return self.inner.state_law(carry)

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
    def smooth(self, trajectory: Trajectories, *, generator: torch.Generator | None = None) -> tuple[Noise, Tensor]:
        return self.inner.smooth(trajectory, generator=generator)

    @override
    def beginning(self, trajectory: Trajectories) -> Law:
        return self.inner.beginning(trajectory)

    @property
    @override
    def maps_forecasts(self) -> bool:
        return type(self).finish is not WrappedWorlds.finish or self.inner.maps_forecasts

    @override
    def finish(self, predictive: Predictive) -> Predictive:
        return self.inner.finish(predictive)

    @override
    def to(self, target: torch.device | str | torch.dtype) -> Self:
        return self._around(self.inner.to(target))

    @override
    def _with(self, *, parameters: Mapping[str, Tensor], log_weight: Tensor, exhaustive: bool) -> Self:
        return self._around(self.inner._with(parameters=parameters, log_weight=log_weight, exhaustive=exhaustive))

    @override
    def _replaced(self, parameters: Mapping[str, Tensor]) -> Self:
        return self._around(self.inner._replaced(parameters))
