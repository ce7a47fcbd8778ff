"""Where a belief goes over a horizon: particles, moments in each world, or moments pooled over worlds."""

from bayeswm.propagation.compare import compare
from bayeswm.propagation.linearized import Linearized
from bayeswm.propagation.moment_matching import MomentMatching
from bayeswm.propagation.moment_reset import MomentReset
from bayeswm.propagation.particles import FixedWorlds, FreshWorlds
from bayeswm.propagation.propagate import propagate
from bayeswm.propagation.task import GaussianPolicy, Method, Task
from bayeswm.propagation.unscented import Unscented

__all__ = [
    "FixedWorlds",
    "FreshWorlds",
    "GaussianPolicy",
    "Linearized",
    "Method",
    "MomentMatching",
    "MomentReset",
    "Task",
    "Unscented",
    "compare",
    "propagate",
]
