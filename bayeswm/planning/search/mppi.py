"""Model predictive path integral control: the average of all that was tried, weighted by how good it was."""

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

# temperature as a share of the distance between the best and the best tenth: of 0.03, 0.1, 0.3 and 1 the best on
# Gymnasium's pendulum, and as good as any on its cart-pole
_WARMTH = 0.03


@dataclass(frozen=True)
class MPPI(Planner):
    """Model predictive path integral control (Williams et al. 2017).

    Noise is added to a nominal sequence, and the new one is the mean of what was tried, weighted by
    ``exp(-cost / temperature)``. The nominal sequence begins as what remains of the last plan.

    Parameters
    ----------
    objective, horizon, risk, constraints, worlds, particles, bounds, change, fallback, fresh_worlds
        As of every :class:`Planner`.
    samples : int
        Action sequences tried in each iteration.
    iterations : int
        How often the nominal sequence is improved.
    temperature : float, optional
        Difference of costs, in their unit, at which a weight falls to 1 / e. By default three hundredths of that
        between the best and the best tenth of what is tried in an iteration, so that nothing depends on the unit of the
        cost.
    spread : float
        Standard deviation of the noise, as a share of half the bounds' distance.
    control_weight : float
        Weight of the cost of moving away from doing nothing, ``u' noise / spread^2`` summed along the nominal sequence
        u, in the unit of the cost (gamma of the paper); 0 leaves it out.
    smooth : bool
        Put the noise on the action's change in a step instead of on the action, so that what is tried is smooth (Kim et
        al. 2022, SMPPI). For smooth plans too, give the objective a cost of ``change``.

    Examples
    --------
    >>> import bayeswm as bwm
    >>> model = bwm.KnownDynamics(structure=bwm.structures.Pendulum.gymnasium())
    >>> objective = bwm.planning.Objective(stage=lambda x, u, c, t: x[..., 0] ** 2 + 0.1 * x[..., 1] ** 2)
    >>> planner = MPPI(objective, horizon=10, samples=200)
    >>> plan = planner.plan(model, torch.tensor([0.2, 0.0]), generator=torch.Generator().manual_seed(0))
    >>> plan.actions.shape, bool(plan.action < 0)
    (torch.Size([10, 1]), True)
    """

    _: KW_ONLY
    samples: int = 1000
    iterations: int = 1
    temperature: float | None = None
    spread: float = 1.0
    control_weight: float = 0.0
    smooth: bool = False

    @override
    def __post_init__(self) -> None:
        super().__post_init__()
        check_counts(samples=self.samples, iterations=self.iterations)
        if (
            not self.spread > 0
            or not (self.temperature is None or self.temperature > 0)
            or not self.control_weight >= 0
        ):
            raise SpecError(
                "expected spread > 0, temperature > 0 and control_weight >= 0, "
                f"got {self.spread}, {self.temperature} and {self.control_weight}"
            )

    @override
    def _search(self, problem: Problem, memory: Mapping[str, Tensor], *, generator: torch.Generator | None) -> Found:
        limits = problem.limits
        shape = (*problem.starts, problem.horizon, len(limits.low))
        nominal = memory["actions"] if memory else limits.apply(limits.low.new_zeros(shape), problem.previous)
        best = Best.none(nominal)
        diverged, history = nominal.new_zeros(problem.starts), list[Tensor]()
        for _ in range(self.iterations):
            noise = self.spread * limits.radius * normally(problem, self.samples, generator)
            tried = limits.apply(nominal + (noise.cumsum(-2) if self.smooth else noise), problem.previous)
            score = problem.score(tried)
            diverged = diverged + score.diverged.mean(0) / self.iterations
            key = ranked = score.key
            if self.control_weight:
                scaled = nominal / (self.spread * limits.radius).square()
                ranked = key + self.control_weight * (scaled * (tried - nominal)).sum((-1, -2))
            elite = Elites.of(tried, key, 1)
            best = best.or_better(elite)
            nominal = self._averaged(tried, ranked, nominal)
            history.append(elite.key[0])
        nominal = limits.apply(nominal, problem.previous)
        final, key = settle(problem, nominal, best, diverged=diverged)
        return Found(final, key, diverged, torch.stack(history), self.iterations * self.samples, {"actions": final})

    def _averaged(self, tried: Tensor, key: Tensor, nominal: Tensor) -> Tensor:
        """Return the weighted mean of what can be used, the old sequence where nothing can."""
        lowest = key.amin(0)
        some = lowest.isfinite()
        above = key - torch.where(some, lowest, 0.0)
        if self.temperature is None:
            number = torch.finfo(key.dtype)
            scale = (_WARMTH * above.kthvalue(max(1, self.samples // 10), 0).values).clamp(number.tiny, number.max)
        else:
            scale = self.temperature
        # relative to the best, whose weight is 1: the sum cannot vanish
        weight = torch.exp(-above / scale)
        weight = weight / weight.sum(0).clamp(min=1.0)
        return torch.where(some[..., None, None], (weight[..., None, None] * tried).sum(0), nominal)
