"""Kinds of variable: how a value is stored, subtracted, moved and averaged.

A value occupies ``size`` columns; a change of it lives in a tangent space of ``tangent_size`` columns, and
``add(x, difference(y, x))`` is ``y`` (an angle up to full turns, a quaternion up to its sign).
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import override

import torch
from torch import Tensor

from bayeswm.base.errors import SpecError

TURN = 2 * math.pi


def wrap(angle: Tensor) -> Tensor:
    """Bring an angle into [-pi, pi]; values already there come back bit for bit.

    Examples
    --------
    >>> wrap(torch.tensor([0.5, 6.0])).numpy().round(3).tolist()
    [0.5, -0.28299999237060547]
    """
    return angle - TURN * torch.round(angle / TURN)


class Kind(ABC):
    """What kind of quantity a variable is."""

    name: str
    size: int = 1
    tangent_size: int = 1
    embedding_size: int = 1
    suffixes: tuple[str, ...] = ("",)

    @abstractmethod
    def difference(self, new: Tensor, old: Tensor) -> Tensor:
        """Return the change that leads from ``old`` to ``new``, shape (..., tangent_size)."""

    @abstractmethod
    def add(self, value: Tensor, change: Tensor) -> Tensor:
        """Apply a change to a value, shape (..., size)."""

    @abstractmethod
    def mean(self, values: Tensor, weight: Tensor) -> Tensor:
        """Average over the first axis with weights of shape (n,), shape (..., size)."""

    def embed(self, value: Tensor) -> Tensor:
        """Return smooth features of the value for learned functions, shape (..., embedding_size)."""
        return value


@dataclass(frozen=True)
class Real(Kind):
    """A number on the line."""

    name = "real"

    @override
    def difference(self, new: Tensor, old: Tensor) -> Tensor:
        return new - old

    @override
    def add(self, value: Tensor, change: Tensor) -> Tensor:
        return value + change

    @override
    def mean(self, values: Tensor, weight: Tensor) -> Tensor:
        return torch.tensordot(weight, values, dims=1)


@dataclass(frozen=True)
class Angle(Kind):
    """An angle in rad. Values may leave [-pi, pi] (a lift); differences are wrapped, sums are not."""

    name = "angle"
    embedding_size = 2

    @override
    def difference(self, new: Tensor, old: Tensor) -> Tensor:
        return wrap(new - old)

    @override
    def add(self, value: Tensor, change: Tensor) -> Tensor:
        return value + change

    @override
    def mean(self, values: Tensor, weight: Tensor) -> Tensor:
        sine, cosine = (torch.tensordot(weight, f(values), dims=1) for f in (torch.sin, torch.cos))
        return torch.atan2(sine, cosine)

    @override
    def embed(self, value: Tensor) -> Tensor:
        return torch.cat((torch.sin(value), torch.cos(value)), -1)


@dataclass(frozen=True)
class Rotation(Kind):
    """A unit quaternion (w, x, y, z). Changes are rotation vectors in rad in the rotated (body) frame."""

    name = "rotation"
    size = 4
    tangent_size = 3
    embedding_size = 9
    suffixes = ("_w", "_x", "_y", "_z")

    @override
    def difference(self, new: Tensor, old: Tensor) -> Tensor:
        turn = _multiply(old * old.new_tensor([1.0, -1.0, -1.0, -1.0]), new)
        turn = torch.where(turn[..., :1] < 0, -turn, turn)
        vector = turn[..., 1:]
        sine = vector.norm(dim=-1, keepdim=True)
        half = torch.atan2(sine, turn[..., :1])
        small = sine < 1e-7
        return vector * torch.where(small, 2.0 / turn[..., :1].clamp(min=0.5), 2 * half / sine.clamp(min=1e-30))

    @override
    def add(self, value: Tensor, change: Tensor) -> Tensor:
        # the tiny term keeps the gradient finite at zero, where the norm alone has none
        angle = (change.square().sum(-1, keepdim=True) + torch.finfo(change.dtype).tiny).sqrt()
        turn = torch.cat((torch.cos(angle / 2), change * (0.5 * torch.sinc(angle / TURN))), -1)
        return torch.nn.functional.normalize(_multiply(value, turn), dim=-1)

    @override
    def mean(self, values: Tensor, weight: Tensor) -> Tensor:
        scatter = torch.einsum("n,n...i,n...j->...ij", weight, values, values)
        vector = torch.linalg.eigh(scatter).eigenvectors[..., -1]
        return torch.where(vector[..., :1] < 0, -vector, vector)

    @override
    def embed(self, value: Tensor) -> Tensor:
        w, x, y, z = value.unbind(-1)
        return torch.stack(
            (
                *(1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)),
                *(2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)),
                *(2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)),
            ),
            -1,
        )


@dataclass(frozen=True)
class Categorical(Kind):
    """One of n unordered classes, stored as its code 0..n-1; changes are added modulo n."""

    n: int
    name = "categorical"

    def __post_init__(self) -> None:
        if not isinstance(self.n, int) or isinstance(self.n, bool) or self.n < 2:
            raise SpecError(f"expected categorical(n) with an integer n >= 2, got {self.n!r}")

    @property
    @override
    def embedding_size(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self.n

    @override
    def difference(self, new: Tensor, old: Tensor) -> Tensor:
        return torch.remainder(new - old, self.n)

    @override
    def add(self, value: Tensor, change: Tensor) -> Tensor:
        return torch.remainder(torch.round(value + change), self.n)

    @override
    def mean(self, values: Tensor, weight: Tensor) -> Tensor:
        share = torch.tensordot(weight, self.embed(values), dims=1)
        return share.argmax(-1, keepdim=True).to(values.dtype)

    @override
    def embed(self, value: Tensor) -> Tensor:
        codes = torch.arange(self.n, dtype=value.dtype, device=value.device)
        return (torch.round(value) == codes).to(value.dtype)


def categorical(n: int) -> Categorical:
    """Return the kind of a variable with n unordered classes.

    Examples
    --------
    >>> categorical(3).difference(torch.tensor([0.0]), torch.tensor([2.0]))
    tensor([1.])
    """
    return Categorical(n)


def kind_of(kind: str | Kind) -> Kind:
    """Return the kind that a name or a kind stands for.

    Raises
    ------
    SpecError
        For a name that is no kind.
    """
    if isinstance(kind, Kind):
        return kind
    named: dict[str, Kind] = {"real": Real(), "angle": Angle(), "rotation": Rotation()}
    if kind not in named:
        raise SpecError(f"expected kind 'real', 'angle', 'rotation' or bayeswm.categorical(n), got {kind!r}")
    return named[kind]


def _multiply(a: Tensor, b: Tensor) -> Tensor:
    aw, ax, ay, az = a.unbind(-1)
    bw, bx, by, bz = b.unbind(-1)
    return torch.stack(
        (
            aw * bw - ax * bx - ay * by - az * bz,
            aw * bx + ax * bw + ay * bz - az * by,
            aw * by - ax * bz + ay * bw + az * bx,
            aw * bz + ax * by - ay * bx + az * bw,
        ),
        -1,
    )
