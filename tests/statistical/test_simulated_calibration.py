"""Simulation-based calibration on the pendulum: the posterior of simulated data holds the truth as it claims."""

import math

import pytest
import torch
import xarray as xr
from torch.distributions import LogNormal

import bayeswm as bwm
from bayeswm.diagnostics import sbc
from bayeswm.inference import HMC, Inference, Laplace
from bayeswm.structures import Pendulum
from tests.statistical.checks import BUDGET

F64 = torch.float64
LAWS = {"mass": LogNormal(0.0, 0.4), "damping": LogNormal(math.log(0.3), 0.5)}
NOISE = {"angle": LogNormal(math.log(0.05), 0.4), "velocity": LogNormal(math.log(0.2), 0.4)}


def calibration(inference: Inference, *, steps: int, repetitions: int) -> xr.Dataset:
    """Two episodes from random starts under random torques."""

    def design(world: bwm.Worlds, g: torch.Generator) -> bwm.Trajectories:
        start = torch.randn(2, 2, generator=g, dtype=F64)
        action = 4 * torch.rand(2, steps, 1, generator=g, dtype=F64) - 2
        return bwm.data.simulate(world, start, action, generator=g)

    model = bwm.BayesianDynamics(structure=Pendulum(**LAWS), inference=inference, noise=NOISE)
    found = sbc(model, design, repetitions=repetitions)
    assert found.sizes["quantity"] == 5  # two parameters, two noises, the likelihood
    return found


@pytest.mark.statistical
def test_hmc_is_calibrated_on_the_pendulum() -> None:
    # few steps of many chains serve the ranks, not R-hat
    assert calibration(HMC(chains=64, warmup=40, draws=4), steps=8, repetitions=20).attrs["p_value"] > BUDGET


@pytest.mark.slow
@pytest.mark.statistical
def test_hmc_is_calibrated_on_the_pendulum_over_many_data_sets() -> None:
    found = calibration(HMC(chains=32, warmup=100, draws=60), steps=12, repetitions=400)
    assert found.attrs["p_value"] > BUDGET


@pytest.mark.slow
@pytest.mark.statistical
def test_the_intervals_of_laplace_hold_nearly_what_they_say() -> None:
    found = calibration(Laplace(), steps=25, repetitions=200)
    # an approximation: within 5 % and the error of 200 repetitions (4 standard errors)
    off = (found["coverage"].sel(level=0.9) - 0.9).drop_sel(quantity="log_likelihood")
    assert float(abs(off).max()) < 0.05 + 4 * float(found["coverage_se"].sel(level=0.9))
