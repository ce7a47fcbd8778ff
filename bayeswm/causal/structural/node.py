"""What a slice is put together of: variables with their mechanisms, and what interventions made of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

from torch import Tensor
from torch.distributions import Normal

from bayeswm.causal.interventions.assignment import Assignment
from bayeswm.causal.interventions.changes import Change
from bayeswm.causal.structural.regression import DrawnRegression


class Source(NamedTuple):
    """Where a parent's value lies: in a column of the slice itself, or of what was known before it."""

    inside: bool
    column: int


@dataclass(frozen=True, eq=False)
class Wired:
    """A mechanism whose parents were found; ``scale`` is a number or the column of a parameter.

    A learned one knows its scale itself.
    """

    fn: Callable[..., Any] | DrawnRegression
    sources: tuple[Source, ...]
    scale: float | Source
    coordinate: int | None


@dataclass(frozen=True, eq=False)
class Altered:
    """An intervention inside the slice: the values of a hard one in a column of what was known before."""

    assignment: Assignment
    column: int | None = None
    coordinate: int | None = None
    mechanism: Wired | None = None


@dataclass(frozen=True, eq=False)
class Node:
    """A variable of the slice: its column, its own mechanism, and what was done to its noise and to itself."""

    column: int
    mechanism: Wired
    noise: tuple[Altered, ...] = ()
    altered: tuple[Altered, ...] = ()

    @property
    def bent(self) -> bool:
        """Whether its own mechanism has the noise of a law other than a normal one."""
        last = self._noise
        return last is not None and last.assignment.stochastic and not isinstance(last.assignment.value, Normal)

    @property
    def drawn(self) -> bool:
        """Whether the variable is in the end made of a draw of a law other than a normal one."""
        own = self.bent
        for one in self.altered:
            law = one.assignment.value
            if one.mechanism is not None:
                own = self.bent
            elif not isinstance(law, Change):
                own = one.assignment.stochastic and not isinstance(law, Normal)
        return own

    @property
    def noise_known(self) -> bool:
        """Whether the noise of its own mechanism was set to a value."""
        return self._noise is not None and self._noise.column is not None

    @property
    def _noise(self) -> Altered | None:
        """What has replaced the noise in the end."""
        last = [one for one in self.noise if not isinstance(one.assignment.value, Change)]
        return last[-1] if last else None

    @property
    def coordinate(self) -> int | None:
        """The noise coordinate that the variable has in the end."""
        found = self.mechanism.coordinate
        for one in self.altered:
            if one.mechanism is not None:
                found = one.mechanism.coordinate
            elif one.coordinate is not None or not isinstance(one.assignment.value, Change):
                found = one.coordinate
        own = {self.mechanism.coordinate, *(a.mechanism.coordinate for a in self.altered if a.mechanism is not None)}
        return None if self.noise_known and found in own else found


class Value(NamedTuple):
    """A variable given its parents: location + scale * noise[coordinate], then changed."""

    location: Tensor
    scale: Tensor
    coordinate: int | None
    changes: tuple[Callable[[Tensor], Tensor], ...] = ()
