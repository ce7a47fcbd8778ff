"""The linear-quadratic regulator around a goal."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass
from typing import override

import torch
from torch import Tensor

from bayeswm.base.errors import SpecError
from bayeswm.planning.planner import Found, Planner
from bayeswm.planning.problem import Problem
from bayeswm.planning.search.linear_feedback import LinearFeedback
from bayeswm.planning.search.mean_system import MeanSystem
from bayeswm.planning.search.riccati import dare, riccati


@dataclass(frozen=True)
class LQR(Planner):
    """Linear-quadratic regulation of the mean system, linearised around a goal (Anderson & Moore 1990).

    The mean over worlds is linearised at a state and an action, the objective is replaced by its second-order
    expansion there, and the Riccati recursion gives the feedback, with what counteracts a drift at the goal. It is
    certainty-equivalent: worlds enter by their mean only, noise and risk do not change it. For linear systems whose
    matrices are known it is optimal, with noise too, as long as no bound is active; for uncertain matrices it is not.
    Bounds clip. ``plan.feedback`` is the policy, for any state where there is no context; the plan is what it does to
    the mean system. Constraints are checked, not sought.

    Parameters
    ----------
    objective, horizon, risk, constraints, worlds, particles, bounds, change, fallback, fresh_worlds
        As of every :class:`Planner`; the objective has second derivatives at the goal.
    goal : Tensor, shape (S,), optional
        State to linearise at; the origin by default. Angles count on their lift.
    rest : Tensor, shape (A,), optional
        Action to linearise at; 0 by default.
    stationary : bool
        Use the constant feedback of an infinite horizon. It needs costs that do not change with the step; the terminal
        cost is not looked at.

    Raises
    ------
    SpecError
        When planning, if an action costs nothing, or the system cannot be made stable.

    Examples
    --------
    >>> import bayeswm as bwm
    >>> model = bwm.KnownDynamics(structure=bwm.structures.Pendulum.gymnasium())
    >>> objective = bwm.planning.quadratic(torch.tensor([1.0, 0.1]), torch.tensor([0.001]))
    >>> plan = LQR(objective, horizon=20, stationary=True).plan(model, torch.tensor([0.05, 0.0]))
    >>> plan.feedback.gains[0]
    tensor([[-19.6932,  -5.2625]], dtype=torch.float64)
    >>> r = bwm.rollout(model, torch.tensor([0.05, 0.0]), plan.feedback, horizon=60)
    >>> bool(r.mean[-1].abs().max() < 1e-3)
    True
    """

    _: KW_ONLY
    goal: Tensor | None = None
    rest: Tensor | None = None
    stationary: bool = False

    @override
    def _search(self, problem: Problem, memory: Mapping[str, Tensor], *, generator: torch.Generator | None) -> Found:
        system = MeanSystem(problem)
        sizes = problem.state.shape[-1], len(problem.limits.low)
        goal = _point("goal", self.goal, sizes[0]).to(system.origin)
        rest = _point("rest", self.rest, sizes[1]).to(system.origin)
        lead = () if system.alike else problem.starts
        states = system.lengthened(goal, rest).expand(*lead, problem.horizon + 1, -1)
        actions = rest.expand(*lead, problem.horizon, -1)
        push, gains = (_constant if self.stationary else _varying)(system, states, actions)
        wanted = (actions + push).expand(*lead, problem.horizon, -1)
        gains = gains.expand(*wanted.shape, gains.shape[-1])
        started = wanted.expand(*problem.starts, *wanted.shape[-2:])
        done = system.follow(started, gains, states[..., :-1, :])[1].to(problem.limits.low)
        done = problem.limits.apply(done, problem.previous)
        score = problem.score(done[None])
        kind = problem.limits.low
        feedback = LinearFeedback(
            gains[..., : sizes[0]].to(kind), states[..., :-1, : sizes[0]].to(kind), wanted.to(kind), problem.limits
        )
        key = score.key[0]
        return Found(done, key, score.diverged[0], key[None], 1, {"actions": done}, feedback)


def _varying(system: MeanSystem, states: Tensor, actions: Tensor) -> tuple[Tensor, Tensor]:
    """Return push and gains for each step of a finite horizon."""
    after, A, B = system.linearised(states[..., :-1, :], actions)
    gradient, hessian, last, curvature = system.quadratised(states, actions)
    # one more state, always 1, carries drift and slopes
    size = A.shape[-1]
    drift = (after - states[..., :-1, :])[..., None]
    A = torch.nn.functional.pad(torch.cat((A, drift), -1), (0, 0, 0, 1))
    A[..., -1, -1] = 1.0
    B = torch.nn.functional.pad(B, (0, 0, 0, 1))
    Q = _with_slope(hessian[..., :size, :size], gradient[..., :size])
    N = torch.cat((hessian[..., :size, size:], gradient[..., None, size:]), -2) / 2
    gains = riccati(A, B, Q, hessian[..., size:, size:] / 2, last=_with_slope(curvature, last), cross=N)[0]
    return gains[..., -1], gains[..., :-1]


def _constant(system: MeanSystem, states: Tensor, actions: Tensor) -> tuple[Tensor, Tensor]:
    """Return push and gains, each the same at every step, of an infinite horizon."""
    # the second step: the first may be charged differently, as nothing was done before it
    two = slice(0, 2)
    if actions.shape[-2] < 2:
        raise SpecError("expected horizon >= 2 with stationary=True, got 1")
    after, A, B = (
        v[..., 1, :, :] if v.ndim > states.ndim else v[..., 1, :]
        for v in system.linearised(states[..., two, :], actions[..., two, :])
    )
    gradient, hessian, _, _ = system.quadratised(states[..., :3, :], actions[..., two, :])
    share = system.objective.discount
    gradient, hessian = gradient[..., 1, :] / share, hessian[..., 1, :, :] / share
    size, root = A.shape[-1], share**0.5
    Q, N, R = hessian[..., :size, :size] / 2, hessian[..., :size, size:] / 2, hessian[..., size:, size:] / 2
    gain, P = dare(root * A, root * B, Q, R, cross=N)
    # slope of the cost to go, 2 v'x, once drift and slopes of the costs act for ever
    drift, slope_x, slope_u = (after - states[..., 0, :]), gradient[..., :size] / 2, gradient[..., size:] / 2
    closed = A + B @ gain
    forced = slope_x + _times(gain.mT, slope_u) + share * _times(closed.mT @ P, drift)
    eye = torch.eye(size, dtype=A.dtype, device=A.device)
    v = torch.linalg.solve(eye - share * closed.mT, forced[..., None])[..., 0]
    pull = slope_u + share * _times(B.mT, v + _times(P, drift))
    push = -torch.linalg.solve(R + share * B.mT @ P @ B, pull[..., None])[..., 0]
    return push[..., None, :], gain[..., None, :, :]


def _with_slope(hessian: Tensor, gradient: Tensor) -> Tensor:
    """Return the matrix of the quadratic form of (x, 1)."""
    slope = gradient[..., None] / 2
    below = torch.cat((slope.mT, torch.zeros_like(slope[..., :1, :])), -1)
    return torch.cat((torch.cat((hessian / 2, slope), -1), below), -2)


def _times(matrix: Tensor, vector: Tensor) -> Tensor:
    return (matrix @ vector[..., None])[..., 0]


def _point(name: str, value: Tensor | None, size: int) -> Tensor:
    if value is None:
        return torch.zeros(size)
    if tuple(value.shape) != (size,) or not bool(value.isfinite().all()):
        raise SpecError(f"expected a finite {name} of shape ({size},), got {value.tolist()}")
    return value
