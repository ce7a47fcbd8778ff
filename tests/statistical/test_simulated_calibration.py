"""Simulation-based calibration on the pendulum: the posterior of simulated data holds the truth as it claims."""

import math

import pytest
import torch
from torch import Tensor
from torch.distributions import LogNormal

import bayeswm as bwm
from bayeswm.base.random import make_generator
from bayeswm.inference import HMC
from bayeswm.structures import Pendulum
from tests.inference.sbc import combined_p, ranks, uniform_p
from tests.statistical.checks import BUDGET

F64 = torch.float64
LAWS = {"mass": LogNormal(0.0, 0.4), "damping": LogNormal(math.log(0.3), 0.5)}
NOISE = {"angle": LogNormal(math.log(0.05), 0.4), "velocity": LogNormal(math.log(0.2), 0.4)}
DRAWS = 63


def prior(g: torch.Generator) -> dict[str, Tensor]:
    laws, normal = [*LAWS.values(), *NOISE.values()], torch.randn(4, generator=g, dtype=F64)
    # log-normal draws from their base noise: torch's own sampling takes no generator
    value = torch.stack([(law.loc + law.scale * z).exp() for law, z in zip(laws, normal, strict=True)])
    return {"mass": value[0], "damping": value[1], "process_noise": value[2:]}


def simulate(truth: dict[str, Tensor], g: torch.Generator) -> bwm.Trajectories:
    """Two episodes of 12 steps: the posterior stays wide."""
    pendulum = Pendulum(mass=float(truth["mass"]), damping=float(truth["damping"]))
    system = bwm.KnownDynamics(structure=pendulum, noise=truth["process_noise"])
    start = torch.randn(2, 2, generator=g, dtype=F64)
    action = 4 * torch.rand(2, 12, 1, generator=g, dtype=F64) - 2
    paths = bwm.rollout(system, start, action, particles=1, generator=g).particles[0, 0]
    return bwm.Trajectories(system.schema, state=torch.cat((start[:, None], paths), 1), action=action)


def calibration(inference: HMC, *, replications: int) -> float:
    def infer(data: bwm.Trajectories, g: torch.Generator) -> dict[str, Tensor]:
        seed = int(torch.randint(2**31, (), generator=g))
        model = bwm.BayesianDynamics(structure=Pendulum(**LAWS), inference=inference, noise=NOISE)
        posterior = model.fit(data, seed=seed, progress=False).posterior
        # the last draws of the chains are as good as independent; with few chains all draws are thinned
        return {k: v[:, -1] if len(v) >= DRAWS else v.flatten(0, 1) for k, v in posterior.items()}

    found = ranks(prior, simulate, infer, replications=replications, draws=DRAWS, generator=make_generator(0))
    return combined_p(uniform_p(found, draws=DRAWS))


@pytest.mark.statistical
@pytest.mark.filterwarnings("ignore::bayeswm.base.errors.FitWarning")  # few draws serve the ranks, not R-hat
def test_hmc_is_calibrated_on_the_pendulum() -> None:
    assert calibration(HMC(chains=DRAWS, warmup=40, draws=4), replications=40) > BUDGET


@pytest.mark.slow
@pytest.mark.statistical
@pytest.mark.filterwarnings("ignore::bayeswm.base.errors.FitWarning")
def test_hmc_is_calibrated_on_the_pendulum_over_many_data_sets() -> None:
    assert calibration(HMC(chains=32, warmup=100, draws=60), replications=400) > BUDGET
