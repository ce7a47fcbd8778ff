"""What a planner is to achieve: costs of states and actions, summed along a trajectory."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from bayeswm.base.errors import SpecError

StageCost = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
TerminalCost = Callable[[Tensor, Tensor], Tensor]
Termination = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Objective:
    """Costs of a trajectory: ``sum_t discount^t stage(x[t], a[t], c[t], t) + discount^H terminal(x[H], c[H - 1])``.

    Every function is given all steps of all trajectories at once and reduces the last axis only, so that plain tensor
    code serves worlds, particles, candidates and horizon alike. A cost is to be small; a reward is its
    negative.

    Parameters
    ----------
    stage : callable, optional
        ``stage(state, action, context, step)`` of shapes (..., H, S), (..., H, A), (..., H, C) and (H,) returns the
        cost of each step, (..., H), for the state before the step and the action in it. The leading axes broadcast.
    terminal : callable, optional
        ``terminal(state, context)`` of shapes (..., S) and (..., C) returns the cost of the last state, (...).
    change : float
        Weight of the squared change between successive actions, the first one relative to what was done before.
    termination : callable, optional
        ``termination(state, context)`` returns whether an episode ends in a state, (..., H + 1, S) to (..., H + 1).
        What comes after costs nothing.
    discount : float
        Factor on each further step, above 0 and at most 1.

    Raises
    ------
    SpecError
        Without any cost, or for numbers that make no sense.

    Examples
    --------
    The negative reward of Gymnasium's Pendulum-v1:

    >>> def cost(state, action, context, step):
    ...     angle = torch.remainder(state[..., 0] + torch.pi, 2 * torch.pi) - torch.pi
    ...     return angle**2 + 0.1 * state[..., 1] ** 2 + 0.001 * action[..., 0] ** 2
    >>> objective = Objective(stage=cost)
    >>> objective.cost(torch.zeros(26, 2), torch.ones(25, 1), torch.zeros(25, 0))
    tensor(0.0250)
    """

    stage: StageCost | None = None
    terminal: TerminalCost | None = None
    change: float = 0.0
    termination: Termination | None = None
    discount: float = 1.0

    def __post_init__(self) -> None:
        if self.stage is None and self.terminal is None:
            raise SpecError("expected a stage or a terminal cost, got neither")
        if not 0 < self.discount <= 1:
            raise SpecError(f"expected a discount above 0 and at most 1, got {self.discount}")
        if not self.change >= 0:
            raise SpecError(f"expected change >= 0, got {self.change}")

    def cost(self, states: Tensor, actions: Tensor, context: Tensor, *, previous: Tensor | None = None) -> Tensor:
        """Return the cost of whole trajectories.

        Parameters
        ----------
        states : Tensor, shape (..., H + 1, S)
            States, the start included.
        actions : Tensor, broadcastable to (..., H, A)
            Actions.
        context : Tensor, broadcastable to (..., H, C)
            Context of each step.
        previous : Tensor, broadcastable to (..., A), optional
            The action before the first; the change to the first costs nothing without it.

        Returns
        -------
        Tensor, shape (...)

        Raises
        ------
        SpecError
            If a cost function returns another shape.
        """
        lead, steps = states.shape[:-2], states.shape[-2] - 1
        by_step = self._stages(states[..., :-1, :], actions, context)
        if self.change:
            before = actions[..., :1, :] if previous is None else previous[..., None, :].expand_as(actions[..., :1, :])
            moved = torch.cat((before, actions), -2).diff(dim=-2)
            by_step = by_step + self.change * moved.square().sum(-1)
        last = None
        if self.terminal is not None:
            last = _numbers("a terminal cost", self.terminal(states[..., -1, :], context[..., -1, :]), like=states)
            if last.ndim > len(lead) or not _broadcasts(last, lead):
                raise SpecError(f"expected a terminal cost of shape {tuple(lead)}, got {tuple(last.shape)}")
        ended = self.ended(states, context)
        if ended is not None:
            by_step = torch.where(ended[..., :-1], 0.0, by_step)
            last = None if last is None else torch.where(ended[..., -2], 0.0, last)
        if self.discount < 1:
            factor = self.discount ** torch.arange(steps + 1, dtype=states.dtype, device=states.device)
            by_step = by_step * factor[:-1]
            last = None if last is None else last * factor[-1]
        total = by_step.sum(-1) if last is None else by_step.sum(-1) + last
        return total.expand(lead)

    def ended(self, states: Tensor, context: Tensor) -> Tensor | None:
        """Return whether the episode has ended at or before each state, shape (..., H + 1); None if it never does."""
        if self.termination is None:
            return None
        seen = torch.cat((context[..., :1, :], context), -2)
        return self.termination(states, seen).expand(states.shape[:-1]).cummax(-1).values

    def _stages(self, states: Tensor, actions: Tensor, context: Tensor) -> Tensor:
        shape = states.shape[:-1]
        if self.stage is None:
            return states.new_zeros(shape[-1:])
        step = torch.arange(shape[-1], device=states.device)
        value = _numbers("stage costs", self.stage(states, actions, context, step), like=states)
        if value.ndim == 0 or not _broadcasts(value, shape):
            raise SpecError(
                f"expected stage costs of shape {tuple(shape)} (the last axis of states reduced), "
                f"got {tuple(value.shape)}"
            )
        return value


def _numbers(what: str, value: Tensor, *, like: Tensor) -> Tensor:
    """Return costs as real numbers: a truth value counts as 0 or 1."""
    if not isinstance(value, Tensor):
        raise SpecError(f"expected {what} as a tensor, got {type(value).__name__}")
    return value if value.is_floating_point() else value.to(like)


def _broadcasts(value: Tensor, shape: tuple[int, ...]) -> bool:
    own = value.shape
    return len(own) <= len(shape) and all(n in (1, full) for n, full in zip(own[::-1], shape[::-1], strict=False))
