"""Planners: which action is best, over a distribution of what may happen."""

from bayeswm.planning.cem import CEM
from bayeswm.planning.constraints import Constraint
from bayeswm.planning.costs import quadratic, saturating, tip_distance
from bayeswm.planning.gradient import Gradient
from bayeswm.planning.ilqr import ILQR
from bayeswm.planning.limits import Limits
from bayeswm.planning.linear_feedback import LinearFeedback
from bayeswm.planning.lqr import LQR
from bayeswm.planning.objective import Objective
from bayeswm.planning.plan import Plan
from bayeswm.planning.planner import Planner
from bayeswm.planning.problem import Problem, Score
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

__all__ = [
    "CEM",
    "ILQR",
    "LQR",
    "Aleatoric",
    "CVaR",
    "Constraint",
    "Entropic",
    "Epistemic",
    "Gradient",
    "Limits",
    "LinearFeedback",
    "Mean",
    "MeanDeviation",
    "MeanVariance",
    "Objective",
    "Plan",
    "Planner",
    "Problem",
    "Quantile",
    "Risk",
    "Score",
    "WorstWorld",
    "dare",
    "quadratic",
    "riccati",
    "saturating",
    "tip_distance",
]
