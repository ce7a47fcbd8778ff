"""Where a step starts, and who says what comes of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from bayeswm.base.laws import Law


class Outcome(Protocol):
    """Worlds of which the law of a step is known given the coordinates that are drawn."""

    def outcome(self, at: Place, drawn: Tensor) -> Law:
        """Return the law given coordinates of shape (worlds, particles, *batch, k)."""
        ...

    def picked(self, index: Tensor) -> Outcome:
        """Return some worlds, shape (n,) of indices."""
        ...


@dataclass(frozen=True, eq=False)
class Place:
    """Where a step starts, with leading axes (worlds, particles, batch); ``step`` is a number or one for each row."""

    state: Tensor
    action: Tensor
    context: Tensor
    step: int | Tensor

    def map(self, change: Callable[[Tensor], Tensor]) -> Place:
        """Return this with a change of the leading axes."""
        step = self.step
        if isinstance(step, Tensor) and step.ndim:
            step = change(step.expand(self.state.shape[:-1])[..., None])[0, 0, ..., 0]
        context = change(self.context) if self.context.shape[-1] else None
        state, action = change(self.state), change(self.action) if self.action.shape[-1] else None
        blank = state[..., :0]
        return Place(state, blank if action is None else action, blank if context is None else context, step)

    def spread(self) -> Place:
        """Return this with an axis of nodes in front of the batch."""
        return Place(self.state.unsqueeze(2), self.action.unsqueeze(2), self.context.unsqueeze(2), self.step)
