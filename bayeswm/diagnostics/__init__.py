"""How far a model can be trusted: proper scores, calibration and errors by horizon, with errors by recording."""

from bayeswm.diagnostics.adaptive import AdaptiveConformal, needed_level
from bayeswm.diagnostics.balance import balance
from bayeswm.diagnostics.bonferroni import Bonferroni
from bayeswm.diagnostics.bootstrap import BootstrapEstimate, cluster_bootstrap, cluster_error
from bayeswm.diagnostics.calibration import calibration, calibration_of, calibration_of_parts
from bayeswm.diagnostics.calibration_test import CalibrationTest, calibration_test, cauchy_combination
from bayeswm.diagnostics.conformal import ConformalisedQuantile, SplitConformal, conformal_quantile
from bayeswm.diagnostics.conformal_tube import ConformalTube
from bayeswm.diagnostics.cross_validation import leave_future_out, loo
from bayeswm.diagnostics.error_ranking import ood_auroc, rank_correlation, sparsification_error
from bayeswm.diagnostics.events import event_reliability
from bayeswm.diagnostics.forecast import Forecast, forecast, forecast_of
from bayeswm.diagnostics.groups import adversarial_groups, conditional_calibration, distance_from
from bayeswm.diagnostics.growth import error_growth
from bayeswm.diagnostics.horizon import errors, errors_of_parts
from bayeswm.diagnostics.intervals import interval_widths
from bayeswm.diagnostics.joint_null import JointNull
from bayeswm.diagnostics.monitoring import Monitor
from bayeswm.diagnostics.multivariate_scores import dawid_sebastiani_multivariate, energy_score, variogram_score
from bayeswm.diagnostics.one_step import one_step, teacher_forcing
from bayeswm.diagnostics.physics import lipschitz, symmetry
from bayeswm.diagnostics.pit_bands import ecdf_band
from bayeswm.diagnostics.pointwise import crps, crps_worlds, pit
from bayeswm.diagnostics.predictive_check import predictive_check
from bayeswm.diagnostics.quantile_scores import (
    dawid_sebastiani,
    interval_score,
    log_score_gaussian,
    pinball_loss,
    weighted_interval_score,
)
from bayeswm.diagnostics.recalibrated import RecalibratedModel
from bayeswm.diagnostics.recalibration import Isotonic, Recalibration, Scale, recalibrate
from bayeswm.diagnostics.reliability import reliability
from bayeswm.diagnostics.report import report, report_of
from bayeswm.diagnostics.sbc import sbc
from bayeswm.diagnostics.scored_forecasts import scores
from bayeswm.diagnostics.simulated import simulation_based_calibration
from bayeswm.diagnostics.stability import stability, stability_of
from bayeswm.diagnostics.trust import trust_horizon
from bayeswm.diagnostics.tube import EllipsoidTube, Tube
from bayeswm.diagnostics.tube_coverage import tube_coverage
from bayeswm.diagnostics.tubes import Ellipsoid, Ranks, SupT
from bayeswm.diagnostics.uniformity import Uniformity, rank_among, uniformity
from bayeswm.diagnostics.univariate_scores import crps_gaussian, crps_mixture, crps_samples

__all__ = [
    "AdaptiveConformal",
    "Bonferroni",
    "BootstrapEstimate",
    "CalibrationTest",
    "ConformalTube",
    "ConformalisedQuantile",
    "Ellipsoid",
    "EllipsoidTube",
    "Forecast",
    "Isotonic",
    "JointNull",
    "Monitor",
    "Ranks",
    "RecalibratedModel",
    "Recalibration",
    "Scale",
    "SplitConformal",
    "SupT",
    "Tube",
    "Uniformity",
    "adversarial_groups",
    "balance",
    "calibration",
    "calibration_of",
    "calibration_of_parts",
    "calibration_test",
    "cauchy_combination",
    "cluster_bootstrap",
    "cluster_error",
    "conditional_calibration",
    "conformal_quantile",
    "crps",
    "crps_gaussian",
    "crps_mixture",
    "crps_samples",
    "crps_worlds",
    "dawid_sebastiani",
    "dawid_sebastiani_multivariate",
    "distance_from",
    "ecdf_band",
    "energy_score",
    "error_growth",
    "errors",
    "errors_of_parts",
    "event_reliability",
    "forecast",
    "forecast_of",
    "interval_score",
    "interval_widths",
    "leave_future_out",
    "lipschitz",
    "log_score_gaussian",
    "loo",
    "needed_level",
    "one_step",
    "ood_auroc",
    "pinball_loss",
    "pit",
    "predictive_check",
    "rank_among",
    "rank_correlation",
    "recalibrate",
    "reliability",
    "report",
    "report_of",
    "sbc",
    "scores",
    "simulation_based_calibration",
    "sparsification_error",
    "stability",
    "stability_of",
    "symmetry",
    "teacher_forcing",
    "trust_horizon",
    "tube_coverage",
    "uniformity",
    "variogram_score",
    "weighted_interval_score",
]
