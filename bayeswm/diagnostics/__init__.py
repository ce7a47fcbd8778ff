"""How far a model can be trusted: proper scores, calibration and errors by horizon, with errors by recording."""

from bayeswm.diagnostics.adaptive import AdaptiveConformal, needed_level
from bayeswm.diagnostics.bootstrap import BootstrapEstimate, cluster_bootstrap
from bayeswm.diagnostics.calibration import calibration, calibration_of, calibration_of_parts
from bayeswm.diagnostics.conformal import ConformalisedQuantile, SplitConformal, conformal_quantile
from bayeswm.diagnostics.forecast import Forecast, forecast, forecast_of
from bayeswm.diagnostics.horizon import errors, errors_of_parts
from bayeswm.diagnostics.intervals import interval_widths
from bayeswm.diagnostics.monitoring import Monitor
from bayeswm.diagnostics.multivariate_scores import dawid_sebastiani_multivariate, energy_score, variogram_score
from bayeswm.diagnostics.pointwise import crps, crps_worlds, pit
from bayeswm.diagnostics.quantile_scores import (
    dawid_sebastiani,
    interval_score,
    log_score_gaussian,
    pinball_loss,
    weighted_interval_score,
)
from bayeswm.diagnostics.recalibrated import RecalibratedModel
from bayeswm.diagnostics.recalibration import Isotonic, Recalibration, Scale, recalibrate
from bayeswm.diagnostics.scored_forecasts import scores
from bayeswm.diagnostics.univariate_scores import crps_gaussian, crps_mixture, crps_samples

__all__ = [
    "AdaptiveConformal",
    "BootstrapEstimate",
    "ConformalisedQuantile",
    "Forecast",
    "Isotonic",
    "Monitor",
    "RecalibratedModel",
    "Recalibration",
    "Scale",
    "SplitConformal",
    "calibration",
    "calibration_of",
    "calibration_of_parts",
    "cluster_bootstrap",
    "conformal_quantile",
    "crps",
    "crps_gaussian",
    "crps_mixture",
    "crps_samples",
    "crps_worlds",
    "dawid_sebastiani",
    "dawid_sebastiani_multivariate",
    "energy_score",
    "errors",
    "errors_of_parts",
    "forecast",
    "forecast_of",
    "interval_score",
    "interval_widths",
    "log_score_gaussian",
    "needed_level",
    "pinball_loss",
    "pit",
    "recalibrate",
    "scores",
    "variogram_score",
    "weighted_interval_score",
]
