"""What a control loop acts on: systems side by side, simulated or real, that are shown by their measurements."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import replace
from typing import Any, NamedTuple, override

import torch
from torch import Tensor

from bayeswm.base.counts import check_counts
from bayeswm.base.errors import DataError, SpecError
from bayeswm.base.model import DynamicsModel
from bayeswm.base.random import standard_normal, systematic
from bayeswm.base.schema import Schema
from bayeswm.base.worlds import Noise, Worlds
from bayeswm.planning.loop.rewards import ended, step_reward
from bayeswm.planning.loop.starts import Start, draw_starts
from bayeswm.planning.objective import Objective


class Shown(NamedTuple):
    """What systems show after a step.

    ``measured`` (rows, M), ``state`` (rows, S) where it is known besides, ``reward``, ``terminated`` and ``truncated``
    (rows,).
    """

    measured: Tensor
    state: Tensor | None
    reward: Tensor
    terminated: Tensor
    truncated: Tensor


class Plant(ABC):
    """Systems side by side, one for each row.

    Attributes
    ----------
    schema : Schema
        Of what is recorded.
    rows : int
        How many systems.
    context : Tensor of shape (rows, C), optional
        Environment factors; known after a reset.
    """

    schema: Schema
    rows: int
    context: Tensor | None = None

    @abstractmethod
    def reset(self, generator: torch.Generator) -> Shown:
        """Begin an episode; the generator is the source of all that happens in it."""

    @abstractmethod
    def step(self, action: Tensor, *, last: bool) -> Shown:
        """Act, shape (rows, A); ``last`` says that the episode ends after this step, whatever happens."""

    def close(self) -> None:  # noqa: B027 (most have nothing to release)
        """Release what was opened."""


class Simulated(Plant):
    """A model taken as the system: one world, whose noise is drawn.

    Parameters
    ----------
    system : DynamicsModel or Worlds
        The system, or a posterior from which each episode draws one world for all rows.
    start : Tensor of shape (rows, S) or (S,), Law or callable
        Where episodes start; see :func:`bayeswm.planning.loop.starts.draw_starts`.
    objective : Objective
        Its costs are the rewards, with the sign changed; its termination ends episodes.
    rows : int, optional
        Systems side by side; as many as ``start`` has rows by default, or 1.
    context : Tensor, shape (rows, C), optional
        Environment factors.
    hold : int
        Steps of the system for which an action is held; they are one step of what is recorded.

    Examples
    --------
    >>> import bayeswm as bwm
    >>> truth = bwm.KnownDynamics(structure=bwm.structures.Pendulum.gymnasium(), noise=0.01)
    >>> objective = bwm.planning.quadratic(torch.tensor([1.0, 0.1]), torch.tensor([0.001]))
    >>> plant = Simulated(truth, torch.zeros(3, 2), objective=objective)
    >>> plant.reset(torch.Generator().manual_seed(0)).measured.shape, plant.step(torch.ones(3, 1), last=False).reward
    (torch.Size([3, 2]), tensor([-0.0010, -0.0010, -0.0010], dtype=torch.float64))
    """

    def __init__(
        self,
        system: DynamicsModel | Worlds,
        start: Start,
        *,
        objective: Objective,
        rows: int | None = None,
        context: Tensor | None = None,
        hold: int = 1,
    ) -> None:
        check_counts(hold=hold)
        given = start.shape[0] if isinstance(start, Tensor) and start.ndim == 2 else 1
        self.system, self.start, self.objective, self.hold = system, start, objective, hold
        self.rows = given if rows is None else rows
        schema = system.schema
        self.schema = replace(schema, reward=True, time_step=hold * schema.time_step)
        if bool(schema.context) != (context is not None):
            need = "the system has a context" if schema.context else "the system has none"
            raise SpecError(f"expected context= where, and only where, there is one; {need}")
        self.context = None if context is None else context.expand(self.rows, schema.context.size)
        self._world: Worlds | None = None
        self._generator: torch.Generator | None = None
        self._carry: Any = None
        self._step, self._previous = 0, None

    @override
    def reset(self, generator: torch.Generator) -> Shown:
        system = self.system
        worlds = system if isinstance(system, Worlds) else system.draw(1, generator=generator)
        world = worlds[systematic(worlds.log_weight, 1, generator)]
        like = torch.empty(world.schema.state.size, dtype=world.dtype, device=world.device)
        self._world, self._generator, self._step, self._previous = world, generator, 0, None
        state = draw_starts(self.start, self.rows, generator=generator, like=like)
        if self.context is not None:
            self.context = self.context.to(like)
        episode = self._draw(world.episode_noise_size) if world.episode_noise_size else None
        initial = self._draw(size) if (size := world.initial_noise_size(state)) else None
        self._carry = world.start(state, self.context, Noise(initial, episode))
        nothing = torch.zeros(self.rows, dtype=torch.bool, device=world.device)
        return Shown(*self._seen(), state.new_zeros(self.rows), nothing, nothing)

    @override
    def step(self, action: Tensor, *, last: bool) -> Shown:
        world, state = self._begun, self._state
        action = action.to(state)
        context = state.new_empty(self.rows, 0) if self.context is None else self.context
        for part in range(self.hold):
            at = self._step * self.hold + part
            law = world.transition(self._carry, action, self.context, step=at)
            self._carry = law.push(self._draw(world.noise_size))
        after = self._state
        reward = step_reward(
            self.objective,
            state,
            action,
            context=context,
            after=after,
            step=self._step,
            previous=self._previous,
            last=last,
        )
        self._step, self._previous = self._step + 1, action
        over = ended(self.objective, after, context)
        return Shown(*self._seen(), reward, over, torch.zeros_like(over))

    @property
    def _begun(self) -> Worlds:
        if self._world is None:
            raise SpecError("expected reset() before step()")
        return self._world

    @property
    def _state(self) -> Tensor:
        return self._begun.state(self._carry)[0, 0]

    def _draw(self, size: int) -> Tensor:
        world, generator = self._begun, self._generator
        shape = (1, 1, self.rows, size)
        if not size or generator is None:
            return torch.empty(shape, dtype=world.dtype, device=world.device)
        return standard_normal(shape, generator, dtype=world.dtype, device=world.device)

    def _seen(self) -> tuple[Tensor, Tensor | None]:
        world, state = self._begun, self._state
        if world.state_is_measured:
            return state, None
        law = world.measurement(self._carry)
        measured = law.push(self._draw(law.noise_size))[0, 0]
        return measured, None if self.schema.observation is None else state


def check_finite(plant: Plant, shown: Shown, over: Tensor) -> None:
    """Refuse to go on with a system that left the finite numbers.

    Raises
    ------
    DataError
        Naming the row.
    """
    bad = shown.measured.isinf().any(-1) | shown.reward.isnan()
    if not isinstance(plant, Simulated) or plant.schema.observation is None:
        bad = bad | shown.measured.isnan().all(-1)
    bad = bad & ~over
    if bool(bad.any()):
        row = int(bad.nonzero()[0])
        raise DataError(f"expected finite measurements and rewards, got {shown.measured[row].tolist()} in row {row}")
