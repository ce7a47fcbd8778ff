"""Proper scores of forecasts: each step and variable alone, all variables of a step, and whole trajectories."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

import torch
import xarray as xr
from torch import Tensor

from bayeswm.base.errors import SpecError
from bayeswm.base.predictive import Predictive
from bayeswm.base.random import make_generator
from bayeswm.diagnostics.calibration import LEVELS
from bayeswm.diagnostics.energy import (
    by_step,
    energy_by_step,
    energy_of_worlds,
    outcome_scale,
    pool,
    samples_of,
    shares,
)
from bayeswm.diagnostics.forecast import Forecast, Forecasts, gather
from bayeswm.diagnostics.intervals import quantiles
from bayeswm.diagnostics.levels import check_levels
from bayeswm.diagnostics.multivariate_scores import variogram_score
from bayeswm.diagnostics.pointwise import crps, observed
from bayeswm.diagnostics.quantile_scores import dawid_sebastiani, interval_score, pinball_loss, weighted_interval_score
from bayeswm.diagnostics.summary import Summary


def scores(
    forecasts: Forecasts,
    *,
    levels: Sequence[float] = LEVELS,
    scale: Tensor | None = None,
    bootstrap: int = 1000,
    seed: int = 0,
) -> xr.Dataset:
    """Score forecasts by horizon, averaged over windows.

    Worlds count with their weights, diverged particles not at all. Windows that lack a value count in no score that
    needs it: at a step for the scores over variables, anywhere for those of whole trajectories.

    Parameters
    ----------
    forecasts : Forecast or iterable of Forecast
        What :func:`forecast` or :func:`forecast_of` made.
    levels : sequence of float
        Of the central intervals; the pinball loss is that of their ends and of the median.
    scale : Tensor, shape (S,), optional
        What one of each variable is divided by in the scores over variables, in its unit; by default the standard
        deviation of the outcomes of the first forecast, over all its windows and steps (1 where they do not vary). To
        compare models, or data sets, name one.
    bootstrap, seed : int
        Resamples of the cluster bootstrap over recordings, and its seed.

    Returns
    -------
    xarray.Dataset
        Lower is better but for the log scores. By ``horizon`` and ``variable``:

        * ``crps``, ``interval_score`` (by ``level``), ``weighted_interval_score`` and ``pinball`` (by
          ``probability``): in the variable's unit;
        * ``dawid_sebastiani``, of the predictive mean and variance; ``log_score``, the log density.

        Over all variables, by ``horizon``:

        * ``energy_score`` and ``variogram_score`` (order 0.5): of variables divided by the scale; no unit;
        * ``joint_log_score``: log density of the step's state.

        Of whole trajectories: ``trajectory_energy_score``, of all steps and variables as one vector divided by the
        scale, and ``trajectory_log_score``, where the model gives one.

        Each has ``_se``, ``_lower`` and ``_upper`` (95 %). CRPS and energy scores are fair: unbiased for what
        infinitely many particles would score. The log scores are absent without a density; ``scale`` is a coordinate.

    Raises
    ------
    SpecError, DataError
        If levels or the scale are out of range, or there is no forecast.

    References
    ----------
    Gneiting and Raftery (2007), Strictly proper scoring rules, prediction, and estimation.

    Examples
    --------
    >>> import bayeswm as bwm
    >>> from bayeswm.diagnostics import forecast
    >>> model = bwm.KnownDynamics(structure=bwm.structures.Pendulum.gymnasium(), noise=0.01)
    >>> data = bwm.Trajectories(model.schema, state=torch.zeros(9, 6, 2), action=torch.zeros(9, 5, 1))
    >>> found = scores(forecast(model, data, horizon=5), scale=torch.tensor([1.0, 2.0]))
    >>> dict(found.pinball.sizes), dict(found.energy_score.sizes)
    ({'horizon': 5, 'variable': 2, 'probability': 9}, {'horizon': 5})
    """
    levels = check_levels(levels)
    unit: list[Tensor] = [] if scale is None else [scale]

    def each(part: Forecast) -> dict[str, Tensor]:
        if not unit:
            unit.append(outcome_scale(part.outcomes))
        return {
            **marginal_scores(part, levels=levels),
            **joint_scores(part, scale=unit[0], generator=make_generator(seed)),
        }

    found = gather(forecasts, each)
    summary = Summary(found.recording, resamples=bootstrap, seed=seed)
    for name, (dims, text, better) in _NAMES.items():
        if name in found.values:
            summary.add(name, found.values[name], dims, attrs={"long_name": text, "better": better})
    coords = {
        "level": ("level", list(levels), {"long_name": "nominal level"}),
        "probability": ("probability", probabilities(levels), {"long_name": "probability of the quantile"}),
        "scale": ("variable", unit[0].tolist(), {"long_name": "unit of the scores over variables"}),
    }
    return summary.dataset(found, coords=coords)


_PLAIN = ("horizon", "variable")
_NAMES: dict[str, tuple[tuple[str, ...], str, str]] = {
    "crps": (_PLAIN, "CRPS", "lower"),
    "interval_score": ((*_PLAIN, "level"), "interval score", "lower"),
    "weighted_interval_score": (_PLAIN, "weighted interval score", "lower"),
    "pinball": ((*_PLAIN, "probability"), "pinball loss", "lower"),
    "dawid_sebastiani": (_PLAIN, "Dawid-Sebastiani score", "lower"),
    "log_score": (_PLAIN, "log density", "higher"),
    "energy_score": (("horizon",), "energy score over scaled variables", "lower"),
    "variogram_score": (("horizon",), "variogram score over scaled variables, order 0.5", "lower"),
    "joint_log_score": (("horizon",), "log density over variables", "higher"),
    "trajectory_energy_score": ((), "energy score of scaled trajectories", "lower"),
    "trajectory_log_score": ((), "log density of trajectories", "higher"),
}


def probabilities(levels: Sequence[float]) -> list[float]:
    """Return the probabilities of the ends of central intervals, and one half between them.

    Examples
    --------
    >>> probabilities([0.5])
    [0.25, 0.5, 0.75]
    """
    low = [round(0.5 - level / 2, 12) for level in reversed(levels)]
    return [*low, 0.5, *(round(0.5 + level / 2, 12) for level in levels)]


def marginal_scores(part: Forecast, *, levels: Sequence[float]) -> dict[str, Tensor]:
    """Return the scores of each window, step and variable, shape (windows, H, S), some with a last axis of levels.

    ``levels`` rise. NaN for missing outcomes.

    Examples
    --------
    >>> import bayeswm as bwm
    >>> from bayeswm.diagnostics import forecast_of
    >>> model = bwm.KnownDynamics(structure=bwm.structures.Pendulum.gymnasium(), noise=1.0)
    >>> part = forecast_of(model.predictive(torch.zeros(3, 2), torch.zeros(3, 1)), torch.zeros(3, 1, 2))
    >>> {name: tuple(value.shape) for name, value in marginal_scores(part, levels=(0.9,)).items()}
    {'crps': (3, 1, 2), 'interval_score': (3, 1, 2, 1), 'weighted_interval_score': (3, 1, 2), 'pinball': (3, 1, 2, 3),
    'dawid_sebastiani': (3, 1, 2), 'log_score': (3, 1, 2)}
    """
    p, k = part.predictive, len(levels)
    x, there = observed(p, part.outcomes)
    chances = probabilities(levels)
    ends = quantiles(p, chances).to(x)
    low, high = ends[:k].flip(0), ends[k + 1 :]
    chance = torch.tensor(chances, dtype=x.dtype, device=x.device).view(-1, *(1,) * x.ndim)
    intervals = [interval_score(a, b, x, level=v) for a, b, v in zip(low, high, levels, strict=True)]
    found = {
        "crps": crps(p, part.outcomes),
        "interval_score": torch.stack(intervals, -1),
        "weighted_interval_score": weighted_interval_score(low, high, x, median=ends[k], levels=levels),
        "pinball": pinball_loss(ends, x, probability=chance).movedim(0, -1),
        "dawid_sebastiani": dawid_sebastiani(p.mean, p.variance, x),
    }
    if p.has_density:
        found["log_score"] = p.log_score(x, marginal=True).value
    return {
        name: torch.where(there if v.ndim == there.ndim else there[..., None], v, float("nan"))
        for name, v in found.items()
    }


def joint_scores(part: Forecast, *, scale: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
    """Return the scores over variables, shape (windows, H), and of whole trajectories, shape (windows,).

    Parameters
    ----------
    part : Forecast
        Some windows.
    scale : Tensor, shape (S,)
        What each variable is divided by in energy and variogram scores.
    generator : torch.Generator
        For the draws of a single step that was not sampled.

    Returns
    -------
    dict of Tensor
        NaN where a value is missing at the step, or anywhere for trajectories.

    Raises
    ------
    SpecError
        If the scale is not of that shape, positive and finite.

    Examples
    --------
    >>> import bayeswm as bwm
    >>> from bayeswm.diagnostics import forecast_of
    >>> model = bwm.KnownDynamics(structure=bwm.structures.Pendulum.gymnasium(), noise=1.0)
    >>> part = forecast_of(model.predictive(torch.zeros(3, 2), torch.zeros(3, 1)), torch.zeros(3, 1, 2))
    >>> found = joint_scores(part, scale=torch.ones(2), generator=torch.Generator().manual_seed(0))
    >>> {name: tuple(value.shape) for name, value in found.items()}
    {'energy_score': (3, 1), 'variogram_score': (3, 1), 'trajectory_energy_score': (3,), 'joint_log_score': (3, 1),
    'trajectory_log_score': (3,)}
    """
    p = part.predictive
    x, there = observed(p, part.outcomes)
    if scale.shape != x.shape[-1:] or not bool(((scale > 0) & scale.isfinite()).all()):
        raise SpecError(f"expected a positive, finite scale for each of {p.variables.columns}, got {scale.tolist()}")
    seen = there.all(-1)
    unit = scale.to(x)
    samples, came = samples_of(p, generator).scaled(unit), x / unit
    values, lost, weight, pooled = samples
    rows = range(p.horizon)

    def variogram(h: int) -> Tensor:
        share = pool(lost[..., h], like=x) if h >= pooled else shares(weight, lost[..., h], like=x)
        alive = torch.where(lost[..., h, None], 0.0, values[..., h, :])
        return variogram_score(alive.flatten(0, 1), came[:, h], weight=share.flatten(0, 1))

    whole = energy_of_worlds(
        values.flatten(-2),
        came.flatten(-2),
        weight=weight,
        exhaustive=p.exhaustive,
        lost=lost.any(-1),
        pooled=p.horizon - 1 >= pooled,
    )
    found = {
        "energy_score": energy_by_step(samples, came, exhaustive=p.exhaustive),
        "variogram_score": by_step([variogram(h) for h in rows], x),
        "trajectory_energy_score": whole,
    }
    if p.has_density:
        found["joint_log_score"] = by_step([_log_density(p, h, x[:, h]) for h in rows], x)
        with contextlib.suppress(SpecError):  # a hidden state: none
            found["trajectory_log_score"] = p.log_score(x).value
    return {
        name: torch.where(seen if v.ndim == 2 else seen.all(-1), v.to(x.dtype), float("nan"))
        for name, v in found.items()
    }


def _log_density(p: Predictive, h: int, x: Tensor) -> Tensor:
    """Return the log density of the variables at one step, shape (windows,)."""
    one = Predictive(
        p.variables,
        [p.laws[h]],
        p.log_weight,
        exhaustive=p.exhaustive,
        time_step=p.time_step,
        diverged=p.diverged[..., h][None],
    )
    return one.log_score(x[:, None]).value
