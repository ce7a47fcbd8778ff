"""Pictures change nothing of pyplot, and say what is missing."""

import subprocess
import sys

import matplotlib as mpl
import xarray as xr
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

import bayeswm as bwm
from bayeswm.plot import calibration_curve, coverage_by_horizon, fan_chart, pit_histogram
from tests.plot.forecasts import axes


def test_pyplot_is_left_alone(predictive: bwm.Predictive, dataset: xr.Dataset) -> None:
    settings, backend, figures = dict(mpl.rcParams), mpl.get_backend(), plt.get_fignums()
    for ax in (
        fan_chart(predictive, "angle", row=0, ax=axes()),
        coverage_by_horizon(dataset, ax=axes()),
        calibration_curve(dataset, horizon=1, ax=axes()),
        pit_histogram(dataset, "angle", horizon=1, ax=axes()),
    ):
        assert isinstance(ax, Axes)
    assert plt.get_fignums() == figures
    ax = fan_chart(predictive, "angle", row=0)
    try:
        assert len(plt.get_fignums()) == len(figures) + 1  # a figure of its own, shown as pyplot's are
    finally:
        plt.close(ax.figure)
    assert dict(mpl.rcParams) == settings
    assert mpl.get_backend() == backend


def test_without_matplotlib_the_extra_is_named() -> None:
    code = """
import sys
class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.split('.')[0] == 'matplotlib':
            raise ModuleNotFoundError("No module named 'matplotlib'", name='matplotlib')
sys.meta_path.insert(0, Missing())
import bayeswm
try:
    bayeswm.plot
except ImportError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "pip install 'bayeswm[plots]'" in done.stdout
