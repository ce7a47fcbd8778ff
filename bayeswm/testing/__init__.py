"""For tests of your own: the contract as one call, systems with exact answers, and Hypothesis strategies."""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import TYPE_CHECKING

from bayeswm.testing.conformance import CHECKS, check_model
from bayeswm.testing.linear_gaussian import JointMoments, LinearGaussianSystem
from bayeswm.testing.report import Breach, CheckResult, ContractError, Report

if TYPE_CHECKING:
    from bayeswm.testing import strategies

__all__ = [
    "CHECKS",
    "Breach",
    "CheckResult",
    "ContractError",
    "JointMoments",
    "LinearGaussianSystem",
    "Report",
    "check_model",
    "strategies",
]


def __getattr__(name: str) -> ModuleType:
    if name == "strategies":  # the one part that needs Hypothesis
        return importlib.import_module("bayeswm.testing.strategies")
    raise AttributeError(f"module 'bayeswm.testing' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
