"""Planners: which action is best, over a distribution of what may happen."""

from __future__ import annotations

import importlib
import importlib.util
from typing import TYPE_CHECKING, Any

from bayeswm.planning.attraction import Attraction, region_of_attraction
from bayeswm.planning.binomial_bounds import BinomialBound, ClopperPearson, Wilson
from bayeswm.planning.budget import Budgeted, epistemic_budget
from bayeswm.planning.cem import CEM
from bayeswm.planning.chance import Assessment, ChanceConstraint, FromParticles
from bayeswm.planning.closed_loop import Certified, certify, closed_loop_jacobian
from bayeswm.planning.confidence import clopper_pearson
from bayeswm.planning.constraints import Constraint, Imagined
from bayeswm.planning.control import closed_loop, control
from bayeswm.planning.costs import quadratic, saturating, tip_distance
from bayeswm.planning.descent import LBFGS, Adam, Descent
from bayeswm.planning.frozen import frozen
from bayeswm.planning.gradient import Gradient
from bayeswm.planning.icem import ICEM
from bayeswm.planning.ilqr import ILQR
from bayeswm.planning.inside_tube import InsideTube
from bayeswm.planning.learn import Learned, learn
from bayeswm.planning.level_set import LevelSet, sampled_level_set
from bayeswm.planning.limits import Limits
from bayeswm.planning.linear_feedback import LinearFeedback
from bayeswm.planning.linear_policy import LinearPolicy
from bayeswm.planning.live import Live
from bayeswm.planning.loop import Controlled
from bayeswm.planning.lqr import LQR
from bayeswm.planning.lyapunov import Certificate, lyapunov
from bayeswm.planning.mlp_policy import MLPPolicy
from bayeswm.planning.mppi import MPPI
from bayeswm.planning.objective import Objective
from bayeswm.planning.plan import Plan
from bayeswm.planning.planned_policy import PlannedPolicy
from bayeswm.planning.planner import Planner
from bayeswm.planning.plant import Simulated
from bayeswm.planning.policy import ParametricPolicy
from bayeswm.planning.policy_cost import PolicyCost
from bayeswm.planning.policy_search import FittedPolicy, optimise_policy
from bayeswm.planning.problem import Problem, Score
from bayeswm.planning.random_shooting import RandomShooting
from bayeswm.planning.rbf_policy import RBFPolicy
from bayeswm.planning.replay import Replay, replay
from bayeswm.planning.returns import PolicyReturn, policy_return
from bayeswm.planning.riccati import dare, riccati
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
from bayeswm.planning.safe_sets import HalfSpaces
from bayeswm.planning.squashing import saturating_sine
from bayeswm.planning.tightening import GaussianTightening
from bayeswm.planning.violation import Violation

if TYPE_CHECKING:
    from bayeswm.planning.env import WorldModelEnv, WorldModelVectorEnv

# imported on first use: they are classes of Gymnasium's
_LAZY = {"WorldModelEnv": "bayeswm.planning.env", "WorldModelVectorEnv": "bayeswm.planning.env"}

__all__ = [
    "CEM",
    "ICEM",
    "ILQR",
    "LBFGS",
    "LQR",
    "MPPI",
    "Adam",
    "Aleatoric",
    "Assessment",
    "Attraction",
    "BinomialBound",
    "Budgeted",
    "CVaR",
    "Certificate",
    "Certified",
    "ChanceConstraint",
    "ClopperPearson",
    "Constraint",
    "Controlled",
    "Descent",
    "Entropic",
    "Epistemic",
    "FittedPolicy",
    "FromParticles",
    "GaussianTightening",
    "Gradient",
    "HalfSpaces",
    "Imagined",
    "InsideTube",
    "Learned",
    "LevelSet",
    "Limits",
    "LinearFeedback",
    "LinearPolicy",
    "Live",
    "MLPPolicy",
    "Mean",
    "MeanDeviation",
    "MeanVariance",
    "Objective",
    "ParametricPolicy",
    "Plan",
    "PlannedPolicy",
    "Planner",
    "PolicyCost",
    "PolicyReturn",
    "Problem",
    "Quantile",
    "RBFPolicy",
    "RandomShooting",
    "Replay",
    "Risk",
    "Score",
    "Simulated",
    "Violation",
    "Wilson",
    "WorldModelEnv",
    "WorldModelVectorEnv",
    "WorstWorld",
    "certify",
    "clopper_pearson",
    "closed_loop",
    "closed_loop_jacobian",
    "control",
    "dare",
    "epistemic_budget",
    "frozen",
    "learn",
    "lyapunov",
    "optimise_policy",
    "policy_return",
    "quadratic",
    "region_of_attraction",
    "replay",
    "riccati",
    "sampled_level_set",
    "saturating",
    "saturating_sine",
    "tip_distance",
]

# so that "from bayeswm.planning import *" does not ask for what is not there
if importlib.util.find_spec("gymnasium") is None:
    __all__.remove("WorldModelEnv")
    __all__.remove("WorldModelVectorEnv")


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(importlib.import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'bayeswm.planning' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_LAZY})
