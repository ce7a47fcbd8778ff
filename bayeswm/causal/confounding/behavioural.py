"""What goes together in a log, as a model of its own."""

from __future__ import annotations

from typing import Self, override

import torch

from bayeswm.base.errors import SpecError
from bayeswm.base.model import DynamicsModel
from bayeswm.base.schema import Schema
from bayeswm.base.trajectories import Trajectories
from bayeswm.base.worlds import Worlds
from bayeswm.causal.confounding.learned import Causes
from bayeswm.causal.confounding.logged_worlds import LoggedWorlds
from bayeswm.causal.confounding.strategies import Unidentified


class BehaviouralDynamics(DynamicsModel):
    """The next state given state and action as they were logged: ``.behavioural`` of a :class:`CausalDynamics`.

    Parameters
    ----------
    causes : Causes
        What the log told of hidden causes.
    outcome : DynamicsModel
        The fitted model of outcomes.
    """

    def __init__(self, causes: Causes, outcome: DynamicsModel) -> None:
        self.causes, self.outcome = causes, outcome

    @property
    @override
    def schema(self) -> Schema:
        return self.causes.recipe.public

    @override
    def fit(self, trajectories: Trajectories, *, seed: int | None = None, progress: bool = True) -> Self:
        """Refuse: it is the causal model that is fitted.

        Raises
        ------
        SpecError
            Always.
        """
        raise SpecError("expected to fit the causal model; its .behavioural follows")

    @override
    def draw(self, worlds: int, *, generator: torch.Generator | None = None) -> Worlds:
        """Draw worlds in which actions are as they were logged."""
        inner = self.outcome.draw(worlds, generator=generator)
        if self.causes.recipe.causes:
            return self.causes.worlds(inner, generator, logged=True)
        strategy = self.causes.recipe.strategy
        return LoggedWorlds(inner, strategy.reason) if isinstance(strategy, Unidentified) else inner

    @override
    def __repr__(self) -> str:
        return f"BehaviouralDynamics({self.outcome!r}, {self.causes.recipe.strategy})"
