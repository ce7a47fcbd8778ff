"""What a planner makes of a distribution of costs: one number, smaller is better."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import override

import torch
from torch import Tensor

from bayeswm.base.errors import SpecError


class Risk(ABC):
    """Maps the costs of particles in worlds to one number for each candidate.

    A particle that diverged costs infinity; where such a particle counts, so does the risk.
    """

    @abstractmethod
    def __call__(self, costs: Tensor, log_weight: Tensor) -> Tensor:
        """Return the risk.

        Parameters
        ----------
        costs : Tensor, shape (worlds, particles, *batch)
            Costs; infinity for what must not happen, never NaN.
        log_weight : Tensor, shape (worlds,)
            Normalised log weights of the worlds.

        Returns
        -------
        Tensor, shape (*batch)
        """


@dataclass(frozen=True)
class Mean(Risk):
    """The expected cost.

    Examples
    --------
    >>> costs = torch.tensor([[0.0, 2.0], [4.0, 6.0]])  # two worlds, two particles
    >>> Mean()(costs, torch.full((2,), 0.5).log())
    tensor(3.)
    """

    @override
    def __call__(self, costs: Tensor, log_weight: Tensor) -> Tensor:
        return _over_worlds(costs.mean(1), log_weight)


@dataclass(frozen=True)
class MeanDeviation(Risk):
    """Mean plus a multiple of the standard deviation: cautious above 0, optimistic (upper confidence bound) below.

    Parameters
    ----------
    weight : float
        Multiple of the standard deviation.

    Examples
    --------
    >>> costs = torch.tensor([[0.0, 2.0], [4.0, 6.0]])
    >>> half = torch.full((2,), 0.5).log()
    >>> MeanDeviation(1.0)(costs, half), Epistemic(MeanDeviation(-1.0))(costs, half)
    (tensor(5.2361), tensor(1.))
    """

    weight: float

    @override
    def __call__(self, costs: Tensor, log_weight: Tensor) -> Tensor:
        mean, variance = _moments(costs, log_weight)
        return _shifted(mean, self.weight * _root(variance))


@dataclass(frozen=True)
class MeanVariance(Risk):
    """Mean plus a multiple of the variance.

    Parameters
    ----------
    weight : float
        Multiple of the variance, in one over the unit of the cost.

    Examples
    --------
    >>> MeanVariance(0.5)(torch.tensor([[0.0, 2.0], [4.0, 6.0]]), torch.full((2,), 0.5).log())
    tensor(5.5000)
    """

    weight: float

    @override
    def __call__(self, costs: Tensor, log_weight: Tensor) -> Tensor:
        mean, variance = _moments(costs, log_weight)
        return _shifted(mean, self.weight * variance)


@dataclass(frozen=True)
class CVaR(Risk):
    """Conditional value at risk: the mean of the worst share of the costs (Rockafellar & Uryasev 2000).

    Parameters
    ----------
    share : float
        The worst share that counts, above 0 and at most 1; 1 is the mean.

    Examples
    --------
    >>> CVaR(0.25)(torch.tensor([[0.0, 2.0], [4.0, 6.0]]), torch.full((2,), 0.5).log())
    tensor(6.)
    """

    share: float

    def __post_init__(self) -> None:
        if not 0 < self.share <= 1:
            raise SpecError(f"expected a share above 0 and at most 1, got {self.share}")

    @override
    def __call__(self, costs: Tensor, log_weight: Tensor) -> Tensor:
        ordered, weight = _ordered(costs, log_weight)
        # what of each particle's weight lies in the worst share
        above = weight.flip(0).cumsum(0).flip(0) - weight
        counted = torch.minimum(weight, (self.share - above).clamp(min=0.0))
        return torch.where(counted > 0, counted * ordered, 0.0).sum(0) / self.share


@dataclass(frozen=True)
class Quantile(Risk):
    """A quantile of the costs.

    Parameters
    ----------
    probability : float
        Between 0 and 1; 0.9 is a cost that nine in ten stay under.

    Examples
    --------
    >>> Quantile(0.5)(torch.tensor([[0.0, 2.0], [4.0, 6.0]]), torch.full((2,), 0.5).log())
    tensor(2.)
    """

    probability: float

    def __post_init__(self) -> None:
        if not 0 < self.probability < 1:
            raise SpecError(f"expected a probability between 0 and 1, got {self.probability}")

    @override
    def __call__(self, costs: Tensor, log_weight: Tensor) -> Tensor:
        ordered, weight = _ordered(costs, log_weight)
        below = weight.cumsum(0) - weight
        index = (below < self.probability * (1 - 1e-6)).sum(0, keepdim=True) - 1
        return ordered.gather(0, index.clamp(min=0))[0]


@dataclass(frozen=True)
class Entropic(Risk):
    """``log E exp(k cost) / k``: the risk-sensitive cost (Howard & Matheson 1972); cautious for k > 0.

    Parameters
    ----------
    sensitivity : float
        k, in one over the unit of the cost; not 0.

    Examples
    --------
    >>> Entropic(1e-6)(torch.tensor([[0.0, 2.0], [4.0, 6.0]], dtype=torch.float64), torch.full((2,), 0.5).log())
    tensor(3.0000, dtype=torch.float64)
    """

    sensitivity: float

    def __post_init__(self) -> None:
        if not (math.isfinite(self.sensitivity) and self.sensitivity != 0):
            raise SpecError(f"expected a finite sensitivity other than 0, got {self.sensitivity}")

    @override
    def __call__(self, costs: Tensor, log_weight: Tensor) -> Tensor:
        k, particles = self.sensitivity, costs.shape[1]
        # a world without weight does not count, whatever it costs
        infinite = ~costs.isfinite() & (_column(log_weight, costs) > float("-inf"))
        finite = torch.where(costs.isfinite(), costs, 0.0)
        center = finite.mean((0, 1))
        log_mean = torch.logsumexp(k * (finite - center), 1) - math.log(particles)
        log_weight = torch.log_softmax(log_weight.to(log_mean), 0)
        value = center + torch.logsumexp(log_mean + _column(log_weight, log_mean), 0) / k
        return torch.where(infinite.flatten(0, 1).any(0), float("inf"), value)


@dataclass(frozen=True)
class WorstWorld(Risk):
    """The largest risk over worlds, each taken by itself; worlds without weight do not count.

    Parameters
    ----------
    within : Risk
        Of the particles of a world.

    Examples
    --------
    >>> WorstWorld()(torch.tensor([[0.0, 2.0], [4.0, 6.0]]), torch.full((2,), 0.5).log())
    tensor(5.)
    """

    within: Risk = Mean()

    @override
    def __call__(self, costs: Tensor, log_weight: Tensor) -> Tensor:
        each = _by_world(self.within, costs)
        return torch.where(_column(log_weight, each) > float("-inf"), each, float("-inf")).amax(0)


@dataclass(frozen=True)
class Epistemic(Risk):
    """A risk of what is not known: of the worlds' expected costs, noise averaged out.

    Parameters
    ----------
    across : Risk
        Of the worlds' means, such as ``CVaR(0.1)`` or ``MeanDeviation(-1.0)``.

    Examples
    --------
    >>> Epistemic(CVaR(0.5))(torch.tensor([[0.0, 2.0], [4.0, 6.0]]), torch.full((2,), 0.5).log())
    tensor(5.)
    """

    across: Risk

    @override
    def __call__(self, costs: Tensor, log_weight: Tensor) -> Tensor:
        return self.across(costs.mean(1, keepdim=True), log_weight)


@dataclass(frozen=True)
class Aleatoric(Risk):
    """A risk of chance alone: taken within each world, then averaged over worlds.

    Parameters
    ----------
    within : Risk
        Of the particles of a world.

    Examples
    --------
    >>> Aleatoric(CVaR(0.5))(torch.tensor([[0.0, 2.0], [4.0, 6.0]]), torch.full((2,), 0.5).log())
    tensor(4.)
    """

    within: Risk

    @override
    def __call__(self, costs: Tensor, log_weight: Tensor) -> Tensor:
        return _over_worlds(_by_world(self.within, costs), log_weight)


def _column(log_weight: Tensor, like: Tensor) -> Tensor:
    """Return a number for each world, shaped to broadcast over (worlds, ...)."""
    return log_weight.to(like).view(-1, *(1,) * (like.ndim - 1))


def _over_worlds(values: Tensor, log_weight: Tensor) -> Tensor:
    if len(values) == 1:
        return values[0]
    weight = _column(log_weight, values).exp()
    # a world without weight does not count, whatever it costs
    return torch.where(weight > 0, weight * values, 0.0).sum(0)


def _by_world(risk: Risk, costs: Tensor) -> Tensor:
    """Return the risk in each world, shape (worlds, *batch)."""
    return risk(costs.transpose(0, 1)[None], costs.new_zeros(1))


def _moments(costs: Tensor, log_weight: Tensor) -> tuple[Tensor, Tensor]:
    mean = _over_worlds(costs.mean(1), log_weight)
    away = torch.where(mean.isfinite(), costs - torch.where(mean.isfinite(), mean, 0.0), 0.0)
    return mean, _over_worlds(away.square().mean(1), log_weight)


def _root(values: Tensor) -> Tensor:
    """Return square roots whose derivative at 0 is 0, not infinite."""
    some = values > 0
    return torch.where(some, torch.where(some, values, 1.0).sqrt(), 0.0)


def _shifted(mean: Tensor, shift: Tensor) -> Tensor:
    return torch.where(mean.isfinite(), mean + shift, mean)


def _ordered(costs: Tensor, log_weight: Tensor) -> tuple[Tensor, Tensor]:
    """Return costs in ascending order and their weights, both (worlds * particles, *batch)."""
    ordered, order = costs.flatten(0, 1).sort(0)
    weight = (log_weight.exp().to(costs) / costs.shape[1]).repeat_interleave(costs.shape[1])
    return ordered, weight[order]
