"""Data of the three posteriors of the sampling benchmark, and what their draws are worth: NumPy and ArviZ only."""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
from arviz_stats.base import array_stats

CLONE = Path(__file__).resolve().parent.parent
DATA = Path(os.environ.get("BAYESWM_DATA") or CLONE.parent / "shared" / "data")
NAMES = ("linear", "eight schools", "lotka-volterra")
# effective draws of the worst quantity at which a run stops
GOAL = 2000
# RK4 steps a year of the Lotka-Volterra equations in log populations, on all sides
SUBSTEPS = 4


def linear_data() -> tuple[np.ndarray, np.ndarray]:
    """Return the peers' regression: 200 rows, 7 inputs, 7 outputs; 49 weights and 7 scales make 56 quantities."""
    r = np.random.default_rng(0)
    x = r.standard_normal((200, 7)).astype(np.float32)
    w = r.standard_normal((7, 7)).astype(np.float32) * 0.3
    return x, (x @ w + 0.1 * r.standard_normal((200, 7))).astype(np.float32)


def posteriordb(name: str) -> dict[str, Any]:
    """Return the data of a posterior of posteriordb."""
    files = {
        "eight schools": "eight_schools-eight_schools_noncentered",
        "lotka-volterra": "hudson_lynx_hare-lotka_volterra",
    }
    return json.loads((DATA / "posteriordb" / f"{files[name]}.json").read_text(encoding="utf-8"))["data"]


def smallest_ess(draws: np.ndarray) -> float:
    """Return the smallest bulk effective sample size of draws (chains, draws, D), by ArviZ on all sides."""
    each = (array_stats.ess(draws[:, :, i], chain_axis=0, draw_axis=1, method="bulk") for i in range(draws.shape[2]))
    return float(min(each))
