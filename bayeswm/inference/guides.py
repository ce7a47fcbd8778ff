"""Gaussian families for variational inference, in plain torch, with gradients by hand."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any, ClassVar, NamedTuple, override

import torch
from torch import Tensor

from bayeswm.base.errors import SpecError
from bayeswm.base.random import standard_normal

_LOG_TWO_PI = math.log(2 * math.pi)


class Drawn(NamedTuple):
    """Draws x (K, D), their log density (K,), and its gradient in x (K, D) with the family's numbers held."""

    x: Tensor
    log_density: Tensor
    score: Tensor


class Guide(ABC):
    """A family of laws of vectors (D,): numbers theta (P,) pick one of them. Its settings are a frozen dataclass."""

    registry: ClassVar[dict[str, type[Guide]]] = {}

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if cls.__module__.startswith("bayeswm."):
            Guide.registry[cls.__name__] = cls

    @abstractmethod
    def start(self, centre: Tensor, generator: torch.Generator) -> Tensor:
        """Return numbers (P,) of a narrow law around a point (D,)."""

    @abstractmethod
    def noise(self, size: int) -> int:
        """Return how many standard normal numbers one draw of D = ``size`` numbers takes."""

    @abstractmethod
    def draw(self, theta: Tensor, noise: Tensor, size: int) -> Drawn:
        """Return draws of D = ``size`` numbers, made of standard normal numbers (K, noise)."""

    @abstractmethod
    def pull(self, theta: Tensor, noise: Tensor, gradient: Tensor) -> Tensor:
        """Return the gradient (P,) of a function's mean over draws, from its gradient at the draws (K, D)."""

    def config(self) -> dict[str, Any]:
        """Return the settings as plain values for JSON."""
        return asdict(self)  # pyright: ignore[reportArgumentType] (every leaf is a dataclass)

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Guide:
        """Rebuild the family from :meth:`config`."""
        return cls(**config)


@dataclass(frozen=True)
class AutoNormal(Guide):
    """Independent normal laws: cheap, and too narrow where parameters depend on each other.

    Of a Gaussian posterior the best of them has the exact mean, and variances 1 / precision_ii.

    Parameters
    ----------
    init_scale : float
        Standard deviations at the start, in unconstrained coordinates.

    Examples
    --------
    >>> guide = AutoNormal()
    >>> theta = guide.start(torch.zeros(3), torch.Generator())
    >>> theta.shape, guide.noise(3)
    (torch.Size([6]), 3)
    """

    init_scale: float = 0.1

    def __post_init__(self) -> None:
        _check(self.init_scale)

    @override
    def start(self, centre: Tensor, generator: torch.Generator) -> Tensor:
        return torch.cat((centre, torch.full_like(centre, math.log(self.init_scale))))

    @override
    def noise(self, size: int) -> int:
        return size

    @override
    def draw(self, theta: Tensor, noise: Tensor, size: int) -> Drawn:
        loc, log_scale = theta.view(2, size)
        scale = log_scale.exp()
        log_density = -0.5 * noise.square().sum(-1) - log_scale.sum() - 0.5 * size * _LOG_TWO_PI
        return Drawn(torch.addcmul(loc, noise, scale), log_density, -noise / scale)

    @override
    def pull(self, theta: Tensor, noise: Tensor, gradient: Tensor) -> Tensor:
        scale = theta[len(theta) // 2 :].exp()
        return torch.cat((gradient.mean(0), (gradient * noise).mean(0) * scale))


@dataclass(frozen=True)
class AutoMultivariateNormal(Guide):
    """One normal law with a full covariance: exact where the posterior is Gaussian in unconstrained coordinates.

    The Cholesky factor of the covariance is diag(scale) T, with ones on the diagonal of T. It has D (D + 1) / 2
    numbers: meant for up to a few hundred dimensions.

    Parameters
    ----------
    init_scale : float
        Standard deviations at the start, in unconstrained coordinates.

    Examples
    --------
    >>> AutoMultivariateNormal().start(torch.zeros(3), torch.Generator()).shape
    torch.Size([9])
    """

    init_scale: float = 0.1

    def __post_init__(self) -> None:
        _check(self.init_scale)

    @override
    def start(self, centre: Tensor, generator: torch.Generator) -> Tensor:
        size = len(centre)
        below = centre.new_zeros(size * (size - 1) // 2)
        return torch.cat((centre, torch.full_like(centre, math.log(self.init_scale)), below))

    @override
    def noise(self, size: int) -> int:
        return size

    @override
    def draw(self, theta: Tensor, noise: Tensor, size: int) -> Drawn:
        loc, log_scale, unit = self._parts(theta, size)
        scale = log_scale.exp()
        log_density = -0.5 * noise.square().sum(-1) - log_scale.sum() - 0.5 * size * _LOG_TWO_PI
        back = torch.linalg.solve_triangular(unit.mT, noise.mT, upper=True, unitriangular=True).mT
        return Drawn(torch.addcmul(loc, noise @ unit.mT, scale), log_density, -back / scale)

    @override
    def pull(self, theta: Tensor, noise: Tensor, gradient: Tensor) -> Tensor:
        size = gradient.shape[1]
        _, log_scale, unit = self._parts(theta, size)
        scaled = gradient * log_scale.exp()
        row, column = _below(size)
        factor = (scaled.mT @ noise / len(noise))[row, column]
        return torch.cat((gradient.mean(0), (scaled * (noise @ unit.mT)).mean(0), factor))

    @staticmethod
    def _parts(theta: Tensor, size: int) -> tuple[Tensor, Tensor, Tensor]:
        unit = torch.eye(size, dtype=theta.dtype)
        row, column = _below(size)
        unit[row, column] = theta[2 * size :]
        return theta[:size], theta[size : 2 * size], unit


@dataclass(frozen=True)
class AutoLowRankMultivariateNormal(Guide):
    """One normal law with the covariance diag(scale) (1 + W W') diag(scale), W of shape (D, rank).

    Parameters
    ----------
    rank : int, optional
        Columns of W, at most D; by default the square root of D, rounded.
    init_scale : float
        Standard deviations at the start, in unconstrained coordinates.

    Examples
    --------
    >>> AutoLowRankMultivariateNormal(rank=2).start(torch.zeros(5), torch.Generator().manual_seed(0)).shape
    torch.Size([20])
    """

    rank: int | None = None
    init_scale: float = 0.1

    def __post_init__(self) -> None:
        _check(self.init_scale)
        if self.rank is not None and (isinstance(self.rank, bool) or not isinstance(self.rank, int) or self.rank < 1):
            raise SpecError(f"expected rank to be an integer >= 1, got {self.rank!r}")

    def _rank(self, size: int) -> int:
        return min(size, self.rank or max(round(math.sqrt(size)), 1))

    @override
    def start(self, centre: Tensor, generator: torch.Generator) -> Tensor:
        # W = 0 is a point of symmetry, which no gradient leaves
        factor = 0.1 * standard_normal((len(centre) * self._rank(len(centre)),), generator, dtype=centre.dtype).cpu()
        return torch.cat((centre, torch.full_like(centre, math.log(self.init_scale)), factor))

    @override
    def noise(self, size: int) -> int:
        return size + self._rank(size)

    @override
    def draw(self, theta: Tensor, noise: Tensor, size: int) -> Drawn:
        loc, log_scale, factor = self._parts(theta, size)
        scale = log_scale.exp()
        u = noise[:, :size] + noise[:, size:] @ factor.mT
        # Woodbury: the inverse of 1 + W W'
        inner = torch.linalg.cholesky(torch.eye(factor.shape[1], dtype=theta.dtype) + factor.mT @ factor)
        solved = u - torch.cholesky_solve((u @ factor).mT, inner).mT @ factor.mT
        log_det = log_scale.sum() + inner.diagonal().log().sum()
        log_density = -0.5 * (u * solved).sum(-1) - log_det - 0.5 * size * _LOG_TWO_PI
        return Drawn(torch.addcmul(loc, u, scale), log_density, -solved / scale)

    @override
    def pull(self, theta: Tensor, noise: Tensor, gradient: Tensor) -> Tensor:
        size = gradient.shape[1]
        _, log_scale, factor = self._parts(theta, size)
        scaled = gradient * log_scale.exp()
        u = noise[:, :size] + noise[:, size:] @ factor.mT
        turned = scaled.mT @ noise[:, size:] / len(noise)
        return torch.cat((gradient.mean(0), (scaled * u).mean(0), turned.flatten()))

    @staticmethod
    def _parts(theta: Tensor, size: int) -> tuple[Tensor, Tensor, Tensor]:
        return theta[:size], theta[size : 2 * size], theta[2 * size :].view(size, -1)


@lru_cache(maxsize=8)
def _below(size: int) -> tuple[Tensor, Tensor]:
    """Return rows and columns below the diagonal."""
    row, column = torch.tril_indices(size, size, -1)
    return row, column


def _check(init_scale: float) -> None:
    if not 0 < init_scale < math.inf:
        raise SpecError(f"expected init_scale > 0, got {init_scale}")
