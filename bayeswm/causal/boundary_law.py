"""Interventions on the state of a system that is one block: the next state is overwritten after the step."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, override

import torch
from torch import Tensor

from bayeswm.base.errors import NotInvertible, SpecError
from bayeswm.base.laws import Gaussian, Law, MultivariateGaussian
from bayeswm.causal.intervention import Assignment, Change
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

    @override
    def abduct(self, next_state: Tensor, *, tolerance: float | None = None) -> Tensor:
        raise NotInvertible(
            f"expected a state as the system gave it, got one overwritten by {list(self.overwrite.changes)}: the noise "
            "of what was overwritten is lost"
        )

    @override
    def log_prob(self, state: Tensor, *, marginal: bool = False, tolerance: float | None = None) -> Tensor:
        if marginal:
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
    """A law of the next state whose push also draws what the next step's stochastic interventions will need.

    Parameters
    ----------
    law : Law
        Of the next state.
    extra : int
        Further coordinates of noise, which are carried on as they are.
    """

    def __init__(self, law: Law, extra: int) -> None:
        self.law, self.extra = law, extra
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
    def push(self, noise: Tensor) -> tuple[Any, Tensor]:
        own = self.law.noise_size
        return self.law.push(noise[..., :own]), noise[..., own:]

    @override
    def abduct(self, next_state: Tensor, *, tolerance: float | None = None) -> Tensor:
        raise NotInvertible("expected a system without stochastic interventions: their draws are not in the state")

    @override
    def log_prob(self, state: Tensor, *, marginal: bool = False, tolerance: float | None = None) -> Tensor:
        return self.law.log_prob(state, marginal=marginal, tolerance=tolerance)

    @override
    def cdf(self, state: Tensor) -> Tensor:
        return self.law.cdf(state)

    @override
    def map(self, change: Callable[[Tensor], Tensor]) -> Law:
        return CarryingLaw(self.law.map(change), self.extra)


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
