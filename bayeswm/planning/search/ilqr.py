"""Iterative linear-quadratic regulation of the mean system."""

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
from bayeswm.planning.search.box_qp import among, box_qp
from bayeswm.planning.search.first_guesses import first_guesses
from bayeswm.planning.search.linear_feedback import LinearFeedback
from bayeswm.planning.search.mean_system import MeanSystem

_LENGTHS = 10
_LEAST, _MOST = 1e-9, 1e9


@dataclass(frozen=True)
class ILQR(Planner):
    """Iterative LQR with limits on actions, on the mean system (Li & Todorov 2004; Tassa, Mansard & Todorov 2014).

    Each iteration linearises the mean over worlds along the trajectory, expands the costs to second order (negative
    curvature is set to 0), solves the linear-quadratic problem within the limits backwards in time, and follows the
    feedback with the best of several step lengths. It is certainty-equivalent, as :class:`LQR` is: worlds enter by
    their mean, noise and risk choose between restarts only. Constraints are checked, not sought. ``plan.feedback`` is
    the time-varying policy around the plan; where the cost or a limit is on changes of the action, it leaves out how
    the action before enters.

    Parameters
    ----------
    objective, horizon, risk, constraints, worlds, particles, bounds, change, fallback, fresh_worlds
        As of every :class:`Planner`; the objective has second derivatives.
    iterations : int
        At most.
    restarts : int
        Trajectories that are improved side by side: what remains of the last plan (or rest), and random ones.
    tolerance : float
        Finished when an iteration lowers the cost by less than this share of it.

    Examples
    --------
    >>> import bayeswm as bwm
    >>> model = bwm.KnownDynamics(structure=bwm.structures.Pendulum.gymnasium())
    >>> objective = bwm.planning.quadratic(torch.tensor([1.0, 0.1]), torch.tensor([0.001]))
    >>> plan = ILQR(objective, horizon=30).plan(model, torch.tensor([0.3, 0.0]))
    >>> bool((plan.history.diff() <= 0).all()), plan.action
    (True, tensor([-2.], dtype=torch.float64))
    """

    _: KW_ONLY
    iterations: int = 50
    restarts: int = 1
    tolerance: float = 1e-7

    @override
    def __post_init__(self) -> None:
        super().__post_init__()
        check_counts(iterations=self.iterations, restarts=self.restarts)
        if not self.tolerance >= 0:
            raise SpecError(f"expected tolerance >= 0, got {self.tolerance}")

    @override
    def _search(self, problem: Problem, memory: Mapping[str, Tensor], *, generator: torch.Generator | None) -> Found:
        system, kind = MeanSystem(problem), problem.limits.low
        wanted = first_guesses(problem, memory, count=self.restarts, generator=generator).to(system.origin)
        lead = wanted.shape[:-2]
        gains = wanted.new_zeros(*wanted.shape, system.origin.shape[-1])
        states, actions = system.follow(wanted, gains, wanted.new_zeros(*wanted.shape[:-1], gains.shape[-1]))
        cost = system.cost(states, actions)
        # what diverged from the first is left as it is, without NaN
        states, actions = (torch.where(cost.isfinite()[..., None, None], v, 0.0) for v in (states, actions))
        damping, open_ = torch.full_like(cost, 1e-6), cost.isfinite()
        history, tries = [cost.amin(0)], 1
        lengths = 0.5 ** torch.arange(_LENGTHS, dtype=cost.dtype, device=cost.device).view(-1, *(1,) * wanted.ndim)
        for _ in range(self.iterations):
            if not bool(open_.any()):
                break
            push, found = _backward(system, states, actions, damping=damping)
            shorter, same = actions + lengths * push, found.expand(_LENGTHS, *found.shape)
            path, done = system.follow(shorter, same, states[..., :-1, :])
            tried = system.cost(path, done)
            best = tried.argmin(0, keepdim=True)
            lowest = tried.gather(0, best)[0]
            better = open_ & (lowest < cost)
            states, actions = (
                torch.where(better[..., None, None], _picked(new, best), old)
                for new, old in ((path, states), (done, actions))
            )
            gains = torch.where(better[..., None, None, None], found, gains)
            little = better & (cost - lowest <= self.tolerance * cost.abs())
            cost = torch.where(better, lowest, cost)
            damping = torch.where(better, damping / 4, damping * 10).clamp(min=_LEAST)
            open_ = open_ & ~little & (damping < _MOST)
            history.append(cost.amin(0))
            tries += _LENGTHS
        possible = problem.limits.apply(actions.to(kind), problem.previous)
        score = problem.score(possible)
        winner = score.key.argmin(0, keepdim=True)
        chosen, states = _picked(possible, winner), _picked(states, winner)
        gains = _picked(gains.flatten(-2), winner).view(*chosen.shape, -1)[..., : system.size]
        feedback = LinearFeedback(gains.to(kind), states[..., :-1, : system.size].to(kind), chosen, problem.limits)
        return Found(
            chosen,
            score.key.gather(0, winner)[0],
            score.diverged.mean(0).expand(lead[1:]),
            torch.stack(history).to(kind),
            tries * self.restarts,
            {"actions": chosen},
            feedback,
        )


def _backward(system: MeanSystem, states: Tensor, actions: Tensor, *, damping: Tensor) -> tuple[Tensor, Tensor]:
    """Return the change of each action and the gains, both within the limits, (*batch, H, A) and (*batch, H, A, Z)."""
    _, A, B = system.linearised(states[..., :-1, :], actions)
    gradient, hessian, slope, ahead = system.quadratised(states, actions)
    size = A.shape[-1]
    eye = torch.eye(actions.shape[-1], dtype=A.dtype, device=A.device)
    low, high = system.bounds(states[..., :-1, :], torch.arange(system.horizon, device=actions.device))
    low, high = low - actions, high - actions
    pushes, gains = list[Tensor](), list[Tensor]()
    for t in reversed(range(system.horizon)):
        a, b, h, g = A[..., t, :, :], B[..., t, :, :], hessian[..., t, :, :], gradient[..., t, :]
        qx = g[..., :size] + (a.mT @ slope[..., None])[..., 0]
        qu = g[..., size:] + (b.mT @ slope[..., None])[..., 0]
        qxx = h[..., :size, :size] + a.mT @ ahead @ a
        quu = h[..., size:, size:] + b.mT @ ahead @ b
        qux = h[..., size:, :size] + b.mT @ ahead @ a
        scale = quu.diagonal(dim1=-2, dim2=-1).mean(-1).clamp(min=torch.finfo(quu.dtype).tiny ** 0.5)
        damped = quu + (damping * scale)[..., None, None] * eye
        push, free = box_qp(damped, qu, low[..., t, :], high[..., t, :])
        gain = -torch.linalg.solve(among(damped, free), torch.where(free[..., None], qux, 0.0))
        slope = qx + (gain.mT @ (quu @ push[..., None] + qu[..., None]) + qux.mT @ push[..., None])[..., 0]
        ahead = qxx + gain.mT @ quu @ gain + gain.mT @ qux + qux.mT @ gain
        ahead = 0.5 * (ahead + ahead.mT)
        pushes.append(push)
        gains.append(gain)
    return torch.stack(pushes[::-1], -2), torch.stack(gains[::-1], -3)


def _picked(values: Tensor, index: Tensor) -> Tensor:
    """Return values (k, *batch, H, n) by indices (1, *batch), without the first axis."""
    return values.gather(0, index[..., None, None].expand(1, *values.shape[1:]))[0]
