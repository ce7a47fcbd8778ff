"""How many whole trajectories stay inside their tubes, beside what pointwise intervals promise."""

from __future__ import annotations

import torch
import xarray as xr
from torch import Tensor

from bayeswm.diagnostics.forecast import Forecast, Forecasts, Windows, gather
from bayeswm.diagnostics.intervals import interval_widths
from bayeswm.diagnostics.levels import check_level
from bayeswm.diagnostics.pointwise import central, pit
from bayeswm.diagnostics.summary import Summary
from bayeswm.diagnostics.tube import EllipsoidTube, Tube, TubeMethod
from bayeswm.diagnostics.tubes import SupT


def tube_coverage(
    forecasts: Forecasts,
    method: TubeMethod | None = None,
    *,
    level: float = 0.9,
    bootstrap: int = 1000,
    seed: int = 0,
) -> xr.Dataset:
    """Count whole trajectories inside their tubes, and inside the pointwise intervals of the same level.

    Parameters
    ----------
    forecasts : Forecast or iterable of Forecast
        What came, and rollouts of it.
    method : TubeMethod, optional
        Makes the tubes; :class:`~bayeswm.diagnostics.SupT` by default.
    level : float
        Of the tubes and of the intervals.
    bootstrap, seed : int
        Resamples and seed of the cluster bootstrap.

    Returns
    -------
    xarray.Dataset
        * ``coverage``: share of windows whose whole trajectory is inside, by ``variable`` or ``horizon`` if these have
          tubes of their own; closest to the level is best;
        * ``pointwise_coverage`` by ``horizon`` and ``variable``: of the central intervals, one step at a time;
        * ``intervals_as_tube``: share of windows that leave none of these intervals, by what the tubes are;
        * ``width`` and ``pointwise_width`` by ``horizon`` and ``variable``, in the variable's unit; lower is sharper;
        * each with ``_se``, ``_lower`` and ``_upper`` (95 %) from the cluster bootstrap over recordings.

        Steps that were not recorded do not count, nor windows of which nothing was.

    Raises
    ------
    SpecError, DataError
        If level, shapes or method do not fit.

    Examples
    --------
    >>> import bayeswm as bwm
    >>> model, g = bwm.KnownDynamics(structure=bwm.structures.Pendulum(), noise=0.1), torch.Generator().manual_seed(0)
    >>> start, still = torch.zeros(500, 2).double(), torch.zeros(500, 10, 1)
    >>> came = bwm.rollout(model, start, still, particles=1, generator=g).particles[0, 0]
    >>> p = bwm.rollout(model, start, still, particles=500, generator=g)
    >>> found = tube_coverage(bwm.diagnostics.forecast_of(p, came), level=0.9)
    >>> [round(float(found[name].mean()), 2) for name in ("coverage", "pointwise_coverage", "intervals_as_tube")]
    [0.92, 0.9, 0.5]
    """
    method = SupT() if method is None else method
    check_level(level)
    found = gather(forecasts, lambda part: window_tubes(part, method, level=level))
    return summarise_tubes(found, method, level=level, bootstrap=bootstrap, seed=seed)


def summarise_tubes(found: Windows, method: TubeMethod, *, level: float, bootstrap: int, seed: int) -> xr.Dataset:
    """Return :func:`tube_coverage` of what :func:`window_tubes` gave of each window.

    Examples
    --------
    See :func:`tube_coverage`.
    """
    inside, plain = found.values["coverage"], ("horizon", "variable")
    dims = tuple(axis for axis in plain if axis not in method.over) if inside.ndim > 1 else ()
    summary = Summary(found.recording, resamples=bootstrap, seed=seed)
    text = "share of whole trajectories inside the tube"
    summary.add("coverage", inside, dims, attrs={"long_name": text})
    text = "share of whole trajectories inside all pointwise intervals"
    summary.add("intervals_as_tube", found.values["intervals_as_tube"], dims, attrs={"long_name": text})
    text = "coverage of central intervals"
    summary.add("pointwise_coverage", found.values["pointwise_coverage"], plain, attrs={"long_name": text})
    for name, text in (("width", "width of the tube"), ("pointwise_width", "width of central intervals")):
        summary.add(name, found.values[name], plain, attrs={"long_name": text, "better": "lower"})
    data = summary.dataset(found, coords={})
    return data.assign_attrs(level=level, method=repr(method))


def window_tubes(part: Forecast, method: TubeMethod, *, level: float) -> dict[str, Tensor]:
    """Return what :func:`tube_coverage` averages, of each window; NaN where nothing was recorded, or no tube is.

    Examples
    --------
    >>> import bayeswm as bwm
    >>> model = bwm.KnownDynamics(structure=bwm.structures.Pendulum.gymnasium(), noise=1.0)
    >>> one = bwm.diagnostics.forecast_of(model.predictive(torch.zeros(3, 2), torch.zeros(3, 1)), torch.zeros(3, 1, 2))
    >>> {name: tuple(value.shape) for name, value in window_tubes(one, SupT(), level=0.9).items()}
    {'coverage': (3,), 'intervals_as_tube': (3,), 'pointwise_coverage': (3, 1, 2), 'width': (3, 1, 2),
    'pointwise_width': (3, 1, 2)}
    """
    tube, value = method(part.predictive, level=level), pit(part.predictive, part.outcomes)
    inside, lost = _inside(tube, part), tube.lower.isnan() | value.isnan()
    between = central(value, torch.tensor([level], dtype=value.dtype, device=value.device))[..., 0] == 1
    together = torch.where(inside.isnan(), float("nan"), tube.grouped(between | lost).all(-1).to(inside))
    alone = torch.where(value.isnan(), float("nan"), between.to(value))
    widths = {"width": tube.width, "pointwise_width": interval_widths(part.predictive, (level,))[..., 0]}
    return {"coverage": inside, "intervals_as_tube": together, "pointwise_coverage": alone, **widths}


def window_inside(part: Forecast, method: TubeMethod, *, level: float) -> Tensor:
    """Return whether each window's whole trajectory is inside its tube: the coverage of :func:`window_tubes` alone.

    Examples
    --------
    >>> import bayeswm as bwm
    >>> model = bwm.KnownDynamics(structure=bwm.structures.Pendulum.gymnasium(), noise=1.0)
    >>> one = bwm.diagnostics.forecast_of(model.predictive(torch.zeros(3, 2), torch.zeros(3, 1)), torch.zeros(3, 1, 2))
    >>> window_inside(one, SupT(), level=0.9).tolist()
    [1.0, 1.0, 1.0]
    """
    return _inside(method(part.predictive, level=level), part)


def _inside(tube: Tube | EllipsoidTube, part: Forecast) -> Tensor:
    lost = tube.lower.isnan() | part.outcomes.isnan()
    inside = tube.contains(torch.where(lost, float("nan"), part.outcomes.to(tube.lower)))
    return torch.where(tube.grouped(lost).all(-1), float("nan"), inside.to(tube.lower))
