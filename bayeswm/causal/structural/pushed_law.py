"""Laws that are known by how they push noise: their moments by integration over it."""

from __future__ import annotations

import itertools
from abc import abstractmethod
from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import NamedTuple, override

import torch
from torch import Tensor

from bayeswm.base.errors import EstimateWarning
from bayeswm.base.gauss_hermite import hermite_grid, sobol_normal
from bayeswm.base.laws import Gaussian, Law
from bayeswm.base.predictive import warn_caller

# Gauss-Hermite points along each coordinate, by the number of coordinates
ORDERS = {1: 31, 2: 21, 3: 13, 4: 8, 5: 6, 6: 5, 7: 4, 8: 3}
_SOBOL = 4096
_CHUNK = 2**22


class Moments(NamedTuple):
    """Mean (..., S) and covariance (..., S, S) of a pushed law."""

    mean: Tensor
    covariance: Tensor


class PushedLaw(Law):
    """A law whose moments and cdf come from integration over its noise.

    Exact where the push is affine in the noise (told by its second differences) and, up to the order of the rule, where
    it is a polynomial. Otherwise a product of Gauss-Hermite rules, with a warning where it has not converged to a
    thousandth of the standard deviation; above 8 coordinates 4,096 Sobol points, with a warning.
    """

    orders: Mapping[int, int] = ORDERS

    @abstractmethod
    def conditional(self, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Return each variable's mean and standard deviation given the noise of the others, shapes (..., S).

        A leading axis of ``noise`` beyond (worlds, particles, *batch) is kept.
        """

    @abstractmethod
    def values(self, noise: Tensor) -> Tensor:
        """Return the state that noise leads to; a leading axis beyond (worlds, particles, *batch) is kept."""

    @property
    @abstractmethod
    def lead(self) -> torch.Size:
        """The shape (worlds, particles, *batch)."""

    @property
    @abstractmethod
    def like(self) -> Tensor:
        """A tensor of the law's number format and place."""

    @property
    @override
    def mean(self) -> Tensor:
        return self._moments.mean

    @property
    @override
    def variance(self) -> Tensor:
        return self._moments.covariance.diagonal(dim1=-2, dim2=-1)

    @property
    @override
    def covariance(self) -> Tensor:
        return self._moments.covariance

    @override
    def cdf(self, state: Tensor) -> Tensor:
        if self._affine is not None:
            return Gaussian(self.mean, self.variance.clamp(min=0).sqrt()).cdf(state)
        total: Tensor | float = 0.0
        for law, weight in self._between(state):
            total = total + (weight * law.cdf(state)).sum(0)
        return torch.as_tensor(total)

    def marginal_log_prob(self, state: Tensor) -> Tensor:
        """Return the log density of each variable by itself."""
        if self._affine is not None:
            return Gaussian(self.mean, self.variance.clamp(min=0).sqrt()).log_prob(state, marginal=True)
        terms: list[Tensor] = []
        for law, weight in self._between(state):
            terms.append((law.log_prob(state, marginal=True) + weight.log()).logsumexp(0))
        return torch.stack(terms).logsumexp(0)

    @property
    def used(self) -> tuple[int, ...]:
        """Coordinates of the noise that matter."""
        return tuple(range(self.noise_size))

    @property
    def inner(self) -> tuple[int, ...]:
        """Those of them that moments are integrated over; what the others add is known given these."""
        return self.used

    def given(self, noise: Tensor) -> tuple[Tensor, Tensor | float]:
        """Return the mean of the state given the noise that is integrated over, and the variance that is left.

        Variables are independent then. A leading axis of ``noise`` is kept.
        """
        return self.values(noise), 0.0

    def _between(self, state: Tensor) -> Iterator[tuple[Gaussian, Tensor]]:
        """Return laws given the noise of the others, with room for further axes in front of the states, and weights."""
        further = (1,) * max(0, state.ndim - len(self.lead) - 1)
        parts = (
            ((*self.conditional(points), weight) for points, weight in self._nodes(self._order))
            if self._all_at_once is None
            else (self._all_at_once,)
        )
        for part in parts:
            mean, scale, weight = (v.view(len(v), *further, *v.shape[1:]) for v in part)
            yield Gaussian(mean, scale), weight

    @cached_property
    def _all_at_once(self) -> tuple[Tensor, Tensor, Tensor] | None:
        """Means, scales and weights at the nodes, which a quantile asks for again and again, where they fit at once."""
        points, weight = next(self._nodes(self._order))
        if len(points) < len(self._rule(self._order)[1]):
            return None
        return (*self.conditional(points), weight)

    @property
    def normal(self) -> bool:
        """Whether the push is affine in the noise, so that the law is Gaussian."""
        return self._affine is not None

    # --- integration ----------------------------------------------------------------------------------------------

    @cached_property
    def _affine(self) -> Moments | None:
        """The moments of a push that is affine in the noise; None for another."""
        return self.affine_moments()

    def affine_moments(self) -> Moments | None:
        """Return the moments of a push that is affine in the noise, by its differences; None for another."""
        size, zero = len(self.used), self.like.new_zeros(self.noise_size)
        axes = torch.eye(self.noise_size, dtype=zero.dtype, device=zero.device)[list(self.used)]
        pairs = [axes[i] + axes[j] for i, j in itertools.combinations(range(size), 2)]
        points = torch.stack((zero, *axes, *(-axes), *(3 * axes), *pairs))
        found = self.values(self._spread(points)).expand(len(points), *self.lead, -1)
        centre, up, down, far = found[0], found[1 : size + 1], found[size + 1 : 2 * size + 1], found[2 * size + 1 :]
        bends = [up + down - 2 * centre, far[:size] - 3 * up + 2 * centre]
        for row, (i, j) in enumerate(itertools.combinations(range(size), 2)):
            bends.append((far[size + row] - up[i] - up[j] + centre)[None])
        bend = torch.cat(bends).abs()
        rounding = 64 * torch.finfo(found.dtype).eps * found.abs().amax(0).clamp(min=torch.finfo(found.dtype).tiny)
        if size == 0 or bool((bend <= rounding).all()):
            step = (up - centre).movedim(0, -1)
            return Moments(centre, step @ step.mT)
        return None

    @cached_property
    def _moments(self) -> Moments:
        if self._affine is not None:
            return self._affine
        moments, size = self._integrated(self._order), len(self.inner)
        if size > max(self.orders):
            warn_caller(f"moments of {size} noises by {_SOBOL} quasi-random points are estimates", EstimateWarning)
            return moments
        coarse = self._integrated(self._order - 1)
        sd = moments.covariance.diagonal(dim1=-2, dim2=-1).clamp(min=0).sqrt()
        off = (
            (moments.mean - coarse.mean)
            .abs()
            .maximum((sd - coarse.covariance.diagonal(dim1=-2, dim2=-1).clamp(min=0).sqrt()).abs())
        )
        rounding = 64 * torch.finfo(sd.dtype).eps * moments.mean.abs()
        if bool((off > 1e-3 * sd + rounding).any()):
            share = float((off / sd.clamp(min=torch.finfo(sd.dtype).tiny)).max())
            warn_caller(
                f"moments of a step by quadrature are off by about {share:.1g} of a standard deviation, since a "
                "mechanism is far from a polynomial in the noise; particles are exact",
                EstimateWarning,
            )
        return moments

    @property
    def _order(self) -> int:
        return self.orders.get(len(self.inner), 0)

    def _integrated(self, order: int) -> Moments:
        first: Tensor | float = 0.0
        left: Tensor | float = 0.0
        for points, weight in self._nodes(order):
            value, variance = self.given(points)
            first, left = first + (weight * value).sum(0), left + (weight * variance).sum(0)
        mean = torch.as_tensor(first)
        second = torch.diag_embed(torch.as_tensor(left).expand(mean.shape))
        for points, weight in self._nodes(order):
            residual = self.given(points)[0] - mean
            second = second + (weight[..., None] * residual[..., :, None] * residual[..., None, :]).sum(0)
        return Moments(mean, second)

    def _rule(self, order: int) -> tuple[Tensor, Tensor]:
        size = len(self.inner)
        return hermite_grid(size, order) if order else sobol_normal(size, _SOBOL)

    def _nodes(self, order: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Return noise (Q, 1, ..., n) and weights (Q, 1, ..., 1) in parts that fit into memory."""
        some, weight = (v.to(self.like) for v in self._rule(order))
        points = some.new_zeros(len(some), self.noise_size)
        points[:, list(self.inner)] = some
        rows = max(1, _CHUNK // max(1, self.lead.numel() * max(1, self.noise_size)))
        for part, w in zip(points.split(rows), weight.split(rows), strict=True):
            yield self._spread(part), self._spread(w[:, None])

    def _spread(self, points: Tensor) -> Tensor:
        return points.view(len(points), *(1,) * len(self.lead), points.shape[-1])
