"""A report on one page."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from bayeswm.base.errors import SpecError
from bayeswm.plot.axes import CYCLE, INK, QUIET, plain, variables_of, with_unit
from bayeswm.plot.calibration import calibration_curve, coverage_by_horizon, pit_histogram

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def report(dataset: xr.Dataset) -> Figure:
    """Draw a report on one page: coverage, calibration, PIT, and for each variable errors beside predicted spread.

    Parameters
    ----------
    dataset : xarray.Dataset
        From :func:`bayeswm.diagnostics.report`.

    Returns
    -------
    Figure
        The verdict stands below the pictures.

    Raises
    ------
    SpecError
        For another data set.

    Examples
    --------
    >>> import torch, bayeswm as bwm
    >>> model = bwm.KnownDynamics(structure=bwm.structures.Pendulum.gymnasium(), noise=1.0)
    >>> g = torch.Generator().manual_seed(0)
    >>> data = bwm.data.simulate(model, torch.zeros(20, 2), torch.zeros(3, 1), generator=g)
    >>> len(report(bwm.diagnostics.report(model, data, horizon=3)).axes)
    6
    """
    if "verdict" not in dataset.attrs or "total_sd" not in dataset:
        raise SpecError("expected a data set of bayeswm.diagnostics.report, got one without a verdict")
    from matplotlib.figure import Figure

    names = variables_of(dataset)
    last, level = int(dataset["horizon"].values[-1]), float(dataset.attrs["level"])
    rows = 1 + math.ceil((len(names) + 1) / 3)
    figure = Figure(figsize=(11.0, 3.1 * rows + 0.25 * (len(names) + 2)), layout="constrained")
    places = list(figure.subplots(rows, 3, squeeze=False).flat)
    coverage_by_horizon(dataset, level=level, ax=places[0])
    for ax, step in zip(places[1:3], (1, last), strict=True):
        calibration_curve(dataset, horizon=step, ax=ax)
        ax.set_title(f"{step} step{'s' if step > 1 else ''} ahead", fontsize="medium")
    for i, name in enumerate(names):
        _errors(dataset, name, ax=places[3 + i])
    free = places[3 + len(names)]
    worst = int(dataset["calibration_p"].sel(horizon=last).fillna(1.0).values.argmin())
    pit_histogram(dataset, names[worst], horizon=last, ax=free)
    for ax in places[4 + len(names) :]:
        ax.remove()
    figure.supxlabel(dataset.attrs["verdict"], x=0.02, ha="left", fontsize="medium", color=INK)
    return figure


def _errors(dataset: xr.Dataset, name: str, *, ax: Axes) -> None:
    """Root mean squared error by time ahead, beside what the model expects."""
    one = dataset.sel(variable=name)
    time = one["time"].values
    ax.plot(time, one["rmse"], color=INK, linewidth=1.6, label="error (RMSE)")
    if "one_step_rmse" in one:
        ax.plot(time, one["one_step_rmse"], color=INK, linewidth=1, linestyle=":", label="error, one step")
    for i, (part, text) in enumerate((("total_sd", "predicted sd"), ("epistemic_sd", "between worlds"))):
        if part in one:
            ax.plot(time, one[part], color=CYCLE[i], linewidth=1.3, linestyle="--" if i else "-", label=text)
    ax.set_ylim(bottom=0)
    ax.set_xlabel("time ahead (s)")
    ax.set_ylabel(with_unit(name, str(one["unit"].item())))
    ax.legend(frameon=False, fontsize="small", labelcolor=INK)
    ax.tick_params(colors=QUIET, labelcolor=INK)
    plain(ax)
