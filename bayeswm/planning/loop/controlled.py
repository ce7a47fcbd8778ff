"""The control loop: measure, decide, act, and record what happens."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, NamedTuple, override

import torch
from torch import Tensor

from bayeswm.base.errors import SpecError
from bayeswm.base.model import DynamicsModel
from bayeswm.base.random import make_generator, spawn_seeds, uniform
from bayeswm.base.trajectories import Trajectories
from bayeswm.base.worlds import Worlds
from bayeswm.planning.limits import Limits
from bayeswm.planning.loop.delayed import DelayedWorlds
from bayeswm.planning.loop.live import Live
from bayeswm.planning.loop.plant import Plant, check_finite
from bayeswm.planning.loop.record import Record
from bayeswm.planning.plan import Plan
from bayeswm.planning.planner import Planner


class Controlled(NamedTuple):
    """What came of control.

    Attributes
    ----------
    trajectories : Trajectories
        What was measured, done and rewarded.
    plans : tuple of tuple of Plan
        For each episode its plans, step by step; the starts of a plan are the systems side by side.
    returns : Tensor, shape (N,)
        Sum of the rewards of each of the trajectories.
    """

    trajectories: Trajectories
    plans: tuple[tuple[Plan, ...], ...]
    returns: Tensor


class Controller(ABC):
    """Decides what to do, one step at a time."""

    @abstractmethod
    def begin(self, measured: Tensor, plant: Plant, generator: torch.Generator) -> None:
        """Begin an episode at a first measurement, shape (rows, M)."""

    @abstractmethod
    def decide(self, pending: Sequence[Tensor]) -> Tensor:
        """Return actions (rows, A), which will be done after those that are pending."""

    def learn(self, action: Tensor, measured: Tensor) -> None:  # noqa: B027 (nothing to do where nothing is believed)
        """Take in what was done and what was measured after it."""


class AtRandom(Controller):
    """Uniformly random actions within limits."""

    def __init__(self, limits: Limits) -> None:
        self.limits, self.rows, self.generator = limits, 0, torch.Generator()

    @override
    def begin(self, measured: Tensor, plant: Plant, generator: torch.Generator) -> None:
        self.rows, self.generator = len(measured), generator

    @override
    def decide(self, pending: Sequence[Tensor]) -> Tensor:
        low = self.limits.low
        even = uniform((self.rows, len(low)), self.generator, dtype=low.dtype, device=low.device)
        return low + (self.limits.high - low) * even


class Receding(Controller):
    """Plans at each step, does the first action, and begins the next search with what remains of the plan.

    Parameters
    ----------
    model : DynamicsModel or Worlds
        What is believed of the system.
    planner : Planner
        Who plans.
    redraw : bool
        Draw worlds for each plan instead of for each episode.
    reweight : bool
        As of :class:`Live`.
    """

    def __init__(self, model: DynamicsModel | Worlds, planner: Planner, *, redraw: bool, reweight: bool) -> None:
        if redraw and (reweight or isinstance(model, Worlds)):
            raise SpecError("expected redraw=True with a model and without reweight, since new worlds forget weights")
        self.model, self.planner, self.redraw, self.reweight = model, planner, redraw, reweight
        self.plans: list[Plan] = []
        self._live: Live | None = None
        self._generator: torch.Generator | None = None
        self._context: Tensor | None = None

    @override
    def begin(self, measured: Tensor, plant: Plant, generator: torch.Generator) -> None:
        self.plans, self._generator, self._context = [], generator, plant.context
        self._live = Live(self._drawn(), measured, schema=plant.schema, context=plant.context, reweight=self.reweight)

    @override
    def decide(self, pending: Sequence[Tensor]) -> Tensor:
        live = self._live
        if live is None:
            raise SpecError("expected begin() before decide()")
        if self.redraw and self.plans:
            live.meet(self._drawn())
        worlds = DelayedWorlds(live.worlds, pending) if pending else live.worlds
        plan = self.planner.plan(
            worlds,
            live.belief,
            generator=self._generator,
            context=self._context,
            previous=self.plans[-1] if self.plans else None,
            before=pending[-1] if pending else None,
        )
        self.plans.append(plan)
        return plan.action

    @override
    def learn(self, action: Tensor, measured: Tensor) -> None:
        if self._live is not None:
            self._live.update(action, measured)

    def _drawn(self) -> Worlds:
        if isinstance(self.model, Worlds):
            return self.model
        return self.model.draw(self.planner.worlds, generator=self._generator)


def limits_of(planner: Planner, plant: Plant) -> Limits:
    """Return the possible actions of a plant: the planner's own bounds, or those of the schema.

    Raises
    ------
    DataError
        If the planner's bounds go beyond those of the schema.
    """
    like = torch.empty(plant.schema.action.size, dtype=torch.float64)
    return Limits.chosen(plant.schema, planner.bounds, like=like)


def run_episode(
    plant: Plant,
    controller: Controller,
    limits: Limits,
    *,
    steps: int | None,
    latency: int,
    seed: int,
    bar: Any,
) -> Trajectories:
    """Run one episode of all rows and return what was recorded.

    The plant and the controller have random numbers of their own, so that systems started by the same seed meet the
    same chance whoever controls them.
    """
    chance, choice = (make_generator(s) for s in spawn_seeds(make_generator(seed), 2))
    idle = limits.apply(torch.zeros_like(limits.low)[None])[0]
    record = Record(plant.reset(chance))
    rows = plant.rows
    controller.begin(record.shown.measured, plant, choice)
    pending = [idle.expand(rows, -1)] * latency
    names = plant.schema.action.columns
    while steps is None or len(record.actions) < steps:
        decided = controller.decide(pending)
        # rounding of a planner's number format is no reason to refuse
        limits.check(decided.to(limits.low), names=names)
        pending = [*pending, decided.to(limits.low)]
        action = pending.pop(0)
        shown = plant.step(action, last=steps is not None and len(record.actions) + 1 == steps)
        check_finite(plant, shown, record.over)
        record.take(action, shown)
        bar.update()
        if bool(record.over.all()):
            break
        controller.learn(action, record.shown.measured)
    return record.trajectories(plant)
