"""The improved cross-entropy method: coloured noise, elites that live on, fewer samples as it narrows."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass
from typing import override

import torch
from torch import Tensor

from bayeswm.base.errors import SpecError
from bayeswm.planning.planner import Found
from bayeswm.planning.problem import Problem
from bayeswm.planning.search.cem import CEM
from bayeswm.planning.search.draws import normally
from bayeswm.planning.search.elites import Best, Elites, settle


@dataclass(frozen=True)
class ICEM(CEM):
    """The improved cross-entropy method (iCEM, Pinneri et al. 2020).

    Beyond :class:`CEM`: the noise is correlated along the horizon; some of the elites compete again in the next
    iteration and, shifted, in the next plan; each iteration has fewer samples than the one before; the mean is tried in
    the last one. The plan is the mean of the law fitted last, or the best that was tried where it cannot be used.

    Parameters
    ----------
    objective, horizon, risk, constraints, worlds, particles, bounds, change, fallback, fresh_worlds
        As of every :class:`Planner`.
    samples : int
        Action sequences tried in the first iteration.
    iterations : int
        How often the sampling law is fitted.
    elites : int
        How many of the best it is fitted to.
    spread : float
        Standard deviation at first, as a share of half the bounds' distance.
    momentum : float
        How much of the old mean and standard deviation stays, from 0 to below 1.
    exponent : float
        Colour of the noise: its power falls with the frequency as ``1 / f^exponent``; 0 is white.
    kept : float
        Share of the elites that compete again, from 0 to 1.
    decay : float
        Factor between the numbers of samples of an iteration and the next, at least 1; never below twice the elites.

    Examples
    --------
    >>> import bayeswm as bwm
    >>> model = bwm.KnownDynamics(structure=bwm.structures.Pendulum.gymnasium())
    >>> objective = bwm.planning.Objective(stage=lambda x, u, c, t: x[..., 0] ** 2 + 0.1 * x[..., 1] ** 2)
    >>> planner = ICEM(objective, horizon=10, samples=64, elites=8, iterations=3)
    >>> plan = planner.plan(model, torch.tensor([0.2, 0.0]), generator=torch.Generator().manual_seed(0))
    >>> plan.actions.shape, plan.evaluations
    (torch.Size([10, 1]), 156)
    """

    _: KW_ONLY
    iterations: int = 4
    exponent: float = 2.0
    kept: float = 0.3
    decay: float = 1.25

    @override
    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.exponent >= 0 or not 0 <= self.kept <= 1 or not self.decay >= 1:
            raise SpecError(
                f"expected exponent >= 0, kept from 0 to 1 and decay >= 1, got {self.exponent}, {self.kept} and "
                f"{self.decay}"
            )

    def _counts(self) -> list[int]:
        """Return the number of new samples in each iteration."""
        floor = min(2 * self.elites, self.samples)
        return [max(int(self.samples / self.decay**i), floor) for i in range(self.iterations)]

    @override
    def _search(self, problem: Problem, memory: Mapping[str, Tensor], *, generator: torch.Generator | None) -> Found:
        limits = problem.limits
        shape = (*problem.starts, problem.horizon, len(limits.low))
        mean = memory["actions"] if memory else limits.center.expand(shape)
        sd = (self.spread * limits.radius).expand(shape)
        kept = math.ceil(self.kept * self.elites)
        again = memory["elites"] if "elites" in memory else mean.new_empty(0, *shape)
        old: Elites | None = None
        best = Best.none(mean)
        diverged, evaluations, history = mean.new_zeros(problem.starts), 0, list[Tensor]()
        for i, count in enumerate(self._counts()):
            tried = mean + sd * normally(problem, count, generator, exponent=self.exponent)
            if i == 0:
                tried = torch.cat((tried, again))
            if i == self.iterations - 1:
                tried = torch.cat((tried, mean[None]))
            tried = limits.apply(tried, problem.previous)
            score = problem.score(tried)
            diverged = diverged + score.diverged.mean(0) / self.iterations
            evaluations += len(tried)
            key = score.key
            if old is not None:  # same worlds and noise: their keys are known
                tried, key = torch.cat((tried, old.actions)), torch.cat((key, old.key))
            elites = Elites.of(tried, key, self.elites)
            mean, sd = elites.moments(mean, sd, momentum=self.momentum)
            best = best.or_better(elites)
            history.append(elites.key[0])
            old = Elites(elites.actions[:kept], elites.key[:kept])
        mean = limits.apply(mean, problem.previous)
        final, key = settle(problem, mean, best, diverged=diverged)
        after = {"actions": final, "elites": final[None][:0] if old is None else old.actions}
        return Found(final, key, diverged, torch.stack(history), evaluations, after)
