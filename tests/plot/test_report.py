"""A report on one page."""

import pytest
import torch

import bayeswm as bwm
from bayeswm.plot import report


def test_one_page_has_all_variables_and_the_verdict() -> None:
    truth = bwm.KnownDynamics(structure=bwm.structures.CartPole.gymnasium(), noise=0.01)
    g = torch.Generator().manual_seed(0)
    data = bwm.data.simulate(truth, torch.zeros(15, 4), torch.zeros(4, 1), generator=g)
    found = bwm.diagnostics.report(truth, data, horizon=4, bootstrap=50)
    figure = report(found)
    labels = {ax.get_ylabel() for ax in figure.axes}
    units = zip(found.variable.values, found.unit.values, strict=True)
    assert {f"{name} ({unit})" for name, unit in units} <= labels
    assert figure.get_supxlabel() == found.attrs["verdict"]
    figure.canvas.draw()
    (line,) = [one for one in figure.axes[3].get_lines() if one.get_label() == "error (RMSE)"]
    assert line.get_ydata() == pytest.approx(found.rmse.isel(variable=0).values)


def test_another_data_set_is_refused() -> None:
    p = bwm.KnownDynamics(structure=bwm.structures.Pendulum(), noise=1.0).predictive(torch.zeros(9, 2), torch.zeros(1))
    with pytest.raises(bwm.SpecError, match="without a verdict"):
        report(bwm.diagnostics.calibration_of(p, torch.zeros(9, 1, 2)))
