"""Soft interventions that change what the system gave: shifts and clamps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Protocol, runtime_checkable

from torch import Tensor

from bayeswm.base.errors import SpecError


@runtime_checkable
class Change(Protocol):
    """A soft intervention that maps the value that the system gave, without looking at anything else."""

    additive: ClassVar[bool]

    def apply(self, value: Tensor) -> Tensor:
        """Return the value instead of the one that the system gave."""
        ...


@dataclass(frozen=True)
class Shift:
    """Adds a constant; see :func:`shift`."""

    additive: ClassVar[bool] = True
    by: float

    def apply(self, value: Tensor) -> Tensor:
        """Return the shifted value."""
        return value + self.by


@dataclass(frozen=True)
class Clamp:
    """Keeps a value between bounds; see :func:`clamp`."""

    additive: ClassVar[bool] = False
    low: float | None
    high: float | None

    def apply(self, value: Tensor) -> Tensor:
        """Return the value within the bounds."""
        return value.clamp(self.low, self.high)


def shift(by: float) -> Shift:
    """Return a change for :func:`do`: whatever the system gave, plus a constant.

    Examples
    --------
    >>> import bayeswm as bwm
    >>> bwm.causal.do(torque=shift(0.5))
    do(torque=Shift(by=0.5))
    """
    return Shift(float(by))


def clamp(low: float | None = None, high: float | None = None) -> Clamp:
    """Return a change for :func:`do`: whatever the system gave, kept between two bounds, of which one may be absent.

    Raises
    ------
    SpecError
        Without a bound, or if they cross.

    Examples
    --------
    >>> clamp(low=0.0)
    Clamp(low=0.0, high=None)
    """
    if (low is None and high is None) or (low is not None and high is not None and not low <= high):
        raise SpecError(f"expected low=, high= or both with low <= high, got {low} and {high}")
    return Clamp(low, high)
