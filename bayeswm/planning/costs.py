"""Cost functions that many tasks share."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from bayeswm.base.errors import SpecError
from bayeswm.base.schema import Schema
from bayeswm.planning.objective import Objective


def quadratic(
    state: Tensor,
    action: Tensor,
    *,
    terminal: Tensor | None = None,
    goal: Tensor | None = None,
) -> Objective:
    """Return the objective of a linear-quadratic regulator: ``x' Q x + u' R u`` at each step, ``x' Q_H x`` at the end.

    Parameters
    ----------
    state : Tensor, shape (S,) or (S, S)
        Q, its diagonal or the whole matrix.
    action : Tensor, shape (A,) or (A, A)
        R.
    terminal : Tensor, shape (S,) or (S, S), optional
        Q_H; Q by default.
    goal : Tensor, shape (S,), optional
        Where the cost is 0; the origin by default. Angles count on their lift.

    Examples
    --------
    >>> objective = quadratic(torch.tensor([1.0, 0.1]), torch.tensor([0.01]))
    >>> objective.cost(torch.ones(3, 2), torch.ones(2, 1), torch.zeros(2, 0))
    tensor(3.3200)
    """
    state, action = _matrix("state", state), _matrix("action", action)
    last = state if terminal is None else _matrix("terminal", terminal)

    def away(x: Tensor) -> Tensor:
        return x if goal is None else x - goal.to(x)

    def stage(x: Tensor, u: Tensor, context: Tensor, step: Tensor) -> Tensor:  # noqa: ARG001, PLR0917
        return _form(away(x), state) + _form(u, action)

    def end(x: Tensor, context: Tensor) -> Tensor:  # noqa: ARG001
        return _form(away(x), last)

    return Objective(stage=stage, terminal=end)


def saturating(distance: Callable[[Tensor], Tensor], width: float) -> Objective:
    """Return the objective whose cost of each state after a step is ``1 - exp(-d^2 / (2 width^2))``.

    It is 0 at the goal and 1 far from it, so that only closeness counts (Deisenroth & Rasmussen 2011).

    Parameters
    ----------
    distance : callable
        Maps states (..., S) to distances (...), such as :func:`tip_distance`.
    width : float
        Distance at which the cost is 0.39, in the unit of the distance.

    Examples
    --------
    >>> objective = saturating(lambda state: state[..., 0], 0.5)
    >>> objective.cost(torch.full((4, 1), 0.5), torch.zeros(3, 1), torch.zeros(3, 0))
    tensor(1.1804)
    """
    if not width > 0:
        raise SpecError(f"expected a width > 0, got {width}")

    def close(x: Tensor) -> Tensor:
        return -torch.expm1(-0.5 * (distance(x) / width).square())

    def stage(x: Tensor, u: Tensor, context: Tensor, step: Tensor) -> Tensor:  # noqa: ARG001, PLR0917
        # the start is given, whatever is done
        return torch.where(step == 0, 0.0, close(x))

    return Objective(stage=stage, terminal=lambda x, context: close(x))  # noqa: ARG005


def tip_distance(
    schema: Schema,
    angles: Sequence[str],
    *,
    lengths: Sequence[float],
    target: Sequence[float],
    base: str | None = None,
    upright: float = 0.0,
) -> Callable[[Tensor], Tensor]:
    """Return the distance of the tip of a chain of links from a target point.

    Parameters
    ----------
    schema : Schema
        Where the variables are.
    angles : sequence of str
        Angle of each link against the vertical, from the pivot outwards; above 0 where the tip is on the positive side.
    lengths : sequence of float
        Length of each link, in m.
    target : sequence of float
        Horizontal and vertical place of the target relative to the pivot of the first link, with the base at 0, in m.
    base : str, optional
        Horizontal position of the pivot, in m, such as a cart's.
    upright : float
        0 where angles count from upright, pi where they count from hanging, as in the structures.

    Raises
    ------
    UnknownVariableError, SpecError
        For names that the schema does not have; unless there is one length for each angle and ``upright`` is 0 or pi.

    Examples
    --------
    >>> import bayeswm as bwm
    >>> schema = bwm.structures.Pendulum.swing_up().schema
    >>> distance = tip_distance(schema, ["angle"], lengths=[1.0], target=[0.0, 1.0], upright=torch.pi)
    >>> distance(torch.tensor([[0.0, 0.0], [torch.pi, 0.0]])).round(decimals=5)
    tensor([2., 0.])
    """
    if len(angles) != len(lengths) or not angles:
        raise SpecError(f"expected one length for each angle, got {len(angles)} angles and {len(lengths)} lengths")
    if len(target) != 2:
        raise SpecError(f"expected a target (horizontal, vertical), got {len(target)} numbers")
    if upright not in (0.0, math.pi):
        raise SpecError(f"expected upright=0 (angles from upright) or math.pi (from hanging), got {upright}")
    sense = 1.0 if upright == 0.0 else -1.0
    columns = [schema.state.column(name) for name in angles]
    cart = None if base is None else schema.state.column(base)

    def distance(state: Tensor) -> Tensor:
        across = -target[0] if cart is None else state[..., cart] - target[0]
        up = -target[1]
        for column, length in zip(columns, lengths, strict=True):
            angle = state[..., column]
            across, up = across + length * torch.sin(angle), up + sense * length * torch.cos(angle)
        return torch.hypot(torch.as_tensor(across), torch.as_tensor(up))

    return distance


def _matrix(name: str, values: Tensor) -> Tensor:
    values = torch.as_tensor(values)
    if values.ndim == 1:
        return torch.diag(values)
    if values.ndim != 2 or values.shape[0] != values.shape[1]:
        raise SpecError(f"expected {name} of shape (n,) or (n, n), got {tuple(values.shape)}")
    return values


def _form(x: Tensor, matrix: Tensor) -> Tensor:
    return ((x @ matrix.to(x)) * x).sum(-1)
