"""Every exported model keeps the contract: a new one without an entry here fails."""

import inspect
from collections.abc import Callable

import pytest
import torch
from torch.distributions import LogNormal

import bayeswm as bwm
from bayeswm.base.random import make_generator
from bayeswm.testing import check_model


def recordings(*, episodes: int = 8, steps: int = 50) -> bwm.Trajectories:
    """Episodes of a noisy pendulum under random torques."""
    truth = bwm.KnownDynamics(structure=bwm.structures.Pendulum.gymnasium(), noise=0.02)
    g = make_generator(0)
    start = 0.5 * torch.randn(episodes, 2, generator=g, dtype=torch.float64)
    actions = 4 * torch.rand(episodes, steps, 1, generator=g, dtype=torch.float64) - 2
    paths = bwm.rollout(truth, start, actions, particles=1, generator=g).particles[0, 0]
    return bwm.Trajectories(truth.schema, state=torch.cat((start[:, None], paths), 1), action=actions)


def known(data: bwm.Trajectories) -> bwm.DynamicsModel:
    structure = bwm.structures.Pendulum(mass=LogNormal(0.0, 0.2), length=0.5)
    return bwm.KnownDynamics(structure=structure, noise=0.02).fit(data)


def bayesian(data: bwm.Trajectories) -> bwm.DynamicsModel:
    structure = bwm.structures.Pendulum(
        mass=LogNormal(0.0, 0.3),
        length=0.5,
        inertia=LogNormal(-1.0, 0.3),
        gravity=10.0,
        upright=0.0,
        torque_limit=2.0,
        speed_limit=8.0,
        integrator=bwm.structures.SemiImplicitEuler(),
    )
    sampler = bwm.inference.HMC(chains=32, warmup=100, draws=300)
    return bwm.BayesianDynamics(structure=structure, inference=sampler).fit(data, seed=0, progress=False)


def deep_ensemble(data: bwm.Trajectories) -> bwm.DynamicsModel:
    net = bwm.structures.MLP(hidden=(32, 32))
    return bwm.DeepEnsemble(structure=net, members=4, epochs=10, stacking=True).fit(data, seed=0, progress=False)


def gaussian_process(data: bwm.Trajectories) -> bwm.DynamicsModel:
    physics = bwm.structures.Pendulum(mass=0.8, length=0.5, time_step=0.05)
    return bwm.GaussianProcess(mean=physics, restarts=2, features=256).fit(data, progress=False)


FITTED: dict[str, Callable[[bwm.Trajectories], bwm.DynamicsModel]] = {
    "BayesianDynamics": bayesian,
    "DeepEnsemble": deep_ensemble,
    "GaussianProcess": gaussian_process,
    "KnownDynamics": known,
}

EXPORTED = sorted(
    name
    for name in bwm.models.__all__
    if inspect.isclass(getattr(bwm.models, name)) and issubclass(getattr(bwm.models, name), bwm.DynamicsModel)
)


@pytest.mark.parametrize("name", EXPORTED)
def test_contract(name):
    if name not in FITTED:
        pytest.fail(f"{name} is exported by bayeswm.models: add a small fitted one to FITTED in this file")
    data = recordings()
    model = FITTED[name](data)
    assert type(model).__name__ == name
    assert check_model(model, data).failed == ()


def test_no_entry_is_left_behind():
    assert sorted(FITTED) == EXPORTED
