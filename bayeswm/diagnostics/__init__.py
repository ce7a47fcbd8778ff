"""How far a model can be trusted: proper scores, calibration and errors by horizon, with errors by recording."""

from bayeswm.diagnostics.bootstrap import BootstrapEstimate, cluster_bootstrap
from bayeswm.diagnostics.calibration import calibration, calibration_of, calibration_of_parts
from bayeswm.diagnostics.forecast import Forecast, forecast, forecast_of
from bayeswm.diagnostics.horizon import errors, errors_of_parts
from bayeswm.diagnostics.intervals import interval_widths
from bayeswm.diagnostics.pointwise import crps, crps_worlds, pit
from bayeswm.diagnostics.sbc import sbc
from bayeswm.diagnostics.scores import crps_gaussian, crps_mixture, crps_samples, interval_score
from bayeswm.diagnostics.simulated import simulation_based_calibration
from bayeswm.diagnostics.uniformity import Uniformity, rank_among, uniformity

__all__ = [
    "BootstrapEstimate",
    "Forecast",
    "Uniformity",
    "calibration",
    "calibration_of",
    "calibration_of_parts",
    "cluster_bootstrap",
    "crps",
    "crps_gaussian",
    "crps_mixture",
    "crps_samples",
    "crps_worlds",
    "errors",
    "errors_of_parts",
    "forecast",
    "forecast_of",
    "interval_score",
    "interval_widths",
    "pit",
    "rank_among",
    "sbc",
    "simulation_based_calibration",
    "uniformity",
]
