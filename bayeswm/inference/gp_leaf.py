"""What the simple kernels share: the inputs at which they look, and sums over pairs of inputs."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any, Protocol, cast

import torch
from torch import Tensor

from bayeswm.base.errors import SpecError
from bayeswm.base.random import standard_normal
from bayeswm.inference.gp_algebra import Parameter

type Active = str | int | Sequence[str | int] | None


class Leaf(Protocol):
    """A kernel that is not made of others."""

    @property
    def active(self) -> Active:
        """Names or indices of its inputs; None for all."""
        ...

    @property
    def ard(self) -> bool:
        """Whether each input has a length scale."""
        ...

    @property
    def columns(self) -> tuple[int, ...] | None:
        """Columns of the inputs, once names are resolved."""
        ...

    @property
    def label(self) -> str:
        """A short name."""
        ...


def entries(kernel: Leaf) -> tuple[str | int, ...]:
    """Return the names and indices of a kernel's inputs; none where it looks at all of them.

    Examples
    --------
    >>> from bayeswm.inference import RBF
    >>> entries(RBF(active="angle"))
    ('angle',)
    """
    given = kernel.active
    return () if given is None else (given,) if isinstance(given, str | int) else tuple(given)


def check_active(kernel: Leaf) -> None:
    """Refuse names or indices of inputs that make no sense, and keep several as a tuple."""
    given = kernel.active
    if given is None:
        return
    found = entries(kernel)
    if not found or len(set(found)) < len(found) or not all(isinstance(e, str | int) for e in found):
        raise SpecError(f"expected active= different names or indices of inputs, got {given!r}")
    if not isinstance(given, str | int):
        object.__setattr__(kernel, "active", found)


def columns_of(kernel: Leaf, inputs: int) -> tuple[int, ...]:
    """Return the columns at which a kernel looks."""
    if kernel.columns is not None:
        return kernel.columns
    found = entries(kernel)
    unusable = [e for e in found if not (isinstance(e, int) and 0 <= e < inputs)]
    if unusable:
        raise SpecError(f"expected active= indices of the {inputs} inputs, got {unusable[0]!r}; names need a schema")
    return tuple(e for e in found if isinstance(e, int)) or tuple(range(inputs))


def select(kernel: Leaf, x: Tensor) -> Tensor:
    """Return these columns of the inputs."""
    columns = columns_of(kernel, x.shape[-1])
    return x if columns == tuple(range(x.shape[-1])) else x[..., list(columns)]


def length_of(kernel: Leaf, inputs: int) -> Parameter:
    """Return the slice of the length scales."""
    columns = columns_of(kernel, inputs)
    # distances between points grow as the root of the number of inputs
    typical = (math.sqrt(len(columns)),) * (len(columns) if kernel.ard else 1)
    return Parameter(f"{kernel.label}.length", "length", columns, typical)


def place(kernel: Leaf, shape: tuple[int, int, int], draw: Callable[[tuple[int, ...]], Tensor]) -> Tensor:
    """Return frequencies that are 0 for inputs at which the kernel does not look."""
    count, inputs, features = shape
    columns = columns_of(kernel, inputs)
    drawn = draw((count, len(columns), features))
    if columns == tuple(range(inputs)):
        return drawn
    frequency = drawn.new_zeros(shape)
    frequency[:, list(columns)] = drawn
    return frequency


def normal(shape: tuple[int, ...], values: Tensor, generator: torch.Generator) -> Tensor:
    """Draw from N(0, 1) where the hyper-parameters live."""
    return standard_normal(shape, generator, dtype=torch.float64, device=values.device)


def squared_exponential(a: Tensor, b: Tensor) -> Tensor:
    """Return exp(-|a_i - b_j|^2 / 2), shape (n, m)."""
    # the exponent a.b - |a|^2 / 2 - |b|^2 / 2 in one product of augmented inputs
    left = torch.cat((a, -0.5 * a.square().sum(-1, keepdim=True), torch.ones_like(a[..., :1])), -1)
    right = torch.cat((b, torch.ones_like(b[..., :1]), -0.5 * b.square().sum(-1, keepdim=True)), -1)
    return (left @ right.mT).exp_()


def by_length(weight: Tensor, scaled: Tensor, ard: bool) -> Tensor:
    """Return the sums over pairs of W (x_i - x_j)^2, by input or of all, in one product with x."""
    both = weight @ torch.cat((scaled, scaled.new_ones(len(scaled), 1)), -1)
    found = 2 * (scaled.square() * both[:, -1:] - scaled * both[:, :-1]).sum(0)
    return found if ard else found.sum(0, keepdim=True)


def label_of(kernel: Leaf) -> str:
    """Return the class and the inputs that were named."""
    name, found = type(kernel).__name__, entries(kernel)
    return f"{name}({', '.join(map(str, found))})" if found else name


def describe(kernel: Leaf, *settings: str) -> str:
    """Return the call that makes the kernel, without what is so by default."""
    active = "" if kernel.active is None else f"active={kernel.active!r}"
    shown = [s for s in (*settings, active, "" if kernel.ard else "ard=False") if s]
    return f"{type(kernel).__name__}({', '.join(shown)})"


def plain(kernel: Leaf) -> dict[str, Any]:
    """Return the arguments for JSON."""
    # the columns follow from the names
    values = {f.name: getattr(kernel, f.name) for f in dataclasses.fields(cast("Any", kernel)) if f.name != "columns"}
    return {"name": type(kernel).__name__, **values}
