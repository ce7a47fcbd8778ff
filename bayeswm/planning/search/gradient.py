"""Shooting: down the gradient of the risk, through the model, from several beginnings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass
from typing import override

import torch
from torch import Tensor

from bayeswm.base.counts import check_counts
from bayeswm.planning.planner import Found, Planner
from bayeswm.planning.problem import Problem
from bayeswm.planning.search.box_lbfgs import BoxLBFGS
from bayeswm.planning.search.first_guesses import first_guesses

_INSIDE = 1e-6


@dataclass(frozen=True)
class Gradient(Planner):
    """Shooting by derivatives: quasi-Newton steps on the actions, through worlds, costs and risk.

    Several beginnings are improved side by side: what remains of the last plan (or rest) and random sequences. The
    noise is drawn once, so that what is minimised is a fixed function (Ng & Jordan 2000). Bounds are kept by
    projection. A hard constraint that is broken is pushed against with a weight that doubles at each iteration, as
    long as its excess has a derivative; of all that was tried, the best by the planner's key is returned. What diverges
    has no derivative and is never the best.

    Parameters
    ----------
    objective, horizon, risk, constraints, worlds, particles, bounds, change, fallback, fresh_worlds
        As of every :class:`Planner`; costs and risk are differentiated.
    restarts : int
        Sequences that are improved side by side.
    iterations : int
        Derivatives that are taken of each, at most. Where each plan begins with the last one, 5 to 10 do.
    memory : int
        Pairs of changes that the quasi-Newton method remembers.

    Examples
    --------
    >>> import bayeswm as bwm
    >>> model = bwm.KnownDynamics(structure=bwm.structures.Pendulum.gymnasium())
    >>> objective = bwm.planning.Objective(stage=lambda x, u, c, t: x[..., 0] ** 2 + 0.1 * x[..., 1] ** 2)
    >>> planner = Gradient(objective, horizon=10, restarts=2, iterations=20)
    >>> plan = planner.plan(model, torch.tensor([0.2, 0.0]), generator=torch.Generator().manual_seed(0))
    >>> plan.actions.shape, plan.action
    (torch.Size([10, 1]), tensor([-2.0000], dtype=torch.float64))
    """

    _: KW_ONLY
    restarts: int = 8
    iterations: int = 40
    memory: int = 8

    @override
    def __post_init__(self) -> None:
        super().__post_init__()
        check_counts(restarts=self.restarts, iterations=self.iterations, memory=self.memory)

    @override
    def _search(self, problem: Problem, memory: Mapping[str, Tensor], *, generator: torch.Generator | None) -> Found:
        limits, starts = problem.limits, problem.starts
        best = first_guesses(problem, memory, count=self.restarts, generator=generator)
        shape = best.shape

        # a system that clips its actions has no derivative at the bound itself
        limits = limits._replace(low=limits.low + _INSIDE * limits.radius, high=limits.high - _INSIDE * limits.radius)

        def project(z: Tensor) -> Tensor:
            actions = limits.apply(limits.center + limits.radius * z.view(shape), problem.previous)
            return ((actions - limits.center) / limits.radius).view(z.shape)

        begin = ((best - limits.center) / limits.radius).reshape(-1, shape[-2] * shape[-1])
        search = BoxLBFGS(begin, project, memory=self.memory)
        best_key = best.new_full(shape[:-2], float("inf"))
        weight, force = torch.zeros_like(best_key), torch.zeros_like(best_key)
        diverged, history, evaluations = best.new_zeros(starts), list[Tensor](), 0
        for _ in range(self.iterations):
            tried = limits.center + limits.radius * search.trial.view(shape)
            value, gradient, (key, excess, lost) = _slope(problem, tried, force)
            diverged, evaluations = diverged + lost.mean(0), evaluations + self.restarts
            better = key < best_key
            best = torch.where(better[..., None, None], tried, best)
            best_key = torch.where(better, key, best_key)
            history.append(key.amin(0))
            search.tell(
                value.flatten(), (limits.radius * gradient).view_as(begin), comparable=(weight == force).flatten()
            )
            weight = force
            if problem.constraints:
                force = torch.where(excess > 0, torch.where(force > 0, 2 * force, 1 + value.abs()), force)
                force = torch.where(force.isfinite(), force, weight)
            elif bool(search.finished.all()):
                break
        # half of them go on at the next step, so that what needs more iterations than one plan has gets them
        order = best_key.argsort(0)[: 1 + (self.restarts - 1) // 2]
        ranked = best.gather(0, order[..., None, None].expand(*order.shape, *shape[-2:]))
        key = best_key.gather(0, order[:1])[0]
        kept = {"actions": ranked[0], "others": ranked[1:]}
        return Found(ranked[0], key, diverged / len(history), torch.stack(history), evaluations, kept)


def _slope(problem: Problem, actions: Tensor, force: Tensor) -> tuple[Tensor, Tensor, tuple[Tensor, Tensor, Tensor]]:
    """Return value and gradient of what is minimised, and the key, the excess and the diverged share of it."""
    with torch.enable_grad():
        actions = actions.detach().requires_grad_()
        score = problem.score(actions)
        value = score.cost
        if bool(force.any()):
            value = value + torch.where(force > 0, force * score.excess, 0.0)
        usable = value.isfinite()
        gradient = torch.zeros_like(actions)
        if value.requires_grad and bool(usable.any()):
            total = torch.where(usable, value, 0.0).sum()
            (gradient,) = torch.autograd.grad(total, actions, allow_unused=True, materialize_grads=True)
    parts = (score.key.detach(), score.excess.detach(), score.diverged.detach())
    return value.detach(), gradient, parts
