"""Every way of inference serves every structure and keeps the contract: a new one without an entry here fails."""

import pytest
import torch
from torch.distributions import LogNormal, Normal

import bayeswm as bwm
from bayeswm.base.random import make_generator
from bayeswm.inference import HMC, NUTS, SVI, Conjugate, Inference, Laplace
from bayeswm.structures import (
    MLP,
    Ballistic,
    CartPole,
    DoublePendulum,
    DuffingOscillator,
    FromFunction,
    Linear,
    LotkaVolterra,
    Pendulum,
    Residual,
)
from bayeswm.testing import check_model

F64 = torch.float64
SCHEMA = bwm.Schema(state=[bwm.Variable("x"), bwm.Variable("v")], action=[bwm.Variable("u")], time_step=0.1)

WAYS: dict[str, Inference] = {
    "Conjugate": Conjugate(draws=200),
    "HMC": HMC(chains=8, warmup=40, draws=40),
    "Laplace": Laplace(starts=2, draws=200),
    "NUTS": NUTS(chains=1, warmup=40, draws=60),
    "SVI": SVI(steps=150, draws=200),
}


def features(x: torch.Tensor, u: torch.Tensor, c: torch.Tensor, p: dict[str, torch.Tensor]) -> torch.Tensor:
    phi = torch.cat((x, torch.sin(x), u.expand(*x.shape[:-1], 1)), -1)
    return phi @ p["weights"].mT


def mass() -> LogNormal:
    return LogNormal(torch.tensor(0.0, dtype=F64), 0.3)


PENDULUM = bwm.Schema(state=Pendulum().schema.state, action=Pendulum().schema.action, time_step=0.05)
STABLE = Linear(SCHEMA, A=torch.tensor([[0.9, 0.1], [-0.2, 0.8]], dtype=F64), B=torch.tensor([[0.0], [0.5]], dtype=F64))

# what is inferred, and the system that the data come from
STRUCTURES: dict[str, tuple[bwm.Structure, bwm.Structure]] = {
    "Ballistic": (
        Ballistic(gravity=LogNormal(2.28, 0.1), dimensions=2, time_step=0.1),
        Ballistic(dimensions=2, time_step=0.1),
    ),
    "CartPole": (CartPole(cart_mass=mass()), CartPole()),
    "DoublePendulum": (
        DoublePendulum(actuated=("elbow",), mass_1=mass()),
        DoublePendulum(actuated=("elbow",)),
    ),
    "DuffingOscillator": (DuffingOscillator(stiffness=mass()), DuffingOscillator()),
    "FromFunction": (
        FromFunction(
            features, schema=SCHEMA, parameters={"weights": Normal(torch.zeros(2, 5, dtype=F64), 1.0)}, name="features"
        ),
        STABLE,
    ),
    "Linear": (Linear(SCHEMA), STABLE),
    "LotkaVolterra": (LotkaVolterra(growth=mass()), LotkaVolterra()),
    "MLP": (MLP(hidden=(3,), schema=SCHEMA), STABLE),
    "Pendulum": (Pendulum(mass=mass()), Pendulum()),
    "Residual": (
        Residual(Pendulum(mass=mass()), Linear(PENDULUM, A=torch.eye(2, dtype=F64), B=Normal(0.0, 0.1))),
        Pendulum(),
    ),
}
# closed forms need a mean that is affine in the parameters
AFFINE = {"FromFunction", "Linear"}


def recordings(truth: bwm.Structure, *, episodes: int = 5, steps: int = 8) -> bwm.Trajectories:
    g, known = make_generator(0), bwm.KnownDynamics(structure=truth, noise=0.02)
    schema = known.schema
    start = 1 + 0.3 * torch.randn(episodes, schema.state.size, generator=g, dtype=F64)
    action = torch.randn(episodes, steps, schema.action.size, generator=g, dtype=F64)
    paths = bwm.rollout(known, start, action, horizon=steps, particles=1, generator=g).particles[0, 0]
    return bwm.Trajectories(schema, state=torch.cat((start[:, None], paths), 1), action=action)


OFFERED = [
    # trees on a network take minutes
    pytest.param(s, w, marks=pytest.mark.slow if (s, w) == ("MLP", "NUTS") else ())
    for s in STRUCTURES
    for w in WAYS
    if w != "Conjugate" or s in AFFINE
]


@pytest.mark.filterwarnings("ignore::bayeswm.base.errors.FitWarning")  # runs as short as these have not converged
@pytest.mark.parametrize(("structure", "way"), OFFERED)
def test_contract(structure: str, way: str) -> None:
    inferred, truth = STRUCTURES[structure]
    data = recordings(truth)
    model = bwm.BayesianDynamics(structure=inferred, inference=WAYS[way]).fit(data, seed=0, progress=False)
    assert check_model(model, data).failed == ()


@pytest.mark.parametrize("structure", sorted(set(STRUCTURES) - AFFINE))
def test_closed_forms_refuse_what_is_not_affine(structure: str) -> None:
    inferred, truth = STRUCTURES[structure]
    model = bwm.BayesianDynamics(structure=inferred, inference=Conjugate())
    with pytest.raises(bwm.SpecError, match=r"affine|Normal or MultivariateNormal|noise"):
        model.fit(recordings(truth), seed=0, progress=False)


def test_none_is_forgotten() -> None:
    exported = {name: getattr(bwm.structures, name) for name in bwm.structures.__all__}
    found = {name for name, one in exported.items() if isinstance(one, type) and issubclass(one, bwm.Structure)}
    assert found == set(STRUCTURES)
    assert set(Inference.registry) == set(WAYS)
