"""What actions are possible: bounds, and how fast they may change."""

from __future__ import annotations

from typing import NamedTuple, Self

import torch
from torch import Tensor

from bayeswm.base.errors import DataError, SpecError
from bayeswm.base.schema import Schema

Ends = float | Tensor | list[float]


class Limits(NamedTuple):
    """Lowest and highest action, and the largest change in one step; each of shape (A,), the last one may be absent.

    Examples
    --------
    >>> limits = Limits(torch.tensor([-1.0]), torch.tensor([1.0]), torch.tensor([0.5]))
    >>> limits.apply(torch.tensor([[2.0], [2.0], [-2.0]]), torch.tensor([0.0]))[:, 0]
    tensor([0.5000, 1.0000, 0.5000])
    """

    low: Tensor
    high: Tensor
    change: Tensor | None = None

    @classmethod
    def of(cls, schema: Schema, *, change: float | Tensor | None = None, like: Tensor) -> Self:
        """Return the bounds of a schema's actions.

        Raises
        ------
        SpecError
            If an action has no bounds, or a largest change is not above 0.
        """
        free = [v.name for v in schema.action if v.bounds is None]
        if free:
            raise SpecError(
                f"expected bounds of the action(s) {', '.join(free)}, got none; give them in the schema, "
                "Variable(..., bounds=(low, high)), or to the planner as bounds=(low, high)"
            )
        bounds = [v.bounds or (0.0, 0.0) for v in schema.action for _ in v.columns]
        return cls.between([b[0] for b in bounds], [b[1] for b in bounds], change=change, like=like)

    @classmethod
    def chosen(
        cls,
        schema: Schema,
        bounds: tuple[Ends, Ends] | None,
        *,
        change: float | Tensor | None = None,
        like: Tensor,
    ) -> Self:
        """Return bounds that were asked for, or those of a schema's actions where none were.

        Raises
        ------
        DataError
            If they go beyond those of the schema.
        SpecError
            As of :meth:`of` and :meth:`between`.
        """
        if bounds is None:
            return cls.of(schema, change=change, like=like)
        if not isinstance(bounds, tuple | list) or len(bounds) != 2:
            raise SpecError(f"expected bounds=(low, high), got {bounds!r}")
        limits = cls.between(*bounds, change=change, like=like)
        free = (-float("inf"), float("inf"))
        ends = [v.bounds or free for v in schema.action for _ in v.columns]
        possible = cls(*(torch.tensor(side, dtype=like.dtype, device=like.device) for side in zip(*ends, strict=True)))
        possible.check(torch.stack((limits.low, limits.high)), names=schema.action.columns)
        return limits

    @classmethod
    def between(
        cls,
        low: Ends,
        high: Ends,
        *,
        change: float | Tensor | None = None,
        like: Tensor,
    ) -> Self:
        """Return bounds, in the number format of ``like``, whose shape (A,) they broadcast to.

        Raises
        ------
        SpecError
            For numbers that make no sense, or more of them than actions.
        """
        ends = [_each("bounds", v, like) for v in (low, high)]
        step = None
        if change is not None:
            step = _each("a largest change", change, like)
            if not bool((step > 0).all()):
                raise SpecError(f"expected a largest change > 0, got {change}")
        if not bool(((ends[0] < ends[1]) & (ends[1] - ends[0]).isfinite()).all()):
            raise SpecError(f"expected finite bounds with low < high, got {low} and {high}")
        return cls(ends[0], ends[1], step)

    @property
    def center(self) -> Tensor:
        """The middle of the bounds, shape (A,)."""
        return (self.low + self.high) / 2

    @property
    def radius(self) -> Tensor:
        """Half the distance of the bounds, shape (A,)."""
        return (self.high - self.low) / 2

    def apply(self, actions: Tensor, previous: Tensor | None = None) -> Tensor:
        """Return the nearest possible actions: clipped, and each within reach of the one before.

        Parameters
        ----------
        actions : Tensor, shape (..., H, A)
            What is wanted.
        previous : Tensor, broadcastable to (..., A), optional
            What was done before; the first action is free without it.
        """
        actions = torch.minimum(torch.maximum(actions, self.low), self.high)
        if self.change is None:
            return actions
        steps: list[Tensor] = []
        for wanted in actions.unbind(-2):
            if previous is not None:
                wanted = torch.minimum(torch.maximum(wanted, previous - self.change), previous + self.change)
            steps.append(wanted)
            previous = wanted
        return torch.stack(steps, -2)

    def check(self, actions: Tensor, *, names: tuple[str, ...]) -> None:
        """Refuse actions that are NaN or out of bounds.

        Raises
        ------
        DataError
            Naming the variable and the value.
        """
        wrong = ~((actions >= self.low - 1e-6 * self.radius) & (actions <= self.high + 1e-6 * self.radius))
        if bool(wrong.any()):
            index = wrong.nonzero()[0].tolist()
            raise DataError(
                f"expected {names[index[-1]]} between {float(self.low[index[-1]]):g} and "
                f"{float(self.high[index[-1]]):g}, got {float(actions[tuple(index)]):g} at {tuple(index[:-1])}"
            )


def _each(what: str, values: Ends, like: Tensor) -> Tensor:
    """Return one number for each action."""
    given = torch.as_tensor(values, dtype=like.dtype, device=like.device)
    try:
        return given.expand(like.shape)
    except RuntimeError:
        raise SpecError(
            f"expected {what} fitting {len(like)} action(s), one number or as many, got shape {tuple(given.shape)}"
        ) from None
