"""The law of the next belief: what is not known stays so, process noise moves it."""

from __future__ import annotations

from collections.abc import Callable
from typing import override

import torch
from torch import Tensor

from bayeswm.base.errors import NotInvertible
from bayeswm.base.laws import Gaussian, Law
from bayeswm.base.trees import tree_map
from bayeswm.inference.cloud import Cloud
from bayeswm.inference.gaussian_belief import GaussianBelief


class BeliefLaw(Law):
    """The law of the next state where the one before is a belief.

    Pushed noise moves the belief by the process noise; it stays as wide as the transition alone made it.

    Parameters
    ----------
    before : GaussianBelief or Cloud
        The belief after the transition, without process noise.
    scale : Tensor, broadcastable to (W, P, *batch, S), optional
        Standard deviation of the process noise.
    noisy : tuple of int, optional
        Columns that have a noise coordinate; all by default.
    exact : bool
        Whether the belief is the exact law: a Gaussian one through a linear transition.
    """

    def __init__(
        self,
        before: GaussianBelief | Cloud,
        scale: Tensor | None,
        *,
        noisy: tuple[int, ...] | None = None,
        exact: bool,
    ) -> None:
        self.before, self.scale, self.noisy, self.exact = before, scale, noisy, exact
        self._mean = before.mean
        self._kick = Gaussian(torch.zeros_like(self._mean), scale, noisy=noisy)
        self.noise_size = self._kick.noise_size

    @property
    @override
    def mean(self) -> Tensor:
        return self._mean

    @property
    @override
    def variance(self) -> Tensor:
        return self.covariance.diagonal(dim1=-2, dim2=-1)

    @property
    @override
    def covariance(self) -> Tensor:
        return self.before.covariance + torch.diag_embed(self._kick.variance)

    @override
    def push(self, noise: Tensor) -> GaussianBelief | Cloud:
        return self.before.moved(self._kick.push(noise))

    @override
    def abduct(self, next_state: Tensor, *, tolerance: float | None = None) -> Tensor:
        raise NotInvertible("expected a known state before the step, got a belief: smooth() draws the noise instead")

    @override
    def log_prob(self, state: Tensor, *, marginal: bool = False, tolerance: float | None = None) -> Tensor:
        if marginal and isinstance(self.before, GaussianBelief):
            return self._marginal.log_prob(state, marginal=True, tolerance=tolerance)
        return self._after.law().log_prob(state, marginal=marginal, tolerance=tolerance)

    @override
    def cdf(self, state: Tensor) -> Tensor:
        return self._marginal.cdf(state)

    @override
    def map(self, change: Callable[[Tensor], Tensor]) -> BeliefLaw:
        scale = None if self.scale is None else change(self.scale.expand(self._mean.shape))
        return BeliefLaw(tree_map(change, self.before), scale, noisy=self.noisy, exact=self.exact)

    @property
    def _after(self) -> GaussianBelief | Cloud:
        return self.before.widened(None if self.scale is None else self._kick.spread)

    @property
    def _marginal(self) -> Law:
        if isinstance(self.before, GaussianBelief):
            return Gaussian(self._mean, self.variance.clamp(min=0).sqrt())
        return self._after.law()
