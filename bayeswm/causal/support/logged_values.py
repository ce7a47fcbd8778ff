"""What logged episodes earned, how much another policy would have chosen so, and what a model forecasts from there."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from bayeswm.base.errors import DataError, SpecError
from bayeswm.base.laws import Law
from bayeswm.base.random import permutation
from bayeswm.base.trajectories import Trajectories
from bayeswm.base.worlds import Worlds
from bayeswm.causal.sensitivity.behaviour import LinearBehaviour
from bayeswm.causal.support.played import StochasticPolicy, TrajectoryCost, action_law, drawn_from, play


class Episodes(NamedTuple):
    """Complete episodes of equal length: states (n, H + 1, S), actions (n, H, A) and contexts (n, H, C)."""

    states: Tensor
    actions: Tensor
    context: Tensor


def complete_episodes(logged: Trajectories, horizon: int | None) -> Episodes:
    """Return the first steps of every episode in double precision; as many as the shortest has, or ``horizon``.

    Raises
    ------
    SpecError, DataError
        Without actions, for episodes that are too short, and for states that are missing.
    """
    shortest = int(logged.lengths.min())
    steps = shortest if horizon is None else horizon
    if not 1 <= steps <= shortest:
        raise DataError(f"expected horizon= from 1 to the length of the shortest episode, {shortest}, got {steps}")
    states, actions = logged.states()[:, : steps + 1].double(), logged.action[:, :steps].double()
    if bool(states.isnan().any()):
        raise DataError("expected every state of the episodes to be recorded, got missing values")
    if not actions.shape[-1]:
        raise SpecError("expected a log with actions, got a system without")
    return Episodes(states, actions, logged.step_context()[:, :steps].double())


def folds_of(logged: Trajectories, folds: int, generator: torch.Generator) -> Tensor:
    """Return the fold of each episode, shape (n,); those of one recording are in one fold.

    Raises
    ------
    SpecError
        For fewer than 2 folds, or more than recordings.
    """
    names, row = logged.episode.unique(return_inverse=True)
    if not 2 <= folds <= len(names):
        raise SpecError(f"expected folds= from 2 to the number of recordings, {len(names)}, got {folds}")
    place = torch.empty(len(names), dtype=torch.int64)
    place[permutation(len(names), generator, device="cpu")] = torch.arange(len(names)) % folds
    return place.to(row.device)[row]


def earned_by(episodes: Episodes, objective: TrajectoryCost) -> Tensor:
    """Return what was earned up to the end of each step, shape (n, H): the cost of that part, its sign changed."""
    states, actions, context = episodes
    ends = range(1, actions.shape[1] + 1)
    return torch.stack([-objective.cost(states[:, : t + 1], actions[:, :t], context[:, :t]) for t in ends], 1)


def log_ratios(episodes: Episodes, policy: StochasticPolicy, behaviour: StochasticPolicy) -> Tensor:
    """Return log densities of the actions under a policy, minus those under the one that was logged, shape (n, H).

    Raises
    ------
    SpecError
        For a policy without a density.
    """
    states, actions, context = episodes
    found: list[Tensor] = []
    for t in range(actions.shape[1]):
        state, action = states[:, t], actions[:, t]
        if isinstance(behaviour, LinearBehaviour):
            chosen: Law = behaviour.law(state, context[:, t])
        else:
            chosen = action_law(behaviour, state, t)
        law = action_law(policy, state, t)
        if not bool((law.variance > 0).all()):
            raise SpecError("expected a policy that chooses every action at random, got one without variance")
        found.append(law.log_prob(action) - chosen.log_prob(action))
    return torch.stack(found, 1)


def forecasts(
    episodes: Episodes,
    worlds: Worlds,
    policy: StochasticPolicy,
    *,
    objective: TrajectoryCost,
    particles: int,
    generator: torch.Generator,
) -> tuple[Tensor, Tensor]:
    """Return what whole episodes earn that are logged up to a step and imagined from then on, twice (n, H).

    First with the logged action in that step, then without it.
    """
    states, actions, context = episodes
    steps, has_context = actions.shape[1], context.shape[-1] > 0

    def total(t: int, *, logged_action: bool) -> Tensor:
        drawn = drawn_from(policy, generator, later=t)

        def act(state: Tensor, step: int) -> Tensor:
            return actions[:, t].to(state) if logged_action and step == 0 else drawn(state, step)

        later = play(
            worlds,
            act,
            states[:, t],
            horizon=steps - t,
            particles=particles,
            context=context[:, t:] if has_context else None,
            generator=generator,
        )

        def whole(past: Tensor, imagined: Tensor) -> Tensor:
            return torch.cat((past[:, :t].to(imagined).expand(*imagined.shape[:-2], t, -1), imagined), -2)

        cost = objective.cost(
            whole(states, later.states), whole(actions, later.actions), context.to(later.states)
        ).double()
        return -torch.einsum("w,wn->n", worlds.weight.to(cost), cost.mean(1))

    with_action, without = (
        torch.stack([total(t, logged_action=one) for t in range(steps)], 1) for one in (True, False)
    )
    return with_action, without
