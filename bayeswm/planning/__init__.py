"""Planners: which action is best, over a distribution of what may happen."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from bayeswm.planning.budget import Budgeted, epistemic_budget
from bayeswm.planning.cem import CEM
from bayeswm.planning.constraints import Constraint
from bayeswm.planning.control import closed_loop, control
from bayeswm.planning.costs import quadratic, saturating, tip_distance
from bayeswm.planning.frozen import frozen
from bayeswm.planning.icem import ICEM
from bayeswm.planning.learn import Learned, learn
from bayeswm.planning.limits import Limits
from bayeswm.planning.live import Live
from bayeswm.planning.loop import Controlled
from bayeswm.planning.mppi import MPPI
from bayeswm.planning.objective import Objective
from bayeswm.planning.plan import Plan
from bayeswm.planning.planner import Planner
from bayeswm.planning.plant import Simulated
from bayeswm.planning.policy import PlannedPolicy
from bayeswm.planning.problem import Problem, Score
from bayeswm.planning.random_shooting import RandomShooting
from bayeswm.planning.replay import Replay, replay
from bayeswm.planning.returns import PolicyReturn, policy_return
from bayeswm.planning.risk import (
    Aleatoric,
    CVaR,
    Entropic,
    Epistemic,
    Mean,
    MeanDeviation,
    MeanVariance,
    Quantile,
    Risk,
    WorstWorld,
)

if TYPE_CHECKING:
    from bayeswm.planning.env import WorldModelEnv, WorldModelVectorEnv

# imported on first use: they are classes of Gymnasium's
_LAZY = {"WorldModelEnv": "bayeswm.planning.env", "WorldModelVectorEnv": "bayeswm.planning.env"}

__all__ = [
    "CEM",
    "ICEM",
    "MPPI",
    "Aleatoric",
    "Budgeted",
    "CVaR",
    "Constraint",
    "Controlled",
    "Entropic",
    "Epistemic",
    "Learned",
    "Limits",
    "Live",
    "Mean",
    "MeanDeviation",
    "MeanVariance",
    "Objective",
    "Plan",
    "PlannedPolicy",
    "Planner",
    "PolicyReturn",
    "Problem",
    "Quantile",
    "RandomShooting",
    "Replay",
    "Risk",
    "Score",
    "Simulated",
    "WorldModelEnv",
    "WorldModelVectorEnv",
    "WorstWorld",
    "closed_loop",
    "control",
    "epistemic_budget",
    "frozen",
    "learn",
    "policy_return",
    "quadratic",
    "replay",
    "saturating",
    "tip_distance",
]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(importlib.import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'bayeswm.planning' has no attribute {name!r}")
