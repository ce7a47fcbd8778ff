"""Periodic kernels: an RBF on circles."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, override

import torch
from torch import Tensor

from bayeswm.base.errors import SpecError
from bayeswm.base.random import poisson
from bayeswm.inference.gp_algebra import Kernel, Parameter
from bayeswm.inference.gp_leaf import (
    Active,
    by_length,
    check_active,
    describe,
    label_of,
    length_of,
    place,
    plain,
    select,
    squared_exponential,
)


@dataclass(frozen=True, kw_only=True, repr=False)
class Periodic(Kernel):
    """Functions that repeat themselves: exp(-2 sin^2(pi d / p) / l^2) (MacKay 1998), a product over its inputs.

    Inputs of a model enter as they are, in their own units, and so do periods; the length scale has none.

    Parameters
    ----------
    period : float or tuple of float
        Of all inputs, or of each; a turn by default.
    learn_period : bool
        Take the period for a first guess, and learn it.
    active : str or int or sequence of them, optional
        Inputs that it looks at, by name of the variable or by index. By default all angles, or all inputs where there
        is no schema to tell angles.
    ard : bool
        A length scale (and a period, if learned) for each input, or one for all of them.

    Raises
    ------
    SpecError
        If a period is not above 0.

    Examples
    --------
    >>> x = torch.tensor([[0.0], [torch.pi], [2 * torch.pi]], dtype=torch.float64)
    >>> Periodic().covariance(x[:1], x, torch.ones(1, dtype=torch.float64)).numpy().round(4).tolist()
    [[1.0, 0.1353, 1.0]]
    """

    period: float | tuple[float, ...] = 2 * math.pi
    learn_period: bool = False
    active: Active = None
    ard: bool = True
    columns: tuple[int, ...] | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if isinstance(self.period, Sequence):
            object.__setattr__(self, "period", tuple(float(p) for p in self.period))
        periods = self.period if isinstance(self.period, tuple) else (self.period,)
        if not periods or not all(p > 0 and math.isfinite(p) for p in periods):
            raise SpecError(f"expected a period > 0, got {self.period!r}")
        if len(periods) > 1 and not self.ard:
            raise SpecError(f"expected one period with ard=False, got {self.period!r}")
        check_active(self)

    def __repr__(self) -> str:
        turn = self.period == 2 * math.pi
        return describe(self, "" if turn else f"period={self.period}", "learn_period=True" if self.learn_period else "")

    @property
    @override
    def label(self) -> str:
        return label_of(self)

    @override
    def parameters(self, inputs: int) -> tuple[Parameter, ...]:
        length = length_of(self, inputs)
        if not self.learn_period:
            return (length,)
        periods = self._periods(length)
        return (length, Parameter(f"{self.label}.period", "period", length.columns, periods))

    def _periods(self, length: Parameter) -> tuple[float, ...]:
        if not isinstance(self.period, tuple):
            return (self.period,) * len(length.typical)
        if len(self.period) != len(length.typical):
            raise SpecError(
                f"expected a period for each of the {len(length.typical)} inputs of {self!r}, got {len(self.period)}"
            )
        return self.period

    def _warp(self, x: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Return the angles and the circle on which the kernel is an RBF, cosines then sines."""
        length = length_of(self, x.shape[-1])
        period = values[len(length.typical) :] if self.learn_period else values.new_tensor(self._periods(length))
        angle = select(self, x) * (2 * math.pi / period)
        scale = values[: len(length.typical)]
        return angle, torch.cat((angle.cos() / scale, angle.sin() / scale), -1)

    @override
    def covariance(self, a: Tensor, b: Tensor, values: Tensor) -> Tensor:
        return squared_exponential(self._warp(a, values)[1], self._warp(b, values)[1])

    @override
    def with_gradient(self, x: Tensor, values: Tensor) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
        angle, circle = self._warp(x, values)
        correlation = squared_exponential(circle, circle)
        size = angle.shape[-1]

        def gradient(weight: Tensor) -> Tensor:
            weight = weight.mul_(correlation)
            of_length = by_length(weight, circle, ard=True).view(2, size).sum(0)
            found = [of_length if self.ard else of_length.sum(0, keepdim=True)]
            if self.learn_period:
                # sum of W d sin(d) / l^2 over pairs, d the difference of their angles
                cosine, sine = circle[:, :size], circle[:, size:]
                by_period = 2 * (sine * (angle * (weight @ cosine) - weight @ (cosine * angle))).sum(0)
                found.append(by_period if self.ard else by_period.sum(0, keepdim=True))
            return torch.cat(found)

        return correlation, gradient

    @override
    def frequencies(self, shape: tuple[int, int, int], values: Tensor, generator: torch.Generator) -> Tensor:
        # the Fourier weights exp(-z) I_n(z), z = 1 / l^2, are the law of the difference of two Poisson(z / 2) numbers
        length = length_of(self, shape[1])
        size = len(length.typical)
        period = values[size:] if self.learn_period else values.new_tensor(self._periods(length))
        rate = 0.5 / values[:size].square()

        def waves(s: tuple[int, ...]) -> Tensor:
            rates = rate[:, None].expand(s)
            return (poisson(rates, generator) - poisson(rates, generator)) * (2 * math.pi / period)[:, None]

        return place(self, shape, waves).to(values.device)

    @override
    def to_dict(self) -> dict[str, Any]:
        return plain(self)
