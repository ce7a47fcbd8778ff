"""Covariance functions of Gaussian processes: the interface, and variances, sums and products of kernels."""

from __future__ import annotations

import dataclasses
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, override

import torch
from torch import Tensor

from bayeswm.base.errors import SpecError
from bayeswm.base.random import uniform


class Parameter(NamedTuple):
    """A named slice of a kernel's hyper-parameters.

    Attributes
    ----------
    name : str
        Kernel and kind, as in ``"RBF.length"``.
    kind : str
        ``"length"``, ``"signal"`` (a standard deviation) or ``"period"``.
    columns : tuple of int
        Inputs that the values belong to: one each, or all of them where there is a single value.
    typical : tuple of float
        A usual size of each value, in units of which priors are stated.
    """

    name: str
    kind: str
    columns: tuple[int, ...]
    typical: tuple[float, ...]


class Kernel(ABC):
    """A stationary covariance k(a - b) whose hyper-parameters are one flat vector of positive numbers.

    ``parameters`` names the slices of the vector, ``covariance`` (which autograd can follow) is what the kernel is,
    ``with_gradient`` its closed-form derivative, and ``frequencies`` its spectral law, from which functions are drawn.
    Kernels are put together by ``+`` and ``*``.
    """

    @property
    def children(self) -> tuple[Kernel, ...]:
        """The kernels that this one is made of."""
        return ()

    @property
    @abstractmethod
    def label(self) -> str:
        """A short name for tables."""

    @abstractmethod
    def parameters(self, inputs: int) -> tuple[Parameter, ...]:
        """Return the slices of the hyper-parameters, in their order, for so many inputs."""

    @abstractmethod
    def covariance(self, a: Tensor, b: Tensor, values: Tensor) -> Tensor:
        """Return the covariances between inputs a (n, D) and b (m, D) given hyper-parameters (P,), shape (n, m)."""

    @abstractmethod
    def with_gradient(self, x: Tensor, values: Tensor) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
        """Return the covariances K among inputs x (n, D), and a function for the gradient.

        The function takes symmetric weights W (n, n), which it may overwrite, and returns the derivatives of
        sum(W * K) by the logarithms of the hyper-parameters, shape (P,).
        """

    @abstractmethod
    def frequencies(self, shape: tuple[int, int, int], values: Tensor, generator: torch.Generator) -> Tensor:
        """Draw frequencies from the spectral law, shape (count, D, features): E cos(w (a - b)) = k(a - b) / k(0)."""

    @abstractmethod
    def to_dict(self) -> dict[str, Any]:
        """Return the kernel as plain values for JSON."""

    def map(self, change: Callable[[Kernel], Kernel]) -> Kernel:
        """Return the kernel with every part that is not made of others changed."""
        return change(self)

    def size(self, inputs: int) -> int:
        """Return the number P of hyper-parameters for so many inputs."""
        return sum(len(p.typical) for p in self.parameters(inputs))

    def variance(self, values: Tensor, inputs: int) -> Tensor:
        """Return the variance k(0) of the function."""
        origin = values.new_zeros(1, inputs)
        return self.covariance(origin, origin, values)[0, 0]

    def __add__(self, other: Kernel) -> Sum:
        """Return the kernel of a sum of two functions; a term without a signal of its own gets one."""
        return Sum(tuple(t for k in (self, other) for t in (k.children if isinstance(k, Sum) else (with_signal(k),))))

    def __mul__(self, other: Kernel) -> Product:
        """Return the product: functions that are alike only where both kernels say so."""
        return Product(tuple(f for k in (self, other) for f in (k.children if isinstance(k, Product) else (k,))))


def with_signal(kernel: Kernel) -> Kernel:
    """Return a kernel with a learned signal if it has none, neither fixed nor learned, at any level.

    Examples
    --------
    >>> from bayeswm.inference import RBF
    >>> with_signal(RBF())
    Scaled(RBF())
    >>> with_signal(Scaled(RBF(), signal=1.0))
    Scaled(RBF(), signal=1.0)
    """

    def scaled(k: Kernel) -> bool:
        return isinstance(k, Scaled) or any(scaled(child) for child in k.children)

    return kernel if scaled(kernel) else Scaled(kernel)


@dataclass(frozen=True, repr=False)
class Scaled(Kernel):
    """A kernel times the square of a signal, the standard deviation of the function.

    Parameters
    ----------
    kernel : Kernel
        What is scaled.
    signal : float, optional
        Learned by default; a number is kept as it is. A Gaussian process scales its outputs to a root mean square of 1.

    Raises
    ------
    SpecError
        If the signal is not above 0.

    Examples
    --------
    >>> from bayeswm.inference import RBF
    >>> [p.name for p in Scaled(RBF()).parameters(inputs=2)]
    ['RBF.length', 'RBF.signal']
    """

    kernel: Kernel
    signal: float | None = None

    def __post_init__(self) -> None:
        if self.signal is not None and not (self.signal > 0 and math.isfinite(self.signal)):
            raise SpecError(f"expected signal > 0, or None to learn it, got {self.signal!r}")

    def __repr__(self) -> str:
        return f"Scaled({self.kernel!r})" if self.signal is None else f"Scaled({self.kernel!r}, signal={self.signal})"

    @property
    @override
    def children(self) -> tuple[Kernel, ...]:
        return (self.kernel,)

    @property
    @override
    def label(self) -> str:
        return self.kernel.label

    @override
    def parameters(self, inputs: int) -> tuple[Parameter, ...]:
        own = (Parameter(f"{self.label}.signal", "signal", (), (1.0,)),) if self.signal is None else ()
        return (*self.kernel.parameters(inputs), *own)

    def _split(self, values: Tensor) -> tuple[float | Tensor, Tensor]:
        return (values[-1].square(), values[:-1]) if self.signal is None else (self.signal**2, values)

    @override
    def covariance(self, a: Tensor, b: Tensor, values: Tensor) -> Tensor:
        variance, rest = self._split(values)
        found = self.kernel.covariance(a, b, rest)
        return variance * found if found.requires_grad or values.requires_grad else found.mul_(variance)

    @override
    def with_gradient(self, x: Tensor, values: Tensor) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
        variance, rest = self._split(values)
        inner, inner_gradient = self.kernel.with_gradient(x, rest)

        def gradient(weight: Tensor) -> Tensor:
            # before the inner gradient overwrites the weight
            own = [] if self.signal is not None else [2 * torch.dot(weight.view(-1), inner.view(-1))[None]]
            return variance * torch.cat([inner_gradient(weight), *own])

        return variance * inner, gradient

    @override
    def frequencies(self, shape: tuple[int, int, int], values: Tensor, generator: torch.Generator) -> Tensor:
        return self.kernel.frequencies(shape, self._split(values)[1], generator)

    @override
    def to_dict(self) -> dict[str, Any]:
        return {"name": "Scaled", "kernel": self.kernel.to_dict(), "signal": self.signal}

    @override
    def map(self, change: Callable[[Kernel], Kernel]) -> Kernel:
        return dataclasses.replace(self, kernel=self.kernel.map(change))


@dataclass(frozen=True, repr=False)
class Sum(Kernel):
    """A sum of kernels, as ``+`` makes it: independent functions added up.

    Parameters
    ----------
    terms : tuple of Kernel
        Terms, each with its signal.

    Examples
    --------
    >>> from bayeswm.inference import RBF, Matern
    >>> kernel = RBF() + Matern(nu=1.5)
    >>> kernel, kernel.size(inputs=3)
    (Scaled(RBF()) + Scaled(Matern(nu=1.5)), 8)
    """

    terms: tuple[Kernel, ...]

    def __repr__(self) -> str:
        return " + ".join(map(repr, self.terms))

    @property
    @override
    def children(self) -> tuple[Kernel, ...]:
        return self.terms

    @property
    @override
    def label(self) -> str:
        return "+".join(k.label for k in self.terms)

    @override
    def parameters(self, inputs: int) -> tuple[Parameter, ...]:
        return _different(self.terms, inputs)

    @override
    def covariance(self, a: Tensor, b: Tensor, values: Tensor) -> Tensor:
        parts = _split(self.terms, values, a.shape[-1])
        return _plus([k.covariance(a, b, v) for k, v in parts])

    @override
    def with_gradient(self, x: Tensor, values: Tensor) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
        matrices, gradients = zip(
            *(k.with_gradient(x, v) for k, v in _split(self.terms, values, x.shape[-1])), strict=True
        )
        return _plus(matrices), lambda weight: torch.cat([g(weight.clone()) for g in gradients])

    @override
    def frequencies(self, shape: tuple[int, int, int], values: Tensor, generator: torch.Generator) -> Tensor:
        # each wave belongs to one term, with the probability of its share of the variance
        count, inputs, features = shape
        parts = _split(self.terms, values, inputs)
        edges = torch.stack([k.variance(v, inputs) for k, v in parts]).cumsum(0)
        drawn = uniform((count, features), generator, dtype=torch.float64, device=values.device)
        owner = torch.searchsorted(edges[:-1] / edges[-1], drawn, right=True)[:, None]
        terms = [k.frequencies(shape, v, generator) for k, v in parts]
        return torch.stack([torch.where(owner == i, term, 0.0) for i, term in enumerate(terms)]).sum(0)

    @override
    def to_dict(self) -> dict[str, Any]:
        return {"name": "Sum", "terms": [k.to_dict() for k in self.terms]}

    @override
    def map(self, change: Callable[[Kernel], Kernel]) -> Kernel:
        return Sum(tuple(k.map(change) for k in self.terms))


@dataclass(frozen=True, repr=False)
class Product(Kernel):
    """A product of kernels, as ``*`` makes it.

    Parameters
    ----------
    factors : tuple of Kernel
        Factors.

    Examples
    --------
    >>> from bayeswm.inference import RBF, Periodic
    >>> [p.name for p in (RBF(active=0) * Periodic(active=1)).parameters(inputs=2)]
    ['RBF(0).length', 'Periodic(1).length']
    """

    factors: tuple[Kernel, ...]

    def __repr__(self) -> str:
        return " * ".join(f"({k!r})" if isinstance(k, Sum) else repr(k) for k in self.factors)

    @property
    @override
    def children(self) -> tuple[Kernel, ...]:
        return self.factors

    @property
    @override
    def label(self) -> str:
        return "*".join(f"({k.label})" if isinstance(k, Sum) else k.label for k in self.factors)

    @override
    def parameters(self, inputs: int) -> tuple[Parameter, ...]:
        return _different(self.factors, inputs)

    @override
    def covariance(self, a: Tensor, b: Tensor, values: Tensor) -> Tensor:
        return _times([k.covariance(a, b, v) for k, v in _split(self.factors, values, a.shape[-1])])

    @override
    def with_gradient(self, x: Tensor, values: Tensor) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
        matrices, gradients = zip(
            *(k.with_gradient(x, v) for k, v in _split(self.factors, values, x.shape[-1])), strict=True
        )

        def gradient(weight: Tensor) -> Tensor:
            others = ([*matrices[:i], *matrices[i + 1 :]] for i in range(len(matrices)))
            return torch.cat([g(_times([weight, *rest])) for g, rest in zip(gradients, others, strict=True)])

        return _times(matrices), gradient

    @override
    def frequencies(self, shape: tuple[int, int, int], values: Tensor, generator: torch.Generator) -> Tensor:
        # the spectral law of a product is that of a sum of independent frequencies
        parts = _split(self.factors, values, shape[1])
        return torch.stack([k.frequencies(shape, v, generator) for k, v in parts]).sum(0)

    @override
    def to_dict(self) -> dict[str, Any]:
        return {"name": "Product", "factors": [k.to_dict() for k in self.factors]}

    @override
    def map(self, change: Callable[[Kernel], Kernel]) -> Kernel:
        return Product(tuple(k.map(change) for k in self.factors))


def _split(kernels: Sequence[Kernel], values: Tensor, inputs: int) -> list[tuple[Kernel, Tensor]]:
    sizes = [k.size(inputs) for k in kernels]
    return list(zip(kernels, values.split(sizes), strict=True))


def _plus(matrices: Sequence[Tensor]) -> Tensor:
    found = matrices[0]
    for matrix in matrices[1:]:
        found = found + matrix
    return found


def _times(matrices: Sequence[Tensor]) -> Tensor:
    found = matrices[0]
    for matrix in matrices[1:]:
        found = found * matrix
    return found


def _different(kernels: Sequence[Kernel], inputs: int) -> tuple[Parameter, ...]:
    """Return the parameters of several kernels, numbered where a name comes twice."""
    found: dict[str, Parameter] = {}
    for p in (p for k in kernels for p in k.parameters(inputs)):
        name, number = p.name, 1
        while name in found:
            number += 1
            name = f"{p.name}#{number}"
        found[name] = p._replace(name=name)
    return tuple(found.values())
