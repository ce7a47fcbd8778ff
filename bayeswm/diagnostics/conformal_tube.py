"""Tubes with a finite-sample guarantee, from how far calibration trajectories were off."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from typing import Self

import torch
from torch import Tensor

from bayeswm.base.errors import DataError, EstimateWarning, SpecError
from bayeswm.base.predictive import Predictive
from bayeswm.diagnostics.draws import recording_quantile
from bayeswm.diagnostics.forecast import Forecast, Forecasts, gather
from bayeswm.diagnostics.levels import check_level
from bayeswm.diagnostics.pointwise import observed
from bayeswm.diagnostics.tube import AXES, Tube, check_over, grouped, reach_of, ungrouped


class ConformalTube:
    """Split conformal tubes: the predictive mean +- q standard deviations, with q from calibration recordings.

    The score of a forecast is its largest standardised error, max abs(x - m) / s over what is held together; q is the
    ceil((n + 1) level)-th smallest score of n recordings. If the recordings and a new one are exchangeable, the tube
    holds the new one with a probability of at least ``level``, and at most level + 1 / (n + 1) where scores have no
    ties, however wrong the model is. Given the calibration recordings the probability is Beta(k, n + 1 - k)
    distributed over them, k = ceil((n + 1) level). Several windows of a recording share its weight, and the guarantee
    is for a window of a new recording taken at random.

    Parameters
    ----------
    over : sequence of str
        As for :class:`~bayeswm.diagnostics.SupT`.

    References
    ----------
    Vovk, Gammerman and Shafer (2005), Algorithmic learning in a random world; Lindemann, Cleaveland, Shim and Pappas
    (2023), Safe planning in dynamic environments using conformal prediction; for several windows of a recording Lee,
    Barber and Willett (2023), Distribution-free inference with hierarchical data.

    Examples
    --------
    A model that believes in half of the noise there is:

    >>> import bayeswm as bwm
    >>> arm, g = bwm.structures.Pendulum(), torch.Generator().manual_seed(0)
    >>> truth, model = (bwm.KnownDynamics(structure=arm, noise=s) for s in (0.2, 0.1))
    >>> start, still = torch.zeros(99, 2).double(), torch.zeros(99, 5, 1)
    >>> came = bwm.rollout(truth, start, still, particles=1, generator=g).particles[0, 0]
    >>> p = bwm.rollout(model, start, still, particles=100, generator=g)
    >>> method = ConformalTube().fit(bwm.diagnostics.forecast_of(p, came))
    >>> float(method(p, level=0.9).contains(came).double().mean().round(decimals=2))
    0.91
    """

    def __init__(self, *, over: Sequence[str] = AXES) -> None:
        self.over = check_over(over)
        self._scores: Tensor | None = None
        self._recording = torch.empty(0)
        self._shape = (0, 0)

    def fit(self, forecasts: Forecasts) -> Self:
        """Keep the scores of calibration forecasts, which the model was not fitted to.

        Raises
        ------
        DataError
            If no forecast can be scored: nothing was recorded, or the predictive has no spread to measure by.
        """
        found = gather(forecasts, self.score)
        scores = found.values["score"]
        if not bool((~scores.isnan()).any(0).all()):
            raise DataError(
                "expected forecasts with recorded outcomes and a standard deviation, got none that can be scored"
            )
        self._scores, self._recording = scores.double().cpu(), found.recording
        self._shape = (found.horizon, found.variables.size)
        return self

    def score(self, part: Forecast) -> dict[str, Tensor]:
        """Return the score of each window, shape (windows, groups); NaN where nothing was recorded."""
        x, there = observed(part.predictive, part.outcomes)
        center, spread = part.predictive.mean, part.predictive.stddev
        rounding = 1e-9 if x.dtype == torch.float64 else 1e-5
        gap = (x - center).abs()
        met = (spread <= 0) & (gap <= rounding * center.abs().clamp(min=1.0))
        values = grouped(torch.where(there, torch.where(met, 0.0, gap / spread), -1.0), self.over)
        worst = torch.where(values.isnan().any(-1), float("nan"), values.nan_to_num(posinf=float("inf")).amax(-1))
        return {"score": torch.where(worst < 0, float("nan"), worst)}

    def critical(self, level: float) -> Tensor:
        """Return how many standard deviations a tube of this level is wide to each side, shape (groups,).

        Infinite where the recordings are too few: fewer than level / (1 - level).

        Raises
        ------
        SpecError
            Before :meth:`fit`, or for a level that is not between 0 and 1.
        """
        check_level(level)
        if self._scores is None:
            raise SpecError("expected calibration forecasts first, got none; call .fit(forecasts)")
        return recording_quantile(self._scores, level, recording=self._recording)

    def __call__(self, predictive: Predictive, *, level: float) -> Tube:
        """Return the tube that holds ``level`` of the probability, for every window of a batch.

        Raises
        ------
        SpecError
            If horizon or variables are not those of the calibration forecasts.
        """
        critical = self.critical(level)
        shape = (predictive.horizon, predictive.variables.size)
        if shape != self._shape:
            raise SpecError(f"expected (horizon, variables) {self._shape}, as was calibrated, got {shape}")
        if bool(critical.isinf().any()):
            count = len(self._recording.unique())
            warnings.warn(
                f"the tube is infinite: {count} calibration recordings cannot say what {level:.0%} of new ones do; "
                f"record at least {math.ceil(level / (1 - level) - 1e-9)}",
                EstimateWarning,
                stacklevel=2,
            )
        center, spread = predictive.mean, predictive.stddev
        half = reach_of(critical.to(center)[:, None], grouped(spread, self.over))
        half = ungrouped(half, self.over, steps=predictive.horizon)
        return Tube(
            center - half,
            center + half,
            level=level,
            over=self.over,
            variables=predictive.variables,
            time_step=predictive.time_step,
        )
