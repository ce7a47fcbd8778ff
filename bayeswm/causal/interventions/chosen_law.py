"""The law of a step that an event decides on, in each trajectory by itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import override

import torch
from torch import Tensor

from bayeswm.base.errors import SpecError
from bayeswm.base.laws import Law
from bayeswm.base.shapes import common_shape


class ChosenLaw(Law):
    """One law where an event has happened, another where it has not; both of the same noise.

    Parameters
    ----------
    on : Tensor of bool, shape (worlds, particles, *batch)
        Where the event has happened.
    then, otherwise : Law
        Of the next state, with as many coordinates of noise.

    Raises
    ------
    SpecError
        If the laws differ in their noise.
    """

    def __init__(self, on: Tensor, then: Law, otherwise: Law) -> None:
        if then.noise_size != otherwise.noise_size:
            raise SpecError(
                f"expected an event to leave the noise of a step as it is, got {otherwise.noise_size} coordinates "
                f"before it and {then.noise_size} after"
            )
        self.on, self.then, self.otherwise = on, then, otherwise
        self.noise_size, self.exact = then.noise_size, then.exact and otherwise.exact

    def _either(self, then: Tensor, otherwise: Tensor, axes: int = 1) -> Tensor:
        return torch.where(self.on[(..., *(None,) * axes)], then, otherwise)

    def _apart(self, state: Tensor) -> tuple[Tensor, Tensor]:
        """Return states for either law: what it leads to without noise where it does not hold."""
        shape = common_shape(self.on.shape, state.shape[:-1])
        silent = state.new_zeros(*shape, self.noise_size)
        return self._either(state, self.then.push(silent)), self._either(self.otherwise.push(silent), state)

    @property
    @override
    def mean(self) -> Tensor:
        return self._either(self.then.mean, self.otherwise.mean)

    @property
    @override
    def variance(self) -> Tensor:
        return self._either(self.then.variance, self.otherwise.variance)

    @property
    @override
    def covariance(self) -> Tensor:
        return self._either(self.then.covariance, self.otherwise.covariance, 2)

    @override
    def push(self, noise: Tensor) -> Tensor:
        return self._either(self.then.push(noise), self.otherwise.push(noise))

    @override
    def abduct(self, next_state: Tensor, *, tolerance: float | None = None) -> Tensor:
        first, second = self._apart(next_state)
        return self._either(
            self.then.abduct(first, tolerance=tolerance), self.otherwise.abduct(second, tolerance=tolerance)
        )

    @override
    def log_prob(self, state: Tensor, *, marginal: bool = False, tolerance: float | None = None) -> Tensor:
        first, second = self._apart(state)
        then = self.then.log_prob(first, marginal=marginal, tolerance=tolerance)
        otherwise = self.otherwise.log_prob(second, marginal=marginal, tolerance=tolerance)
        return self._either(then, otherwise, int(marginal))

    @override
    def cdf(self, state: Tensor) -> Tensor:
        return self._either(self.then.cdf(state), self.otherwise.cdf(state))

    @override
    def map(self, change: Callable[[Tensor], Tensor]) -> Law:
        lead = common_shape(self.on.shape, self.then.mean.shape[:-1])
        on = change(self.on.expand(lead)[..., None])[..., 0]
        return ChosenLaw(on, self.then.map(change), self.otherwise.map(change))
