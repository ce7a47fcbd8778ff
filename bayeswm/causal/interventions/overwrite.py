"""What interventions make of a state after the step that led to it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from bayeswm.base.errors import SpecError
from bayeswm.causal.interventions.assignment import Assignment
from bayeswm.causal.interventions.changes import Change


class Overwrite:
    """What interventions make of a state: each column by itself, from the state as the system gave it.

    Parameters
    ----------
    changes : sequence of Assignment
        Of columns of the state, all active.
    columns : tuple of str
        Names of the columns.
    step : int or Tensor
        Index k of the state x[k].
    drawn : mapping of Assignment to Tensor
        Values of hard ones and draws of stochastic ones, shape (worlds, particles, *batch).
    """

    def __init__(
        self,
        changes: Sequence[Assignment],
        columns: tuple[str, ...],
        *,
        step: int | Tensor,
        drawn: dict[Assignment, Tensor],
    ) -> None:
        self.changes, self.columns, self.step, self.drawn = tuple(changes), columns, step, drawn

    def __call__(self, state: Tensor) -> Tensor:
        """Return the state with what was set."""
        values = list(state.unbind(-1))
        for one in self.changes:
            column = self.columns.index(one.name)
            values[column] = changed(one, values[column], state, step=self.step, given=self.drawn.get(one))
        return torch.stack(torch.broadcast_tensors(*values), -1)

    @property
    def known(self) -> bool:
        """Whether every column is set to what is known before the step, or shifted by it."""
        return all(one in self.drawn or (isinstance(one.value, Change) and one.value.additive) for one in self.changes)

    @property
    def settled(self) -> tuple[int, ...]:
        """Columns that keep nothing of what the system gave."""
        return tuple(sorted({self.columns.index(one.name) for one in self.changes if one in self.drawn}))


def changed(one: Assignment, value: Tensor, state: Tensor, *, step: int | Tensor, given: Tensor | None) -> Tensor:
    """Return what an intervention makes of a value (...,) in a state (..., S); ``given`` is its own value, if known.

    Raises
    ------
    SpecError
        If a callable does not return one number for each state.
    """
    if given is not None:
        return given.to(value)
    if isinstance(one.value, Change):
        return one.value.apply(value)
    new = one.value(state, step)
    try:
        new = torch.as_tensor(new)
    except (TypeError, ValueError, RuntimeError):
        raise SpecError(f"{one.name}: expected {one} to return numbers, got {type(new).__name__}") from None
    check_elementwise(new, state, what=f"{one.name}: expected {one}")
    return new.to(value)


def check_elementwise(found: Tensor, state: Tensor, *, what: str) -> None:
    """Refuse what a callable made of states (..., S) if it has not a value for each, shape (...).

    Raises
    ------
    SpecError
        Beginning with ``what``.
    """
    lead = state.shape[:-1]
    try:
        fits = torch.broadcast_shapes(found.shape, lead) == lead
    except RuntimeError:
        fits = False
    if not fits:
        raise SpecError(
            f"{what} to return one value for each state, shape {tuple(lead)} for states {tuple(state.shape)}, "
            f"got {tuple(found.shape)}; take a column as state[..., 0]"
        )
