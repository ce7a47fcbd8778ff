"""How far a model can be trusted: proper scores, calibration and errors by horizon, with errors by recording."""

from bayeswm.diagnostics.bootstrap import BootstrapEstimate, cluster_bootstrap
from bayeswm.diagnostics.calibration import calibration, calibration_of, calibration_of_parts
from bayeswm.diagnostics.conformal_tube import ConformalTube
from bayeswm.diagnostics.forecast import Forecast, forecast, forecast_of
from bayeswm.diagnostics.horizon import errors, errors_of_parts
from bayeswm.diagnostics.intervals import interval_widths
from bayeswm.diagnostics.one_step import one_step, teacher_forcing
from bayeswm.diagnostics.pointwise import crps, crps_worlds, pit
from bayeswm.diagnostics.scores import crps_gaussian, crps_mixture, crps_samples, interval_score
from bayeswm.diagnostics.tube import EllipsoidTube, Tube
from bayeswm.diagnostics.tube_coverage import tube_coverage
from bayeswm.diagnostics.tubes import Bonferroni, Ellipsoid, Ranks, SupT

__all__ = [
    "Bonferroni",
    "BootstrapEstimate",
    "ConformalTube",
    "Ellipsoid",
    "EllipsoidTube",
    "Forecast",
    "Ranks",
    "SupT",
    "Tube",
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
    "one_step",
    "pit",
    "teacher_forcing",
    "tube_coverage",
]
