"""Random shooting: try many action sequences, take the best."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass
from typing import override

import torch
from torch import Tensor

from bayeswm.base.counts import check_counts
from bayeswm.planning.planner import Found, Planner
from bayeswm.planning.problem import Problem
from bayeswm.planning.search.draws import evenly
from bayeswm.planning.search.elites import Elites


@dataclass(frozen=True)
class RandomShooting(Planner):
    """Uniform action sequences, of which the best is taken; what remains of the last plan is one of them.

    Parameters
    ----------
    objective, horizon, risk, constraints, worlds, particles, bounds, change, fallback, fresh_worlds
        As of every :class:`Planner`.
    samples : int
        Action sequences tried.

    Examples
    --------
    >>> import bayeswm as bwm
    >>> model = bwm.KnownDynamics(structure=bwm.structures.Pendulum.gymnasium())
    >>> objective = bwm.planning.Objective(stage=lambda x, u, c, t: x[..., 0] ** 2 + 0.1 * x[..., 1] ** 2)
    >>> planner = RandomShooting(objective, horizon=10, samples=200)
    >>> plan = planner.plan(model, torch.tensor([0.2, 0.0]), generator=torch.Generator().manual_seed(0))
    >>> plan.actions.shape, plan.evaluations
    (torch.Size([10, 1]), 200)
    """

    _: KW_ONLY
    samples: int = 1000

    @override
    def __post_init__(self) -> None:
        super().__post_init__()
        check_counts(samples=self.samples)

    @override
    def _search(self, problem: Problem, memory: Mapping[str, Tensor], *, generator: torch.Generator | None) -> Found:
        drawn = evenly(problem, self.samples, generator)
        tried = drawn.expand(self.samples, *problem.starts, *drawn.shape[-2:])
        if memory:
            tried = torch.cat((tried, memory["actions"][None]))
        tried = problem.limits.apply(tried, problem.previous)
        score = problem.score(tried)
        best = Elites.of(tried, score.key, 1)
        return Found(
            best.actions[0], best.key[0], score.diverged.mean(0), best.key, len(tried), {"actions": best.actions[0]}
        )
