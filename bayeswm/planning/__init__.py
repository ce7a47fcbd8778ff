"""Planners: which action is best, over a distribution of what may happen."""

from bayeswm.planning.binomial_bounds import BinomialBound, ClopperPearson, Wilson
from bayeswm.planning.cem import CEM
from bayeswm.planning.chance import Assessment, ChanceConstraint, FromParticles
from bayeswm.planning.constraints import Constraint, Imagined
from bayeswm.planning.costs import quadratic, saturating, tip_distance
from bayeswm.planning.inside_tube import InsideTube
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
from bayeswm.planning.safe_sets import HalfSpaces
from bayeswm.planning.tightening import GaussianTightening
from bayeswm.planning.violation import Violation

__all__ = [
    "CEM",
    "Aleatoric",
    "Assessment",
    "BinomialBound",
    "CVaR",
    "ChanceConstraint",
    "ClopperPearson",
    "Constraint",
    "Entropic",
    "Epistemic",
    "FromParticles",
    "GaussianTightening",
    "HalfSpaces",
    "Imagined",
    "InsideTube",
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
    "Violation",
    "Wilson",
    "WorstWorld",
    "quadratic",
    "saturating",
    "tip_distance",
]
