"""Chance constraints: how often imagined trajectories may leave a safe set."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass
from typing import override

import torch
from torch import Tensor

from bayeswm.base.errors import SpecError
from bayeswm.planning.safety.binomial_bounds import BinomialBound
from bayeswm.planning.safety.constraints import Constraint, Imagined

Inside = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]


class Assessment(ABC):
    """A way to tell whether a chance constraint is kept."""

    @abstractmethod
    def excess(self, chance: ChanceConstraint, imagined: Imagined) -> Tensor:
        """Return how far each candidate is from keeping it, shape (*batch), 0 where it does."""

    def check(self, chance: ChanceConstraint) -> None:  # noqa: B027 (most ways take every constraint)
        """Refuse a constraint that cannot be told this way.

        Raises
        ------
        SpecError
        """


@dataclass(frozen=True)
class FromParticles(Assessment):
    """Counts the particles, in the weights of their worlds, that leave the safe set.

    The excess is how far the particle lies outside that is the last one allowed there, in the unit of the margin and
    summed over steps; the share above what is allowed where ``inside`` says only true or false.

    Planners choose among many candidates, and what they choose breaks the constraint in truth more often than in the
    particles that they saw. Candidates are tried on the same noise, so that luck which is the same for all of them
    gives none an advantage, but the share itself has the error of the sample. A ``bound`` keeps that on the safe side.

    Parameters
    ----------
    bound : Wilson or ClopperPearson, optional
        The upper confidence bound of the probability that is to be small enough; the share itself by default. Draws
        are counted as :attr:`Imagined.units` says: where worlds are drawn, worlds.

    Examples
    --------
    Of 1,000 particles 38 may be outside, to promise 5 % with confidence 95 %.

    >>> import bayeswm as bwm
    >>> by = FromParticles(bwm.planning.Wilson(0.95))
    >>> int(1000 * by.bound.share(0.05, 1000))
    38
    >>> ChanceConstraint(lambda x, u, c, t: x[..., 0] < 1.0, probability=0.05, by=by).jointly
    False
    """

    bound: BinomialBound | None = None

    @override
    def excess(self, chance: ChanceConstraint, imagined: Imagined) -> Tensor:
        margin = chance.margins(imagined)
        allowed = chance.probability
        if self.bound is not None:
            allowed = self.bound.share(allowed, imagined.units)
        return self.beyond(margin, imagined.log_weight, allowed=allowed, jointly=chance.jointly)

    @staticmethod
    def beyond(margin: Tensor, log_weight: Tensor, *, allowed: float, jointly: bool) -> Tensor:
        """Return the excess of margins (worlds, particles, *batch, H), shape (*batch)."""
        if jointly:
            margin = (margin.all(-1) if margin.dtype == torch.bool else margin.amin(-1))[..., None]
        weight = (log_weight.exp() / margin.shape[1]).view(-1, *(1,) * (margin.ndim - 1))
        bad = ~margin if margin.dtype == torch.bool else margin.detach() < 0
        share = (weight * bad.to(weight)).sum((0, 1))
        # sums of weights are exact up to rounding
        over = share > allowed + 1e-9
        if margin.dtype == torch.bool:
            return torch.where(over, share - allowed, 0.0).sum(-1)
        if not bool(over.any()):
            return torch.zeros(over.shape[:-1], dtype=margin.dtype, device=margin.device)
        last = _last_allowed(margin, log_weight, allowed=allowed)
        return torch.where(over, -last, 0.0).sum(-1)


@dataclass(frozen=True)
class ChanceConstraint(Constraint):
    """Trajectories are to stay in a safe set, with a small probability of leaving it.

    The start is given and does not count.

    Parameters
    ----------
    inside : callable or HalfSpaces
        ``inside(state, action, context, step)`` of shapes (..., H, S), (..., H, A), (..., H, C) and (H,) returns for
        each state after a step, with the action and the context that led to it and its index 1..H, how far it is
        inside, at least 0 where safe, or whether it is: (..., H). The leading axes broadcast.
    probability : float
        How probable it may be to be outside.
    jointly : bool
        Whether that is the probability of being outside at any step, or at each step by itself.
    steps : int, optional
        How many steps of the plan it is about; all by default. A plan without feedback is less and less certain the
        further it looks ahead. Where it is made anew at every step, asking for the next few is enough, and asking for
        all may rule out what is safe under feedback, such as balancing.
    by : FromParticles, GaussianTightening or InsideTube
        How it is told.
    penalty : float, optional
        Cost of each unit of excess; a hard constraint without it.

    Raises
    ------
    SpecError
        For a probability that is not between 0 and 0.5, a penalty below 0, fewer than 1 step, or where ``by`` does not
        fit.

    Examples
    --------
    A plan that swings a pendulum and is slower than 1 rad/s after each step, 19 times in 20:

    >>> import bayeswm as bwm
    >>> model = bwm.KnownDynamics(structure=bwm.structures.Pendulum.gymnasium(), noise=0.05)
    >>> slow = ChanceConstraint(lambda x, u, c, t: 1.0 - x[..., 1].abs(), probability=0.05)
    >>> objective = bwm.planning.Objective(stage=lambda x, u, c, t: -x[..., 1])  # the faster, the better
    >>> planner = bwm.planning.CEM(objective, horizon=5, samples=64, particles=400, constraints=[slow])
    >>> g = torch.Generator().manual_seed(0)
    >>> plan = planner.plan(model, torch.tensor([3.1, 0.0]), generator=g)
    >>> found = plan.violation(generator=g, particles=10_000)[0]
    >>> bool(plan.feasible), bool((found.by_step.value < 0.08).all())
    (True, True)
    """

    inside: Inside
    _: KW_ONLY
    probability: float = 0.05
    jointly: bool = False
    steps: int | None = None
    by: Assessment = FromParticles()
    penalty: float | None = None

    def __post_init__(self) -> None:
        if not 0 < self.probability < 0.5:
            raise SpecError(f"expected a probability between 0 and 0.5, got {self.probability}")
        if self.steps is not None and self.steps < 1:
            raise SpecError(f"expected steps >= 1, or None for all, got {self.steps}")
        if self.penalty is not None and not self.penalty >= 0:
            raise SpecError(f"expected a penalty >= 0, or None for a hard constraint, got {self.penalty}")
        if isinstance(self.by, type) or not isinstance(self.by, Assessment):
            raise SpecError(f"expected by=FromParticles() or another assessment, got {self.by!r}")
        self.by.check(self)

    @override
    def excess(self, imagined: Imagined) -> Tensor:
        return self.by.excess(self, imagined if self.steps is None else imagined.first(self.steps))

    @override
    def broken(self, imagined: Imagined) -> Tensor:
        margin = self.margins(imagined)
        broken = ~margin if margin.dtype == torch.bool else ~(margin >= 0)
        if self.steps is None:
            return broken
        return broken & (torch.arange(margin.shape[-1], device=margin.device) < self.steps)

    def margins(self, imagined: Imagined) -> Tensor:
        """Return how far particles are inside after each step, shape (worlds, particles, *batch, H).

        Minus infinity, or false, where they diverged or the margin is NaN.

        Raises
        ------
        SpecError
            If ``inside`` returns another shape.
        """
        states = imagined.reached
        step = torch.arange(1, states.shape[-2] + 1, device=states.device)
        margin = torch.as_tensor(self.inside(states, imagined.actions, imagined.context, step))
        shape = states.shape[:-1]
        try:
            margin = margin.expand(shape)
        except RuntimeError:
            raise SpecError(
                f"expected inside() of shape {tuple(shape)} (the last axis of states reduced), got "
                f"{tuple(margin.shape)}"
            ) from None
        finite = states.detach().isfinite().all(-1)
        if margin.dtype == torch.bool:
            return margin & finite
        return torch.where(finite & ~margin.isnan(), margin, -float("inf"))


def _last_allowed(margin: Tensor, log_weight: Tensor, *, allowed: float) -> Tensor:
    """Return the smallest margin that is not among the share that may be lower: (worlds, particles, ...) to (...)."""
    flat = margin.flatten(0, 1)
    if bool((log_weight == log_weight[0]).all()):
        place = int(allowed * len(flat) + 1e-9 * len(flat)) + 1
        return flat.movedim(0, -1).kthvalue(min(place, len(flat)), dim=-1).values
    ordered, order = flat.sort(0)
    weight = (log_weight.exp() / margin.shape[1]).repeat_interleave(margin.shape[1])
    place = (weight[order].cumsum(0) <= allowed + 1e-9).sum(0, keepdim=True)
    return ordered.gather(0, place.clamp(max=len(flat) - 1))[0]
