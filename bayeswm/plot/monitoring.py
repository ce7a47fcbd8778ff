"""Pictures of monitoring: evidence against a deployed model over time."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from bayeswm.base.errors import SpecError
from bayeswm.plot.axes import CYCLE, INK, QUIET, axes_or_new, plain

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.axes import Axes


def evidence_over_time(dataset: xr.Dataset, *, horizons: tuple[int, ...] = (), ax: Axes | None = None) -> Axes:
    """Draw the evidence against a model's coverage, with the threshold of the alarm and its first step.

    Parameters
    ----------
    dataset : xarray.Dataset
        From :meth:`bayeswm.diagnostics.Monitor.to_dataset`.
    horizons : tuple of int
        Draw these apart too.
    ax : Axes, optional
        Where to draw; a new figure by default.

    Returns
    -------
    Axes
        The height is logarithmic.

    Raises
    ------
    SpecError
        If the data set lacks evidence, or a horizon.

    Examples
    --------
    >>> import torch
    >>> from matplotlib.figure import Figure
    >>> from bayeswm.diagnostics import Monitor
    >>> monitor = Monitor(horizon=1)
    >>> for _ in range(5):
    ...     _ = monitor.observe(torch.zeros(1, 1))
    >>> evidence_over_time(monitor.to_dataset(), ax=Figure().subplots()).get_yscale()
    'log'
    """
    if "evidence" not in dataset:
        raise SpecError(
            f"expected a data set with 'evidence', got ({', '.join(map(str, dataset))}); make one with "
            "bayeswm.diagnostics.Monitor"
        )
    known = dataset["horizon"].values
    for h in horizons:
        if h not in known:
            raise SpecError(f"expected horizons from {known.min()} to {known.max()} steps, got {h}")
    ax = axes_or_new(ax)
    step, threshold, rate = dataset["step"].values, dataset.attrs["threshold"], dataset.attrs["false_alarm"]
    ax.axhline(threshold, color=QUIET, linestyle=(0, (4, 3)), linewidth=1, zorder=1)
    ax.annotate(
        f"alarm (false in {100 * rate:g} % at most)", (0, threshold), xycoords=("axes fraction", "data"),
        xytext=(4, 3), textcoords="offset points", color=QUIET, fontsize="small",
    )  # fmt: skip
    for i, h in enumerate(horizons):
        alone = _drawable(dataset["evidence_by_horizon"].sel(horizon=h).values)
        ax.plot(step, alone, color=CYCLE[i % len(CYCLE)], linewidth=1, alpha=0.8, label=f"{h} steps ahead")
    together = _drawable(dataset["evidence"].values)
    ax.plot(step, together, color=INK, linewidth=1.6, label="all horizons")
    first = int(dataset["alarm_step"])
    if first >= 0:
        ax.plot([first], [together[first]], color=INK, marker="o", markersize=5, linestyle="none")
    ax.set_yscale("log")
    ax.set_xlabel("step")
    ax.set_ylabel("evidence against the coverage")
    plain(ax)
    if horizons:
        ax.legend(frameon=False, fontsize="small", loc="best", handlelength=1.2)
    return ax


def _drawable(values: np.ndarray) -> np.ndarray:
    """Keep values inside what a logarithmic axis shows."""
    return values.clip(1e-12, 1e12)
