"""RBF and Matern kernels, with a length scale for every input, and any kernel from its plain values."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, override

import torch
from torch import Tensor

from bayeswm.base.errors import SpecError
from bayeswm.inference.gp_algebra import Kernel, Parameter, Product, Scaled, Sum
from bayeswm.inference.gp_leaf import (
    Active,
    by_length,
    check_active,
    describe,
    label_of,
    length_of,
    normal,
    place,
    plain,
    select,
    squared_exponential,
)
from bayeswm.inference.gp_periodic import Periodic


@dataclass(frozen=True, kw_only=True, repr=False)
class RBF(Kernel):
    """The squared exponential, exp(-r^2 / 2) at distance r in length scales: very smooth functions.

    Parameters
    ----------
    active : str or int or sequence of them, optional
        Inputs that it looks at, by name of the variable or by index; all by default.
    ard : bool
        A length scale for each input, or one for all of them.

    Examples
    --------
    >>> x = torch.tensor([[0.0], [1.0]], dtype=torch.float64)
    >>> RBF().covariance(x, x, torch.ones(1, dtype=torch.float64)).numpy().round(4).tolist()
    [[1.0, 0.6065], [0.6065, 1.0]]
    """

    active: Active = None
    ard: bool = True
    columns: tuple[int, ...] | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        check_active(self)

    def __repr__(self) -> str:
        return describe(self)

    @property
    @override
    def label(self) -> str:
        return label_of(self)

    @override
    def parameters(self, inputs: int) -> tuple[Parameter, ...]:
        return (length_of(self, inputs),)

    @override
    def covariance(self, a: Tensor, b: Tensor, values: Tensor) -> Tensor:
        return squared_exponential(select(self, a) / values, select(self, b) / values)

    @override
    def with_gradient(self, x: Tensor, values: Tensor) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
        scaled = select(self, x) / values
        correlation = squared_exponential(scaled, scaled)
        return correlation, lambda weight: by_length(weight.mul_(correlation), scaled, self.ard)

    @override
    def frequencies(self, shape: tuple[int, int, int], values: Tensor, generator: torch.Generator) -> Tensor:
        return place(self, shape, lambda s: normal(s, values, generator) / values[:, None])

    @override
    def to_dict(self) -> dict[str, Any]:
        return plain(self)


@dataclass(frozen=True, kw_only=True, repr=False)
class Matern(Kernel):
    """Matern's kernel: functions with fewer derivatives (Rasmussen & Williams 2006, equations 4.14 and 4.17).

    Parameters
    ----------
    nu : float
        Smoothness: 0.5 (no derivative), 1.5 (one) or 2.5 (two).
    active : str or int or sequence of them, optional
        Inputs that it looks at, by name of the variable or by index; all by default.
    ard : bool
        A length scale for each input, or one for all of them.

    Raises
    ------
    SpecError
        For any other smoothness.

    Examples
    --------
    >>> x = torch.tensor([[0.0], [1.0]], dtype=torch.float64)
    >>> Matern(nu=0.5).covariance(x, x, torch.ones(1, dtype=torch.float64)).numpy().round(4).tolist()
    [[1.0, 0.3679], [0.3679, 1.0]]
    """

    nu: float = 2.5
    active: Active = None
    ard: bool = True
    columns: tuple[int, ...] | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if self.nu not in (0.5, 1.5, 2.5):
            raise SpecError(f"expected nu = 0.5, 1.5 or 2.5, got {self.nu!r}; for smoother functions use RBF()")
        check_active(self)

    def __repr__(self) -> str:
        return describe(self, f"nu={self.nu}")

    @property
    @override
    def label(self) -> str:
        return label_of(self)

    @override
    def parameters(self, inputs: int) -> tuple[Parameter, ...]:
        return (length_of(self, inputs),)

    @override
    def covariance(self, a: Tensor, b: Tensor, values: Tensor) -> Tensor:
        s = self._distance(select(self, a) / values, select(self, b) / values)
        if self.nu == 0.5:
            return (-s).exp()
        return (1 + s + s.square() / 3) * (-s).exp() if self.nu == 2.5 else (1 + s) * (-s).exp()

    @override
    def with_gradient(self, x: Tensor, values: Tensor) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
        scaled = select(self, x) / values
        s = self._distance(scaled, scaled)
        decay = (-s).exp()
        # slope: -2 times the derivative by the squared distance
        if self.nu == 0.5:
            # infinite where two inputs agree, but there the squared distance that it multiplies is 0
            correlation, slope = decay, torch.where(s > 0, decay / s.clamp(min=1e-300), 0.0)
        elif self.nu == 1.5:
            correlation, slope = (1 + s) * decay, 3 * decay
        else:
            correlation, slope = (1 + s + s.square() / 3) * decay, (5 / 3) * (1 + s) * decay
        return correlation, lambda weight: by_length(weight.mul_(slope), scaled, self.ard)

    def _distance(self, a: Tensor, b: Tensor) -> Tensor:
        # differences first: a distance from |a|^2 + |b|^2 - 2 a.b is off by 1e-8 where two inputs agree
        distance = torch.cdist(a, b, compute_mode="donot_use_mm_for_euclid_dist")
        return math.sqrt(2 * self.nu) * distance

    @override
    def frequencies(self, shape: tuple[int, int, int], values: Tensor, generator: torch.Generator) -> Tensor:
        # multivariate Student-t with 2 nu degrees of freedom: one chi-square for all inputs of a feature
        degrees = round(2 * self.nu)
        squares = normal((degrees, shape[0], 1, shape[2]), values, generator).square().sum(0)
        return place(self, shape, lambda s: normal(s, values, generator) * (degrees / squares).sqrt() / values[:, None])

    @override
    def to_dict(self) -> dict[str, Any]:
        return plain(self)


def kernel_from_dict(values: Mapping[str, Any]) -> Kernel:
    """Rebuild a kernel from its ``to_dict()``.

    Parameters
    ----------
    values : mapping
        Plain values.

    Raises
    ------
    SpecError
        For a name that is none of this library's kernels.

    Examples
    --------
    >>> kernel_from_dict((RBF(active="angle") * Matern(nu=1.5)).to_dict())
    RBF(active='angle') * Matern(nu=1.5)
    """
    given: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items() if k != "name"}
    match values["name"]:
        case "RBF":
            return RBF(**given)
        case "Matern":
            return Matern(**given)
        case "Periodic":
            return Periodic(**given)
        case "Scaled":
            return Scaled(kernel_from_dict(given["kernel"]), signal=given["signal"])
        case "Sum":
            return Sum(tuple(kernel_from_dict(k) for k in given["terms"]))
        case "Product":
            return Product(tuple(kernel_from_dict(k) for k in given["factors"]))
        case name:
            raise SpecError(
                f"expected a kernel of the library (RBF, Matern, Periodic, their sums, products), got {name!r}"
            )
