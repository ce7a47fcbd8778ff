"""The cross-entropy method: sample, keep the best, fit, repeat."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass
from typing import override

import torch
from torch import Tensor

from bayeswm.base.counts import check_counts
from bayeswm.base.errors import SpecError
from bayeswm.planning.planner import Found, Planner
from bayeswm.planning.problem import Problem
from bayeswm.planning.search.draws import normally
from bayeswm.planning.search.elites import Best, Elites, settle


@dataclass(frozen=True)
class CEM(Planner):
    """The cross-entropy method over action sequences (Rubinstein & Kroese 2004; planners of PETS, Chua et al. 2018).

    The plan is the mean of the law fitted last, or the best that was tried where that mean cannot be used.

    Parameters
    ----------
    objective, horizon, risk, constraints, worlds, particles, bounds, change, fallback, fresh_worlds
        As of every :class:`Planner`.
    samples : int
        Action sequences tried in each iteration.
    iterations : int
        How often the sampling law is fitted.
    elites : int
        How many of the best it is fitted to.
    spread : float
        Standard deviation at first, as a share of half the bounds' distance.
    momentum : float
        How much of the old mean and standard deviation stays, from 0 to below 1.

    Examples
    --------
    >>> import bayeswm as bwm
    >>> model = bwm.KnownDynamics(structure=bwm.structures.Pendulum.gymnasium())
    >>> objective = bwm.planning.Objective(stage=lambda x, u, c, t: x[..., 0] ** 2 + 0.1 * x[..., 1] ** 2)
    >>> planner = CEM(objective, horizon=10, samples=64, elites=8, iterations=3)
    >>> plan = planner.plan(model, torch.tensor([0.2, 0.0]), generator=torch.Generator().manual_seed(0))
    >>> plan.actions.shape, plan.action
    (torch.Size([10, 1]), tensor([-1.8234], dtype=torch.float64))
    """

    _: KW_ONLY
    samples: int = 200
    iterations: int = 5
    elites: int = 20
    spread: float = 1.0
    momentum: float = 0.1

    @override
    def __post_init__(self) -> None:
        super().__post_init__()
        check_counts(samples=self.samples, iterations=self.iterations, elites=self.elites)
        if self.elites > self.samples:
            raise SpecError(f"expected elites <= samples, got {self.elites} of {self.samples}")
        if not self.spread > 0 or not 0 <= self.momentum < 1:
            raise SpecError(
                f"expected spread > 0 and momentum from 0 to below 1, got {self.spread} and {self.momentum}"
            )

    @override
    def _search(self, problem: Problem, memory: Mapping[str, Tensor], *, generator: torch.Generator | None) -> Found:
        limits = problem.limits
        shape = (*problem.starts, problem.horizon, len(limits.low))
        mean = memory["actions"] if memory else limits.center.expand(shape)
        sd = (self.spread * limits.radius).expand(shape)
        best = Best.none(mean)
        diverged, history = mean.new_zeros(problem.starts), list[Tensor]()
        for _ in range(self.iterations):
            tried = limits.apply(mean + sd * normally(problem, self.samples, generator), problem.previous)
            score = problem.score(tried)
            diverged = diverged + score.diverged.mean(0) / self.iterations
            elites = Elites.of(tried, score.key, self.elites)
            mean, sd = elites.moments(mean, sd, momentum=self.momentum)
            best = best.or_better(elites)
            history.append(elites.key[0])
        mean = limits.apply(mean, problem.previous)
        final, key = settle(problem, mean, best, diverged=diverged)
        return Found(final, key, diverged, torch.stack(history), self.iterations * self.samples, {"actions": final})
