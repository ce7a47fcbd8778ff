"""How far a model's uncertainty can be trusted: coverage, scores and PIT by horizon and variable."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import xarray as xr
from torch import Tensor

from bayeswm.base.model import DynamicsModel
from bayeswm.base.predictive import Predictive
from bayeswm.base.trajectories import Trajectories
from bayeswm.base.worlds import Worlds
from bayeswm.diagnostics.forecast import Forecast, Forecasts, Windows, forecast, forecast_of, gather
from bayeswm.diagnostics.intervals import interval_widths
from bayeswm.diagnostics.joint_null import JointNull
from bayeswm.diagnostics.levels import check_levels
from bayeswm.diagnostics.pointwise import central, crps, observed, pit
from bayeswm.diagnostics.summary import Summary, as_numpy, window_coords

LEVELS = (0.5, 0.8, 0.9, 0.95)


def calibration(
    model: DynamicsModel | Worlds,
    trajectories: Trajectories,
    *,
    horizon: int,
    levels: Sequence[float] = LEVELS,
    stride: int | None = None,
    worlds: int = 64,
    particles: int | None = None,
    seed: int = 0,
    bootstrap: int = 1000,
    fresh_worlds: bool = False,
    history: int | None = None,
) -> xr.Dataset:
    """Hold a model's forecasts against recorded trajectories.

    Each window of the trajectories is forecast from its first state under its recorded actions; the scores of each
    step and variable are averaged over windows. The recording is the unit of the errors.

    Parameters
    ----------
    model : DynamicsModel or Worlds
        What to judge.
    trajectories : Trajectories
        Data that the model was not fitted to.
    horizon : int
        Steps of each forecast.
    levels : sequence of float
        Of the central intervals.
    stride : int, optional
        Steps between the starts of two windows; ``horizon`` by default.
    worlds : int
        As in :func:`bayeswm.rollout`.
    particles : int, optional
        In each world; by default 20, and more where the worlds are so few that it takes more for 100 in all. Few draws
        make the predictive itself rough: with n of them the 90 % interval of an exact model covers about 0.6 / n less.
    seed : int
        Of the forecasts and of the bootstrap.
    bootstrap : int
        Resamples of the cluster bootstrap.
    fresh_worlds : bool
        As in :func:`bayeswm.rollout`.
    history : int, optional
        With a hidden state: steps before each window whose measurements the model filters; by default all since the
        episode's beginning. Forecasts are then of measurements; windows with a shorter past are left out.

    Returns
    -------
    xarray.Dataset
        By ``horizon`` (integer steps from 1; ``time`` in s is a coordinate) and ``variable``:

        * ``coverage`` (by ``level``): share of outcomes inside the central interval; closest to the level is best;
        * ``width`` (by ``level``): mean width of the interval, in the variable's unit; lower is sharper;
        * ``crps``: in the variable's unit, lower is better; ``log_score``: mean log density, higher is better;
        * ``mse`` and ``rmse`` of the predictive mean; lower is better;
        * each with ``_se`` (standard error), ``_lower`` and ``_upper`` (95 % interval), from the cluster bootstrap;
        * ``log_score_mc_se`` and ``log_score_kernels``: mean Monte Carlo standard error of a single log density and
          the mean number of particles that effectively contribute to it (infinite where it is exact);
        * ``pit`` by ``window``: uniform if calibrated, one horizon at a time; ``recording`` and ``start`` say where a
          window is. The log score is absent for predictives without a density;
        * ``calibration_statistic`` and ``calibration_p``: a test of each cell alone. The attributes
          ``calibration_statistic`` and ``calibration_p_value`` are those of all together, the ones to go by: valid
          whatever the dependence along the horizon (:func:`calibration_test`). They rest on the
          ``calibration_windows`` that neither overlap nor share a recording's own noise (:class:`JointNull`).

    Raises
    ------
    SpecError, DataError
        If data and model do not fit, or no window is long enough.

    Warns
    -----
    UndefinedWarning, EstimateWarning
        If all windows come from one recording (errors are NaN), or from fewer than 5.

    References
    ----------
    Gneiting, Balabdaoui and Raftery (2007), Probabilistic forecasts, calibration and sharpness.

    Examples
    --------
    >>> import bayeswm as bwm
    >>> truth = bwm.KnownDynamics(structure=bwm.structures.Pendulum.gymnasium(), noise=0.05)
    >>> starts = torch.zeros(200, 2, dtype=torch.float64)
    >>> paths = bwm.rollout(truth, starts, torch.zeros(10, 1), particles=1, generator=torch.Generator().manual_seed(1))
    >>> states = torch.cat((starts[:, None], paths.particles[0, 0]), 1)
    >>> data = bwm.Trajectories(truth.schema, state=states, action=torch.zeros(200, 10, 1))
    >>> found = calibration(truth, data, horizon=10).sel(horizon=10, variable="angle", level=0.9)
    >>> round(found.coverage.item(), 2), round(found.coverage_se.item(), 2)
    (0.9, 0.02)
    """
    levels = check_levels(levels)
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
    return calibration_of_parts(parts, levels=levels, bootstrap=bootstrap, seed=seed)


def calibration_of(
    predictive: Predictive,
    outcomes: Tensor,
    *,
    cluster: Tensor | None = None,
    levels: Sequence[float] = LEVELS,
    bootstrap: int = 1000,
    seed: int = 0,
) -> xr.Dataset:
    """Hold one predictive against what came; see :func:`calibration`.

    Parameters
    ----------
    predictive : Predictive
        With any batch shape: its entries are the windows.
    outcomes : Tensor, shape (*batch, H, S)
        What came, x[1..H]; NaN where nothing was recorded.
    cluster : Tensor, shape (*batch,), optional
        The recording of each window; by default each is one of its own.
    levels, bootstrap, seed
        As in :func:`calibration`.

    Returns
    -------
    xarray.Dataset
        As of :func:`calibration`.

    Raises
    ------
    DataError
        If shapes do not fit.

    Examples
    --------
    >>> import bayeswm as bwm
    >>> model = bwm.KnownDynamics(structure=bwm.structures.Pendulum.gymnasium(), noise=1.0)
    >>> p = model.predictive(torch.zeros(20, 2), torch.zeros(20, 1))
    >>> calibration_of(p, torch.zeros(20, 1, 2)).crps.values.round(4)
    array([[0.2337, 0.2337]])
    """
    made = forecast_of(predictive, outcomes, recording=cluster)
    return calibration_of_parts(made, levels=levels, bootstrap=bootstrap, seed=seed)


def calibration_of_parts(
    parts: Forecasts, *, levels: Sequence[float] = LEVELS, bootstrap: int = 1000, seed: int = 0
) -> xr.Dataset:
    """Return the calibration of forecasts that :func:`forecast` made.

    Examples
    --------
    >>> import bayeswm as bwm
    >>> model = bwm.KnownDynamics(structure=bwm.structures.Pendulum.gymnasium(), noise=0.01)
    >>> data = bwm.Trajectories(model.schema, state=torch.zeros(9, 6, 2), action=torch.zeros(9, 5, 1))
    >>> dict(calibration_of_parts(forecast(model, data, horizon=5)).coverage.sizes)
    {'horizon': 5, 'variable': 2, 'level': 4}
    """
    levels = check_levels(levels)
    null = JointNull(seed=seed)

    def scores(part: Forecast) -> dict[str, Tensor]:
        null.add(part)
        return window_scores(part.predictive, part.outcomes, levels)

    found = gather(parts, scores)
    return with_test(summarise_calibration(found, levels=levels, bootstrap=bootstrap, seed=seed), null)


def with_test(dataset: xr.Dataset, null: JointNull) -> xr.Dataset:
    """Return a data set by horizon and variable with the test of calibration.

    Examples
    --------
    >>> import bayeswm as bwm
    >>> model = bwm.KnownDynamics(structure=bwm.structures.Pendulum.gymnasium(), noise=1.0)
    >>> one = forecast_of(model.predictive(torch.zeros(20, 2), torch.zeros(20, 1)), torch.zeros(20, 1, 2))
    >>> null = JointNull(seed=0)
    >>> null.add(one)
    >>> with_test(calibration_of_parts(one), null).attrs["calibration_windows"]
    20
    """
    test, dims = null.result(), ("horizon", "variable")
    text = "n mean(z)^2 + (sum z^2 - n)^2 / 2n of normal scores; about 2 if calibrated"
    found = dataset.assign(
        calibration_statistic=(dims, as_numpy(test.by_cell), {"long_name": text, "better": "lower"}),
        calibration_p=(dims, as_numpy(test.p_by_cell), {"long_name": "p-value of calibration, this cell alone"}),
    )
    way = "simulated trajectories of the forecasts themselves" if null.simulated else "Cauchy combination of the cells"
    return found.assign_attrs(
        calibration_statistic=float(test.statistic),
        calibration_p_value=float(test.p_value),
        calibration_windows=null.windows,
        calibration_test=f"all horizons and variables together, against {way}",
    )


def window_scores(predictive: Predictive, outcomes: Tensor, levels: Sequence[float]) -> dict[str, Tensor]:
    """Return the scores of each window, shape (windows, H, S) or (windows, H, S, levels); NaN for missing outcomes.

    The predictive has one batch axis, the windows.

    Examples
    --------
    >>> import bayeswm as bwm
    >>> model = bwm.KnownDynamics(structure=bwm.structures.Pendulum.gymnasium(), noise=1.0)
    >>> p = model.predictive(torch.zeros(3, 2), torch.zeros(3, 1))
    >>> {name: tuple(value.shape) for name, value in window_scores(p, torch.zeros(3, 1, 2), (0.9,)).items()}
    {'pit': (3, 1, 2), 'coverage': (3, 1, 2, 1), 'width': (3, 1, 2, 1), 'crps': (3, 1, 2), 'mse': (3, 1, 2),
    'log_score': (3, 1, 2), 'log_score_mc_se': (3, 1, 2), 'log_score_kernels': (3, 1, 2)}
    """
    x, there = observed(predictive, outcomes)

    def seen(values: Tensor) -> Tensor:
        return torch.where(there, values, float("nan"))

    found = {"pit": pit(predictive, outcomes)}
    level = torch.tensor(list(levels), dtype=found["pit"].dtype, device=x.device)
    found["coverage"] = central(found["pit"], level)
    found["width"] = interval_widths(predictive, levels)
    found["crps"] = crps(predictive, outcomes)
    found["mse"] = seen((x - predictive.mean).square())
    if predictive.has_density:
        score = predictive.log_score(x, marginal=True)
        found["log_score"] = seen(score.value)
        found["log_score_mc_se"], found["log_score_kernels"] = seen(score.standard_error), seen(score.kernels)
    return found


def summarise_calibration(found: Windows, *, levels: Sequence[float], bootstrap: int, seed: int) -> xr.Dataset:
    """Return the calibration of what :func:`window_scores` gave of each window, without the test.

    Examples
    --------
    See :func:`calibration_of_parts`.
    """
    scores = found.values
    summary = Summary(found.recording, resamples=bootstrap, seed=seed)
    plain, banded = ("horizon", "variable"), ("horizon", "variable", "level")
    summary.add("coverage", scores["coverage"], banded, attrs={"long_name": "coverage of central intervals"})
    summary.add("width", scores["width"], banded, attrs={"long_name": "width of central intervals", "better": "lower"})
    summary.add("crps", scores["crps"], plain, attrs={"long_name": "CRPS", "better": "lower"})
    summary.add("mse", scores["mse"], plain, attrs={"long_name": "mean squared error", "better": "lower"})
    attrs = {"long_name": "root mean squared error", "better": "lower"}
    summary.add("rmse", scores["mse"], plain, statistic=torch.sqrt, attrs=attrs)
    if "log_score" in scores:
        attrs = {"long_name": "log density", "better": "higher"}
        summary.add("log_score", scores["log_score"], plain, attrs=attrs)
        names = {
            "log_score_mc_se": "mean Monte Carlo standard error of one log density",
            "log_score_kernels": "mean effective number of kernels of one log density",
        }
        for name, text in names.items():
            summary.arrays[name] = (plain, as_numpy(scores[name].double().nanmean(0)), {"long_name": text})
    text = "probability integral transform (middle of jumps)"
    summary.arrays["pit"] = (("window", *plain), as_numpy(scores["pit"]), {"long_name": text})
    levels_of = {"level": ("level", list(levels), {"long_name": "nominal level"})}
    return summary.dataset(found, coords={**levels_of, **window_coords(found)})
