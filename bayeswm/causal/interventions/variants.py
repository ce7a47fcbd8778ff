"""A system with the parameters that interventions set, step by step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from bayeswm.base.errors import SpecError
from bayeswm.base.worlds import Worlds
from bayeswm.causal.interventions.assignment import Assignment
from bayeswm.causal.interventions.changes import Change


class Variants:
    """Worlds with other parameters in some steps; each combination is made once, sequences at each step.

    Parameters
    ----------
    worlds : Worlds
        The system.
    assignments : sequence of Assignment
        Of parameters, applied in turn.
    """

    def __init__(self, worlds: Worlds, assignments: Sequence[Assignment]) -> None:
        self.worlds, self.assignments = worlds, tuple(assignments)
        self._made: dict[tuple[bool, ...], Worlds] = {}

    def at(self, step: int | Tensor) -> Worlds:
        """Return the worlds that hold in a step."""
        if not self.assignments:
            return self.worlds
        active = tuple(one.active(step) for one in self.assignments)
        if not any(active):
            return self.worlds
        if any(on and not one.constant and one.hard for one, on in zip(self.assignments, active, strict=True)):
            return self._with(active, step)
        if active not in self._made:
            self._made[active] = self._with(active, step)
        return self._made[active]

    def _with(self, active: Sequence[bool], step: int | Tensor) -> Worlds:
        values: dict[str, Any] = {}
        for one, on in zip(self.assignments, active, strict=True):
            if on and isinstance(one.value, Change):
                values[one.name] = one.value.apply(values.get(one.name, self.worlds.parameters[one.name]))
            elif on and not one.constant and not isinstance(step, int):
                raise SpecError(f"expected one step at a time, since {one} differs between them, got several")
            elif on:
                values[one.name] = one.values(step)
        return self.worlds.replace(**values)
