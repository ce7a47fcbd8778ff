"""How often something may be seen in a sample, for its probability to be small with confidence."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import override

import torch

from bayeswm.base.errors import SpecError


@dataclass(frozen=True)
class BinomialBound(ABC):
    """An upper confidence bound on a probability, of which independent draws are seen.

    Parameters
    ----------
    confidence : float
        Probability that the bound holds, between 0.5 and 1.
    """

    confidence: float = 0.95

    def __post_init__(self) -> None:
        if not 0.5 <= self.confidence < 1:
            raise SpecError(f"expected a confidence from 0.5 to below 1, got {self.confidence}")

    @abstractmethod
    def share(self, probability: float, draws: float) -> float:
        """Return the largest share of the draws for which the bound is at most a probability.

        Raises
        ------
        SpecError
            If not even 0 of so few draws tell enough.
        """

    def _refuse(self, probability: float, draws: float, *, least: float) -> SpecError:
        return SpecError(
            f"expected at least {math.ceil(least - 1e-9)} independent draws to promise a probability of "
            f"{probability:g} with confidence {self.confidence:g}, got {draws:g}; take more worlds (particles, where "
            "the worlds are the posterior) or a larger probability"
        )


@dataclass(frozen=True)
class Wilson(BinomialBound):
    """The bound that inverts the score test: of the right level on average over probabilities.

    A share k of n draws has the bound p where ``k = p - z sqrt(p (1 - p) / n)`` (Wilson 1927).

    Examples
    --------
    >>> round(Wilson(0.95).share(0.05, 1000), 4)
    0.0387
    """

    @override
    def share(self, probability: float, draws: float) -> float:
        z = float(torch.special.ndtri(torch.tensor(self.confidence, dtype=torch.float64)))
        found = probability - z * math.sqrt(probability * (1 - probability) / draws)
        if found < 0:
            raise self._refuse(probability, draws, least=z**2 * (1 - probability) / probability)
        return found


@dataclass(frozen=True)
class ClopperPearson(BinomialBound):
    """The exact bound, which holds with at least its confidence whatever the probability (Clopper & Pearson 1934).

    Examples
    --------
    Of 59 draws not one may fail, to promise 5 % with confidence 95 %: 0.95^59 = 0.0485.

    >>> ClopperPearson(0.95).share(0.05, 59), round(ClopperPearson(0.95).share(0.05, 1000), 4)
    (0.0, 0.038)
    """

    @override
    def share(self, probability: float, draws: float) -> float:
        n, missed = math.floor(draws + 1e-9), 1 - self.confidence
        k = torch.arange(n + 1, dtype=torch.float64)
        log_choose = math.lgamma(n + 1) - torch.lgamma(k + 1) - torch.lgamma(n - k + 1)
        log_mass = log_choose + k * math.log(probability) + (n - k) * math.log1p(-probability)
        allowed = int((log_mass.exp().cumsum(0) <= missed).sum())
        if not allowed:
            raise self._refuse(probability, draws, least=math.log(missed) / math.log1p(-probability))
        return (allowed - 1) / n
