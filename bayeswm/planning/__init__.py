"""Planners: which action is best, over a distribution of what may happen."""

from bayeswm.planning.cem import CEM
from bayeswm.planning.constraints import Constraint
from bayeswm.planning.costs import quadratic, saturating, tip_distance
from bayeswm.planning.descent import LBFGS, Adam, Descent
from bayeswm.planning.frozen import frozen
from bayeswm.planning.icem import ICEM
from bayeswm.planning.limits import Limits
from bayeswm.planning.linear_policy import LinearPolicy
from bayeswm.planning.mlp_policy import MLPPolicy
from bayeswm.planning.mppi import MPPI
from bayeswm.planning.objective import Objective
from bayeswm.planning.plan import Plan
from bayeswm.planning.planner import Planner
from bayeswm.planning.policy import ParametricPolicy
from bayeswm.planning.policy_cost import PolicyCost
from bayeswm.planning.policy_search import FittedPolicy, optimise_policy
from bayeswm.planning.problem import Problem, Score
from bayeswm.planning.random_shooting import RandomShooting
from bayeswm.planning.rbf_policy import RBFPolicy
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
from bayeswm.planning.squashing import saturating_sine

__all__ = [
    "CEM",
    "ICEM",
    "LBFGS",
    "MPPI",
    "Adam",
    "Aleatoric",
    "CVaR",
    "Constraint",
    "Descent",
    "Entropic",
    "Epistemic",
    "FittedPolicy",
    "Limits",
    "LinearPolicy",
    "MLPPolicy",
    "Mean",
    "MeanDeviation",
    "MeanVariance",
    "Objective",
    "ParametricPolicy",
    "Plan",
    "Planner",
    "PolicyCost",
    "Problem",
    "Quantile",
    "RBFPolicy",
    "RandomShooting",
    "Risk",
    "Score",
    "WorstWorld",
    "frozen",
    "optimise_policy",
    "quadratic",
    "saturating",
    "saturating_sine",
    "tip_distance",
]
