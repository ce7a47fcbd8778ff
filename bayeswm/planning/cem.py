"""The cross-entropy method: sample, keep the best, fit, repeat."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass
from typing import override

import torch
from torch import Tensor

from bayeswm.base.errors import SpecError
from bayeswm.base.random import standard_normal
from bayeswm.planning.planner import Found, Planner
from bayeswm.planning.problem import Problem


@dataclass(frozen=True)
class CEM(Planner):
    """The cross-entropy method over action sequences (Rubinstein & Kroese 2004; planners of PETS, Chua et al. 2018).

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
    (torch.Size([10, 1]), tensor([-1.8911], dtype=torch.float64))
    """

    _: KW_ONLY
    samples: int = 200
    iterations: int = 5
    elites: int = 20
    spread: float = 0.5
    momentum: float = 0.1

    @override
    def __post_init__(self) -> None:
        super().__post_init__()
        if not 1 <= self.elites <= self.samples:
            raise SpecError(f"expected 1 <= elites <= samples, got {self.elites} of {self.samples}")
        if self.iterations < 1:
            raise SpecError(f"expected iterations >= 1, got {self.iterations}")
        if not self.spread > 0 or not 0 <= self.momentum < 1:
            raise SpecError(
                f"expected spread > 0 and momentum from 0 to below 1, got {self.spread} and {self.momentum}"
            )

    @override
    def _search(self, problem: Problem, memory: Mapping[str, Tensor], *, generator: torch.Generator | None) -> Found:
        if generator is None:
            raise SpecError("expected generator=torch.Generator to draw candidates, got none")
        limits, starts = problem.limits, problem.starts
        shape = (*starts, problem.horizon, len(limits.low))
        mean = memory["mean"] if memory else limits.center.expand(shape)
        sd = (self.spread * limits.radius).expand(shape)
        best = mean
        best_key = mean.new_full(starts, float("inf"))
        diverged, history = mean.new_zeros(starts), list[Tensor]()
        for _ in range(self.iterations):
            drawn = standard_normal(
                (self.samples, *(1,) * len(starts), *shape[-2:]), generator, dtype=mean.dtype, device=mean.device
            )
            tried = limits.apply(mean + sd * drawn, problem.previous)
            score = problem.score(tried)
            key = score.key
            diverged = diverged + score.diverged.mean(0) / self.iterations
            ranked = key.topk(self.elites, dim=0, largest=False)
            elite = _picked(tried, ranked.indices)
            # what diverged is no elite
            usable = ranked.values.isfinite()
            count = usable.sum(0)[..., None, None]
            weight = usable[..., None, None].to(mean) / count.clamp(min=1)
            center = (weight * elite).sum(0)
            wide = (weight * (elite - center).square()).sum(0).sqrt()
            some = count > 0
            keep = self.momentum
            mean = torch.where(some, keep * mean + (1 - keep) * center, mean)
            sd = torch.where(some, keep * sd + (1 - keep) * wide, sd)
            better = ranked.values[0] < best_key
            best = torch.where(better[..., None, None], elite[0], best)
            best_key = torch.where(better, ranked.values[0], best_key)
            history.append(ranked.values[0])
        final, key = settle(problem, limits.apply(mean, problem.previous), best=best, best_key=best_key)
        return Found(final, key, diverged, torch.stack(history), self.iterations * self.samples + 1, {"mean": final})


def settle(problem: Problem, mean: Tensor, *, best: Tensor, best_key: Tensor) -> tuple[Tensor, Tensor]:
    """Return the fitted mean, or the best that was tried where the mean cannot be used, and the key of it.

    Parameters
    ----------
    problem : Problem
        What is planned.
    mean, best : Tensor, shape (*starts, H, A)
        Action sequences.
    best_key : Tensor, shape (*starts)
        Key of the best.

    Returns
    -------
    tuple of Tensor, shapes (*starts, H, A) and (*starts)
    """
    key = problem.score(mean[None]).key[0]
    unusable = ~key.isfinite() | ((key >= torch.finfo(key.dtype).max ** 0.5) & (best_key < key))
    return torch.where(unusable[..., None, None], best, mean), torch.where(unusable, best_key, key)


def _picked(tried: Tensor, index: Tensor) -> Tensor:
    """Return candidates (k, *starts, H, A) by their indices (k, *starts)."""
    return tried.gather(0, index[..., None, None].expand(*index.shape, *tried.shape[-2:]))
