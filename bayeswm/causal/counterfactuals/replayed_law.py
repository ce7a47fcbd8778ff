"""The law of a step whose noise is known."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, override

import torch
from torch import Tensor

from bayeswm.base.errors import NotInvertible, SpecError
from bayeswm.base.laws import Law
from bayeswm.base.shapes import common_shape
from bayeswm.causal.structural.pushed_law import PushedLaw


class ReplayedLaw(PushedLaw):
    """A law whose noise is known, but for coordinates at its end: those of stochastic interventions.

    Parameters
    ----------
    law : Law
        The law with all its noise.
    noise : Tensor, shape (worlds, particles, *batch, n)
        The first n coordinates.
    state : callable
        The state of what the law pushes.
    """

    def __init__(self, law: Law, noise: Tensor, *, state: Callable[[Any], Tensor]) -> None:
        self.law, self.noise, self.state = law, noise, state
        self.noise_size = law.noise_size - noise.shape[-1]

    @property
    @override
    def lead(self) -> torch.Size:
        own = self.law.lead if isinstance(self.law, PushedLaw) else self.law.mean.shape[:-1]
        return common_shape(self.noise.shape[:-1], own)

    @property
    @override
    def like(self) -> Tensor:
        return self.noise

    @override
    def push(self, noise: Tensor) -> Any:
        shape = common_shape(self.noise.shape[:-1], noise.shape[:-1])
        both = [v.expand(*shape, v.shape[-1]) for v in (self.noise, noise)]
        return self.law.push(torch.cat(both, -1))

    @override
    def values(self, noise: Tensor) -> Tensor:
        return self.state(self.push(noise))

    @override
    def conditional(self, noise: Tensor) -> tuple[Tensor, Tensor]:
        value = self.values(noise)
        return value, torch.zeros_like(value)

    @override
    def abduct(self, next_state: Tensor, *, tolerance: float | None = None) -> Tensor:
        raise NotInvertible("expected a system whose noise is to be found, got one whose noise is given")

    @override
    def log_prob(self, state: Tensor, *, marginal: bool = False, tolerance: float | None = None) -> Tensor:
        if marginal or self.noise_size == 0:
            each = self.marginal_log_prob(state)
            return each if marginal else each.sum(-1)
        raise SpecError("expected marginal=True: with known noise the next state has no joint density")

    @override
    def map(self, change: Callable[[Tensor], Tensor]) -> Law:
        return ReplayedLaw(self.law.map(change), change(self.noise), state=self.state)
