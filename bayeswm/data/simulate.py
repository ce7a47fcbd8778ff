"""Trajectories from a model: data whose truth is known."""

from __future__ import annotations

import torch
from torch import Tensor

from bayeswm.base.errors import SpecError
from bayeswm.base.model import DynamicsModel
from bayeswm.base.random import systematic
from bayeswm.base.rollout import Policy, rollout
from bayeswm.base.trajectories import Trajectories
from bayeswm.base.worlds import Worlds


def simulate(
    model: DynamicsModel | Worlds,
    state: Tensor,
    actions: Tensor | Policy,
    *,
    generator: torch.Generator,
    horizon: int | None = None,
    context: Tensor | None = None,
) -> Trajectories:
    """Run one world drawn from a model and record what happens: one episode for each start.

    Parameters
    ----------
    model : DynamicsModel or Worlds
        The system, or a posterior from which one world is drawn for all episodes.
    state : Tensor, shape (episodes, S)
        Where each episode starts.
    actions : Tensor of shape (episodes, T, A) or (T, A), or callable
        A plan, or a policy that maps states and the step's index to actions.
    generator : torch.Generator
        Source of the world and the noise.
    horizon : int, optional
        Steps; needed with a policy.
    context : Tensor of shape (episodes, C) or (episodes, T, C), optional
        Environment factors, recorded too.

    Returns
    -------
    Trajectories
        In the number format of the model.

    Raises
    ------
    SpecError, DataError
        If states are no batch, or as :func:`bayeswm.rollout`.

    Examples
    --------
    >>> import bayeswm as bwm
    >>> truth = bwm.KnownDynamics(structure=bwm.structures.Pendulum(length=0.5), noise=0.01)
    >>> g = torch.Generator().manual_seed(0)
    >>> bwm.data.simulate(truth, torch.zeros(8, 2), torch.zeros(50, 1), generator=g)
    Trajectories(8 episodes, 400 transitions, state=(angle, velocity), action=(torque), 0.05 s, float64)
    """
    state = torch.as_tensor(state)
    if state.ndim != 2:
        raise SpecError(f"expected starts of shape (episodes, S), got {tuple(state.shape)}")
    worlds = model if isinstance(model, Worlds) else model.draw(1, generator=generator)
    world = worlds[systematic(worlds.log_weight, 1, generator)]
    taken: list[Tensor] = []

    def record(x: Tensor, step: int) -> Tensor:
        action = torch.as_tensor(actions(x, step) if callable(actions) else actions[..., step, :])
        taken.append(action.to(x).expand(*x.shape[:-1], -1)[0, 0])
        return action

    steps = horizon if callable(actions) or horizon is not None else actions.shape[-2]
    paths = rollout(world, state, record, horizon=steps, particles=1, generator=generator, context=context)
    states = torch.cat((state.to(paths.particles)[:, None], paths.particles[0, 0]), 1)
    count, length = states.shape[0], states.shape[1] - 1
    recorded = None if context is None else context.to(states)
    if recorded is not None:
        tail = recorded.shape[-2:] if recorded.ndim == 3 else recorded.shape[-1:]
        recorded = recorded.expand(count, *tail)
        recorded = recorded[:, :length] if recorded.ndim == 3 else recorded
    plan = torch.stack(taken, 1) if taken else states.new_empty(count, 0, world.schema.action.size)
    return Trajectories(world.schema, state=states, action=plan, context=recorded)
