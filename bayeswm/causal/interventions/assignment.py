"""Assignments: one variable, what it is set to, and when."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution, Normal

from bayeswm.base.errors import SpecError
from bayeswm.causal.interventions.changes import Change
from bayeswm.causal.structural.mechanism import Mechanism

Steps = int | slice | None
Event = Callable[[Tensor, int | Tensor], Tensor]


@dataclass(frozen=True, eq=False)
class Assignment:
    """One variable, what it is set to, and in which steps.

    Attributes
    ----------
    name : str
        A column of the state, the action or the context, a parameter, or ``noise.`` and a column of the state.
    value : Tensor, callable, Change, Distribution or Mechanism
        A tensor of shape () is one value for all steps; (..., K) one for each of the steps, where further axes
        broadcast to (worlds, particles, *batch).
    steps : int, slice or None
        None is every step, or as many as there are values.
    when : callable, optional
        The event of (state, step) from which on it acts.
    """

    name: str
    value: Any
    steps: Steps = None
    when: Event | None = None

    @property
    def begin(self) -> int:
        """The first step."""
        return self.steps if isinstance(self.steps, int) else (self.steps.start or 0) if self.steps else 0

    @property
    def hard(self) -> bool:
        """Whether the value is known before the system is asked."""
        return isinstance(self.value, Tensor)

    @property
    def constant(self) -> bool:
        """Whether the value is one number for all steps."""
        return isinstance(self.value, Tensor) and self.value.ndim == 0

    @property
    def stochastic(self) -> bool:
        """Whether the value is a law to draw from."""
        return isinstance(self.value, Distribution)

    def active(self, step: int | Tensor) -> bool:
        """Whether it acts in a step; of several steps at once, in all or in none of them.

        Raises
        ------
        SpecError
            If it acts in some of the steps only.
        """
        if self.steps is None:
            return True
        if isinstance(step, int):
            return self._at(step)
        on = [self._at(int(t)) for t in torch.as_tensor(step).flatten().tolist()]
        if any(on) and not all(on):
            raise SpecError(f"expected one step at a time, since {self} acts in some only, got {len(on)} steps at once")
        return bool(on) and on[0]

    def values(self, step: int | Tensor) -> Tensor:
        """Return what a hard intervention sets in a step, broadcastable to (worlds, particles, *batch)."""
        if self.value.ndim == 0:
            return self.value
        stride = (self.steps.step or 1) if isinstance(self.steps, slice) else 1
        index = (step - self.begin) // stride
        if bool(torch.as_tensor(index >= self.value.shape[-1]).any()):
            raise SpecError(
                f"expected a value of {self.name!r} for step {int(torch.as_tensor(step).max())}, got {self}"
            )
        return self.value[..., index]

    def drawn(self, noise: Tensor) -> Tensor:
        """Return a draw of a stochastic intervention from standard normal noise."""
        law = self.value
        if isinstance(law, Normal):
            return law.loc.to(noise) + law.scale.to(noise) * noise
        return law.icdf(torch.special.ndtr(noise)).to(noise)

    def check_horizon(self, last: int) -> None:
        """Refuse steps beyond the last one.

        Raises
        ------
        SpecError
            Naming the step.
        """
        if self.steps is None and not (self.hard and self.value.ndim):
            return
        reach = self.begin
        if isinstance(self.steps, slice) and self.steps.stop is not None:
            reach = max(range(self.steps.stop)[self.steps], default=reach)
        if self.hard and self.value.ndim:
            stride = (self.steps.step or 1) if isinstance(self.steps, slice) else 1
            reach = max(reach, self.begin + stride * (self.value.shape[-1] - 1))
        if reach > last:
            raise SpecError(f"expected steps of {self.name!r} within 0..{last}, the horizon, got step {reach}")

    def check_rows(self, batch: tuple[int, ...]) -> None:
        """Refuse values for other rows than there are; those of single particles have axes of worlds and particles.

        Raises
        ------
        SpecError
            Naming both shapes.
        """
        shape = tuple(self.value.shape[:-1]) if self.hard else ()
        shape = shape[2:] if len(shape) == len(batch) + 2 else shape
        fits = len(shape) <= len(batch) and all(
            1 in (n, m) or n == m for n, m in zip(reversed(shape), reversed(batch), strict=False)
        )
        if not fits:
            raise SpecError(
                f"{self.name}: expected one value for each step, or values of shape (*batch, steps) for a batch of "
                f"shape {tuple(batch)}, got {tuple(self.value.shape)}"
            )

    def _at(self, step: int) -> bool:
        if isinstance(self.steps, int):
            return step == self.steps
        if self.steps is None:
            return True
        start, stop, stride = self.begin, self.steps.stop, self.steps.step or 1
        return step >= start and (stop is None or step < stop) and (step - start) % stride == 0

    def __repr__(self) -> str:
        value = self.value
        if isinstance(value, Tensor):
            value = value.item() if value.ndim == 0 else f"<{value.shape[-1]} values>"
        elif not isinstance(value, Change | Distribution | Mechanism):
            value = getattr(value, "__name__", type(value).__name__)
        steps = "" if self.steps is None else f"@{self.steps}"
        when = "" if self.when is None else f" when {getattr(self.when, '__name__', type(self.when).__name__)}"
        return f"{self.name}{steps}={value}{when}"
