"""Planners: which action is best, over a distribution of what may happen."""

from bayeswm.planning.cem import CEM
from bayeswm.planning.constraints import Constraint
from bayeswm.planning.costs import quadratic, saturating, tip_distance
from bayeswm.planning.gradient import Gradient
from bayeswm.planning.limits import Limits
from bayeswm.planning.objective import Objective
from bayeswm.planning.plan import Plan
from bayeswm.planning.planner import Planner
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

__all__ = [
    "CEM",
    "Aleatoric",
    "CVaR",
    "Constraint",
    "Entropic",
    "Epistemic",
    "Gradient",
    "Limits",
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
    "quadratic",
    "saturating",
    "tip_distance",
]
