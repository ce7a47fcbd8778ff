"""A model as a Gymnasium environment."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from bayeswm.base.model import DynamicsModel
from bayeswm.base.schema import Schema
from bayeswm.base.worlds import Worlds
from bayeswm.data.optional import need
from bayeswm.planning.imagination.inhabited import Inhabited
from bayeswm.planning.loop.starts import Start
from bayeswm.planning.objective import Objective

_GYMNASIUM = need("gymnasium", "rl")
_VECTOR = need("gymnasium.vector", "rl")


class WorldModelEnv(_GYMNASIUM.Env):
    """A model as an environment: each episode takes place in one world drawn from it.

    Observations are what the model's sensors report (the state, where it is measured; angles are not wrapped), rewards
    the negative costs. An episode terminates by the objective's termination, and is truncated at the horizon, with the
    terminal cost, or where the state leaves the finite numbers (``info["diverged"]``). Dynamics that depend on the
    index of the step are taken at index 0.

    Parameters
    ----------
    model : DynamicsModel or Worlds
        A fitted model, or worlds drawn from it.
    objective : Objective
        Costs and termination.
    start : Tensor of shape (S,), Law or callable
        Where episodes start: a state, a law, or ``start(rows, generator)`` that returns states (rows, S).
    horizon : int
        Steps of an episode.
    worlds : int
        Drawn from the model at each ``reset(seed=...)``.
    context : Tensor, shape (C,), optional
        Environment factors.

    Examples
    --------
    >>> import bayeswm as bwm
    >>> model = bwm.KnownDynamics(structure=bwm.structures.Pendulum.gymnasium(), noise=0.01)
    >>> objective = bwm.planning.quadratic(torch.tensor([1.0, 0.1]), torch.tensor([0.001]))
    >>> env = WorldModelEnv(model, objective, start=torch.tensor([3.0, 0.0]), horizon=200)
    >>> observation, info = env.reset(seed=0)
    >>> observation, env.step(env.action_space.sample())[3]
    (array([3., 0.]), False)
    """

    metadata: dict[str, Any] = {"render_modes": []}  # noqa: RUF012 (Gymnasium's)

    def __init__(
        self,
        model: DynamicsModel | Worlds,
        objective: Objective,
        *,
        start: Start,
        horizon: int,
        worlds: int = 64,
        context: Tensor | None = None,
    ) -> None:
        self._rows = Inhabited(model, objective, start=start, horizon=horizon, rows=1, worlds=worlds, context=context)
        self.observation_space, self.action_space = spaces_of(self._rows.schema, self._rows)
        self._seeded = False

    def reset(
        self,
        *,
        seed: int | None = None,
        options: dict[str, Any] | None = None,  # noqa: ARG002 (Gymnasium's signature)
    ) -> tuple[np.ndarray, dict]:
        """Begin an episode; with a seed, draw the worlds anew."""
        super().reset(seed=seed)
        if seed is not None or not self._seeded:
            self._rows.seed(_generator(self.np_random))
            self._seeded = True
        return _numpy(self._rows.reset(torch.ones(1, dtype=torch.bool)))[0], {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict]:
        """Act, shape (A,)."""
        given = torch.as_tensor(np.asarray(action, dtype=np.float64).reshape(1, -1))
        done = self._rows.step(given, torch.zeros(1, dtype=torch.bool))
        info = {"diverged": True} if bool(done.diverged) else {}
        return _numpy(done.measured)[0], float(done.reward), bool(done.terminated), bool(done.truncated), info


class WorldModelVectorEnv(_VECTOR.VectorEnv):
    """A model as environments side by side, each in a world of its own for an episode; one batched call a step.

    An environment whose episode ended is reset by the next step, whatever its action, and gets reward 0 in it
    (Gymnasium's ``AutoresetMode.NEXT_STEP``).

    Parameters
    ----------
    model, objective, start, horizon, worlds, context
        As of :class:`WorldModelEnv`.
    num_envs : int
        How many.

    Examples
    --------
    >>> import bayeswm as bwm
    >>> model = bwm.KnownDynamics(structure=bwm.structures.Pendulum.gymnasium(), noise=0.01)
    >>> objective = bwm.planning.quadratic(torch.tensor([1.0, 0.1]), torch.tensor([0.001]))
    >>> envs = WorldModelVectorEnv(model, objective, start=torch.tensor([3.1, 0.0]), horizon=200, num_envs=4)
    >>> envs.reset(seed=0)[0].shape, envs.step(envs.action_space.sample())[1].shape
    ((4, 2), (4,))
    """

    metadata: dict[str, Any] = {"autoreset_mode": _VECTOR.AutoresetMode.NEXT_STEP}  # noqa: RUF012 (Gymnasium's)

    def __init__(
        self,
        model: DynamicsModel | Worlds,
        objective: Objective,
        *,
        start: Start,
        horizon: int,
        num_envs: int,
        worlds: int = 64,
        context: Tensor | None = None,
    ) -> None:
        self._rows = Inhabited(
            model, objective, start=start, horizon=horizon, rows=num_envs, worlds=worlds, context=context
        )
        self.num_envs = num_envs
        self.single_observation_space, self.single_action_space = spaces_of(self._rows.schema, self._rows)
        batch = need("gymnasium.vector.utils", "rl").batch_space
        self.observation_space = batch(self.single_observation_space, num_envs)
        self.action_space = batch(self.single_action_space, num_envs)
        self._ended = torch.zeros(num_envs, dtype=torch.bool)
        self._seeded = False

    def reset(
        self,
        *,
        seed: int | None = None,
        options: dict[str, Any] | None = None,  # noqa: ARG002 (Gymnasium's signature)
    ) -> tuple[np.ndarray, dict]:
        """Begin an episode in all environments; with a seed, draw the worlds anew."""
        super().reset(seed=seed)
        if seed is not None or not self._seeded:
            self._rows.seed(_generator(self.np_random))
            self._seeded = True
        self._ended = torch.zeros(self.num_envs, dtype=torch.bool)
        return _numpy(self._rows.reset(~self._ended)), {}

    def step(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, dict]:
        """Act in all environments, shape (num_envs, A)."""
        again = self._ended
        given = torch.as_tensor(np.asarray(actions, dtype=np.float64).reshape(self.num_envs, -1))
        done = self._rows.step(given, again)
        measured = self._rows.reset(again) if bool(again.any()) else done.measured
        reward = torch.where(again, 0.0, done.reward.cpu())
        terminated, truncated, diverged = (v.cpu() & ~again for v in (done.terminated, done.truncated, done.diverged))
        self._ended = terminated | truncated
        info = {"diverged": diverged.numpy(), "_diverged": diverged.numpy().copy()} if bool(diverged.any()) else {}
        return _numpy(measured), reward.double().numpy(), terminated.numpy(), truncated.numpy(), info

    def close(self, **kwargs: Any) -> None:
        """Do nothing: nothing is open."""


def spaces_of(schema: Schema, rows: Inhabited) -> tuple[Any, Any]:
    """Return the spaces of observations and actions.

    Examples
    --------
    >>> import bayeswm as bwm
    >>> model = bwm.KnownDynamics(structure=bwm.structures.Pendulum.gymnasium())
    >>> objective = bwm.planning.quadratic(torch.tensor([1.0, 0.1]), torch.tensor([0.001]))
    >>> spaces_of(model.schema, WorldModelEnv(model, objective, start=torch.zeros(2), horizon=9)._rows)[1]
    Box(-2.0, 2.0, (1,), float64)
    """
    box = _GYMNASIUM.spaces.Box
    low, high = (v.cpu().numpy() for v in (rows.limits.low, rows.limits.high))
    return box(-np.inf, np.inf, (schema.measured.size,), dtype=np.float64), box(low, high, dtype=np.float64)


def _generator(source: np.random.Generator) -> torch.Generator:
    return torch.Generator().manual_seed(int(source.integers(2**62)))


def _numpy(values: Tensor) -> np.ndarray:
    return values.detach().cpu().double().numpy().copy()
