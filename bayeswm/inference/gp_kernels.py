"""Stationary kernels of Gaussian processes, on inputs that are already divided by their length scales."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, override

import torch
from torch import Tensor

from bayeswm.base.errors import SpecError
from bayeswm.base.random import standard_normal


class Kernel(ABC):
    """A correlation g(r^2) of the distance between two inputs, with g(0) = 1."""

    @abstractmethod
    def correlation(self, a: Tensor, b: Tensor) -> Tensor:
        """Return the correlations between inputs a (n, D) and b (m, D), shape (n, m)."""

    @abstractmethod
    def with_slope(self, a: Tensor) -> tuple[Tensor, Tensor]:
        """Return the correlations among inputs a (n, D) and -2 dg/d(r^2), both of shape (n, n)."""

    @abstractmethod
    def frequencies(self, shape: tuple[int, ...], generator: torch.Generator, device: torch.device) -> Tensor:
        """Draw frequencies from the spectral density, shape (*shape, features); the second-to-last axis is D."""

    @abstractmethod
    def to_dict(self) -> dict[str, Any]:
        """Return the kernel as plain values for JSON."""

    @staticmethod
    def from_dict(values: Mapping[str, Any]) -> Kernel:
        """Rebuild a kernel from :meth:`to_dict`.

        Raises
        ------
        SpecError
            For a name that is none of this library's kernels.
        """
        if values["name"] == "RBF":
            return RBF()
        if values["name"] == "Matern":
            return Matern(nu=values["nu"])
        raise SpecError(f"expected a kernel named RBF or Matern, got {values['name']!r}")


@dataclass(frozen=True)
class RBF(Kernel):
    """The squared exponential, g = exp(-r^2 / 2): very smooth functions.

    Examples
    --------
    >>> x = torch.tensor([[0.0], [1.0]], dtype=torch.float64)
    >>> RBF().correlation(x, x).numpy().round(4).tolist()
    [[1.0, 0.6065], [0.6065, 1.0]]
    """

    @override
    def correlation(self, a: Tensor, b: Tensor) -> Tensor:
        # the exponent a.b - |a|^2 / 2 - |b|^2 / 2 in one product of augmented inputs
        one_a, one_b = a.new_ones(len(a), 1), b.new_ones(len(b), 1)
        left = torch.cat((a, -0.5 * a.square().sum(-1, keepdim=True), one_a), -1)
        right = torch.cat((b, one_b, -0.5 * b.square().sum(-1, keepdim=True)), -1)
        return (left @ right.mT).exp_()

    @override
    def with_slope(self, a: Tensor) -> tuple[Tensor, Tensor]:
        correlation = self.correlation(a, a)
        return correlation, correlation

    @override
    def frequencies(self, shape: tuple[int, ...], generator: torch.Generator, device: torch.device) -> Tensor:
        return standard_normal(shape, generator, dtype=torch.float64, device=device)

    @override
    def to_dict(self) -> dict[str, Any]:
        return {"name": "RBF"}


@dataclass(frozen=True)
class Matern(Kernel):
    """Matern's kernel: functions with fewer derivatives (Rasmussen & Williams 2006, equations 4.14 and 4.17).

    Parameters
    ----------
    nu : float
        Smoothness: 0.5 (no derivative), 1.5 (one) or 2.5 (two).

    Raises
    ------
    SpecError
        For any other smoothness.

    Examples
    --------
    >>> x = torch.tensor([[0.0], [1.0]], dtype=torch.float64)
    >>> Matern(nu=0.5).correlation(x, x).numpy().round(4).tolist()
    [[1.0, 0.3679], [0.3679, 1.0]]
    """

    nu: float = 2.5

    def __post_init__(self) -> None:
        if self.nu not in (0.5, 1.5, 2.5):
            raise SpecError(f"expected nu = 0.5, 1.5 or 2.5, got {self.nu!r}; for smoother functions use RBF()")

    @override
    def correlation(self, a: Tensor, b: Tensor) -> Tensor:
        s = self._distance(a, b)
        if self.nu == 0.5:
            return (-s).exp()
        return (1 + s + s.square() / 3) * (-s).exp() if self.nu == 2.5 else (1 + s) * (-s).exp()

    @override
    def with_slope(self, a: Tensor) -> tuple[Tensor, Tensor]:
        s = self._distance(a, a)
        decay = (-s).exp()
        if self.nu == 0.5:
            # infinite where two inputs agree, but there the squared distance that it multiplies is 0
            return decay, torch.where(s > 0, decay / s.clamp(min=1e-300), 0.0)
        if self.nu == 1.5:
            return (1 + s) * decay, 3 * decay
        return (1 + s + s.square() / 3) * decay, (5 / 3) * (1 + s) * decay

    def _distance(self, a: Tensor, b: Tensor) -> Tensor:
        # differences first: a distance from |a|^2 + |b|^2 - 2 a.b is off by 1e-8 where two inputs agree
        distance = torch.cdist(a, b, compute_mode="donot_use_mm_for_euclid_dist")
        return math.sqrt(2 * self.nu) * distance

    @override
    def frequencies(self, shape: tuple[int, ...], generator: torch.Generator, device: torch.device) -> Tensor:
        # multivariate Student-t with 2 nu degrees of freedom: one chi-square for all inputs of a feature
        normal = standard_normal(shape, generator, dtype=torch.float64, device=device)
        degrees = round(2 * self.nu)
        squares = standard_normal((degrees, *shape[:-2], 1, shape[-1]), generator, dtype=torch.float64, device=device)
        return normal * (degrees / squares.square().sum(0)).sqrt()

    @override
    def to_dict(self) -> dict[str, Any]:
        return {"name": "Matern", "nu": self.nu}
