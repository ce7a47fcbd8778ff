"""The mean system of a planning problem: one deterministic system in place of a belief over worlds."""

from __future__ import annotations

import torch
from torch import Tensor

from bayeswm.base.rollout import divergence_limit
from bayeswm.planning.objective import Objective
from bayeswm.planning.problem import Problem
from bayeswm.planning.search.linearised import linearise, mean_step, quadratise

_INSIDE = 1e-6


class MeanSystem:
    """Mean dynamics over worlds with a problem's costs: what certainty equivalence plans for.

    Where changes of the action cost something or are limited, the state is lengthened by the action before, so that
    both belong to single steps.

    Parameters
    ----------
    problem : Problem
        What is planned.

    Examples
    --------
    >>> import bayeswm as bwm
    >>> from bayeswm.planning import CEM, quadratic
    >>> model = bwm.KnownDynamics(structure=bwm.structures.Pendulum.gymnasium())
    >>> planner = CEM(quadratic(torch.ones(2), torch.ones(1)), horizon=5)
    >>> system = MeanSystem(planner.plan(model, torch.zeros(2), generator=torch.Generator()).problem)
    >>> zeros = torch.zeros(5, 1, 2, dtype=torch.float64)
    >>> states, actions = system.follow(zeros[..., 0], zeros, zeros[:, 0])
    >>> states.shape, actions.shape
    (torch.Size([6, 2]), torch.Size([5, 1]))
    """

    def __init__(self, problem: Problem) -> None:
        self.worlds, self.limits, self.horizon = problem.worlds, problem.limits, problem.horizon
        # without context all starts are alike
        self.alike = not problem.context.shape[-1]
        self.context = problem.context[(0,) * (problem.context.ndim - 2) if self.alike else 0].double()
        self.size, actions = problem.state.shape[-1], len(problem.limits.low)
        self.remembers = problem.objective.change > 0 or problem.limits.change is not None
        self.objective = problem.objective
        self.origin = problem.state.double()
        self.begun = problem.previous is not None
        if self.remembers:
            self.objective = _remembering(problem.objective, self.size, charged_from=0 if self.begun else 1)
            before = torch.zeros(actions) if problem.previous is None else problem.previous
            before = before.to(self.origin).expand(*problem.starts, actions)
            self.origin = torch.cat((self.origin, before), -1)

    def lengthened(self, state: Tensor, action: Tensor) -> Tensor:
        """Return states (..., S) with the action before, (..., A), where the system remembers it."""
        return torch.cat((state, action), -1) if self.remembers else state

    def bounds(self, state: Tensor, step: int | Tensor) -> tuple[Tensor, Tensor]:
        """Return the lowest and the highest action in states (..., Z), both (..., A)."""
        low, high = (v.to(state) for v in self.limits[:2])
        if self.limits.change is not None:
            before, change = state[..., self.size :], self.limits.change.to(state)
            # nothing was done before the first step
            free = torch.as_tensor(step, device=state.device)[..., None] < (0 if self.begun else 1)
            low = torch.where(free, low, torch.maximum(low, before - change))
            high = torch.where(free, high, torch.minimum(high, before + change))
        return low, high

    def follow(self, actions: Tensor, gains: Tensor, states: Tensor) -> tuple[Tensor, Tensor]:
        """Return where ``actions[t] + gains[t] (x - states[t])`` leads within the limits, and what it does.

        Parameters
        ----------
        actions, gains, states : Tensor, shapes (*batch, H, A), (*batch, H, A, Z) and (*batch, H, Z)
            The policy; the batch ends with the starts.

        Returns
        -------
        tuple of Tensor, shapes (*batch, H + 1, Z) and (*batch, H, A)
        """
        x = self.origin.expand(*actions.shape[:-2], -1)
        path, done = [x], list[Tensor]()
        for t in range(self.horizon):
            u = actions[..., t, :] + (gains[..., t, :, :] @ (x - states[..., t, :])[..., None]).squeeze(-1)
            low, high = self.bounds(x, t)
            u = torch.minimum(torch.maximum(u, low), high)
            context = None if self.alike else self.context[..., t, :]
            after = mean_step(self.worlds, x[..., : self.size], u, context=context, step=t)
            x = self.lengthened(after.double(), u)
            path.append(x)
            done.append(u)
        return torch.stack(path, -2), torch.stack(done, -2)

    def cost(self, states: Tensor, actions: Tensor) -> Tensor:
        """Return the cost of trajectories (*batch); infinite where they diverged."""
        cost = self.objective.cost(states, actions, self.context)
        limit = divergence_limit(states.dtype)
        sound = (states.abs() < limit).all(-1).all(-1) & (cost < limit)
        return torch.where(sound, cost, float("inf"))

    def linearised(self, states: Tensor, actions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return each next state (*batch, H, Z) of states (*batch, H, Z), and its derivatives by state and action."""
        step = torch.arange(actions.shape[-2], device=states.device)
        context = None if self.alike else self.context[..., : len(step), :]
        center, radius = self.limits.center.to(actions), self.limits.radius.to(actions)
        # a system that clips its actions has no derivative at the bound itself
        inside = center + (actions - center).clamp(-(1 - _INSIDE) * radius, (1 - _INSIDE) * radius)
        mean, A, B = linearise(self.worlds, states[..., : self.size], inside, context=context, step=step)
        if not self.remembers:
            return mean.double(), A, B
        count = actions.shape[-1]
        A = torch.nn.functional.pad(A, (0, count, 0, count))
        eye = torch.eye(count, dtype=B.dtype, device=B.device).expand(*B.shape[:-2], count, count)
        return self.lengthened(mean.double(), actions.expand(*mean.shape[:-1], -1)), A, torch.cat((B, eye), -2)

    def quadratised(self, states: Tensor, actions: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return :func:`quadratise` of the costs, the Hessians with their negative eigenvalues set to 0."""
        context = self.context[..., : actions.shape[-2], :]
        gradient, hessian, last, curvature = quadratise(self.objective, states, actions, context=context)
        return gradient, _convex(hessian), last, _convex(curvature)


def _remembering(objective: Objective, size: int, *, charged_from: int) -> Objective:
    """Return an objective of states lengthened by the action before, with changes as a part of the stage cost."""
    stage, terminal, termination = objective.stage, objective.terminal, objective.termination

    def with_change(z: Tensor, u: Tensor, context: Tensor, step: Tensor) -> Tensor:  # noqa: PLR0917
        moved = torch.where(step >= charged_from, objective.change * (u - z[..., size:]).square().sum(-1), 0.0)
        return moved if stage is None else moved + stage(z[..., :size], u, context, step)

    return Objective(
        stage=with_change,
        terminal=None if terminal is None else lambda z, context: terminal(z[..., :size], context),
        termination=None if termination is None else lambda z, context: termination(z[..., :size], context),
        discount=objective.discount,
    )


def _convex(hessian: Tensor) -> Tensor:
    values, vectors = torch.linalg.eigh(0.5 * (hessian + hessian.mT))
    return (vectors * values.clamp(min=0.0)[..., None, :]) @ vectors.mT
