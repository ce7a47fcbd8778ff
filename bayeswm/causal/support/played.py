"""What a plan or a policy would do: imagined states together with the actions."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from bayeswm.base.along import Policy
from bayeswm.base.errors import SpecError
from bayeswm.base.laws import Law
from bayeswm.base.predictive import Predictive
from bayeswm.base.random import standard_normal
from bayeswm.base.rollout import rollout
from bayeswm.base.worlds import Belief, Worlds

StochasticPolicy = Callable[[Tensor, int], Law]


class TrajectoryCost(Protocol):
    """What :class:`bayeswm.planning.Objective` is: a cost of whole trajectories."""

    def cost(self, states: Tensor, actions: Tensor, context: Tensor) -> Tensor:
        """Return costs (...) of states (..., H + 1, S), actions (..., H, A) and contexts (..., H, C)."""
        ...


class Played(NamedTuple):
    """Imagined futures: ``states`` (W, P, *batch, H + 1, S), ``actions`` (W, P, *batch, H, A) and the predictive."""

    states: Tensor
    actions: Tensor
    predictive: Predictive


def play(
    worlds: Worlds,
    policy: Tensor | Policy,
    start: Belief,
    *,
    horizon: int,
    particles: int,
    context: Tensor | None = None,
    generator: torch.Generator | None = None,
) -> Played:
    """Roll out a plan or a policy and keep what was done.

    Raises
    ------
    SpecError
        If particles diverge.
    """
    done: list[Tensor] = []

    def record(state: Tensor, step: int) -> Tensor:
        action = torch.as_tensor(policy[..., step, :] if isinstance(policy, Tensor) else policy(state, step))
        done.append(action)
        return action

    found = rollout(worlds, start, record, horizon=horizon, particles=particles, context=context, generator=generator)
    if found.initial is None or bool(found.diverged.any()):
        raise SpecError("expected futures that stay finite, got particles that diverged; shorten the horizon")
    paths = found.particles
    size = paths.shape[:-2]
    states = torch.cat((found.initial.expand(*size, -1)[..., None, :], paths), -2)
    actions = torch.stack([a.to(states).expand(*size, a.shape[-1]) for a in done], -2)
    return Played(states, actions, found)


def drawn_from(policy: StochasticPolicy, generator: torch.Generator, *, later: int = 0) -> Policy:
    """Return a policy that draws its action from a stochastic one, a new one for each particle.

    Parameters
    ----------
    policy : callable
        ``policy(state, step)`` returns the law of the action.
    generator : torch.Generator
        Source of the draws.
    later : int
        Added to the step that it is asked about.
    """

    def draw(state: Tensor, step: int) -> Tensor:
        law = action_law(policy, state, step + later)
        noise = standard_normal((*state.shape[:-1], law.noise_size), generator, dtype=state.dtype, device=state.device)
        return law.push(noise)

    return draw


def action_law(policy: StochasticPolicy, state: Tensor, step: int) -> Law:
    """Return the law of a policy's action, or say that it has none.

    Raises
    ------
    SpecError
        For a policy that is not stochastic.
    """
    law = policy(state, step)
    if not isinstance(law, Law):
        raise SpecError(
            f"expected policy(state, step) to return the law of an action, such as bwm.Gaussian(mean, scale), got a "
            f"{type(law).__name__}: an action that is certain has no density for a log to be weighed by"
        )
    return law
