"""Interventions on the state of a system that is one block: the next state is overwritten after the step."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any, override

import torch
from torch import Tensor

from bayeswm.base.errors import NotInvertible, SpecError
from bayeswm.base.laws import Gaussian, Law, MultivariateGaussian
from bayeswm.causal.intervention import Assignment, Change, Clamp
from bayeswm.causal.pushed_law import PushedLaw


class Overwrite:
    """What interventions make of a state: each column by itself, from the state as the system gave it.

    Parameters
    ----------
    changes : sequence of Assignment
        Of columns of the state, all active.
    columns : tuple of str
        Names of the columns.
    step : int or Tensor
        Index k of the state x[k].
    drawn : mapping of Assignment to Tensor
        Values of hard ones and draws of stochastic ones, shape (worlds, particles, *batch).
    """

    def __init__(
        self,
        changes: Sequence[Assignment],
        columns: tuple[str, ...],
        *,
        step: int | Tensor,
        drawn: dict[Assignment, Tensor],
    ) -> None:
        self.changes, self.columns, self.step, self.drawn = tuple(changes), columns, step, drawn

    def __call__(self, state: Tensor) -> Tensor:
        """Return the state with what was set."""
        values = list(state.unbind(-1))
        for one in self.changes:
            column = self.columns.index(one.name)
            values[column] = changed(one, values[column], state, step=self.step, given=self.drawn.get(one))
        return torch.stack(torch.broadcast_tensors(*values), -1)

    @property
    def known(self) -> bool:
        """Whether every column is set to what is known before the step, or shifted by it."""
        return all(one in self.drawn or (isinstance(one.value, Change) and one.value.additive) for one in self.changes)

    @property
    def settled(self) -> tuple[int, ...]:
        """Columns that keep nothing of what the system gave."""
        return tuple(sorted({self.columns.index(one.name) for one in self.changes if one in self.drawn}))


def changed(one: Assignment, value: Tensor, state: Tensor, *, step: int | Tensor, given: Tensor | None) -> Tensor:
    """Return what an intervention makes of a value (...,) in a state (..., S); ``given`` is its own value, if known."""
    if given is not None:
        return given.to(value)
    if isinstance(one.value, Change):
        return one.value.apply(value)
    return torch.as_tensor(one.value(state, step)).to(value)


def overwritten(law: Law, overwrite: Overwrite) -> Law:
    """Return the law of a next state of which some columns are set."""
    if overwrite.known and isinstance(law, Gaussian):
        mean, spread = overwrite(law.mean), law.spread
        if overwrite.settled and law.scale is not None:
            spread = spread.expand(mean.shape).clone()
            spread[..., list(overwrite.settled)] = 0.0
        return Gaussian(mean, None if law.scale is None else spread, noisy=law.noisy)
    return OverwrittenLaw(law, overwrite)


class Kept:
    """Independent normal numbers, some of them kept between bounds.

    Parameters
    ----------
    mean, sd : Tensor, shape (..., S)
        Before the bounds.
    bounds : tuple of Clamp or None
        Of each column.
    """

    def __init__(self, mean: Tensor, sd: Tensor, *, bounds: tuple[Clamp | None, ...]) -> None:
        self.normal, self.bounds = Gaussian(mean, sd), bounds
        found = [
            (m, s.square()) if bound is None else _clamped(m, s, bound)
            for m, s, bound in zip(mean.unbind(-1), sd.unbind(-1), bounds, strict=True)
        ]
        self.mean, self.variance = (torch.stack(v, -1) for v in zip(*found, strict=True))

    def cdf(self, state: Tensor) -> Tensor:
        """Return P(column <= state), shape (..., S)."""
        found = list(self.normal.cdf(state).unbind(-1))
        for i, bound in enumerate(self.bounds):
            if bound is not None and bound.low is not None:
                found[i] = torch.where(state[..., i] < bound.low, 0.0, found[i])
            if bound is not None and bound.high is not None:
                found[i] = torch.where(state[..., i] >= bound.high, 1.0, found[i])
        return torch.stack(found, -1)


def _clamped(mean: Tensor, sd: Tensor, bound: Clamp) -> tuple[Tensor, Tensor]:
    """Return mean and variance of a normal number that is kept between bounds."""
    noisy = sd > 0
    safe = torch.where(noisy, sd, 1.0)
    # of the standard normal number: what lies within the bounds, and the masses at them
    first, second, inside = torch.zeros_like(mean), torch.zeros_like(mean), torch.ones_like(mean)
    for edge, sign in ((bound.low, 1.0), (bound.high, -1.0)):
        if edge is not None:
            z = (edge - mean) / safe
            density, mass = torch.exp(-0.5 * z.square()) / math.sqrt(2 * math.pi), torch.special.ndtr(sign * z)
            first = first + sign * density + z * mass
            second = second + sign * z * density + z.square() * mass
            inside = inside - mass
    variance = (second + inside - first.square()).clamp(min=0) * safe.square()
    return torch.where(noisy, mean + safe * first, bound.apply(mean)), torch.where(noisy, variance, 0.0)


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


class CarryingLaw(Law):
    """A law of the next state whose push also hands on what interventions remember.

    Its push returns the next carry, the draws that the next step's stochastic interventions will need, and which events
    have happened.

    Parameters
    ----------
    law : Law
        Of the next state.
    extra : int
        Further coordinates of noise, which are carried on as they are.
    happened : Tensor, shape (worlds, particles, *batch, events)
        Which events have happened.
    """

    def __init__(self, law: Law, extra: int, happened: Tensor) -> None:
        self.law, self.extra, self.happened = law, extra, happened
        self.noise_size, self.exact = law.noise_size + extra, law.exact

    @property
    @override
    def mean(self) -> Tensor:
        return self.law.mean

    @property
    @override
    def variance(self) -> Tensor:
        return self.law.variance

    @property
    @override
    def covariance(self) -> Tensor:
        return self.law.covariance

    @override
    def push(self, noise: Tensor) -> tuple[Any, Tensor, Tensor]:
        own = self.law.noise_size
        return self.law.push(noise[..., :own]), noise[..., own:], self.happened

    @override
    def abduct(self, next_state: Tensor, *, tolerance: float | None = None) -> Tensor:
        if not self.extra:
            return self.law.abduct(next_state, tolerance=tolerance)
        raise NotInvertible("expected a system without stochastic interventions: their draws are not in the state")

    @override
    def log_prob(self, state: Tensor, *, marginal: bool = False, tolerance: float | None = None) -> Tensor:
        return self.law.log_prob(state, marginal=marginal, tolerance=tolerance)

    @override
    def cdf(self, state: Tensor) -> Tensor:
        return self.law.cdf(state)

    @override
    def map(self, change: Callable[[Tensor], Tensor]) -> Law:
        return CarryingLaw(self.law.map(change), self.extra, change(self.happened))


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
        return torch.broadcast_shapes(self.noise.shape[:-1], own)

    @property
    @override
    def like(self) -> Tensor:
        return self.noise

    @override
    def push(self, noise: Tensor) -> Any:
        shape = torch.broadcast_shapes(self.noise.shape[:-1], noise.shape[:-1])
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
