"""Policies: a planner asked at each step, and what a policy did in imagined futures."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from bayeswm.base.along import Policy
from bayeswm.base.errors import SpecError
from bayeswm.base.model import DynamicsModel
from bayeswm.base.predictive import Predictive
from bayeswm.base.rollout import rollout
from bayeswm.base.worlds import Belief, Worlds
from bayeswm.planning.plan import Plan
from bayeswm.planning.planner import Planner


class PlannedPolicy:
    """A planner as a policy for rollouts: it plans for every particle at every step, all in one call.

    At step 0 it draws its worlds and begins anew; at later steps it begins with what remains of the last plan.

    Parameters
    ----------
    planner : Planner
        Who plans.
    model : DynamicsModel or Worlds
        What the planner believes of the system, whatever world it acts in.
    generator : torch.Generator, optional
        Source of the planner's randomness.
    context : Tensor, shape (C,), optional
        Environment factors, the same for all.

    Examples
    --------
    >>> import bayeswm as bwm
    >>> truth = bwm.KnownDynamics(structure=bwm.structures.Pendulum.gymnasium(), noise=0.01)
    >>> objective = bwm.planning.quadratic(torch.tensor([1.0, 0.1]), torch.tensor([0.001]))
    >>> planner = bwm.planning.CEM(objective, horizon=5, samples=16, elites=4, iterations=2, particles=2)
    >>> g = torch.Generator().manual_seed(0)
    >>> policy = PlannedPolicy(planner, truth, generator=g)
    >>> bwm.rollout(truth, torch.tensor([0.5, 0.0]), policy, horizon=3, particles=4, generator=g).particles.shape
    torch.Size([1, 4, 3, 2])
    """

    def __init__(
        self,
        planner: Planner,
        model: DynamicsModel | Worlds,
        *,
        generator: torch.Generator | None = None,
        context: Tensor | None = None,
    ) -> None:
        self.planner, self.model, self.generator, self.context = planner, model, generator, context
        self._worlds: Worlds | None = None
        self._plan: Plan | None = None

    def __call__(self, state: Tensor, step: int) -> Tensor:
        """Return actions (..., A) for states (..., S); NaN where a state is."""
        if step == 0 or self._worlds is None:
            model = self.model
            drawn = model if isinstance(model, Worlds) else model.draw(self.planner.worlds, generator=self.generator)
            self._worlds, self._plan = drawn, None
        flat = state.reshape(-1, state.shape[-1])
        lost = ~flat.isfinite().all(-1)
        context = None if self.context is None else self.context.expand(len(flat), -1)
        self._plan = self.planner.plan(
            self._worlds,
            torch.where(lost[:, None], 0.0, flat),
            generator=self.generator,
            context=context,
            previous=self._plan,
        )
        action = torch.where(lost[:, None], float("nan"), self._plan.action)
        return action.reshape(*state.shape[:-1], action.shape[-1])


class Acted(NamedTuple):
    """Imagined futures with what was done: ``states`` (W, P, *batch, H + 1, S) and ``actions`` (W, P, *batch, H, A)."""

    predictive: Predictive
    states: Tensor
    actions: Tensor


def act_out(
    worlds: Worlds,
    policy: Tensor | Policy,
    starts: Belief,
    *,
    horizon: int | None,
    particles: int,
    generator: torch.Generator | None,
    context: Tensor | None,
) -> Acted:
    """Roll out a policy or a plan and keep what was done.

    Raises
    ------
    SpecError
        For a planner in place of a policy, or no step.
    """
    if isinstance(policy, Planner):
        raise SpecError("expected actions or a policy, got a planner; wrap it: PlannedPolicy(planner, model, ...)")
    done: list[Tensor] = []

    def record(state: Tensor, step: int) -> Tensor:
        action = torch.as_tensor(policy(state, step) if callable(policy) else policy[..., step, :])
        done.append(action)
        return action

    steps = horizon if callable(policy) or horizon is not None else policy.shape[-2]
    if steps is None or steps < 1:
        raise SpecError(f"expected horizon >= 1, got {steps}")
    found = rollout(worlds, starts, record, horizon=steps, particles=particles, generator=generator, context=context)
    paths, begin = found.particles, found.initial
    if begin is None:
        raise SpecError("expected a rollout that knows where it started, got none")
    size = paths.shape[:-2]
    states = torch.cat((begin.expand(*size, -1)[..., None, :], paths), -2)
    actions = torch.stack([a.to(states).expand(*size, a.shape[-1]) for a in done], -2)
    return Acted(found, states, actions)


def step_context(context: Tensor | None, like: Tensor) -> Tensor:
    """Return the context of each step, broadcastable to (*batch, H, C), given that of the rollout.

    ``like`` are states (W, P, *batch, H + 1, S).
    """
    if context is None:
        return like.new_empty(like.shape[-2] - 1, 0)
    batch = like.ndim - 4
    context = context.to(like)
    return (
        context
        if context.ndim == batch + 2
        else context[..., None, :].expand(*context.shape[:-1], like.shape[-2] - 1, -1)
    )
