"""Worlds whose next actions are settled already: what a planner sees where actions take time to arrive."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self, override

import torch
from torch import Tensor

from bayeswm.base.errors import SpecError
from bayeswm.base.laws import Law
from bayeswm.base.trajectories import Trajectories
from bayeswm.base.worlds import Belief, Noise, Worlds
from bayeswm.base.wrapped import WrappedWorlds


class DelayedWorlds(WrappedWorlds):
    """Worlds that start after some more steps, whose actions cannot be changed any more.

    The noise of these steps is part of the initial noise, so that what is not known of where they lead is part of
    what is not known of the start.

    Parameters
    ----------
    inner : Worlds
        The worlds.
    pending : sequence of Tensor, shape (*batch, A)
        What will be done first, whatever is planned.

    Raises
    ------
    SpecError
        Without a pending action.

    Examples
    --------
    >>> import bayeswm as bwm
    >>> worlds = bwm.KnownDynamics(structure=bwm.structures.Pendulum.gymnasium()).draw(1)
    >>> start, push = torch.tensor([0.1, 0.0]), torch.tensor([2.0])
    >>> later = DelayedWorlds(worlds, [push]).start(start)
    >>> bool((later == worlds.step(worlds.start(start), push, noise=torch.empty(1, 1, 0))).all())
    True
    """

    def __init__(self, inner: Worlds, pending: Sequence[Tensor]) -> None:
        if not pending:
            raise SpecError("expected at least one pending action, got none")
        super().__init__(inner)
        self.pending = tuple(pending)

    @override
    def _around(self, inner: Worlds) -> Self:
        return type(self)(inner, self.pending)

    @override
    def start(self, belief: Belief, context: Tensor | None = None, noise: Noise | None = None) -> Any:
        given = Noise() if noise is None else noise
        own, step = self.inner.initial_noise_size(belief), self.noise_size
        if given.initial is None and step:
            raise SpecError("expected noise.initial for the steps that are settled already, got none")
        first = None if given.initial is None or not own else given.initial[..., :own]
        carry = self.inner.start(belief, context, given._replace(initial=first))
        for t, action in enumerate(self.pending):
            law = self.inner.transition(carry, action.to(self.device, self.dtype), context, step=t)
            at = own + t * step
            like = law.mean
            noises = like.new_empty(*(1,) * (like.ndim - 1), 0)
            carry = law.push(noises if given.initial is None or not step else given.initial[..., at : at + step])
        return carry

    @override
    def initial_noise_size(self, belief: Belief) -> int:
        return self.inner.initial_noise_size(belief) + len(self.pending) * self.noise_size

    @override
    def transition(self, carry: Any, action: Tensor, context: Tensor | None = None, *, step: int | Tensor = 0) -> Law:
        return self.inner.transition(carry, action, context, step=step + len(self.pending))

    @override
    def filter(
        self,
        carry: Any,
        action: Tensor,
        context: Tensor | None,
        measurement: Tensor,
        mask: Tensor | None = None,
        *,
        step: int | Tensor = 0,
    ) -> tuple[Any, Tensor]:
        return self.inner.filter(carry, action, context, measurement, mask, step=step + len(self.pending))

    @override
    def smooth(self, trajectory: Trajectories, *, generator: torch.Generator | None = None) -> tuple[Noise, Tensor]:
        raise SpecError("expected worlds that start where the episode does, got some that start later; smooth those")

    @override
    def beginning(self, trajectory: Trajectories) -> Law:
        raise SpecError("expected worlds that start where the episode does, got some that start later; ask those")
