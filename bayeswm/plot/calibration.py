"""Pictures of calibration: observed against nominal coverage."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from bayeswm.base.errors import SpecError, UnknownVariableError
from bayeswm.diagnostics.trust import at_level
from bayeswm.plot.axes import BLUE, INK, QUIET, axes_or_new, percent, plain, style, variables_of

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.axes import Axes


def coverage_by_horizon(dataset: xr.Dataset, *, level: float = 0.9, ax: Axes | None = None) -> Axes:
    """Draw how much of what came lay inside the central interval, by time ahead and variable.

    Bars are the 95 % intervals of the cluster bootstrap over recordings; the dashed line is the nominal level.
    Below it the model is too sure, above it too cautious.

    Parameters
    ----------
    dataset : xarray.Dataset
        From :func:`bayeswm.diagnostics.calibration`.
    level : float
        One of its levels.
    ax : Axes, optional
        Where to draw; a new figure by default.

    Returns
    -------
    Axes

    Raises
    ------
    SpecError
        If the data set lacks coverage or the level.

    Examples
    --------
    >>> import bayeswm as bwm, torch
    >>> from matplotlib.figure import Figure
    >>> model = bwm.KnownDynamics(structure=bwm.structures.Pendulum.gymnasium(), noise=1.0)
    >>> found = bwm.diagnostics.calibration_of(model.predictive(torch.zeros(9, 2), torch.zeros(1)), torch.ones(9, 1, 2))
    >>> coverage_by_horizon(found, ax=Figure().subplots()).get_ylabel()
    'coverage of 90 % intervals'
    """
    _check(dataset, "coverage")
    at = at_level(dataset, level)
    ax = axes_or_new(ax)
    time = at["time"].values
    ax.axhline(level, color=QUIET, linestyle=(0, (4, 3)), linewidth=1, zorder=1)
    names = variables_of(dataset)
    ends = [(level, "nominal", QUIET)]
    gap = 0.12 * (time[1] - time[0]) if len(time) > 1 else 0.0
    for i, name in enumerate(names):
        one = at.sel(variable=name)
        shift = gap * (i - (len(names) - 1) / 2)  # so that bars of one horizon do not hide each other
        _points(ax, time + shift, one, index=i, line=True)
        ends.append((float(one["coverage"].values[-1]), name, style(i)["color"]))
    ax.set_xlabel("time ahead (s)")
    ax.set_ylabel(f"coverage of {percent(level)} intervals")
    low = float(np.nanmin([at["coverage"].min(), at["coverage_lower"].min(), level]))
    ax.set_ylim(max(0.0, low - 0.05), 1.005)
    plain(ax)
    _label_ends(ax, ends)
    return ax


def calibration_curve(dataset: xr.Dataset, *, horizon: int, ax: Axes | None = None) -> Axes:
    """Draw observed against nominal coverage at one horizon; a calibrated model lies on the diagonal.

    The lines count PIT values at every level, the points are the levels of the data set with 95 % intervals of the
    cluster bootstrap over recordings. Below the diagonal the model is too sure.

    Parameters
    ----------
    dataset : xarray.Dataset
        From :func:`bayeswm.diagnostics.calibration`.
    horizon : int
        Steps ahead.
    ax : Axes, optional
        Where to draw; a new figure by default.

    Returns
    -------
    Axes

    Raises
    ------
    SpecError
        If the data set lacks the horizon, or what is drawn.

    Examples
    --------
    >>> import bayeswm as bwm, torch
    >>> from matplotlib.figure import Figure
    >>> model = bwm.KnownDynamics(structure=bwm.structures.Pendulum.gymnasium(), noise=1.0)
    >>> found = bwm.diagnostics.calibration_of(model.predictive(torch.zeros(9, 2), torch.zeros(1)), torch.ones(9, 1, 2))
    >>> calibration_curve(found, horizon=1, ax=Figure().subplots()).get_xlabel()
    'nominal coverage'
    """
    _check(dataset, "coverage", "pit")
    at = _at_horizon(dataset, horizon)
    ax = axes_or_new(ax)
    ax.plot([0, 1], [0, 1], color=QUIET, linestyle=(0, (4, 3)), linewidth=1, zorder=1)
    level = np.linspace(0, 1, 201)
    for i, name in enumerate(variables_of(dataset)):
        one = at.sel(variable=name)
        # a PIT value lies in the central interval of every level from twice its distance to one half upwards
        distance = np.sort(2 * np.abs(one["pit"].dropna("window").values - 0.5))
        share = np.searchsorted(distance, level, side="right") / max(len(distance), 1)
        ax.plot(level, share, color=style(i)["color"], linewidth=1, alpha=0.7)
        _points(ax, one["level"].values, one, index=i, line=False)
    ax.set_xlabel("nominal coverage")
    ax.set_ylabel(f"observed coverage, {float(at['time']):g} s ahead")
    ax.set_xlim(0, 1.01)
    ax.set_ylim(0, 1.01)
    ax.set_aspect("equal")
    plain(ax)
    ax.legend(frameon=False, fontsize="small", loc="upper left", handlelength=1.2)
    return ax


def pit_histogram(dataset: xr.Dataset, variable: str, *, horizon: int, bins: int = 10, ax: Axes | None = None) -> Axes:
    """Draw the density of the PIT values of one variable at one horizon; flat is calibrated.

    A valley in the middle means intervals too narrow, a hill too wide, a slope a bias. One horizon at a time: the
    values of one trajectory are dependent.

    Parameters
    ----------
    dataset : xarray.Dataset
        From :func:`bayeswm.diagnostics.calibration`.
    variable : str
        Which column.
    horizon : int
        Steps ahead.
    bins : int
        Bars.
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
    >>> found = bwm.diagnostics.calibration_of(model.predictive(torch.zeros(9, 2), torch.zeros(1)), torch.ones(9, 1, 2))
    >>> len(pit_histogram(found, "angle", horizon=1, ax=Figure().subplots()).patches)
    10
    """
    _check(dataset, "pit")
    names = variables_of(dataset)
    if variable not in names:
        raise UnknownVariableError.of(variable, names)
    if bins < 1:
        raise SpecError(f"expected bins >= 1, got {bins}")
    at = _at_horizon(dataset, horizon)
    values = at["pit"].sel(variable=variable).dropna("window").values
    ax = axes_or_new(ax)
    ax.hist(values, bins=np.linspace(0, 1, bins + 1).tolist(), density=True, color=BLUE, alpha=0.55, edgecolor="white")
    ax.axhline(1.0, color=INK, linestyle=(0, (4, 3)), linewidth=1)
    ax.set_xlabel(f"PIT of {variable}, {float(at['time']):g} s ahead")
    ax.set_ylabel("density")
    ax.set_xlim(0, 1)
    plain(ax)
    return ax


def _points(ax: Axes, x: np.ndarray, one: xr.Dataset, *, index: int, line: bool) -> None:
    name = str(one["variable"].item())
    y = one["coverage"].values
    bars = np.stack((y - one["coverage_lower"].values, one["coverage_upper"].values - y)).clip(min=0)
    look: dict[str, Any] = {"markersize": 3.6, "linewidth": 1.2, "elinewidth": 1, "capsize": 0, **style(index)}
    ax.errorbar(x, y, yerr=bars, linestyle="-" if line else "none", label=name, **look)


def _label_ends(ax: Axes, ends: list[tuple[float, str, str]]) -> None:
    """Write names (height, name, colour) beside the ends of their lines, and again whenever the limits change."""
    ends = [end for end in sorted(ends) if np.isfinite(end[0])]
    texts = [
        ax.annotate(
            name, (1.0, height), xycoords=("axes fraction", "data"), xytext=(4, 0), textcoords="offset points",
            va="center", color=color, annotation_clip=False,
        )
        for height, name, color in ends
    ]  # fmt: skip

    def place(ax: Axes) -> None:
        low, high = sorted(ax.get_ylim())
        seen = [(height, text) for (height, *_), text in zip(ends, texts, strict=True) if low <= height <= high]
        for text in texts:
            text.set_visible(any(text is other for _, other in seen))
        for (_, text), y in zip(seen, _apart([height for height, _ in seen], low, high), strict=True):
            text.xy = (1.0, y)

    place(ax)
    ax.callbacks.connect("ylim_changed", place)


def _apart(heights: list[float], low: float, high: float) -> list[float]:
    """Return places for labels of ascending heights, moved apart where they would overlap, and within the frame."""
    if not heights:
        return []
    room = 0.075 * (high - low)
    place: list[float] = []
    for height in heights:
        place.append(max(height, place[-1] + room) if place else height)
    # as much above their lines as below, and none beyond the frame
    over = max(0.5 * sum(y - h for y, h in zip(place, heights, strict=True)) / len(place), place[-1] - high)
    return [y - over for y in place]


def _check(dataset: xr.Dataset, *names: str) -> None:
    for name in names:
        if name not in dataset:
            raise SpecError(
                f"expected a data set with {name!r}, got ({', '.join(map(str, dataset))}); "
                "make one with bayeswm.diagnostics.calibration"
            )


def _at_horizon(dataset: xr.Dataset, horizon: int) -> xr.Dataset:
    steps = dataset["horizon"].values
    if horizon not in steps:
        raise SpecError(f"expected a horizon from {steps.min()} to {steps.max()} steps, got {horizon}")
    return dataset.sel(horizon=horizon)
