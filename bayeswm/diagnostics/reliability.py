"""Calibration at all levels: curves, their distance from the diagonal, and spread against error."""

from __future__ import annotations

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from bayeswm.base.errors import SpecError
from bayeswm.diagnostics.forecast import Forecast, Forecasts, gather
from bayeswm.diagnostics.pit_bands import ecdf_band
from bayeswm.diagnostics.pointwise import central, observed, pit
from bayeswm.diagnostics.summary import Summary

BAND = 0.95


def reliability(
    forecasts: Forecasts, *, points: int = 19, bins: int = 10, bootstrap: int = 1000, seed: int = 0
) -> xr.Dataset:
    r"""Hold forecasts against what came at all levels, and their spread against their errors.

    Parameters
    ----------
    forecasts : Forecast or iterable of Forecast
        From :func:`forecast` or :func:`forecast_of`.
    points : int
        Levels k / (points + 1).
    bins : int
        Of the predicted standard deviation, for ``ence``: as many windows in each.
    bootstrap, seed
        Resamples of recordings, and their seed.

    Returns
    -------
    xarray.Dataset
        By ``horizon`` and ``variable``:

        * ``coverage`` (by ``level``): share of outcomes inside the central interval; nearest to the level is best;
        * ``ece``: mean over the levels of its distance from the level; lower is better. Chance alone keeps it above 0;
        * ``ecdf_difference`` (by ``level``): share of PIT values up to the level, minus the level; ``band_lower`` and
          ``band_upper`` hold the whole curve with 95 % if the forecasts are calibrated and windows independent;
        * ``sharpness``: root of the mean predicted variance, in the variable's unit; lower is sharper;
        * ``spread_skill``: sharpness over the root mean squared error of the mean; 1 is best, below is overconfident;
        * ``ence``: mean over bins of \|root mean variance - rmse\| / root mean variance; lower is better;
        * each but the bands with ``_se``, ``_lower`` and ``_upper`` from the cluster bootstrap.

    Raises
    ------
    SpecError, DataError
        For arguments out of range, or no forecast.

    References
    ----------
    Kuleshov, Fenner and Ermon (2018), Accurate uncertainties for deep learning using calibrated regression; Levi,
    Gispan, Giladi and Fetaya (2022), Evaluating and calibrating uncertainty prediction in regression tasks; Fortin,
    Abaza, Anctil and Turcotte (2014), Why should ensemble spread match the RMSE of the ensemble mean?

    Examples
    --------
    >>> import bayeswm as bwm
    >>> from bayeswm.diagnostics import forecast_of
    >>> model = bwm.KnownDynamics(structure=bwm.structures.Pendulum.gymnasium(), noise=1.0)
    >>> came = 2 * torch.randn(400, 1, 2, generator=torch.Generator().manual_seed(0))
    >>> found = reliability(forecast_of(model.predictive(torch.zeros(400, 2), torch.zeros(400, 1)), came))
    >>> found.spread_skill.values.round(1)
    array([[0.5, 0.5]])
    """
    if points < 1 or bins < 1:
        raise SpecError(f"expected points >= 1 and bins >= 1, got {points} and {bins}")
    found = gather(forecasts, window_spread)
    u, variance, error = (found.values[name].double() for name in ("pit", "variance", "squared_error"))
    level = torch.arange(1, points + 1, dtype=torch.float64, device=u.device) / (points + 1)
    there = ~u.isnan()[..., None]
    inside, upto = central(u, level), torch.where(there, (u[..., None] <= level).double(), float("nan"))
    summary = Summary(found.recording, resamples=bootstrap, seed=seed)
    plain, by_level = ("horizon", "variable"), ("horizon", "variable", "level")
    summary.add("coverage", inside, by_level, attrs={"long_name": "coverage of central intervals"})
    summary.add(
        "ece", inside, plain, statistic=lambda mean: (mean - level).abs().mean(-1),
        attrs={"long_name": "expected calibration error", "better": "lower"},
    )  # fmt: skip
    attrs = {"long_name": "share of PIT values up to the level, minus the level"}
    summary.add("ecdf_difference", upto - level, by_level, attrs=attrs)
    attrs = {"long_name": "root mean predicted variance", "better": "lower"}
    summary.add("sharpness", variance, plain, statistic=torch.sqrt, attrs=attrs)
    attrs = {"long_name": "root mean predicted variance over root mean squared error, 1 is best"}
    ratio = torch.stack((variance, error), 1)
    summary.add("spread_skill", ratio, plain, statistic=lambda mean: (mean[:, 0] / mean[:, 1]).sqrt(), attrs=attrs)
    attrs = {"long_name": "expected normalised calibration error", "better": "lower"}
    summary.add("ence", _binned(variance, ratio, bins), plain, statistic=_ence, attrs=attrs)
    bands = np.full((2, *u.shape[1:], points), np.nan)
    counts = (~u.isnan()).sum(0).cpu().numpy()
    for n in np.unique(counts[counts > 0]):
        ends = ecdf_band(int(n), level, level=BAND)
        for end, values in zip(bands, ends, strict=True):
            end[counts == n] = (values - level.cpu()).numpy()
    for name, values in zip(("band_lower", "band_upper"), bands, strict=True):
        summary.arrays[name] = (by_level, values, {"long_name": f"{BAND:.0%} simultaneous band of ecdf_difference"})
    return summary.dataset(found, coords={"level": ("level", level.cpu().numpy(), {"long_name": "nominal level"})})


def window_spread(part: Forecast) -> dict[str, Tensor]:
    """Return PIT, predicted variance and squared error of the mean of each window; NaN where nothing was recorded.

    Examples
    --------
    >>> import bayeswm as bwm
    >>> from bayeswm.diagnostics import forecast_of
    >>> model = bwm.KnownDynamics(structure=bwm.structures.Pendulum.gymnasium(), noise=2.0)
    >>> one = forecast_of(model.predictive(torch.zeros(1, 2), torch.zeros(1, 1)), torch.ones(1, 1, 2))
    >>> {name: value.flatten().tolist() for name, value in window_spread(one).items() if name != "pit"}
    {'variance': [4.0, 4.0], 'squared_error': [1.0, 1.0]}
    """
    predictive = part.predictive
    x, there = observed(predictive, part.outcomes)
    values = {"variance": predictive.variance, "squared_error": (x - predictive.mean).square()}
    seen = {name: torch.where(there, value, float("nan")) for name, value in values.items()}
    return {"pit": pit(predictive, part.outcomes), **seen}


def _binned(spread: Tensor, pair: Tensor, bins: int) -> Tensor:
    """Return variance and squared error (n, 2, H, S) apart by bin, shape (n, 2, bins, H, S), NaN in other bins."""
    # ranks among what was recorded: NaN sorts last
    order = spread.argsort(dim=0, stable=True)
    rank = torch.empty_like(order).scatter_(
        0, order, torch.arange(len(order), device=order.device).view(-1, 1, 1).expand_as(order)
    )
    count = (~spread.isnan()).sum(0).clamp(min=1)
    mine = (rank * bins // count)[:, None, None] == torch.arange(bins, device=order.device).view(-1, 1, 1)
    return torch.where(mine, pair[:, :, None], float("nan"))


def _ence(mean: Tensor) -> Tensor:
    spread, error = mean[:, 0].sqrt(), mean[:, 1].sqrt()
    return ((spread - error).abs() / spread).nanmean(1)  # a bin without windows says nothing
