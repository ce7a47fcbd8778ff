"""How far a model can be trusted: proper scores, calibration and errors by horizon, with errors by recording."""

from bayeswm.diagnostics.bootstrap import BootstrapEstimate, cluster_bootstrap
from bayeswm.diagnostics.calibration import calibration, calibration_of, calibration_of_parts
from bayeswm.diagnostics.calibration_test import CalibrationTest, calibration_test, cauchy_combination
from bayeswm.diagnostics.events import event_reliability
from bayeswm.diagnostics.forecast import Forecast, forecast, forecast_of
from bayeswm.diagnostics.groups import adversarial_groups, conditional_calibration, distance_from
from bayeswm.diagnostics.horizon import errors, errors_of_parts
from bayeswm.diagnostics.intervals import interval_widths
from bayeswm.diagnostics.joint_null import JointNull
from bayeswm.diagnostics.pit_bands import ecdf_band
from bayeswm.diagnostics.pointwise import crps, crps_worlds, pit
from bayeswm.diagnostics.reliability import reliability
from bayeswm.diagnostics.scores import crps_gaussian, crps_mixture, crps_samples, interval_score

__all__ = [
    "BootstrapEstimate",
    "CalibrationTest",
    "Forecast",
    "JointNull",
    "adversarial_groups",
    "calibration",
    "calibration_of",
    "calibration_of_parts",
    "calibration_test",
    "cauchy_combination",
    "cluster_bootstrap",
    "conditional_calibration",
    "crps",
    "crps_gaussian",
    "crps_mixture",
    "crps_samples",
    "crps_worlds",
    "distance_from",
    "ecdf_band",
    "errors",
    "errors_of_parts",
    "event_reliability",
    "forecast",
    "forecast_of",
    "interval_score",
    "interval_widths",
    "pit",
    "reliability",
]
