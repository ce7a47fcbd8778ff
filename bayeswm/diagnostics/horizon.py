"""Errors of the predictive mean by horizon: one step at a time and running freely."""

from __future__ import annotations

import torch
import xarray as xr
from torch import Tensor

from bayeswm.base.model import DynamicsModel
from bayeswm.base.trajectories import Trajectories
from bayeswm.base.worlds import Worlds
from bayeswm.diagnostics.forecast import Forecast, Forecasts, Windows, forecast, gather, known
from bayeswm.diagnostics.one_step import one_step
from bayeswm.diagnostics.summary import Summary


def errors(
    model: DynamicsModel | Worlds,
    trajectories: Trajectories,
    *,
    horizon: int,
    stride: int | None = None,
    worlds: int = 64,
    particles: int | None = None,
    seed: int = 0,
    bootstrap: int = 1000,
    fresh_worlds: bool = False,
    history: int | None = None,
) -> xr.Dataset:
    """Measure how the error of the predictive mean grows along the horizon.

    Parameters
    ----------
    model, trajectories, horizon, stride, worlds, particles, seed, bootstrap, fresh_worlds, history
        As in :func:`bayeswm.diagnostics.calibration`.

    Returns
    -------
    xarray.Dataset
        By ``horizon`` (integer steps from 1; ``time`` in s is a coordinate) and ``variable``:

        * ``mse``, ``rmse``: of the free-running forecast, squared or in the variable's unit; lower is better;
        * ``r2``: 1 - mse / variance of the recorded change since the start of the window; 1 is best, 0 is no better
          than the mean change;
        * ``correlation``: between predicted and recorded change since the start: whether long forecasts still follow;
        * ``one_step_mse``, ``one_step_rmse``: of forecasts of the same outcomes from the recorded state before each,
          or from all measurements up to it where the state is hidden;
        * each with ``_se``, ``_lower`` and ``_upper`` (95 %) from the cluster bootstrap over recordings.

        Changes, not states, because angles live on a lift of their own in each trajectory.

    Raises
    ------
    SpecError, DataError
        If data and model do not fit, or no window is long enough.

    Warns
    -----
    UndefinedWarning, EstimateWarning
        If all windows come from one recording (errors are NaN), or from fewer than 5.

    Examples
    --------
    >>> import bayeswm as bwm
    >>> model = bwm.KnownDynamics(structure=bwm.structures.Pendulum.gymnasium(), noise=0.0)
    >>> starts = torch.randn(30, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    >>> states = torch.cat((starts[:, None], bwm.rollout(model, starts, torch.zeros(5, 1), particles=1).mean), 1)
    >>> data = bwm.Trajectories(model.schema, state=states, action=torch.zeros(30, 5, 1))
    >>> errors(model, data, horizon=5).r2.sel(horizon=5).values
    array([1., 1.])
    """
    parts = forecast(
        model,
        trajectories,
        horizon=horizon,
        stride=stride,
        worlds=worlds,
        particles=particles,
        seed=seed,
        fresh_worlds=fresh_worlds,
        history=history,
    )
    return errors_of_parts(parts, bootstrap=bootstrap, seed=seed)


def errors_of_parts(parts: Forecasts, *, bootstrap: int = 1000, seed: int = 0) -> xr.Dataset:
    """Return the errors of forecasts that :func:`forecast` made.

    Examples
    --------
    >>> import bayeswm as bwm
    >>> model = bwm.KnownDynamics(structure=bwm.structures.Pendulum.gymnasium(), noise=0.01)
    >>> data = bwm.Trajectories(model.schema, state=torch.zeros(9, 6, 2), action=torch.zeros(9, 5, 1))
    >>> dict(errors_of_parts(forecast(model, data, horizon=5)).rmse.sizes)
    {'horizon': 5, 'variable': 2}
    """
    return summarise_errors(gather(parts, window_changes), bootstrap=bootstrap, seed=seed)


def summarise_errors(found: Windows, *, bootstrap: int, seed: int) -> xr.Dataset:
    """Return the errors of what :func:`window_changes` gave of each window.

    Examples
    --------
    See :func:`errors_of_parts`.
    """
    mean, change, step = (found.values[name].double() for name in ("predicted", "recorded", "one_step"))
    summary = Summary(found.recording, resamples=bootstrap, seed=seed)
    dims = ("horizon", "variable")
    squared = {"mse": (mean - change).square(), "one_step_mse": (step - change).square()}
    for name, values in squared.items():
        kind = "one step from the recorded state" if name.startswith("one") else "running freely"
        attrs = {"long_name": f"mean squared error, {kind}", "better": "lower"}
        summary.add(name, values, dims, attrs=attrs)
        attrs = {"long_name": f"root mean squared error, {kind}", "better": "lower"}
        summary.add(name.replace("mse", "rmse"), values, dims, statistic=torch.sqrt, attrs=attrs)
    moments = _moments(mean, change)
    attrs = {"long_name": "explained share of the variance of changes", "better": "higher"}
    summary.add("r2", moments, dims, statistic=_r2, attrs=attrs)
    attrs = {"long_name": "correlation of predicted and recorded changes", "better": "higher"}
    summary.add("correlation", moments, dims, statistic=_correlation, attrs=attrs)
    return summary.dataset(found, coords={})


def window_changes(part: Forecast) -> dict[str, Tensor]:
    """Return predicted, recorded and one-step-predicted changes since the start of each window, (windows, H, S).

    Examples
    --------
    >>> import bayeswm as bwm
    >>> model = bwm.KnownDynamics(structure=bwm.structures.Pendulum.gymnasium(), noise=0.01)
    >>> data = bwm.Trajectories(model.schema, state=torch.zeros(9, 6, 2), action=torch.zeros(9, 5, 1))
    >>> sorted(window_changes(next(forecast(model, data, horizon=5))))
    ['one_step', 'predicted', 'recorded']
    """
    windows, worlds = known(part)
    states = windows.states() if part.past is None else windows.measured_as(worlds.schema)
    start = states[:, :1].to(part.outcomes)
    made = {"predicted": part.predictive.mean, "recorded": part.outcomes, "one_step": one_step_means(part)}
    return {name: values - start for name, values in made.items()}


def one_step_means(part: Forecast) -> Tensor:
    """Return the predicted mean of each outcome from the recorded state before it, shape (windows, H, S).

    NaN where that state was not recorded. Where the state is hidden, from all measurements up to that step.

    Examples
    --------
    >>> import bayeswm as bwm
    >>> model = bwm.KnownDynamics(structure=bwm.structures.Pendulum.gymnasium(), noise=0.01)
    >>> data = bwm.Trajectories(model.schema, state=torch.zeros(9, 6, 2), action=torch.zeros(9, 5, 1))
    >>> one_step_means(next(forecast(model, data, horizon=5))).shape
    torch.Size([9, 5, 2])
    """
    (step,) = one_step(part)
    mean = step.predictive.mean
    if part.past is not None:
        return mean
    unknown = known(part)[0].states()[:, :-1].isnan().any(-1, keepdim=True)
    return torch.where(unknown.to(mean.device), float("nan"), mean)


def _moments(predicted: Tensor, recorded: Tensor) -> Tensor:
    """Return (m, y, m^2, y^2, m y, (m - y)^2), centred, shape (windows, 6, H, S); NaN where nothing was recorded."""
    predicted = torch.where(recorded.isnan(), float("nan"), predicted)
    m, y = predicted - predicted.nanmean(0), recorded - recorded.nanmean(0)
    return torch.stack((m, y, m.square(), y.square(), m * y, (predicted - recorded).square()), 1)


def _r2(mean: Tensor) -> Tensor:
    spread = mean[:, 3] - mean[:, 1].square()
    # a constant record has no variance to explain; what rounding leaves of it is none either
    return 1 - mean[:, 5] / torch.where(spread > 1e-15 * mean[:, 3], spread, float("nan"))


def _correlation(mean: Tensor) -> Tensor:
    spread = (mean[:, 2] - mean[:, 0].square()) * (mean[:, 3] - mean[:, 1].square())
    flat = spread <= 1e-28 * mean[:, 2] * mean[:, 3]
    return (mean[:, 4] - mean[:, 0] * mean[:, 1]) / torch.where(flat, float("nan"), spread).sqrt()
