"""Pictures of calibration at all levels, and of events."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from bayeswm.base.errors import SpecError, UnknownVariableError
from bayeswm.plot.axes import BLUE, INK, QUIET, axes_or_new, plain, variables_of

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.axes import Axes


def pit_ecdf(dataset: xr.Dataset, variable: str, *, horizon: int, ax: Axes | None = None) -> Axes:
    """Draw the distribution function of the PIT values minus the diagonal, with its band.

    Calibrated forecasts of independent windows leave the band anywhere in 5 % of cases. A curve first above 0 and then
    below is that of intervals too narrow, the other way round too wide; one side only is a bias.

    Parameters
    ----------
    dataset : xarray.Dataset
        From :func:`bayeswm.diagnostics.reliability`.
    variable : str
        Which column.
    horizon : int
        Steps ahead.
    ax : Axes, optional
        Where to draw; a new figure by default.

    Returns
    -------
    Axes

    Raises
    ------
    SpecError, UnknownVariableError
        If the data set lacks what is asked for.

    Examples
    --------
    >>> import bayeswm as bwm, torch
    >>> from matplotlib.figure import Figure
    >>> model = bwm.KnownDynamics(structure=bwm.structures.Pendulum.gymnasium(), noise=1.0)
    >>> p = model.predictive(torch.zeros(9, 2), torch.zeros(1))
    >>> found = bwm.diagnostics.reliability(bwm.diagnostics.forecast_of(p, torch.ones(9, 1, 2)))
    >>> pit_ecdf(found, "angle", horizon=1, ax=Figure().subplots()).get_xlabel()
    'PIT of angle, 0.05 s ahead'
    """
    _check(dataset, "ecdf_difference", "reliability")
    names, steps = variables_of(dataset), dataset["horizon"].values
    if variable not in names:
        raise UnknownVariableError.of(variable, names)
    if horizon not in steps:
        raise SpecError(f"expected a horizon from {steps.min()} to {steps.max()} steps, got {horizon}")
    at = dataset.sel(horizon=horizon, variable=variable)
    level = np.concatenate(([0.0], at["level"].values, [1.0]))

    def whole(name: str) -> np.ndarray:
        return np.concatenate(([0.0], at[name].values, [0.0]))

    ax = axes_or_new(ax)
    ax.fill_between(
        level,
        whole("band_lower"),
        whole("band_upper"),
        color=QUIET,
        alpha=0.25,
        linewidth=0,
        label="95 % if calibrated",
    )
    ax.axhline(0.0, color=INK, linestyle=(0, (4, 3)), linewidth=1)
    ax.plot(level, whole("ecdf_difference"), color=BLUE, linewidth=1.6, label="forecasts")
    ax.set_xlabel(f"PIT of {variable}, {float(at['time']):g} s ahead")
    ax.set_ylabel("share up to it, minus it")
    ax.set_xlim(0, 1)
    plain(ax)
    ax.legend(frameon=False, fontsize="small", loc="upper right")
    return ax


def reliability_diagram(dataset: xr.Dataset, *, horizon: int | None = None, ax: Axes | None = None) -> Axes:
    """Draw how often an event came against how often it was predicted to; calibrated is the diagonal.

    Bars are 95 % intervals of the cluster bootstrap over recordings; the areas of the points tell how many windows.

    Parameters
    ----------
    dataset : xarray.Dataset
        From :func:`bayeswm.diagnostics.event_reliability`.
    horizon : int, optional
        Steps ahead; needed where the event is one by each step.
    ax : Axes, optional
        Where to draw; a new figure by default.

    Returns
    -------
    Axes

    Raises
    ------
    SpecError
        If the data set lacks what is asked for.

    Examples
    --------
    >>> import bayeswm as bwm, torch
    >>> from matplotlib.figure import Figure
    >>> model = bwm.KnownDynamics(structure=bwm.structures.Pendulum.gymnasium(), noise=0.1)
    >>> g = torch.Generator().manual_seed(0)
    >>> made = bwm.rollout(model, torch.zeros(9, 2), torch.zeros(9, 5, 1), generator=g)
    >>> one = bwm.diagnostics.forecast_of(made, made.particles[0, 0])
    >>> found = bwm.diagnostics.event_reliability(one, lambda x: (x[..., 0] > 0).any(-1))
    >>> reliability_diagram(found, ax=Figure().subplots()).get_xlabel()
    'predicted probability'
    """
    _check(dataset, "frequency", "event_reliability")
    if ("horizon" in dataset["frequency"].dims) != (horizon is not None):
        raise SpecError("expected horizon= for an event by each step, and none for one of whole trajectories")
    if horizon is not None:
        if horizon not in dataset["horizon"].values:
            raise SpecError(f"expected a horizon up to {int(dataset['horizon'].max())} steps, got {horizon}")
        dataset = dataset.sel(horizon=horizon)
    at = dataset.isel(bin=np.flatnonzero(dataset["count"].values > 0))
    x, y = at["probability"].values, at["frequency"].values
    bars = np.stack((y - at["frequency_lower"].values, at["frequency_upper"].values - y)).clip(min=0)
    ax = axes_or_new(ax)
    ax.plot([0, 1], [0, 1], color=QUIET, linestyle=(0, (4, 3)), linewidth=1, zorder=1)
    ax.errorbar(x, y, yerr=bars, color=BLUE, linewidth=1.2, elinewidth=1, zorder=2)
    ax.scatter(x, y, s=12 + 150 * at["count"].values / at["count"].values.sum(), color=BLUE, zorder=3)
    ax.set_xlabel("predicted probability")
    ax.set_ylabel("observed frequency")
    ax.set_xlim(-0.02, 1.02)
    ax.set_ylim(-0.02, 1.02)
    ax.set_aspect("equal")
    plain(ax)
    return ax


def _check(dataset: xr.Dataset, name: str, maker: str) -> None:
    if name not in dataset:
        raise SpecError(
            f"expected a data set with {name!r}, got ({', '.join(map(str, dataset))}); "
            f"make one with bayeswm.diagnostics.{maker}"
        )
