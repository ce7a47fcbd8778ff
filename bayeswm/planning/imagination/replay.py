"""Short imagined rollouts as transitions for a replay buffer."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from bayeswm.base.along import Policy
from bayeswm.base.errors import SpecError
from bayeswm.base.model import DynamicsModel
from bayeswm.base.random import permutation, systematic
from bayeswm.base.trajectories import Trajectories
from bayeswm.base.worlds import Worlds
from bayeswm.planning.imagination.budget import epistemic_budget
from bayeswm.planning.loop.rewards import ended, step_reward
from bayeswm.planning.objective import Objective
from bayeswm.planning.policies.planned_policy import act_out, step_context

Reward = Callable[[Tensor, Tensor, Tensor], Tensor]


class Replay(NamedTuple):
    """Transitions: ``obs`` and ``next_obs`` (n, S), ``action`` (n, A), the rest (n,).

    ``_asdict()`` gives the arrays by name. ``truncated`` marks the last step of a branch that did not terminate.
    """

    obs: Tensor
    action: Tensor
    reward: Tensor
    next_obs: Tensor
    terminated: Tensor
    truncated: Tensor


def replay(
    model: DynamicsModel | Worlds,
    policy: Tensor | Policy,
    starts: Tensor | Trajectories,
    *,
    horizon: int,
    objective: Objective,
    generator: torch.Generator,
    count: int | None = None,
    worlds: int = 5,
    particles: int = 1,
    reward: Reward | None = None,
    context: Tensor | None = None,
    epistemic_limit: float | None = None,
    scale: Tensor | None = None,
) -> Replay:
    """Branch short rollouts off known states, in several worlds each (MBPO, Janner et al. 2019).

    Parameters
    ----------
    model : DynamicsModel or Worlds
        A fitted model, or worlds drawn from it.
    policy : callable, or Tensor of shape (N, H, A)
        As of :func:`bayeswm.rollout`.
    starts : Tensor of shape (N, S), or Trajectories
        States to branch from; of trajectories, every state before a recorded step.
    horizon : int
        Steps of a branch.
    objective : Objective
        Minus its stage costs are the rewards (of the recorded step's index on, for trajectories), and its
        termination ends branches.
    generator : torch.Generator
        Source of all randomness.
    count : int, optional
        How many of the starts to take, at random; all by default.
    worlds, particles : int
        Branches of each start: so many in each of so many worlds, drawn by weight.
    reward : callable, optional
        ``reward(state, action, next_state)``, shapes (..., S), (..., A) and (..., S) to (...), in place of the costs.
    context : Tensor, shape (C,) or (N, C), optional
        Environment factors; those of trajectories by default.
    epistemic_limit : float, optional
        Use a branch only as far as the worlds agree; see :func:`epistemic_budget`. Needs several worlds, and 2
        particles where there is noise.
    scale : Tensor, shape (S,), optional
        As of :func:`epistemic_budget`.

    Returns
    -------
    Replay

    Raises
    ------
    SpecError, DataError
        For arguments that do not fit together.

    Examples
    --------
    >>> import bayeswm as bwm
    >>> model = bwm.KnownDynamics(structure=bwm.structures.Pendulum.gymnasium(), noise=0.01)
    >>> objective = bwm.planning.quadratic(torch.tensor([1.0, 0.1]), torch.tensor([0.001]))
    >>> g = torch.Generator().manual_seed(0)
    >>> found = replay(model, lambda x, t: -x[..., :1], torch.zeros(7, 2), horizon=3, objective=objective, generator=g)
    >>> found.obs.shape, int(found.truncated.sum())
    (torch.Size([21, 2]), 7)
    """
    drawn = model if isinstance(model, Worlds) else model.draw(worlds, generator=generator)
    drawn.check_actionable()
    equal = bool((drawn.log_weight - drawn.log_weight[0]).abs().max() < 1e-9)
    if not equal or len(drawn) > worlds:
        drawn = drawn[systematic(drawn.log_weight, worlds, generator)]
    first = torch.zeros((), dtype=torch.int64)
    if isinstance(starts, Trajectories):
        steps = starts.transitions()
        starts, first = steps.state, steps.step
        context = steps.context if context is None and drawn.schema.context else context
    if starts.ndim != 2:
        raise SpecError(f"expected starts of shape (N, S), got {tuple(starts.shape)}")
    if count is not None:
        if not 1 <= count <= len(starts) or not callable(policy):
            raise SpecError(f"expected a policy and 1 <= count <= {len(starts)} starts, got {count}")
        rows = permutation(len(starts), generator, device=starts.device)[:count]
        starts, first = starts[rows], first[rows] if first.ndim else first
        context = context[rows] if context is not None and context.ndim > 1 else context
    if context is not None:
        context = context.expand(len(starts), drawn.schema.context.size)
    acted = act_out(drawn, policy, starts, horizon=horizon, particles=particles, generator=generator, context=context)
    states, actions = acted.states, acted.actions
    factors = step_context(context, states)
    given = [(states[..., t, :], actions[..., t, :], states[..., t + 1, :]) for t in range(horizon)]
    if reward is None:
        rewards = [
            step_reward(objective, x, u, context=factors[..., t, :], after=y, step=first + t)
            for t, (x, u, y) in enumerate(given)
        ]
    else:
        rewards = [reward(*step) for step in given]
    over = torch.stack([ended(objective, y, factors[..., t, :]) for t, (_, _, y) in enumerate(given)], -1)
    value = torch.stack([r.expand(states.shape[:-2]) for r in rewards], -1)
    finite = states.isfinite().all(-1)
    usable = (finite[..., 1:] & value.isfinite()).long().cummin(-1).values.sum(-1)
    if epistemic_limit is not None:
        usable = torch.minimum(usable, epistemic_budget(acted.predictive, epistemic_limit, scale=scale))
    step = torch.arange(horizon, device=states.device)
    before = torch.cat((torch.zeros_like(over[..., :1]), over[..., :-1]), -1).cummax(-1).values
    begun = ended(objective, states[..., 0, :], factors[..., 0, :])
    inside = (step < usable[..., None]) & ~before & ~begun[..., None]
    cut = inside & (step == usable[..., None] - 1) & ~over
    return Replay(
        states[..., :-1, :][inside],
        actions[inside],
        value[inside],
        states[..., 1:, :][inside],
        over[inside],
        cut[inside],
    )
