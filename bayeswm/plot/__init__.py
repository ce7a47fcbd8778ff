"""Pictures of forecasts and of how far they can be trusted; each takes and returns matplotlib Axes."""

from bayeswm.plot.calibration import calibration_curve, coverage_by_horizon, pit_histogram
from bayeswm.plot.fan import fan_chart
from bayeswm.plot.monitoring import evidence_over_time
from bayeswm.plot.reliability import pit_ecdf, reliability_diagram
from bayeswm.plot.report import report
from bayeswm.plot.tube import tube_chart

__all__ = [
    "calibration_curve",
    "coverage_by_horizon",
    "evidence_over_time",
    "fan_chart",
    "pit_ecdf",
    "pit_histogram",
    "reliability_diagram",
    "report",
    "tube_chart",
]
