"""The kernels that others are made of: RBF, Matern and periodic, each with a length scale for every input."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, override

import torch
from torch import Tensor

from bayeswm.base.errors import SpecError
from bayeswm.base.random import poisson, standard_normal
from bayeswm.inference.gp_algebra import Kernel, Parameter, Product, Scaled, Sum

type Active = str | int | Sequence[str | int] | None


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
        _check_active(self)

    def __repr__(self) -> str:
        return _describe(self)

    @property
    @override
    def label(self) -> str:
        return _label(self)

    @override
    def parameters(self, inputs: int) -> tuple[Parameter, ...]:
        return (_length(self, inputs),)

    @override
    def covariance(self, a: Tensor, b: Tensor, values: Tensor) -> Tensor:
        return _rbf(_select(self, a) / values, _select(self, b) / values)

    @override
    def with_gradient(self, x: Tensor, values: Tensor) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
        scaled = _select(self, x) / values
        correlation = _rbf(scaled, scaled)
        return correlation, lambda weight: _by_length(weight.mul_(correlation), scaled, self.ard)

    @override
    def frequencies(self, shape: tuple[int, int, int], values: Tensor, generator: torch.Generator) -> Tensor:
        return _place(self, shape, lambda s: _normal(s, values, generator) / values[:, None])

    @override
    def to_dict(self) -> dict[str, Any]:
        return _plain(self)


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
        _check_active(self)

    def __repr__(self) -> str:
        return _describe(self, f"nu={self.nu}")

    @property
    @override
    def label(self) -> str:
        return _label(self)

    @override
    def parameters(self, inputs: int) -> tuple[Parameter, ...]:
        return (_length(self, inputs),)

    @override
    def covariance(self, a: Tensor, b: Tensor, values: Tensor) -> Tensor:
        s = self._distance(_select(self, a) / values, _select(self, b) / values)
        if self.nu == 0.5:
            return (-s).exp()
        return (1 + s + s.square() / 3) * (-s).exp() if self.nu == 2.5 else (1 + s) * (-s).exp()

    @override
    def with_gradient(self, x: Tensor, values: Tensor) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
        scaled = _select(self, x) / values
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
        return correlation, lambda weight: _by_length(weight.mul_(slope), scaled, self.ard)

    def _distance(self, a: Tensor, b: Tensor) -> Tensor:
        # differences first: a distance from |a|^2 + |b|^2 - 2 a.b is off by 1e-8 where two inputs agree
        distance = torch.cdist(a, b, compute_mode="donot_use_mm_for_euclid_dist")
        return math.sqrt(2 * self.nu) * distance

    @override
    def frequencies(self, shape: tuple[int, int, int], values: Tensor, generator: torch.Generator) -> Tensor:
        # multivariate Student-t with 2 nu degrees of freedom: one chi-square for all inputs of a feature
        degrees = round(2 * self.nu)
        squares = _normal((degrees, shape[0], 1, shape[2]), values, generator).square().sum(0)
        return _place(
            self, shape, lambda s: _normal(s, values, generator) * (degrees / squares).sqrt() / values[:, None]
        )

    @override
    def to_dict(self) -> dict[str, Any]:
        return _plain(self)


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
        _check_active(self)

    def __repr__(self) -> str:
        turn = self.period == 2 * math.pi
        return _describe(
            self, "" if turn else f"period={self.period}", "learn_period=True" if self.learn_period else ""
        )

    @property
    @override
    def label(self) -> str:
        return _label(self)

    @override
    def parameters(self, inputs: int) -> tuple[Parameter, ...]:
        length = _length(self, inputs)
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
        length = _length(self, x.shape[-1])
        period = values[len(length.typical) :] if self.learn_period else values.new_tensor(self._periods(length))
        angle = _select(self, x) * (2 * math.pi / period)
        scale = values[: len(length.typical)]
        return angle, torch.cat((angle.cos() / scale, angle.sin() / scale), -1)

    @override
    def covariance(self, a: Tensor, b: Tensor, values: Tensor) -> Tensor:
        return _rbf(self._warp(a, values)[1], self._warp(b, values)[1])

    @override
    def with_gradient(self, x: Tensor, values: Tensor) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
        angle, circle = self._warp(x, values)
        correlation = _rbf(circle, circle)
        size = angle.shape[-1]

        def gradient(weight: Tensor) -> Tensor:
            weight = weight.mul_(correlation)
            by_length = _by_length(weight, circle, True).view(2, size).sum(0)
            found = [by_length if self.ard else by_length.sum(0, keepdim=True)]
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
        length = _length(self, shape[1])
        size = len(length.typical)
        period = values[size:] if self.learn_period else values.new_tensor(self._periods(length))
        rate = 0.5 / values[:size].square()

        def waves(s: tuple[int, ...]) -> Tensor:
            rates = rate[:, None].expand(s)
            return (poisson(rates, generator) - poisson(rates, generator)) * (2 * math.pi / period)[:, None]

        return _place(self, shape, waves).to(values.device)

    @override
    def to_dict(self) -> dict[str, Any]:
        return _plain(self)


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


def entries(kernel: RBF | Matern | Periodic) -> tuple[str | int, ...]:
    """Return the names and indices of a kernel's inputs; none where it looks at all of them.

    Examples
    --------
    >>> entries(RBF(active="angle"))
    ('angle',)
    """
    given = kernel.active
    return () if given is None else (given,) if isinstance(given, str | int) else tuple(given)


# --- what the three share -------------------------------------------------------------------------------------------


def _check_active(kernel: RBF | Matern | Periodic) -> None:
    given = kernel.active
    if given is None:
        return
    found = entries(kernel)
    if not found or len(set(found)) < len(found) or not all(isinstance(e, str | int) for e in found):
        raise SpecError(f"expected active= different names or indices of inputs, got {given!r}")
    if not isinstance(given, str | int):
        object.__setattr__(kernel, "active", found)


def _columns(kernel: RBF | Matern | Periodic, inputs: int) -> tuple[int, ...]:
    if kernel.columns is not None:
        return kernel.columns
    found = entries(kernel)
    unusable = [e for e in found if not (isinstance(e, int) and 0 <= e < inputs)]
    if unusable:
        raise SpecError(f"expected active= indices of the {inputs} inputs, got {unusable[0]!r}; names need a schema")
    return tuple(e for e in found if isinstance(e, int)) or tuple(range(inputs))


def _select(kernel: RBF | Matern | Periodic, x: Tensor) -> Tensor:
    columns = _columns(kernel, x.shape[-1])
    return x if columns == tuple(range(x.shape[-1])) else x[..., list(columns)]


def _length(kernel: RBF | Matern | Periodic, inputs: int) -> Parameter:
    columns = _columns(kernel, inputs)
    # distances between points grow as the root of the number of inputs
    typical = (math.sqrt(len(columns)),) * (len(columns) if kernel.ard else 1)
    return Parameter(f"{kernel.label}.length", "length", columns, typical)


def _place(
    kernel: RBF | Matern | Periodic, shape: tuple[int, int, int], draw: Callable[[tuple[int, ...]], Tensor]
) -> Tensor:
    """Return frequencies that are 0 for inputs at which the kernel does not look."""
    count, inputs, features = shape
    columns = _columns(kernel, inputs)
    drawn = draw((count, len(columns), features))
    if columns == tuple(range(inputs)):
        return drawn
    frequency = drawn.new_zeros(shape)
    frequency[:, list(columns)] = drawn
    return frequency


def _normal(shape: tuple[int, ...], values: Tensor, generator: torch.Generator) -> Tensor:
    return standard_normal(shape, generator, dtype=torch.float64, device=values.device)


def _rbf(a: Tensor, b: Tensor) -> Tensor:
    # the exponent a.b - |a|^2 / 2 - |b|^2 / 2 in one product of augmented inputs
    left = torch.cat((a, -0.5 * a.square().sum(-1, keepdim=True), torch.ones_like(a[..., :1])), -1)
    right = torch.cat((b, torch.ones_like(b[..., :1]), -0.5 * b.square().sum(-1, keepdim=True)), -1)
    return (left @ right.mT).exp_()


def _by_length(weight: Tensor, scaled: Tensor, ard: bool) -> Tensor:
    """Return the sums over pairs of W (x_i - x_j)^2, by input or of all, in one product with x."""
    both = weight @ torch.cat((scaled, scaled.new_ones(len(scaled), 1)), -1)
    found = 2 * (scaled.square() * both[:, -1:] - scaled * both[:, :-1]).sum(0)
    return found if ard else found.sum(0, keepdim=True)


def _label(kernel: RBF | Matern | Periodic) -> str:
    name, found = type(kernel).__name__, entries(kernel)
    return f"{name}({', '.join(map(str, found))})" if found else name


def _describe(kernel: RBF | Matern | Periodic, *settings: str) -> str:
    active = "" if kernel.active is None else f"active={kernel.active!r}"
    shown = [s for s in (*settings, active, "" if kernel.ard else "ard=False") if s]
    return f"{type(kernel).__name__}({', '.join(shown)})"


def _plain(kernel: RBF | Matern | Periodic) -> dict[str, Any]:
    # the columns follow from the names
    values = {f.name: getattr(kernel, f.name) for f in dataclasses.fields(kernel) if f.name != "columns"}
    return {"name": type(kernel).__name__, **values}
