"""Planners: which action is best, over a distribution of what may happen."""

from bayeswm.planning.attraction import Attraction, region_of_attraction
from bayeswm.planning.cem import CEM
from bayeswm.planning.closed_loop import Certified, certify, closed_loop_jacobian
from bayeswm.planning.confidence import clopper_pearson
from bayeswm.planning.constraints import Constraint
from bayeswm.planning.costs import quadratic, saturating, tip_distance
from bayeswm.planning.gradient import Gradient
from bayeswm.planning.ilqr import ILQR
from bayeswm.planning.level_set import LevelSet, sampled_level_set
from bayeswm.planning.limits import Limits
from bayeswm.planning.linear_feedback import LinearFeedback
from bayeswm.planning.lqr import LQR
from bayeswm.planning.lyapunov import Certificate, lyapunov
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
    "Attraction",
    "CVaR",
    "Certificate",
    "Certified",
    "Constraint",
    "Entropic",
    "Epistemic",
    "Gradient",
    "LevelSet",
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
    "certify",
    "clopper_pearson",
    "closed_loop_jacobian",
    "dare",
    "lyapunov",
    "quadratic",
    "region_of_attraction",
    "riccati",
    "sampled_level_set",
    "saturating",
    "tip_distance",
]
