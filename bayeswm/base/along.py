"""Policies asked for their actions, and the density of an observed trajectory under a plan or a policy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from bayeswm.base.errors import DataError
from bayeswm.base.trees import tree_map
from bayeswm.base.worlds import Worlds

Policy = Callable[[Tensor, int], Tensor]


def ask(policy: Policy, worlds: Worlds, state: Tensor, *, step: int, size: tuple[int, ...]) -> Tensor:
    """Return a policy's actions, or say what is wrong with them; those of diverged particles may be NaN.

    Parameters
    ----------
    policy : callable
        Maps states and the step's index to actions.
    worlds : Worlds
        Where it acts.
    state : Tensor, broadcastable to (worlds, particles, *batch, S)
        Where the particles are; the policy is shown the full shape, so that it can draw for each particle.
    step : int
        Index of the step.
    size : tuple of int
        (worlds, particles, *batch).

    Returns
    -------
    Tensor, shape (*batch, A), (worlds, 1, *batch, A) or (worlds, particles, *batch, A)
        The first where the policy returned no axis of particles. The second where all particles are in one place and
        do the same.

    Raises
    ------
    DataError
        If the actions do not fit the states, or are not finite where the states are.
    """
    columns, batch = worlds.schema.action.size, size[2:]
    given = policy(state.expand(*size, state.shape[-1]), step)
    try:
        action = torch.as_tensor(given).to(worlds.device, worlds.dtype)
    except (TypeError, ValueError, RuntimeError):
        raise DataError(f"expected a tensor of actions from the policy, got {given!r} at step {step}") from None
    lead = tuple(action.shape[:-1])
    fits = len(lead) <= len(size) and all(n in (1, full) for n, full in zip(lead[::-1], size[::-1], strict=False))
    if action.ndim < 1 or action.shape[-1] != columns or not fits:
        raise DataError(
            f"expected a policy's actions of shape {(*size, columns)} (worlds, particles, *batch, actions), "
            f"or one that broadcasts to it, got {tuple(action.shape)} at step {step}"
        )
    if len(lead) <= len(batch):
        action = action.expand(*batch, columns)
    else:
        action = action.view(*(1,) * (len(size) - len(lead)), *action.shape)
        action = action.expand(size[0], action.shape[1], *batch, columns)
    if not bool(action.isfinite().all()):
        wrong = ~action.isfinite().all(-1) & state.isfinite().all(-1)
        if bool(wrong.any()):
            raise DataError(f"expected finite actions, the policy returned NaN or infinity at step {step}")
    alike = action.ndim > len(batch) + 1 and state.shape[1] == 1 and _alike(action)
    return action[:, :1] if alike else action


class Along:
    """The log density of an observed trajectory, step by step, in each world.

    Parameters
    ----------
    worlds : Worlds
        Worlds whose state is measured.
    origin : opaque
        The carry at the start.
    plan : Tensor, shape (*batch, H, A), or callable
        What is done.
    context : Tensor, shape (*batch, H, C)
        Environment factors.
    size : tuple of int
        (worlds, particles, *batch).
    rows : Tensor of int, optional
        Flat indices into the batch, of any shape, which takes the place of ``batch``; all of it by default.
    """

    def __init__(
        self,
        worlds: Worlds,
        origin: Any,
        *,
        plan: Tensor | Policy,
        context: Tensor,
        size: tuple[int, ...],
        rows: Tensor | None = None,
    ) -> None:
        self.worlds, self.origin, self.plan, self.context, self.size = worlds, origin, plan, context, size
        self.rows = rows

    def part(self, index: int | slice | Tensor) -> Along:
        """Return the density of some of the first batch axis."""
        rows = self.rows
        if rows is None:
            count = torch.Size(self.size[2:]).numel()
            rows = torch.arange(count, device=self.worlds.device).view(self.size[2:])
        return self._of(rows[index])

    def __call__(self, x: Tensor) -> Tensor:
        """Return the log densities, shape (worlds, particles, *batch, H), of x of shape (*batch, H, S).

        One further axis in front of the batch stays in front of it.
        """
        batch = self.size[2:] if self.rows is None else tuple(self.rows.shape)
        several, steps = x.ndim > len(batch) + 2, x.shape[-2]
        if isinstance(self.plan, Tensor):
            actions = self._picked(self.plan, 0)[..., :steps, :]
        elif several:  # the policy is made for the rollout's batch
            return (
                torch.stack([self(part) for part in x], 2)
                if len(x)
                else self(x.new_zeros(x.shape[1:]))[:, :, None][:, :, :0]
            )
        elif self.rows is not None and self.rows.unique().numel() < self.rows.numel():
            each = [self._of(row)(v) for row, v in zip(self.rows.flatten(), x.flatten(0, -3), strict=True)]
            return torch.stack(each, 2).unflatten(2, batch)
        else:
            actions = self._asked(x, self.plan)

        particles = actions.shape[1] if actions.ndim > len(batch) + 2 else 1

        def spread(values: Tensor) -> Tensor:
            lead = (values.shape[0], max(values.shape[1], particles))
            values = self._picked(values.expand(*lead, *self.size[2:], *values.shape[len(self.size) :]), 2)
            return values[:, :, None].expand(*lead, len(x), *values.shape[2:]) if several else values

        context = self._picked(self.context, 0)[..., :steps, :]
        if several:
            actions, context = (v.expand(len(x), *v.shape) for v in (actions, context))
        changed = several or particles > 1 or self.rows is not None
        origin = tree_map(spread, self.origin) if changed else self.origin
        return self.worlds.log_likelihood(origin, x, actions, context)

    def _of(self, rows: Tensor) -> Along:
        return Along(self.worlds, self.origin, plan=self.plan, context=self.context, size=self.size, rows=rows)

    def _picked(self, values: Tensor, axis: int) -> Tensor:
        """Return the chosen rows of values whose batch begins at an axis."""
        if self.rows is None:
            return values
        last = axis + len(self.size) - 2
        return values.flatten(axis, last - 1)[(*(slice(None),) * axis, self.rows)]

    def _asked(self, x: Tensor, policy: Policy) -> Tensor:
        """Return what the policy does along x, shape (*batch, H, A) or (worlds, particles or 1, *batch, H, A).

        The start may differ between worlds and particles, what followed is what was observed. A policy is asked about
        the whole batch: rows that were not chosen stay at their start.
        """
        start, size, asked = self.worlds.state(self.origin), self.size, list[Tensor]()
        for t in range(x.shape[-2]):
            state = start
            if t > 0 and self.rows is None:
                state = x[..., t - 1, :][None, None]
            elif t > 0 and self.rows is not None:
                flat = start.expand(*size, start.shape[-1]).flatten(2, -2).clone()
                flat[:, :, self.rows.flatten()] = x[..., t - 1, :].reshape(-1, x.shape[-1])
                state = flat.view(*size, start.shape[-1])
            asked.append(ask(policy, self.worlds, state, step=t, size=size))
        if all(a.ndim == len(size) - 1 for a in asked):
            return torch.stack([self._picked(a, 0) for a in asked], -2)
        actions = torch.stack([self._picked(a.expand(*size, a.shape[-1]), 2) for a in asked], -2)
        return actions[:, :1] if start.shape[1] == 1 and _alike(actions) else actions


def _alike(values: Tensor) -> bool:
    """Whether values (worlds, particles, ...) are the same for all particles."""
    first = values[:, :1]
    return bool(((values == first) | (values.isnan() & first.isnan())).all())
