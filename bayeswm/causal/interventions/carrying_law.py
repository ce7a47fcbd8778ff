"""The law of a step that hands on what interventions remember."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, override

from torch import Tensor

from bayeswm.base.errors import NotInvertible
from bayeswm.base.laws import Law


class CarryingLaw(Law):
    """A law of the next state whose push also hands on what interventions remember.

    Its push returns the next carry, the draws that the next step's stochastic interventions will need, and which events
    have happened.

    Parameters
    ----------
    law : Law
        Of the next state.
    extra : int
        Further coordinates of noise, which are carried on as they are.
    happened : Tensor, shape (worlds, particles, *batch, events)
        Which events have happened.
    """

    def __init__(self, law: Law, extra: int, happened: Tensor) -> None:
        self.law, self.extra, self.happened = law, extra, happened
        self.noise_size, self.exact = law.noise_size + extra, law.exact

    @property
    @override
    def mean(self) -> Tensor:
        return self.law.mean

    @property
    @override
    def variance(self) -> Tensor:
        return self.law.variance

    @property
    @override
    def covariance(self) -> Tensor:
        return self.law.covariance

    @override
    def push(self, noise: Tensor) -> tuple[Any, Tensor, Tensor]:
        own = self.law.noise_size
        return self.law.push(noise[..., :own]), noise[..., own:], self.happened

    @override
    def abduct(self, next_state: Tensor, *, tolerance: float | None = None) -> Tensor:
        if not self.extra:
            return self.law.abduct(next_state, tolerance=tolerance)
        raise NotInvertible("expected a system without stochastic interventions: their draws are not in the state")

    @override
    def log_prob(self, state: Tensor, *, marginal: bool = False, tolerance: float | None = None) -> Tensor:
        return self.law.log_prob(state, marginal=marginal, tolerance=tolerance)

    @override
    def cdf(self, state: Tensor) -> Tensor:
        return self.law.cdf(state)

    @override
    def map(self, change: Callable[[Tensor], Tensor]) -> Law:
        return CarryingLaw(self.law.map(change), self.extra, change(self.happened))
