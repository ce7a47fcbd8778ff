"""Conformal recalibration: coverage guaranteed for finitely many recordings, whatever the model."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import override

import torch
from torch import Tensor

from bayeswm.base.errors import DataError
from bayeswm.diagnostics.draws import recording_quantile, recording_weights
from bayeswm.diagnostics.forecast import Forecast, Forecasts, gather
from bayeswm.diagnostics.intervals import quantiles
from bayeswm.diagnostics.levels import check_level
from bayeswm.diagnostics.maps import Stretch, TwoSided, as_points
from bayeswm.diagnostics.pointwise import observed
from bayeswm.diagnostics.recalibration import Recalibration, check_reached, needed_factor
from bayeswm.diagnostics.tubes import SupT

_LEAST_FACTOR = 1e-6


def conformal_quantile(scores: Tensor, level: float, *, recording: Tensor) -> Tensor:
    r"""Return the value that the score of a window of a new recording stays below with at least that probability.

    Recordings are exchangeable, windows of one recording need not be. Each of the K recordings has the weight
    1 / (K + 1), shared by its windows, and so has infinity. With one window a recording this is the k-th smallest
    score, k = ceil((K + 1) level), whose coverage is at most level + 1 / (K + 1) where no scores are equal.

    Parameters
    ----------
    scores : Tensor, shape (windows, ...)
        How far each prediction missed; NaN for windows that do not count.
    level : float
        The probability.
    recording : Tensor, shape (windows,)
        Which recording a window is of.

    Returns
    -------
    Tensor, shape (...)

    Raises
    ------
    DataError
        If there are too few recordings for the level.

    References
    ----------
    Vovk, Gammerman and Shafer (2005), Algorithmic learning in a random world; Lee, Barber and Willett (2023),
    Distribution-free inference with hierarchical data.

    Examples
    --------
    >>> conformal_quantile(torch.arange(1.0, 20.0), 0.9, recording=torch.arange(19))
    tensor(18.)
    """
    check_level(level)
    if scores.shape[:1] != recording.shape:
        raise DataError(f"expected one recording a window ({len(scores)}), got {tuple(recording.shape)}")
    flat = scores.reshape(len(scores), -1)
    recordings = int(recording_weights(~flat.isnan(), recording)[1].min())
    least = math.ceil(level / (1 - level) - 1e-9)
    if recordings < least:
        raise DataError(
            f"expected {least} recordings or more for a level of {level:g}, got {recordings}; record "
            "more, or pass a lower level"
        )
    return recording_quantile(flat, level, recording=recording).view(scores.shape[1:])


@dataclass(frozen=True)
class SplitConformal(Recalibration):
    """Stretches all outcomes around their mean by one factor, so that the tube of the level holds whole trajectories.

    The tube is :class:`SupT`'s, mean +- c sd. The factor is the conformal quantile, with the recording as the unit, of
    how much wider that tube would have to be. The tube of the recalibrated model then holds a window of a new recording
    with probability ``level`` or more, whatever the model, and at most 1 / (n + 1) more for n recordings of one window
    each. One factor leaves the tube's shape to the model; recalibrate with :class:`Scale` on other recordings first
    where its shape is poor.

    Parameters
    ----------
    level : float
        Of the tube.

    References
    ----------
    Lei, G'Sell, Rinaldo, Tibshirani and Wasserman (2018), Distribution-free predictive inference for regression.

    Examples
    --------
    >>> import bayeswm as bwm
    >>> from bayeswm.diagnostics import forecast_of
    >>> model = bwm.KnownDynamics(structure=bwm.structures.Pendulum.gymnasium(), noise=0.01)
    >>> g = torch.Generator().manual_seed(0)
    >>> r = bwm.rollout(model, torch.zeros(200, 2), torch.zeros(5, 1), particles=400, generator=g)
    >>> came = r.mean + 2 * (r.particles[0, 0] - r.mean)
    >>> SplitConformal(level=0.9).fit(forecast_of(r, came)).tensors["factor"].mean().round().item()
    2.0
    """

    level: float = 0.9

    def __post_init__(self) -> None:
        check_level(self.level)

    @override
    def fit(self, forecasts: Forecasts) -> Stretch:
        found = gather(forecasts, self.needed)
        needed = found.values["needed"].double()
        factor = conformal_quantile(needed, self.level, recording=found.recording.to(needed.device))
        everywhere = factor.expand(found.horizon, found.variables.size).clone()
        check_reached(everywhere, found)
        return Stretch(found.variables.columns, {"factor": everywhere.clamp(min=_LEAST_FACTOR)})

    def needed(self, part: Forecast) -> dict[str, Tensor]:
        """Return by which factor each window's tube would just hold what came, shape (windows,)."""
        x, there = observed(part.predictive, part.outcomes)
        tube = SupT()(part.predictive, level=self.level)
        center, reach = 0.5 * (tube.lower + tube.upper), 0.5 * (tube.upper - tube.lower)
        needed = needed_factor(x - center, reach, size=x)
        worst = torch.where(there, needed, 0.0).flatten(1).amax(1)
        return {"needed": torch.where(there.flatten(1).any(1), worst, float("nan"))}


@dataclass(frozen=True)
class ConformalisedQuantile(Recalibration):
    """Stretches outcomes around their median, below and above it apart, so that intervals of the level cover.

    For each horizon and variable the factors are conformal quantiles, at half of the miss rate each, of how much
    further the ends of the central interval would have to be from the median. The central interval of the recalibrated
    model then holds the outcome of a new recording with probability ``level`` or more, and misses it as often on either
    side. The split of the variance is lost.

    Parameters
    ----------
    level : float
        Of the central interval.

    References
    ----------
    Romano, Patterson and Candes (2019), Conformalized quantile regression, theorem 2; Sesia and Candes (2020), A
    comparison of some conformal quantile regression methods, for the interval that grows in proportion.

    Examples
    --------
    >>> import bayeswm as bwm
    >>> from bayeswm.diagnostics import forecast_of
    >>> model = bwm.KnownDynamics(structure=bwm.structures.Pendulum.gymnasium(), noise=0.01)
    >>> g = torch.Generator().manual_seed(0)
    >>> r = bwm.rollout(model, torch.zeros(400, 2), torch.zeros(2, 1), particles=400, generator=g)
    >>> came = r.mean + 2 * (r.particles[0, 0] - r.mean)
    >>> found = ConformalisedQuantile(level=0.8).fit(forecast_of(r, came)).tensors
    >>> found["lower"].mean().round().item(), found["upper"].mean().round().item()
    (2.0, 2.0)
    """

    level: float = 0.9

    def __post_init__(self) -> None:
        check_level(self.level)

    @override
    def fit(self, forecasts: Forecasts) -> TwoSided:
        found = gather(forecasts, self.needed)
        tensors: dict[str, Tensor] = {}
        for name, needed in found.values.items():
            at = conformal_quantile(needed.double(), 0.5 + self.level / 2, recording=found.recording.to(needed.device))
            check_reached(at, found)
            tensors[name] = at.clamp(min=_LEAST_FACTOR)
        return TwoSided(found.variables.columns, tensors)

    def needed(self, part: Forecast) -> dict[str, Tensor]:
        """Return how much further the ends would have to be from the median, each of shape (windows, H, S)."""
        x, there = observed(part.predictive, part.outcomes)
        points = as_points(part.predictive)
        low, middle, high = quantiles(points, [0.5 - self.level / 2, 0.5, 0.5 + self.level / 2])
        ends = {"lower": (middle - x, middle - low), "upper": (x - middle, high - middle)}
        return {
            name: torch.where(there, needed_factor(away.clamp(min=0), reach, size=x), float("nan"))
            for name, (away, reach) in ends.items()
        }
