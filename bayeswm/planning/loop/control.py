"""Receding-horizon control of a Gymnasium environment or a simulated system."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from bayeswm.base.counts import check_counts
from bayeswm.base.errors import SpecError
from bayeswm.base.model import DynamicsModel, check_model
from bayeswm.base.random import make_generator, spawn_seeds
from bayeswm.base.schema import Schema
from bayeswm.base.trajectories import Trajectories
from bayeswm.base.worlds import Worlds
from bayeswm.planning.loop.controlled import Controlled, Receding, limits_of, run_episode
from bayeswm.planning.loop.gym_plant import GymPlant, Reader
from bayeswm.planning.loop.plant import Plant, Simulated
from bayeswm.planning.loop.starts import Start
from bayeswm.planning.planner import Planner


def control(
    env: Any,
    model: DynamicsModel | Worlds,
    planner: Planner,
    *,
    schema: Schema | None = None,
    state: Reader | None = None,
    context: Reader | None = None,
    episodes: int = 1,
    max_steps: int | None = None,
    seed: int | torch.Generator,
    latency: int = 0,
    hold: int = 1,
    redraw: bool = False,
    reweight: bool = False,
    progress: bool = True,
) -> Controlled:
    """Plan at each step, do the first action, and record what happens.

    Where the state is not measured, it is filtered (see :class:`Live`). Each search begins with what remains of the
    last plan.

    Parameters
    ----------
    env : str, gymnasium.Env or Simulated
        An id, an environment (which is used, and left open) or a simulated system.
    model : DynamicsModel or Worlds
        What is believed of it.
    planner : Planner
        Who plans.
    schema : Schema, optional
        What to record; the model's by default.
    state, context : callable, optional
        As of :func:`bayeswm.data.collect`.
    episodes : int
        How many.
    max_steps : int, optional
        Longest episode, in steps of the model. Without it an environment that never ends runs forever.
    seed : int or torch.Generator
        Same seed, same result. The environment meets the same chance whoever controls it.
    latency : int
        Steps until an action arrives. Plans are made for where the system will be then; the possible action nearest to
        0 is done at first.
    hold : int
        Steps of the environment for which an action is held: they are one step of the model.
    redraw : bool
        Draw worlds for each plan instead of for each episode.
    reweight : bool
        Weigh the worlds of an episode by what was measured in it; see :class:`Live`.
    progress : bool
        Show a progress bar.

    Returns
    -------
    Controlled

    Raises
    ------
    SpecError, DataError
        If environment, schema and model do not fit together, or an action is not possible.
    ImportError
        If Gymnasium is needed and missing.

    Examples
    --------
    >>> import bayeswm as bwm
    >>> model = bwm.KnownDynamics(structure=bwm.structures.Pendulum.gymnasium())
    >>> objective = bwm.planning.quadratic(torch.tensor([1.0, 0.1]), torch.tensor([0.001]))
    >>> planner = bwm.planning.CEM(objective, horizon=8, samples=32, elites=4, iterations=2)
    >>> done = control("Pendulum-v1", model, planner, state=lambda env: env.unwrapped.state, max_steps=5, seed=0,
    ...                progress=False)
    >>> done.trajectories, len(done.plans[0])
    (Trajectories(1 episodes, 5 transitions, state=(angle, velocity), action=(torque), 0.05 s, float64), 5)
    """
    check_model(model)
    plant = plant_of(env, schema or model.schema, state=state, context=context, hold=hold)
    controller = Receding(model, planner, redraw=redraw, reweight=reweight)
    limits = limits_of(planner, plant)
    check_counts(episodes=episodes)
    check_counts(0, latency=latency)
    if max_steps is not None:
        check_counts(max_steps=max_steps)
    if max_steps is None and isinstance(plant, Simulated):
        raise SpecError("expected max_steps= for a simulated system, got none")
    model.schema.check_same(plant.schema, who="the model")
    found, plans = list[Trajectories](), list[tuple[Any, ...]]()
    total = None if max_steps is None else episodes * max_steps
    try:
        with tqdm(total=total, desc="control", unit="step", disable=not progress) as bar:
            for episode_seed in spawn_seeds(make_generator(seed), episodes):
                found.append(
                    run_episode(plant, controller, limits, steps=max_steps, latency=latency, seed=episode_seed, bar=bar)
                )
                plans.append(tuple(controller.plans))
    finally:
        plant.close()
    trajectories = Trajectories.concatenate(found)
    return Controlled(trajectories, tuple(plans), returns_of(trajectories))


def closed_loop(
    system: DynamicsModel | Worlds,
    model: DynamicsModel | Worlds,
    planner: Planner,
    *,
    starts: Start,
    steps: int,
    generator: torch.Generator,
    context: Tensor | None = None,
    latency: int = 0,
    hold: int = 1,
    redraw: bool = False,
    reweight: bool = False,
    progress: bool = False,
) -> Controlled:
    """Control a simulated system from many starts at once: one call of the planner a step for all of them.

    Parameters
    ----------
    system : DynamicsModel or Worlds
        What really happens; one world of it.
    model, planner, latency, hold, redraw, reweight, progress
        As of :func:`control`.
    starts : Tensor of shape (rows, S), Law or callable
        Where the systems start.
    steps : int
        How long they run, unless the objective's termination ends them.
    generator : torch.Generator
        Source of all randomness.
    context : Tensor, shape (rows, C), optional
        Environment factors.

    Returns
    -------
    Controlled
        With the true rewards: minus the costs of the planner's objective.

    Examples
    --------
    >>> import bayeswm as bwm
    >>> truth = bwm.KnownDynamics(structure=bwm.structures.Pendulum.gymnasium(), noise=0.01)
    >>> objective = bwm.planning.quadratic(torch.tensor([1.0, 0.1]), torch.tensor([0.001]))
    >>> planner = bwm.planning.CEM(objective, horizon=8, samples=32, elites=4, iterations=2, particles=2)
    >>> g = torch.Generator().manual_seed(0)
    >>> closed_loop(truth, truth, planner, starts=torch.zeros(3, 2), steps=4, generator=g).returns.shape
    torch.Size([3])
    """
    plant = Simulated(system, starts, objective=planner.objective, context=context, hold=hold)
    return control(
        plant,
        model,
        planner,
        max_steps=steps,
        seed=generator,
        latency=latency,
        redraw=redraw,
        reweight=reweight,
        progress=progress,
    )


def plant_of(env: Any, schema: Schema, *, state: Reader | None, context: Reader | None, hold: int) -> Plant:
    """Return what a loop acts on: a plant as it is, or a Gymnasium environment as one."""
    if not isinstance(env, Plant):
        return GymPlant(env, schema=schema, state=state, context=context, hold=hold)
    if state is not None or context is not None or hold != 1:
        raise SpecError("expected state=, context= and hold= in Simulated itself, got them beside it")
    return env


def returns_of(trajectories: Trajectories) -> Tensor:
    """Return the sum of the rewards of each episode, shape (N,)."""
    if trajectories.reward is None:
        raise SpecError("expected recorded rewards, got none")
    return torch.where(trajectories.step_mask, trajectories.reward, 0.0).sum(-1)
