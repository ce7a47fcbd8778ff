"""A Gymnasium environment as what a control loop acts on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, override

import numpy as np
import torch
from torch import Tensor

from bayeswm.base.counts import check_counts
from bayeswm.base.errors import DataError, SpecError
from bayeswm.base.random import spawn_seeds
from bayeswm.base.schema import Schema
from bayeswm.data.optional import need
from bayeswm.data.spaces import check_fits, flat_space
from bayeswm.planning.loop.plant import Plant, Shown

Reader = Callable[[Any], Any]


class GymPlant(Plant):
    """One Gymnasium environment with continuous actions.

    Parameters
    ----------
    env : str or gymnasium.Env
        An id, or an environment (which is used, and left open).
    schema : Schema
        What to record; its time step is that of the environment times ``hold``.
    state, context : callable, optional
        As of :func:`bayeswm.data.collect`: they read the true state after each step, the context after each reset.
    hold : int
        Steps of the environment for which an action is held.

    Raises
    ------
    SpecError
        If environment and schema do not fit together, or actions are not continuous.
    ImportError
        If Gymnasium is missing.

    Examples
    --------
    >>> import bayeswm as bwm
    >>> schema = bwm.structures.Pendulum.gymnasium().schema
    >>> plant = GymPlant("Pendulum-v1", schema=schema, state=lambda env: env.unwrapped.state)
    >>> plant.reset(torch.Generator().manual_seed(0)).measured.shape
    torch.Size([1, 2])
    """

    rows = 1

    def __init__(
        self,
        env: Any,
        *,
        schema: Schema,
        state: Reader | None = None,
        context: Reader | None = None,
        hold: int = 1,
    ) -> None:
        gymnasium = need("gymnasium", "rl")
        check_counts(hold=hold)
        if bool(schema.context) != (context is not None):
            need_it = "the schema has a context" if schema.context else "the schema has none"
            raise SpecError(f"expected context= where, and only where, the schema has a context; {need_it}")
        if isinstance(env, str):
            try:
                gymnasium.spec(env)
            except gymnasium.error.UnregisteredEnv as error:
                raise SpecError(f"expected the id of a registered environment, got {env!r}: {error}") from None
        elif not isinstance(env, gymnasium.Env):
            raise SpecError(f"expected a Gymnasium environment, its id or Simulated, got {type(env).__name__}")
        self._ours = isinstance(env, str)
        self.env = gymnasium.make(env) if isinstance(env, str) else env
        self.schema, self.hold = replace(schema, reward=True), hold
        self._read_state, self._read_context = state, context
        self._action = flat_space(self.env.action_space, "action")
        check_fits(self._action, schema.action, "action")
        if any(self._action.classes):
            raise SpecError(f"expected continuous actions to plan, got {self.env.action_space}")
        self._observation = None
        if schema.observation is not None or state is None:
            self._observation = flat_space(self.env.observation_space, "observation")
            check_fits(self._observation, schema.measured, "state" if schema.observation is None else "observation")

    @override
    def reset(self, generator: torch.Generator) -> Shown:
        observation, _ = self.env.reset(seed=spawn_seeds(generator, 1)[0] % 2**31)
        if self._read_context is not None:
            self.context = self._row("context", self._read_context(self.env), self.schema.context.size)
        return self._shown(observation, 0.0, over=(False, False))

    @override
    def step(self, action: Tensor, *, last: bool) -> Shown:
        space, total = self.env.action_space, 0.0
        values = action[0].detach().cpu().double().numpy()
        edge = 1e-6 * (space.high - space.low).ravel().astype(np.float64)
        if not ((values >= space.low.ravel() - edge) & (values <= space.high.ravel() + edge)).all():
            raise DataError(f"expected an action in {space}, got {values.tolist()}")
        given = np.clip(self._action.values(values[None])[0], space.low, space.high)
        observation, over = None, (False, False)
        for _ in range(self.hold):
            observation, reward, terminated, truncated, _ = self.env.step(given)
            total, over = total + float(reward), (bool(terminated), bool(truncated))
            if any(over):
                break
        return self._shown(observation, total, over=over)

    @override
    def close(self) -> None:
        if self._ours:
            self.env.close()

    def _shown(self, observation: Any, reward: float, *, over: tuple[bool, bool]) -> Shown:
        measured = state = None
        if self._observation is not None:
            rows = np.array(self._observation.rows([observation]), dtype=np.float64)
            measured = torch.from_numpy(rows)
        if self._read_state is not None:
            state = self._row("state", self._read_state(self.env), self.schema.state.size)
        terminated, truncated = (torch.tensor([flag]) for flag in over)
        value = torch.tensor([reward], dtype=torch.float64)
        if measured is None:
            measured, state = state, None
        if measured is None:  # the constructor made sure of one of them
            raise SpecError("expected state= or an observation to read, got neither")
        return Shown(measured, state, value, terminated, truncated)

    @staticmethod
    def _row(name: str, values: Any, size: int) -> Tensor:
        found = torch.tensor(np.array(values, dtype=np.float64).reshape(1, -1))
        if found.shape != (1, size):
            raise SpecError(f"expected {size} numbers from {name}=, as in the schema, got {found.numel()}")
        return found
