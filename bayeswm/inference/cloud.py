"""A cloud of particles as a belief: a weighted mixture of Gaussians with independent columns, and its law."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, override

import torch
from torch import Tensor

from bayeswm.base.errors import NotInvertible
from bayeswm.base.laws import Gaussian, Law
from bayeswm.inference.gaussian_belief import Sensors


class Cloud(NamedTuple):
    """A mixture: ``center`` and ``spread`` (W, P, *batch, N, S), ``log_weight`` (W, P, *batch, N), normalised.

    After a step the components are the laws of the particles' next states, so that a measurement is weighed and taken
    in exactly before anything is drawn. ``age`` counts steps: each has random numbers of its own.

    Examples
    --------
    >>> center = torch.tensor([[[[0.0], [2.0]]]], dtype=torch.float64)
    >>> cloud = Cloud(center, torch.ones_like(center), torch.full((1, 1, 2), 0.5, dtype=torch.float64).log(), 0)
    >>> float(cloud.mean), float(cloud.covariance)
    (1.0, 2.0)
    """

    center: Tensor
    spread: Tensor
    log_weight: Tensor
    age: int

    @property
    def noise_size(self) -> int:
        """Standard normal coordinates that :meth:`draw` takes."""
        return 1 + self.center.shape[-1]

    @property
    def weight(self) -> Tensor:
        """Weights of the particles, shape (W, P, *batch, N, 1)."""
        return self.log_weight.exp()[..., None]

    @property
    def mean(self) -> Tensor:
        """Mean, shape (W, P, *batch, S)."""
        return (self.weight * self.center).sum(-2)

    @property
    def covariance(self) -> Tensor:
        """Covariance, shape (W, P, *batch, S, S)."""
        apart = self.center - self.mean[..., None, :]
        within = (self.weight * self.spread.square()).sum(-2)
        return (self.weight * apart).mT @ apart + torch.diag_embed(within)

    def law(self) -> CloudLaw:
        """Return the belief as a law of the state."""
        return CloudLaw(self.center, self.spread, self.log_weight)

    def draw(self, noise: Tensor) -> Tensor:
        """Return states for noise of shape (W, P, *batch, 1 + S): the first coordinate chooses the particle."""
        return self.law().push(noise)

    def moved(self, shift: Tensor) -> Cloud:
        """Return the cloud with all particles moved, shift of shape (W, P, *batch, S)."""
        center = self.center + shift[..., None, :]
        lead = center.shape[:-1]
        return Cloud(center, self.spread.expand(*lead, -1), self.log_weight.expand(lead), self.age)

    def widened(self, scale: Tensor | None) -> Cloud:
        """Return the cloud with noise added, scale of shape (W, P, *batch, S)."""
        if scale is None:
            return self
        spread = (self.spread.square() + scale[..., None, :].square()).sqrt()
        return self._replace(spread=spread.expand(self.center.shape))

    def update(self, measured: Tensor, seen: Tensor | None, sensors: Sensors) -> tuple[Cloud, Tensor]:
        """Return the cloud given a measurement, and the log density; see :meth:`GaussianBelief.update`."""
        center, spread, log_weight = list(self.center.unbind(-1)), list(self.spread.unbind(-1)), self.log_weight
        for i, column in enumerate(sensors.columns):
            noise, value = sensors.of(i, log_weight.ndim), measured[..., i, None]
            total = (spread[column].square() + noise.square()).sqrt()
            there = torch.ones_like(value, dtype=torch.bool) if seen is None else seen[..., i, None]
            value = torch.where(there, value, 0.0)
            density = Gaussian(center[column][..., None], total[..., None]).log_prob(value[..., None])
            log_weight = log_weight + torch.where(there, density, 0.0)
            share = torch.where(there, (spread[column] / total).square(), 0.0)
            center[column] = center[column] + share * (value - center[column])
            spread[column] = spread[column] * torch.where(there, noise / total, 1.0)
        shape = log_weight.shape
        log_prob = torch.logsumexp(log_weight, -1)
        moved, narrowed = (torch.stack([v.expand(shape) for v in columns], -1) for columns in (center, spread))
        # no particle explains what came: the weights stay, the density says it
        normal = torch.where(log_prob[..., None].isfinite(), log_weight - log_prob[..., None], self.log_weight)
        return Cloud(moved, narrowed, normal, self.age), log_prob


class CloudLaw(Law):
    """A mixture of Gaussians with independent columns; the first noise coordinate chooses the component.

    Parameters
    ----------
    center, spread : Tensor, shape (W, P, *batch, N, S)
        Means and standard deviations, which may be 0.
    log_weight : Tensor, shape (W, P, *batch, N)
        Normalised log weights.
    """

    exact = False

    def __init__(self, center: Tensor, spread: Tensor, log_weight: Tensor) -> None:
        self.center, self.spread, self.log_weight = center, spread, log_weight
        self.noise_size = 1 + center.shape[-1]

    @property
    def _cloud(self) -> Cloud:
        return Cloud(self.center, self.spread, self.log_weight, 0)

    @property
    @override
    def mean(self) -> Tensor:
        return self._cloud.mean

    @property
    @override
    def covariance(self) -> Tensor:
        return self._cloud.covariance

    @property
    @override
    def variance(self) -> Tensor:
        weight, apart = self._cloud.weight, self.center - self.mean[..., None, :]
        return (weight * (apart.square() + self.spread.square())).sum(-2)

    @override
    def push(self, noise: Tensor) -> Tensor:
        edges = self.log_weight.exp().cumsum(-1)
        shape = torch.broadcast_shapes(edges.shape[:-1], noise.shape[:-1])
        at = torch.special.ndtr(noise[..., :1]).expand(*shape, 1) * edges[..., -1:]
        index = torch.searchsorted(edges.expand(*shape, -1).contiguous(), at.contiguous())
        index = index.clamp(max=edges.shape[-1] - 1)[..., None].expand(*shape, 1, self.center.shape[-1])
        parts = (self.center, self.spread)
        center, spread = (v.expand(*shape, *v.shape[-2:]).gather(-2, index)[..., 0, :] for v in parts)
        return center + spread * noise[..., 1:]

    @override
    def abduct(self, next_state: Tensor, *, tolerance: float | None = None) -> Tensor:
        raise NotInvertible("expected a bijection, got a choice of a particle: smooth() draws the noise instead")

    @override
    def log_prob(self, state: Tensor, *, marginal: bool = False, tolerance: float | None = None) -> Tensor:
        each = Gaussian(self.center, self.spread).log_prob(state[..., None, :], marginal=marginal, tolerance=tolerance)
        log_weight = self.log_weight[..., None] if marginal else self.log_weight
        return torch.logsumexp(each + log_weight, -2 if marginal else -1)

    @override
    def cdf(self, state: Tensor) -> Tensor:
        each = Gaussian(self.center, self.spread).cdf(state[..., None, :])
        return (self.log_weight.exp()[..., None] * each).sum(-2)

    @override
    def map(self, change: Callable[[Tensor], Tensor]) -> CloudLaw:
        return CloudLaw(change(self.center), change(self.spread), change(self.log_weight))
