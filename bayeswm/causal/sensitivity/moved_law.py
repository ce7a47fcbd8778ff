"""Laws of the next state with one column moved and its variance grown."""

from __future__ import annotations

from collections.abc import Callable
from typing import override

import torch
from torch import Tensor

from bayeswm.base.errors import SpecError
from bayeswm.base.laws import Gaussian, Law, MultivariateGaussian
from bayeswm.base.roots import covariance_root


def moved(law: Law, shift: Tensor, more: Tensor, *, column: int) -> Law:
    """Return a law with one column moved, in its standard deviations, and its variance grown by a share.

    Gaussian laws stay Gaussian, with the other columns and the covariances as they were; any other law keeps its shape.

    Raises
    ------
    SpecError
        Where the variance is infinite.
    """
    size = law.variance[..., column].sqrt() if type(law) is not Gaussian else law.spread[..., column]
    if not bool(size.isfinite().all()):
        raise SpecError("expected noise with a finite variance to say what share of it a confounder has")
    one = torch.zeros(law.mean.shape[-1], dtype=size.dtype, device=size.device)
    one[column] = 1.0
    added = (shift * size)[..., None] * one
    factor = 1 + ((1 + more).sqrt() - 1)[..., None] * one
    if type(law) is Gaussian:
        return Gaussian(law.mean + added, None if law.scale is None else law.spread * factor, noisy=law.noisy)
    if type(law) is MultivariateGaussian:
        grown = (more * size.square())[..., None, None] * torch.outer(one, one)
        return MultivariateGaussian(law.mean + added, covariance_root(law.covariance + grown))
    return MovedLaw(law, added, factor)


class MovedLaw(Law):
    """Any law of a measured state, stretched around its mean and moved, column by column.

    Parameters
    ----------
    law : Law
        The law before.
    shift, factor : Tensor, broadcastable to (worlds, particles, *batch, S)
        What is added, and what deviations from the mean are multiplied with.
    """

    def __init__(self, law: Law, shift: Tensor, factor: Tensor) -> None:
        self.law, self.noise_size, self.exact = law, law.noise_size, law.exact
        shape = torch.broadcast_shapes(law.mean.shape, shift.shape, factor.shape)
        self.shift, self.factor = shift.expand(shape), factor.expand(shape)

    @property
    @override
    def mean(self) -> Tensor:
        return self.law.mean + self.shift

    @property
    @override
    def variance(self) -> Tensor:
        return self.law.variance * self.factor.square()

    @property
    @override
    def covariance(self) -> Tensor:
        return self.factor[..., :, None] * self.law.covariance * self.factor[..., None, :]

    @override
    def push(self, noise: Tensor) -> Tensor:
        return self.mean + self.factor * (self.law.push(noise) - self.law.mean)

    @override
    def abduct(self, next_state: Tensor, *, tolerance: float | None = None) -> Tensor:
        return self.law.abduct(self._before(next_state), tolerance=tolerance)

    @override
    def log_prob(self, state: Tensor, *, marginal: bool = False, tolerance: float | None = None) -> Tensor:
        found = self.law.log_prob(self._before(state), marginal=marginal, tolerance=tolerance)
        return found - (self.factor.log() if marginal else self.factor.log().sum(-1))

    @override
    def cdf(self, state: Tensor) -> Tensor:
        return self.law.cdf(self._before(state))

    @override
    def map(self, change: Callable[[Tensor], Tensor]) -> MovedLaw:
        return MovedLaw(self.law.map(change), change(self.shift), change(self.factor))

    def _before(self, state: Tensor) -> Tensor:
        return self.law.mean + (state - self.mean) / self.factor
