"""How fast errors grow along the horizon, and how fast the system itself makes small differences grow."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import xarray as xr
from torch import Tensor

from bayeswm.base.errors import SpecError
from bayeswm.base.random import make_generator, uniform
from bayeswm.base.rollout import rollout
from bayeswm.diagnostics.forecast import Forecast, Forecasts, Windows, gather, known
from bayeswm.diagnostics.summary import Summary


def error_growth(
    forecasts: Forecasts,
    *,
    perturbation: Tensor | Sequence[float] | None = None,
    bootstrap: int = 1000,
    seed: int = 0,
) -> xr.Dataset:
    """Measure how fast errors grow, beside how fast the system pulls apart what started a little apart.

    No model of a chaotic system forecasts far: its own floor says how much of the growth is the system's. The floor is
    the distance between two particles of one world under the same noise and actions, whose starts differ in every
    variable by its perturbation, with random signs.

    Parameters
    ----------
    forecasts : Forecast or iterable of Forecast
        From :func:`forecast`; of a predictive alone or of a hidden state, there is no floor.
    perturbation : Tensor or sequence of float, shape (S,), optional
        Distance of the two starts, in each variable's unit. By default the standard deviation of the forecast of one
        step, window by window. A small one measures the growth of infinitesimal differences.
    bootstrap, seed : int
        Resamples of the cluster bootstrap; the seed is that of the floor's noise too.

    Returns
    -------
    xarray.Dataset
        By ``variable``, and by ``horizon`` but for rates:

        * ``rmse``: root mean squared error of the predictive mean, in the variable's unit; lower is better;
        * ``rate``: slope of a least-squares line through log rmse over time, in 1/s: errors grow as exp(rate t);
        * ``floor``, ``floor_rate``: the same of the two particles' distance; the rate is a Lyapunov exponent over a
          finite time if the perturbation is small;
        * ``ratio``: rmse / floor; NaN where the floor is 0;
        * each with ``_se``, ``_lower`` and ``_upper`` (95 %) from the cluster bootstrap over recordings.

        All over the same outcomes; steps without any error beyond rounding do not count in a rate.

    Raises
    ------
    SpecError
        For forecasts of fewer than 2 steps, a perturbation of another shape, or one without worlds to follow it in.

    Examples
    --------
    >>> import bayeswm as bwm
    >>> model = bwm.KnownDynamics(structure=bwm.structures.Pendulum.gymnasium(), noise=0.01)
    >>> data = bwm.Trajectories(model.schema, state=torch.zeros(9, 6, 2), action=torch.zeros(9, 5, 1))
    >>> found = error_growth(bwm.diagnostics.forecast(model, data, horizon=5))
    >>> bool((found.floor.sel(horizon=5) > found.floor.sel(horizon=1)).all())  # at rest upside down
    True
    """
    generator = make_generator(seed)
    found = gather(forecasts, lambda part: window_growth(part, perturbation=perturbation, generator=generator))
    return summarise_growth(found, bootstrap=bootstrap, seed=seed)


def window_growth(
    part: Forecast, *, perturbation: Tensor | Sequence[float] | None = None, generator: torch.Generator
) -> dict[str, Tensor]:
    """Return squared errors and squared distances from a perturbed start, each of shape (windows, H, S).

    NaN where nothing was recorded.

    Examples
    --------
    >>> import bayeswm as bwm
    >>> model = bwm.KnownDynamics(structure=bwm.structures.Pendulum.gymnasium(), noise=0.01)
    >>> data = bwm.Trajectories(model.schema, state=torch.zeros(9, 6, 2), action=torch.zeros(9, 5, 1))
    >>> part = next(bwm.diagnostics.forecast(model, data, horizon=5))
    >>> sorted(window_growth(part, generator=torch.Generator().manual_seed(0)))
    ['error', 'floor']
    """
    off = part.predictive.mean - part.outcomes
    rounding = 16 * torch.finfo(off.dtype).eps * part.outcomes.abs()
    error = torch.where(off.abs() <= rounding, 0.0, off).double().square()
    if perturbation is None and (part.worlds is None or part.past is not None):
        return {"error": error}
    floor = _squared_distance(part, perturbation, generator)
    return {"error": error, "floor": torch.where(error.isnan(), float("nan"), floor)}


def summarise_growth(found: Windows, *, bootstrap: int, seed: int) -> xr.Dataset:
    """Return errors, rates and ratio of what :func:`window_growth` gave of each window.

    Examples
    --------
    See :func:`error_growth`.
    """
    if found.horizon < 2:
        raise SpecError(f"expected forecasts of 2 steps or more, to see errors grow, got {found.horizon}")
    summary = Summary(found.recording, resamples=bootstrap, seed=seed)
    time = torch.arange(1, found.horizon + 1, dtype=torch.float64) * found.time_step

    def rate(mean: Tensor) -> Tensor:
        return _slope(0.5 * mean.log(), time.to(mean.device))

    plain = ("horizon", "variable")
    error, floor = found.values["error"], found.values.get("floor")
    attrs = {"long_name": "root mean squared error", "better": "lower"}
    summary.add("rmse", error, plain, statistic=torch.sqrt, attrs=attrs)
    attrs = {"long_name": "rate of exponential growth of the error", "units": "1/s", "better": "lower"}
    summary.add("rate", error, ("variable",), statistic=rate, attrs=attrs)
    if floor is not None:
        attrs = {"long_name": "distance of two particles whose starts differ a little"}
        summary.add("floor", floor, plain, statistic=torch.sqrt, attrs=attrs)
        attrs = {"long_name": "rate of exponential growth of small differences", "units": "1/s"}
        summary.add("floor_rate", floor, ("variable",), statistic=rate, attrs=attrs)
        attrs = {"long_name": "error relative to the growth of small differences", "better": "lower"}
        summary.add("ratio", torch.stack((error, floor), 1), plain, statistic=_ratio, attrs=attrs)
    return summary.dataset(found, coords={})


def _squared_distance(
    part: Forecast, perturbation: Tensor | Sequence[float] | None, generator: torch.Generator
) -> Tensor:
    """Return the mean over worlds of the squared distance of two particles, shape (windows, H, S)."""
    windows, worlds = known(part)
    if part.past is not None:
        raise SpecError("expected no perturbation=, since this model's state is hidden: its start is no single point")
    start = windows.states()[:, 0].to(worlds.device, worlds.dtype)
    apart = part.predictive.stddev[..., 0, :] if perturbation is None else _checked(perturbation, start)
    sign = uniform(tuple(start.shape), generator, dtype=worlds.dtype, device=worlds.device).sub(0.5).sign()
    both = torch.stack((start, start + sign * apart))

    def twice(values: Tensor) -> Tensor:
        return values.expand(2, *values.shape)

    with torch.no_grad():
        paths = rollout(
            worlds,
            both,
            twice(windows.action),
            particles=1,
            generator=generator,
            context=twice(windows.step_context()) if windows.schema.context.size else None,
            noise_batch=(1, len(start)),  # the two meet the same noise
        ).particles[:, 0]
    squared = (paths[:, 1] - paths[:, 0]).double().square()
    weight = torch.where(squared.isfinite(), worlds.log_weight.double().exp().view(-1, 1, 1, 1), 0.0)
    return torch.where(squared.isfinite(), squared, 0.0).mul(weight).sum(0) / weight.sum(0)


def _checked(perturbation: Tensor | Sequence[float], start: Tensor) -> Tensor:
    found = torch.as_tensor(perturbation).to(start)
    fits = found.shape == start.shape[-1:]
    if not fits or not bool((found.isfinite() & (found >= 0)).all()) or not bool(found.any()):
        raise SpecError(
            f"expected perturbation= of {start.shape[-1]} finite numbers, none below 0 and not all 0, "
            f"got {found.tolist()}"
        )
    return found


def _slope(values: Tensor, time: Tensor) -> Tensor:
    """Return slopes of least-squares lines over the steps that are finite, (n, H, S) to (n, S)."""
    there = values.isfinite()
    y, t = torch.where(there, values, 0.0), torch.where(there, time[:, None], 0.0)
    count = there.sum(-2, keepdim=True)
    centred = torch.where(there, t - t.sum(-2, keepdim=True) / count, 0.0)
    slope = (centred * y).sum(-2) / centred.square().sum(-2)
    return torch.where(count[..., 0, :] < 2, float("nan"), slope)


def _ratio(mean: Tensor) -> Tensor:
    return (mean[:, 0] / torch.where(mean[:, 1] > 0, mean[:, 1], float("nan"))).sqrt()
