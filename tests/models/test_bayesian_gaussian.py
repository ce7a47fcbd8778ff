"""Bayesian dynamics by inference in closed form and by Laplace's approximation."""

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.distributions import HalfNormal, LogNormal, Normal

import bayeswm as bwm
from bayeswm.base import Schema, Variable
from bayeswm.base.random import make_generator
from bayeswm.inference import Conjugate, Diagonal, Inference, Kronecker, Laplace, LastLayer, NormalInverseGamma
from bayeswm.structures import MLP, FromFunction, Linear, Pendulum, Residual
from bayeswm.testing import check_model

F64 = torch.float64
SCHEMA = Schema(state=[Variable("x"), Variable("v")], action=[Variable("u")], time_step=0.1)
STEADY = {"x": HalfNormal(torch.tensor(0.5, dtype=F64)), "v": HalfNormal(torch.tensor(0.5, dtype=F64))}


def data(seed: int = 0, *, episodes: int = 4, steps: int = 20) -> bwm.Trajectories:
    structure = Linear(SCHEMA, A=torch.tensor([[1.0, 0.1], [-0.2, 0.9]]), B=torch.tensor([[0.0], [0.5]]))
    truth, g = bwm.KnownDynamics(structure=structure, noise={"x": 0.05, "v": 0.2}), make_generator(seed)
    start = torch.randn(episodes, 2, generator=g, dtype=F64)
    action = 4 * torch.rand(episodes, steps, 1, generator=g, dtype=F64) - 2
    paths = bwm.rollout(truth, start, action, particles=1, generator=g).particles[0, 0]
    return bwm.Trajectories(SCHEMA, state=torch.cat((start[:, None], paths), 1), action=action)


def features(state: Tensor, action: Tensor) -> Tensor:
    x, v = state.unbind(-1)
    return torch.stack((x, v, action[..., 0].expand(x.shape), x.sin(), x * v), -1)


def mapped(state: Tensor, action: Tensor, context: Tensor, p: dict[str, Tensor]) -> Tensor:
    return features(state, action) @ p["w"]


def feature_map() -> FromFunction:
    law = Normal(torch.zeros(5, 2, dtype=F64), 1.0)
    return FromFunction(mapped, schema=SCHEMA, parameters={"w": law}, name="mapped")


def fit(structure: bwm.Structure, inference: Inference, trajectories: bwm.Trajectories, **more: object):
    model = bwm.BayesianDynamics(structure=structure, inference=inference, **more)
    return model.fit(trajectories, seed=0, progress=False)


@pytest.mark.parametrize(
    "inference",
    [Conjugate(), Laplace(starts=2), Laplace(curvature=Diagonal(), starts=2), Laplace(empirical_bayes=True, starts=2)],
    ids=["conjugate", "laplace", "diagonal", "empirical_bayes"],
)
@pytest.mark.parametrize("structure", [Linear(SCHEMA), feature_map()], ids=["linear", "features"])
def test_the_contract_is_kept(structure: bwm.Structure, inference: Inference) -> None:
    recorded = data()
    assert check_model(fit(structure, inference, recorded), recorded).failed == ()


@pytest.mark.parametrize(
    "inference",
    [Laplace(curvature=LastLayer(), starts=1), Laplace(curvature=Kronecker(), starts=1)],
    ids=["last_layer", "kronecker"],
)
def test_networks_keep_the_contract(inference: Inference) -> None:
    recorded = data()
    assert check_model(fit(MLP(hidden=(6,)), inference, recorded), recorded).failed == ()


def test_a_learned_correction_has_layers() -> None:
    structure = Residual(Linear(SCHEMA, A=0.9, B=0.0), MLP(hidden=(4,)))
    assert structure.layers() == {"learned.network": ((3, 4), (4, 4))}
    model = fit(structure, Laplace(curvature=LastLayer(), starts=1, draws=100), data())
    network = model.posterior["learned.network"][0]
    assert bool((network.std(0)[:16] < 1e-12).all())
    assert bool((network.std(0)[16:] > 0).all())


@pytest.mark.statistical
def test_any_feature_map_has_the_closed_form() -> None:
    recorded = data()
    model = fit(feature_map(), Conjugate(), recorded, noise=STEADY)
    t = recorded.transitions()
    phi, evidence = features(t.state, t.action).double(), 0.0
    for column in range(2):
        scale = torch.tensor(0.01 * 0.25, dtype=F64)
        before = NormalInverseGamma(
            torch.zeros(5), scale * torch.eye(5, dtype=F64), shape=torch.tensor(1.0), scale=scale
        )
        evidence += float(before.log_evidence(phi, t.next_state[:, column].double()))
        after = before.update(phi, t.next_state[:, column].double())
        spread = (after.scale / (after.shape - 1) * torch.linalg.inv(after.precision).diagonal()).sqrt()
        error = (model.posterior["w"][0, :, :, column].mean(0) - after.mean) / spread
        assert float(error.abs().max()) < 5 / math.sqrt(1000)
    assert model.diagnostics.statistics["log_evidence"] == pytest.approx(evidence, rel=1e-9)


def test_condition_is_exact() -> None:
    first, more = data(0), data(1)
    structure = Linear(SCHEMA)
    updated = fit(structure, Conjugate(), first, noise=STEADY).condition(more)
    both = bwm.BayesianDynamics(structure=structure, inference=Conjugate(), noise=STEADY)
    both.fit(bwm.Trajectories.concatenate([first, more]), seed=1, progress=False)  # the seed that an update takes
    torch.testing.assert_close(updated.posterior, both.posterior, rtol=1e-10, atol=1e-10)
    assert updated.diagnostics.statistics == both.diagnostics.statistics


def test_saving_keeps_the_way_of_inference(tmp_path: Path) -> None:
    for inference in (Conjugate(draws=50), Laplace(curvature=Diagonal(), starts=1, draws=50)):
        model = fit(Linear(SCHEMA), inference, data())
        model.save(tmp_path / "model.bwm")
        loaded = bwm.load(tmp_path / "model.bwm")
        assert loaded.inference == inference
        assert torch.equal(loaded.posterior["A"], model.posterior["A"])


def test_physics_that_is_not_affine_is_refused_by_name() -> None:
    truth = bwm.KnownDynamics(structure=Pendulum(), noise=0.01)
    paths = bwm.rollout(
        truth, torch.zeros(2, 2), torch.ones(2, 10, 1), particles=1, generator=make_generator(0)
    ).particles[0, 0]
    state = torch.cat((torch.zeros(2, 1, 2), paths), 1)
    recorded = bwm.Trajectories(truth.schema, state=state, action=torch.ones(2, 10, 1))
    with pytest.raises(bwm.base.SpecError, match="mass: expected a Normal or MultivariateNormal law"):
        fit(Pendulum(mass=LogNormal(0.0, 0.5)), Conjugate(), recorded)
