"""Planners: which action is best, over a distribution of what may happen."""

from __future__ import annotations

import importlib
import importlib.util
from typing import TYPE_CHECKING, Any

from bayeswm.planning.costs import quadratic, saturating, tip_distance
from bayeswm.planning.imagination.budget import Budgeted, epistemic_budget
from bayeswm.planning.imagination.frozen import frozen
from bayeswm.planning.imagination.replay import Replay, replay
from bayeswm.planning.imagination.returns import PolicyReturn, policy_return
from bayeswm.planning.limits import Limits
from bayeswm.planning.loop.control import closed_loop, control
from bayeswm.planning.loop.controlled import Controlled
from bayeswm.planning.loop.learn import LearnedControl, learn
from bayeswm.planning.loop.live import Live
from bayeswm.planning.loop.plant import Simulated
from bayeswm.planning.objective import Objective
from bayeswm.planning.plan import Plan
from bayeswm.planning.planner import Planner
from bayeswm.planning.policies.descent import LBFGS, Adam, Descent
from bayeswm.planning.policies.linear_policy import LinearPolicy
from bayeswm.planning.policies.mlp_policy import MLPPolicy
from bayeswm.planning.policies.planned_policy import PlannedPolicy
from bayeswm.planning.policies.policy import ParametricPolicy
from bayeswm.planning.policies.policy_cost import PolicyCost
from bayeswm.planning.policies.policy_search import FittedPolicy, optimise_policy
from bayeswm.planning.policies.rbf_policy import RBFPolicy
from bayeswm.planning.policies.squashing import saturating_sine
from bayeswm.planning.problem import Problem, Score
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
from bayeswm.planning.safety.binomial_bounds import BinomialBound, ClopperPearson, Wilson
from bayeswm.planning.safety.chance import Assessment, ChanceConstraint, FromParticles
from bayeswm.planning.safety.constraints import Constraint, Imagined
from bayeswm.planning.safety.inside_tube import InsideTube
from bayeswm.planning.safety.safe_sets import HalfSpaces
from bayeswm.planning.safety.tightening import GaussianTightening
from bayeswm.planning.safety.violation import Violation
from bayeswm.planning.search.cem import CEM
from bayeswm.planning.search.gradient import Gradient
from bayeswm.planning.search.icem import ICEM
from bayeswm.planning.search.ilqr import ILQR
from bayeswm.planning.search.linear_feedback import LinearFeedback
from bayeswm.planning.search.lqr import LQR
from bayeswm.planning.search.mppi import MPPI
from bayeswm.planning.search.random_shooting import RandomShooting
from bayeswm.planning.search.riccati import dare, riccati
from bayeswm.planning.stability.attraction import Attraction, region_of_attraction
from bayeswm.planning.stability.certified import Certified, certify, closed_loop_jacobian
from bayeswm.planning.stability.confidence import clopper_pearson
from bayeswm.planning.stability.level_set import LevelSet, sampled_level_set
from bayeswm.planning.stability.lyapunov import Certificate, lyapunov

if TYPE_CHECKING:
    from bayeswm.planning.imagination.env import WorldModelEnv, WorldModelVectorEnv

# imported on first use: they are classes of Gymnasium's
_LAZY = {"WorldModelEnv": "bayeswm.planning.imagination.env", "WorldModelVectorEnv": "bayeswm.planning.imagination.env"}

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
    "LearnedControl",
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
