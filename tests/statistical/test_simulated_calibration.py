"""Simulation-based calibration on the pendulum: the posterior of simulated data holds the truth as it claims."""

import math

import pytest
import torch
import xarray as xr
from torch.distributions import LogNormal

import bayeswm as bwm
from bayeswm.diagnostics import sbc
from bayeswm.inference import HMC, NUTS, Inference
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
    assert calibration(HMC(chains=63, warmup=40, draws=4), steps=8, repetitions=15).attrs["p_value"] > BUDGET


@pytest.mark.slow
@pytest.mark.statistical
@pytest.mark.parametrize(
    ("inference", "repetitions"),
    [(HMC(chains=32, warmup=100, draws=60), 400), (NUTS(chains=1, warmup=200, draws=630), 100)],
)
def test_many_data_sets_find_sampling_calibrated_on_the_pendulum(inference: Inference, repetitions: int) -> None:
    assert calibration(inference, steps=12, repetitions=repetitions).attrs["p_value"] > BUDGET
