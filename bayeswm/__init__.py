"""Probabilistic world models: posteriors over how a system moves, behind one posterior-predictive interface."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from bayeswm import base, inference, models, propagation, structures
from bayeswm.base import *  # noqa: F403
from bayeswm.base import saving
from bayeswm.base.version import __version__
from bayeswm.models import *  # noqa: F403
from bayeswm.propagation import propagate

if TYPE_CHECKING:
    from bayeswm import causal as causal
    from bayeswm import data as data
    from bayeswm import diagnostics as diagnostics
    from bayeswm import planning as planning
    from bayeswm import plot as plot
    from bayeswm import testing as testing
    from bayeswm.causal import CausalDynamics as CausalDynamics
    from bayeswm.causal import do as do

# imported on first use: not everybody needs them, or they need xarray, Gymnasium, matplotlib or Hypothesis
_LAZY = ("causal", "data", "diagnostics", "planning", "plot", "testing")
saving.LATER["RecalibratedModel"] = "bayeswm.diagnostics.recalibrated"
saving.LATER["StructuralModel"] = "bayeswm.causal"
saving.LATER["CausalDynamics"] = "bayeswm.causal"

__all__ = [  # pyright: ignore[reportUnsupportedDunderAll]
    "base",
    "inference",
    "models",
    "propagation",
    "structures",
    *_LAZY,
    *base.__all__,
    *models.__all__,
    "CausalDynamics",
    "do",
    "propagate",
    "__version__",
]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return importlib.import_module(f"bayeswm.{name}")
    if name in ("CausalDynamics", "do"):
        return getattr(importlib.import_module("bayeswm.causal"), name)
    raise AttributeError(f"module 'bayeswm' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
