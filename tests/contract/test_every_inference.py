"""Every structure with every way of inference: a new way without a row here fails."""

from collections.abc import Callable

import pytest
import torch
from torch.distributions import LogNormal, Normal

import bayeswm as bwm
from bayeswm.base.random import make_generator
from bayeswm.inference import HMC, NUTS, SVI, AutoNormal, Conjugate, Inference, Laplace
from bayeswm.structures import MLP, FromFunction, Linear, Pendulum, Residual
from bayeswm.testing import check_model
from tests.contract.test_every_model import recordings

# small settings: what is looked at is the contract, not how well the chains mix
WAYS: dict[str, Inference] = {
    "Conjugate": Conjugate(draws=400),
    "HMC": HMC(chains=16, warmup=60, draws=40),
    "Laplace": Laplace(starts=2, draws=400),
    "NUTS": NUTS(draws=60, warmup=100, max_tree_depth=5),
    "SVI": SVI(guide=AutoNormal(), steps=300, draws=400),
}


def physics() -> Pendulum:
    return Pendulum(mass=LogNormal(0.0, 0.3), length=0.5, gravity=10.0, upright=0.0, time_step=0.05)


def accelerate(state: torch.Tensor, action: torch.Tensor, context: torch.Tensor, p: dict) -> torch.Tensor:
    angle, velocity = state[..., 0], state[..., 1]
    return torch.stack((velocity, p["gravity"] * torch.sin(angle) + 3.0 * action[..., 0]), -1)


def from_function(schema: bwm.Schema) -> FromFunction:
    parameters = {"gravity": Normal(10.0, 5.0)}
    euler = bwm.structures.Euler()
    return FromFunction(accelerate, schema=schema, parameters=parameters, integrator=euler)


STRUCTURES: dict[str, Callable[[bwm.Schema], bwm.Structure]] = {
    "FromFunction": from_function,
    "Linear": lambda schema: Linear(schema, c=Normal(0.0, 1.0)),
    "MLP": lambda schema: MLP(hidden=(3,), schema=schema),
    "Pendulum": lambda schema: physics(),
    "Residual": lambda schema: Residual(known=physics(), learned=MLP(hidden=(2,))),
}

# what a way refuses, and the words of the refusal
REFUSED = {
    ("Conjugate", "MLP"): "noise that does not depend on the coefficients",
    ("Conjugate", "Pendulum"): "mass: expected a Normal or MultivariateNormal law",
    ("Conjugate", "Residual"): "known.mass: expected a Normal or MultivariateNormal law",
}


def test_no_way_of_inference_is_left_behind() -> None:
    assert sorted(WAYS) == sorted(Inference.registry)


@pytest.mark.slow
@pytest.mark.parametrize("structure", STRUCTURES)
@pytest.mark.parametrize("way", sorted(Inference.registry))
@pytest.mark.filterwarnings("ignore::bayeswm.base.errors.FitWarning")  # the settings are small
def test_contract(way: str, structure: str) -> None:
    data = recordings(episodes=4, steps=25)
    model = bwm.BayesianDynamics(structure=STRUCTURES[structure](data.schema), inference=WAYS[way])
    if (way, structure) in REFUSED:
        with pytest.raises(bwm.SpecError, match=REFUSED[way, structure]):
            model.fit(data, seed=0, progress=False)
        return
    model.fit(data, seed=0, progress=False)
    report = check_model(model, data)
    assert report.failed == ()


@pytest.mark.filterwarnings("ignore::bayeswm.base.errors.FitWarning")
@pytest.mark.parametrize("way", sorted(Inference.registry))
def test_a_linear_model_is_fitted_drawn_rolled_out_saved_and_loaded(way: str, tmp_path) -> None:
    data = recordings(episodes=4, steps=25)
    model = bwm.BayesianDynamics(structure=Linear(data.schema, c=Normal(0.0, 1.0)), inference=WAYS[way])
    model.fit(data, seed=0, progress=False).save(tmp_path / "model")
    loaded = bwm.load(tmp_path / "model")
    assert loaded.inference == WAYS[way]
    start, actions = data.state[:, 0], torch.zeros(4, 5, 1, dtype=torch.float64)
    one, two = (
        bwm.rollout(m, start, actions, worlds=5, particles=2, generator=make_generator(0)) for m in (model, loaded)
    )
    assert bool(one.particles.isfinite().all())
    torch.testing.assert_close(one.particles, two.particles, rtol=0, atol=0)
