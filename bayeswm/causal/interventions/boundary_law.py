"""Interventions on the state of a system that is one block: the next state is overwritten after the step."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import override

import torch
from torch import Tensor

from bayeswm.base.errors import NotInvertible, SpecError
from bayeswm.base.laws import Gaussian, Law, MultivariateGaussian
from bayeswm.base.shapes import common_shape
from bayeswm.causal.interventions.assignment import Assignment
from bayeswm.causal.interventions.changes import Change, Clamp
from bayeswm.causal.interventions.clamped import Kept
from bayeswm.causal.interventions.overwrite import Overwrite
from bayeswm.causal.interventions.set_noise import with_noise
from bayeswm.causal.structural.pushed_law import PushedLaw


def with_changes(
    law: Law,
    states: Sequence[Assignment],
    noises: Sequence[Assignment],
    *,
    columns: tuple[str, ...],
    step: int | Tensor,
    draws: Mapping[Assignment, Tensor],
) -> Law:
    """Return the law of a step of one block with its noise, and then the state that it leads to, set.

    Parameters
    ----------
    law : Law
        As the system gives it.
    states, noises : sequence of Assignment
        What acts in this step.
    columns : tuple of str
        Of the state.
    step : int or Tensor
        Index of the step.
    draws : mapping of Assignment to Tensor
        Of stochastic ones.
    """
    for name in dict.fromkeys(one.name for one in noises):
        todo = [one for one in noises if one.name == name]
        law = with_noise(law, todo, column=columns.index(name.removeprefix("noise.")), step=step)
    if not states:
        return law
    given = {one: one.values(step + 1).to(law.mean) for one in states if one.hard}
    given |= {one: draws[one] for one in states if one.stochastic}
    lead = common_shape(law.mean.shape[:-1], *(v.shape for v in given.values()))
    given = {one: v.expand(lead) for one, v in given.items()}
    return overwritten(law, Overwrite(states, columns, step=step + 1, drawn=given))


def overwritten(law: Law, overwrite: Overwrite) -> Law:
    """Return the law of a next state of which some columns are set."""
    if overwrite.known and isinstance(law, Gaussian):
        mean, spread = overwrite(law.mean), law.spread
        if overwrite.settled and law.scale is not None:
            spread = spread.expand(mean.shape).clone()
            spread[..., list(overwrite.settled)] = 0.0
        return Gaussian(mean, None if law.scale is None else spread, noisy=law.noisy)
    return OverwrittenLaw(law, overwrite)


class OverwrittenLaw(PushedLaw):
    """The law of the next state of one block, overwritten after the step.

    Parameters
    ----------
    law : Law
        Of the next state as the system gives it, which is pushed to a tensor.
    overwrite : Overwrite
        What is set.
    """

    def __init__(self, law: Law, overwrite: Overwrite) -> None:
        self.law, self.overwrite = law, overwrite
        self.noise_size, self.exact = law.noise_size, law.exact

    @property
    @override
    def lead(self) -> torch.Size:
        return self.law.mean.shape[:-1]

    @property
    @override
    def like(self) -> Tensor:
        return self.law.mean

    @override
    def push(self, noise: Tensor) -> Tensor:
        return self.overwrite(self.law.push(noise))

    @override
    def values(self, noise: Tensor) -> Tensor:
        return self.push(noise)

    @override
    def conditional(self, noise: Tensor) -> tuple[Tensor, Tensor]:
        value = self.push(noise)
        return value, torch.zeros_like(value)

    @property
    @override
    def mean(self) -> Tensor:
        return super().mean if self._kept is None else self._kept.mean

    @property
    @override
    def variance(self) -> Tensor:
        return super().variance if self._kept is None else self._kept.variance

    @property
    @override
    def covariance(self) -> Tensor:
        return super().covariance if self._kept is None else torch.diag_embed(self._kept.variance)

    @override
    def cdf(self, state: Tensor) -> Tensor:
        return super().cdf(state) if self._kept is None else self._kept.cdf(state)

    @cached_property
    def _kept(self) -> Kept | None:
        """The columns by themselves, where they are independent normal numbers that were set, shifted or clamped."""
        if not isinstance(self.law, Gaussian):
            return None
        spread = self.law.spread
        mean, sd = list(self.law.mean.unbind(-1)), list(spread.expand(*self.lead, -1).unbind(-1))
        bounds: list[Clamp | None] = [None] * len(mean)
        for one in self.overwrite.changes:
            i, value = self.overwrite.columns.index(one.name), self.overwrite.drawn.get(one)
            if value is not None:
                mean[i], sd[i], bounds[i] = value.to(mean[i]), torch.zeros_like(sd[i]), None
            elif isinstance(one.value, Clamp) and bounds[i] in (None, one.value):
                bounds[i] = one.value
            elif isinstance(one.value, Change) and one.value.additive and bounds[i] is None:
                mean[i] = one.value.apply(mean[i])
            else:
                return None
        columns = (torch.stack(torch.broadcast_tensors(*v), -1) for v in (mean, sd))
        return Kept(*columns, bounds=tuple(bounds))

    @override
    def abduct(self, next_state: Tensor, *, tolerance: float | None = None) -> Tensor:
        raise NotInvertible(
            f"expected a state as the system gave it, got one overwritten by {list(self.overwrite.changes)}: the noise "
            "of what was overwritten is lost"
        )

    @override
    def log_prob(self, state: Tensor, *, marginal: bool = False, tolerance: float | None = None) -> Tensor:
        if marginal:
            if self._kept is not None and any(b is not None for b in self._kept.bounds):
                raise SpecError("expected a law with a density, got one with mass at the bounds of a clamp; use cdf")
            return self.marginal_log_prob(state)
        if self.overwrite.known and isinstance(self.law, MultivariateGaussian):
            mean, gone = self.overwrite(self.law.mean), list(self.overwrite.settled)
            kept = [i for i in range(mean.shape[-1]) if i not in gone]
            fixed = Gaussian(mean[..., gone]).log_prob(state[..., gone], tolerance=tolerance)
            if not kept:
                return fixed
            root = torch.linalg.cholesky(self.law.covariance[..., kept, :][..., kept])
            return fixed + MultivariateGaussian(mean[..., kept], root).log_prob(state[..., kept], tolerance=tolerance)
        raise SpecError(f"expected hard values on a Gaussian state for a joint density, got {self.overwrite.changes}")

    @override
    def map(self, change: Callable[[Tensor], Tensor]) -> Law:
        overwrite = Overwrite(
            self.overwrite.changes,
            self.overwrite.columns,
            step=self.overwrite.step,
            drawn={one: change(v[..., None])[..., 0] for one, v in self.overwrite.drawn.items()},
        )
        return OverwrittenLaw(self.law.map(change), overwrite)
