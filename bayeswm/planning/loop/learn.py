"""Learning to control: plan, act, add what happened to the data, fit again."""

from __future__ import annotations

import copy
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from os import PathLike
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple

from torch import Tensor
from tqdm import tqdm

from bayeswm.base.counts import check_counts
from bayeswm.base.errors import SpecError
from bayeswm.base.model import DynamicsModel, check_model
from bayeswm.base.random import make_generator, spawn_seeds
from bayeswm.base.schema import Schema
from bayeswm.base.trajectories import Trajectories
from bayeswm.planning.loop.checkpoint import Checkpoint
from bayeswm.planning.loop.control import plant_of, returns_of
from bayeswm.planning.loop.controlled import AtRandom, Receding, limits_of, run_episode
from bayeswm.planning.loop.gym_plant import Reader
from bayeswm.planning.loop.plant import Simulated
from bayeswm.planning.planner import Planner


class LearnedControl(NamedTuple):
    """What came of learning.

    Attributes
    ----------
    model : DynamicsModel
        Fitted to all episodes.
    trajectories : Trajectories
        All episodes, the random ones first.
    returns : Tensor, shape (N,)
        Sum of the rewards of each.
    """

    model: DynamicsModel
    trajectories: Trajectories
    returns: Tensor


def learn(
    env: Any,
    model: DynamicsModel,
    planner: Planner,
    *,
    episodes: int,
    random_episodes: int = 1,
    max_steps: int | None = None,
    seed: int,
    schema: Schema | None = None,
    state: Reader | None = None,
    context: Reader | None = None,
    latency: int = 0,
    hold: int = 1,
    redraw: bool = False,
    folder: str | PathLike[str] | None = None,
    progress: bool = True,
) -> LearnedControl:
    """Learn a model of a system while controlling it (PILCO, Deisenroth & Rasmussen 2011; PETS, Chua et al. 2018).

    The first episodes act at random. Before each further one the model is fitted to all data so far, always from the
    state in which it was handed in, and then plans in receding horizon.

    Parameters
    ----------
    env : str, gymnasium.Env or Simulated
        As of :func:`control`.
    model : DynamicsModel
        The family and its settings; it is copied, and left as it is.
    planner : Planner
        Who plans.
    episodes : int
        How many, the random ones included.
    random_episodes : int
        How many act at random, at least 1.
    max_steps : int, optional
        Longest episode; needed with a simulated system.
    seed : int
        Same seed, same result.
    schema : Schema, optional
        What to record; needed with Gymnasium unless the model knows it already.
    state, context, latency, hold, redraw
        As of :func:`control`.
    folder : path, optional
        Keep every episode and the last model there. A call that finds a run of the same seed and settings goes on with
        it (with the same system, model and planner, which are not compared); after an interruption, Ctrl-C included,
        the result is that of an uninterrupted run.
    progress : bool
        Show a progress bar.

    Returns
    -------
    LearnedControl

    Raises
    ------
    SpecError, DataError
        If environment, schema and model do not fit together.
    CheckpointError
        If the folder holds another run, or a damaged one.
    FitError
        If a fit fails; the episodes so far stay in the folder.

    Examples
    --------
    >>> import bayeswm as bwm, torch
    >>> truth = bwm.KnownDynamics(structure=bwm.structures.Pendulum.gymnasium(), noise=0.01)
    >>> objective = bwm.planning.quadratic(torch.tensor([1.0, 0.1]), torch.tensor([0.001]))
    >>> system = bwm.planning.Simulated(truth, torch.tensor([0.5, 0.0]), objective=objective)
    >>> model = bwm.DeepEnsemble(structure=bwm.structures.MLP(hidden=(16,)), members=2, epochs=5)
    >>> planner = bwm.planning.CEM(objective, horizon=5, samples=16, elites=4, iterations=2, particles=2)
    >>> learned = learn(system, model, planner, episodes=2, max_steps=20, seed=0, progress=False)
    >>> len(learned.trajectories), learned.returns.shape
    (2, torch.Size([2]))
    """
    if isinstance(seed, bool) or not isinstance(seed, int):
        raise SpecError(f"expected an integer seed, from which a run can be repeated, got {type(seed).__name__}")
    check_counts(episodes=episodes, random_episodes=random_episodes)
    check_counts(0, latency=latency)
    if max_steps is not None:
        check_counts(max_steps=max_steps)
    if max_steps is None and isinstance(env, Simulated):
        raise SpecError("expected max_steps= for a simulated system, got none")
    check_model(model)
    try:
        known = env.schema if isinstance(env, Simulated) else (schema or model.schema)
    except SpecError:
        raise SpecError("expected schema=, since the model saw no data yet that would tell it, got none") from None
    plant = plant_of(env, known, state=state, context=context, hold=hold)
    limits = limits_of(planner, plant)
    settings = {"seed": seed, "random_episodes": random_episodes, "max_steps": max_steps, "latency": latency}
    settings |= {"hold": hold, "redraw": redraw, "schema": plant.schema.to_dict()}
    kept = None if folder is None else Checkpoint(Path(folder), settings)
    found = [] if kept is None else kept.episodes()[:episodes]
    stream = make_generator(seed)
    seeds = [tuple(spawn_seeds(stream, 2)) for _ in range(episodes + 1)]
    try:
        with tqdm(total=episodes, initial=len(found), desc="learn", unit="episode", disable=not progress) as bar:
            while len(found) < episodes:
                done = len(found)
                controller = AtRandom(limits)
                if done >= random_episodes:
                    fitted = _fitted(model, found, seed=seeds[done][0], kept=kept)
                    controller = Receding(fitted, planner, redraw=redraw, reweight=False)
                with tqdm(disable=True) as steps:
                    episode = run_episode(
                        plant, controller, limits, steps=max_steps, latency=latency, seed=seeds[done][1], bar=steps
                    )
                found.append(episode)
                if kept is not None:
                    kept.keep(found)
                bar.update()
                bar.set_postfix({"return": f"{float(returns_of(episode).mean()):.4g}"}, refresh=False)
    finally:
        plant.close()
    last = _fitted(model, found, seed=seeds[len(found)][0], kept=kept)
    trajectories = Trajectories.concatenate(found)
    return LearnedControl(last, trajectories, returns_of(trajectories))


def _fitted(model: DynamicsModel, episodes: list[Trajectories], *, seed: int, kept: Checkpoint | None) -> DynamicsModel:
    """Return the model fitted to some episodes, from the folder where it was fitted before."""
    found = None if kept is None else kept.model(len(episodes), model)
    if found is not None:
        return found
    with _interruptible():
        fitted = copy.deepcopy(model).fit(Trajectories.concatenate(episodes), seed=seed % 2**31, progress=False)
    if kept is not None:
        kept.keep_model(len(episodes), fitted)
    return fitted


@contextmanager
def _interruptible() -> Iterator[None]:
    """Let Ctrl-C end what a fit would cut short: a model that learned less must not pass for the whole one."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before, asked = signal.getsignal(signal.SIGINT), list[int]()
    if not callable(before):
        yield
        return

    def handle(number: int, frame: FrameType | None) -> None:
        asked.append(number)
        before(number, frame)

    signal.signal(signal.SIGINT, handle)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if asked:
        raise KeyboardInterrupt
