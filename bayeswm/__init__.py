"""Probabilistic world models: posteriors over how a physical system moves, behind one posterior-predictive interface."""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import TYPE_CHECKING

from bayeswm import base, models, structures
from bayeswm.base import *  # noqa: F403
from bayeswm.models import *  # noqa: F403

if TYPE_CHECKING:
    from bayeswm import data, diagnostics, plot, testing

__version__ = "0.1.0.dev0"

# imported on first use: they need xarray, Gymnasium, matplotlib or Hypothesis
_LAZY = ("data", "diagnostics", "plot", "testing")

__all__ = ["base", "models", "structures", *_LAZY, *base.__all__, *models.__all__]  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> ModuleType:
    if name in _LAZY:
        return importlib.import_module(f"bayeswm.{name}")
    raise AttributeError(f"module 'bayeswm' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
