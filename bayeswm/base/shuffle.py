"""Fresh worlds along a rollout: which world each particle meets at a step."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from bayeswm.base.errors import SpecError
from bayeswm.base.laws import Law
from bayeswm.base.random import permutation, systematic
from bayeswm.base.trees import tree_map
from bayeswm.base.worlds import Worlds


class Shuffle:
    """A fresh world for each particle at each step, all particles of all batch rows in one call.

    Equal weights: a random order of the particles, dealt out to the worlds evenly. Otherwise one world is drawn for
    each particle, by systematic resampling.
    """

    def __init__(self, worlds: Worlds, generator: torch.Generator | None, *, size: tuple[int, ...]) -> None:
        self.worlds, self.generator, self.size = worlds, generator, size
        self.count = size[0] * size[1]
        self.equal = bool((worlds.log_weight - worlds.log_weight[0]).abs().max() < 1e-9)

    def draw(self) -> Tensor:
        """Draw which world each particle meets: an order of the particles, or a world's index for each."""
        if self.generator is None:
            raise SpecError("expected generator=torch.Generator for fresh worlds, got none")
        if self.equal:
            return permutation(self.count, self.generator, device=self.worlds.device)
        return systematic(self.worlds.log_weight, self.count, self.generator)

    def transition(self, carry: Any, action: Tensor, context: Tensor, *, step: int, meeting: Tensor) -> Law:
        """Return the law of the next carry, each particle in the world that it meets."""
        size = self.size
        mapped = action.ndim == len(size) + 1  # a policy's actions belong to their particles
        if self.equal:
            carry = tree_map(lambda v: _reorder(v, meeting, size), carry)
            action = _reorder(action, meeting, size) if mapped else action
            law = self.worlds.transition(carry, action, context, step=step)
            back = torch.argsort(meeting)
            return law.map(lambda v: _reorder(v, back, size))
        single, lead = (self.count, 1, *size[2:]), len(size)

        def apart(v: Tensor) -> Tensor:
            return v.expand(*size, *v.shape[lead:]).reshape(*single, *v.shape[lead:])

        law = self.worlds[meeting].transition(
            tree_map(apart, carry), apart(action) if mapped else action, context, step=step
        )
        return law.map(lambda v: v.expand(*single, *v.shape[lead:]).reshape(*size, *v.shape[lead:]))


def _reorder(values: Tensor, order: Tensor, size: tuple[int, ...]) -> Tensor:
    tail = values.shape[len(size) :]
    flat = values.expand(*size, *tail).reshape(size[0] * size[1], *size[2:], *tail)
    return flat.index_select(0, order).view(*size, *tail)
