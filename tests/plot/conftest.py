"""What the tests of pictures share: a forecast, a data set of diagnostics, and Axes outside pyplot."""

import matplotlib as mpl
import pytest
import torch
import xarray as xr

import bayeswm as bwm
from bayeswm.diagnostics import calibration_of
from tests.plot.forecasts import pendulum

mpl.use("Agg")


@pytest.fixture(scope="session")
def predictive() -> bwm.Predictive:
    g = torch.Generator().manual_seed(0)
    return bwm.rollout(pendulum(uncertain=True), torch.ones(3, 2), torch.zeros(3, 8, 1), generator=g)


@pytest.fixture(scope="session")
def dataset() -> xr.Dataset:
    g = torch.Generator().manual_seed(0)
    p = bwm.rollout(pendulum(uncertain=False), torch.ones(60, 2), torch.zeros(60, 8, 1), particles=100, generator=g)
    truth = bwm.rollout(pendulum(uncertain=False), torch.ones(60, 2), torch.zeros(60, 8, 1), particles=1, generator=g)
    return calibration_of(p, truth.particles[0, 0])
