"""Worlds that only say what went together in a log."""

from __future__ import annotations

from typing import Self, override

from bayeswm.base.trajectories import Trajectories
from bayeswm.base.worlds import Worlds
from bayeswm.base.wrapped import WrappedWorlds
from bayeswm.causal.confounding.log import without_recorded


class LoggedWorlds(WrappedWorlds):
    """Worlds that only say what went together in a log.

    Parameters
    ----------
    inner : Worlds
        The worlds inside.
    confounded : str
        Why they do not say what actions do.
    """

    def __init__(self, inner: Worlds, confounded: str) -> None:
        super().__init__(inner)
        self.confounded = confounded

    @override
    def comparable(self, trajectories: Trajectories) -> Trajectories:
        return super().comparable(without_recorded(trajectories, self.schema))

    @override
    def _around(self, inner: Worlds) -> Self:
        return type(self)(inner, str(self.confounded))
