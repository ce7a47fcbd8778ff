"""The picture of monitoring shows the numbers of the data set."""

import numpy as np
import pytest
import torch
import xarray as xr

import bayeswm as bwm
from bayeswm.diagnostics import Monitor
from bayeswm.plot import evidence_over_time
from tests.plot.forecasts import axes


@pytest.fixture(scope="module")
def seen() -> xr.Dataset:
    monitor = Monitor(horizon=2)
    for _ in range(12):
        monitor.observe(torch.zeros(2, 1))
    return monitor.to_dataset()


def test_lines_threshold_and_alarm(seen: xr.Dataset) -> None:
    ax = evidence_over_time(seen, horizons=(2,), ax=axes())
    threshold, alone, together, alarm = ax.lines
    assert threshold.get_ydata()[0] == 20
    assert np.allclose(alone.get_ydata(), seen.evidence_by_horizon.sel(horizon=2))
    assert np.allclose(together.get_ydata(), seen.evidence)
    assert alarm.get_xdata()[0] == int(seen.alarm_step) > 0
    assert [t.get_text() for t in ax.get_legend().get_texts()] == ["2 steps ahead", "all horizons"]


def test_requests_that_the_data_set_cannot_answer(seen: xr.Dataset) -> None:
    with pytest.raises(bwm.SpecError, match="horizons from 1 to 2 steps, got 3"):
        evidence_over_time(seen, horizons=(3,), ax=axes())
    with pytest.raises(bwm.SpecError, match=r"'evidence'.*Monitor"):
        evidence_over_time(xr.Dataset(), ax=axes())
