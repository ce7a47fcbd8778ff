"""Episodes from Gymnasium environments."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from bayeswm.base.errors import DataError, SpecError
from bayeswm.base.random import make_generator, spawn_seeds
from bayeswm.base.schema import Schema
from bayeswm.base.trajectories import Trajectories
from bayeswm.data.optional import need
from bayeswm.data.spaces import FlatSpace, check_fits, flat_space

Reader = Callable[[Any], Any]
Policy = Callable[[Any, int], Any]


def collect(
    env: Any,
    *,
    schema: Schema,
    state: Reader | None = None,
    context: Reader | None = None,
    policy: Policy | None = None,
    episodes: int,
    seed: int | torch.Generator,
    max_steps: int | None = None,
    num_envs: int | None = None,
    progress: bool = True,
) -> Trajectories:
    """Run a Gymnasium environment and record what happened.

    Every episode has seeds of its own for the environment and for random actions, so that the data depend neither on
    ``num_envs`` nor on the order in which episodes end. The action recorded is the one that was given, before the
    environment clips it.

    Parameters
    ----------
    env : str or gymnasium.Env
        An id, or a single environment (which is used, and left open).
    schema : Schema
        What to record. Its ``time_step`` must be the environment's.
    state : callable, optional
        Reads the true state from a single environment, after each reset and step: ``lambda env: env.unwrapped.state``.
        Without it the observation is the schema's observation or, where it has none, the state.
    context : callable, optional
        Reads the context from a single environment, after each reset. Needed where the schema has a context.
    policy : callable, optional
        ``policy(observation, step) -> action`` for one environment. Uniformly random actions by default.
    episodes : int
        How many.
    seed : int or torch.Generator
        Same seed, same data.
    max_steps : int, optional
        Longest episode. Without it an environment that never ends runs forever.
    num_envs : int, optional
        Environments side by side, for an id. By default up to 8, and 1 where there is a policy: one that keeps a
        memory must see one episode after the other.
    progress : bool
        Show a progress bar.

    Raises
    ------
    SpecError
        If the sizes of environment and schema differ (saying both), or an argument makes no sense.
    DataError
        If the environment or the policy returns NaN, an infinity or a wrong shape.
    ImportError
        If Gymnasium is missing.

    Examples
    --------
    >>> from bayeswm.base.schema import Variable
    >>> schema = Schema(state=[Variable("angle", unit="rad", kind="angle"), Variable("velocity", unit="rad/s")],
    ...                 action=[Variable("torque", unit="N m", bounds=(-2, 2))], time_step=0.05)
    >>> collect("Pendulum-v1", schema=schema, state=lambda env: env.unwrapped.state, episodes=2, seed=0, progress=False)
    Trajectories(2 episodes, 400 transitions, state=(angle, velocity), action=(torque), 0.05 s, float64)
    """
    for name, value in {"episodes": episodes, "max_steps": max_steps, "num_envs": num_envs}.items():
        if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
            raise SpecError(f"expected {name} >= 1, got {value!r}")
    if bool(schema.context) != (context is not None):
        need_it = "the schema has a context" if schema.context else "the schema has none"
        raise SpecError(f"expected context= where, and only where, the schema has a context; {need_it}")
    width = num_envs or (1 if policy is not None else min(8, episodes))
    bank, ours = _open(env, width if isinstance(env, str) else (num_envs or 1))
    try:
        run = _Run(bank, schema=schema, episodes=episodes, generator=make_generator(seed))
        run.read_state, run.read_context, run.policy, run.max_steps = state, context, policy, max_steps
        if schema.observation is not None or state is None:
            run.observe()
        with tqdm(total=episodes, desc="collect", unit="episode", disable=not progress) as bar:
            run.record(bar)
    finally:
        if ours:
            bank.close()
        bank.closed = True  # an environment that was handed in stays open when the bank is collected
    return _trajectories(schema, run)


@dataclass
class _Recording:
    """One episode as it grows."""

    states: list[np.ndarray] = field(default_factory=list)
    observations: list[Any] = field(default_factory=list)
    actions: list[np.ndarray] = field(default_factory=list)
    rewards: list[float] = field(default_factory=list)
    context: np.ndarray | None = None
    terminated: bool = False
    truncated: bool = False


class _Run:
    """Environments side by side, each at an episode of its own; an idle one (None) steps on unrecorded."""

    def __init__(self, bank: Any, *, schema: Schema, episodes: int, generator: torch.Generator) -> None:
        self.bank, self.schema = bank, schema
        self.read_state: Reader | None = None
        self.read_context: Reader | None = None
        self.policy: Policy | None = None
        self.max_steps: int | None = None
        self.action = flat_space(bank.single_action_space, "action")
        check_fits(self.action, schema.action, "action")
        self.observation: FlatSpace | None = None
        seeds = [s % 2**31 for s in spawn_seeds(generator, 2 * episodes)]
        self.env_seeds, self.action_seeds = seeds[:episodes], seeds[episodes:]
        self.samplers = [copy.deepcopy(bank.single_action_space) for _ in range(bank.num_envs)]
        self.recordings = [_Recording() for _ in range(episodes)]
        self.running: list[int | None] = [None] * bank.num_envs
        self.waiting = iter(range(episodes))

    def observe(self) -> None:
        """Record observations too; refuse those that the schema cannot hold."""
        self.observation = flat_space(self.bank.single_observation_space, "observation")
        name = "state" if self.schema.observation is None else "observation"
        check_fits(self.observation, self.schema.measured, name)

    def record(self, bar: Any) -> None:
        """Run all episodes."""
        ended, seen, done = np.ones(self.bank.num_envs, dtype=bool), [], 0
        while done < len(self.recordings):
            if ended.any():
                seen = self._restart(ended)
            actions = [self._act(i, seen[i]) for i in range(self.bank.num_envs)]
            batch, rewards, terminated, truncated, _ = self.bank.step(np.stack(actions))
            seen, ended = self._singles(batch), terminated | truncated
            for i, episode in enumerate(self.running):
                if episode is None:
                    continue
                recording = self.recordings[episode]
                recording.actions.append(actions[i])
                recording.rewards.append(float(rewards[i]))
                self._look(i, seen[i])
                cut = self.max_steps is not None and len(recording.actions) >= self.max_steps
                ended[i] |= cut
                if ended[i]:
                    recording.terminated, recording.truncated = bool(terminated[i]), bool(truncated[i] or cut)
                    done += 1
                    bar.update()

    def _restart(self, ended: np.ndarray) -> list[Any]:
        """Begin the next episodes where the last ones ended; return what each environment shows."""
        seeds: list[int | None] = [None] * self.bank.num_envs
        places = np.flatnonzero(ended).tolist()
        for i in places:
            episode = self.running[i] = next(self.waiting, None)
            seeds[i] = 0 if episode is None else self.env_seeds[episode]
            self.samplers[i].seed(0 if episode is None else self.action_seeds[episode])
        batch, _ = self.bank.reset(seed=seeds, options={"reset_mask": ended.copy()})
        seen = self._singles(batch)
        for i in places:
            if self.running[i] is not None:
                self._look(i, seen[i])
        return seen

    def _singles(self, batch: Any) -> list[Any]:
        return list(need("gymnasium.vector.utils", "rl").iterate(self.bank.observation_space, batch))

    def _look(self, i: int, observation: Any) -> None:
        episode, env = self.running[i], self.bank.envs[i]
        if episode is None:
            return
        recording = self.recordings[episode]
        if self.read_state is not None:
            recording.states.append(_read("state", self.read_state(env), self.schema.state.size))
        if self.observation is not None:
            recording.observations.append(copy.deepcopy(observation))
        if self.read_context is not None and recording.context is None:
            recording.context = _read("context", self.read_context(env), self.schema.context.size)

    def _act(self, i: int, observation: Any) -> np.ndarray:
        space, episode = self.bank.single_action_space, self.running[i]
        if self.policy is None or episode is None:
            return np.asarray(self.samplers[i].sample())
        step = len(self.recordings[episode].actions)
        given = np.asarray(self.policy(copy.deepcopy(observation), step))
        got = f"from the policy, got {given} in episode {episode}, step {step}"
        if given.size != self.action.size:
            raise DataError(f"expected an action of shape {space.shape} {got}")
        if not np.isfinite(given).all():
            raise DataError(f"expected finite actions {got}")
        shaped = given.reshape(space.shape)
        taken = shaped.astype(space.dtype)
        if any(self.action.classes) and not (np.array_equal(taken, shaped) and space.contains(taken)):
            raise DataError(f"expected an action in {space} {got}")
        return taken


def _open(env: Any, width: int) -> tuple[Any, bool]:
    gymnasium, vector = need("gymnasium", "rl"), need("gymnasium.vector", "rl")
    if isinstance(env, str):
        name = env
        try:
            gymnasium.spec(name)
        except gymnasium.error.UnregisteredEnv as error:
            raise SpecError(f"expected the id of a registered Gymnasium environment, got {name!r}: {error}") from None
        makers = [lambda: gymnasium.make(name)] * width
    elif isinstance(env, gymnasium.Env):
        if width > 1:
            raise SpecError(f"expected num_envs=1 with a single environment, got {width}; pass its id instead")
        makers = [lambda: env]
    else:
        raise SpecError(f"expected a Gymnasium environment or its id, got {type(env).__name__}")
    # resets are ours, with a seed for each: no transition can join two episodes
    bank = vector.SyncVectorEnv(makers, autoreset_mode=vector.AutoresetMode.DISABLED)
    return bank, isinstance(env, str)


def _read(name: str, values: Any, size: int) -> np.ndarray:
    array = np.array(values, dtype=np.float64).ravel()
    if array.shape != (size,):
        raise SpecError(
            f"expected {size} numbers from {name}=, as in the schema, got {array.size} from the environment"
        )
    return array


def _trajectories(schema: Schema, run: _Run) -> Trajectories:
    recordings = run.recordings
    arrays: dict[str, Any] = {"action": [run.action.rows(r.actions) for r in recordings]}
    if run.read_state is not None:
        arrays["state"] = [np.stack(r.states) for r in recordings]
    if run.observation is not None:
        name = "state" if schema.observation is None else "observation"
        arrays[name] = [run.observation.rows(r.observations) for r in recordings]
    if schema.context:
        arrays["context"] = [r.context for r in recordings]
    if schema.reward:
        arrays["reward"] = [np.array(r.rewards) for r in recordings]
    arrays |= {name: [getattr(r, name) for r in recordings] for name in ("terminated", "truncated")}
    return Trajectories(schema, **arrays)
