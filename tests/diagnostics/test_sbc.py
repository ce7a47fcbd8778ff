"""Calibration of whole models by simulation: exact inference passes, a wrong one does not."""

import math

import pytest
import torch
from torch.distributions import LogNormal, Normal

import bayeswm as bwm
from bayeswm.base import Hierarchical, SpecError
from bayeswm.base.random import make_generator
from bayeswm.diagnostics import sbc
from bayeswm.inference import Conjugate, Inference, Inferred, Joint
from bayeswm.structures import MLP, Linear, Pendulum
from tests.statistical.checks import BUDGET

F64 = torch.float64
SCHEMA = bwm.Schema(state=[bwm.Variable("x"), bwm.Variable("v")], action=[bwm.Variable("u")], time_step=0.1)


def design(*, steps: int = 6) -> bwm.Trajectories:
    g = make_generator(5)
    state, action = (torch.randn(2, n, k, generator=g, dtype=F64) for n, k in ((steps + 1, 2), (steps, 1)))
    # episodes of different lengths
    return bwm.Trajectories(SCHEMA, state=state, action=action, lengths=[steps, steps - 2])


class Narrow(Inference):
    """The exact posterior, drawn with half of its spread."""

    def infer(self, joint: Joint, *, generator: torch.Generator, progress: bool = False) -> Inferred:
        exact = Conjugate().infer(joint, generator=generator).values
        return Inferred({k: v.mean(1, keepdim=True) + 0.5 * (v - v.mean(1, keepdim=True)) for k, v in exact.items()})


def linear(inference: Inference | None = None, *, noise: object = (0.3, 0.5)) -> bwm.BayesianDynamics:
    scale = dict(zip("xv", noise, strict=True)) if isinstance(noise, tuple) else noise
    return bwm.BayesianDynamics(structure=Linear(SCHEMA), noise=scale, inference=inference or Conjugate())


@pytest.mark.statistical
@pytest.mark.parametrize("given", [None, design(steps=4)])
def test_the_conjugate_posterior_is_calibrated(given: bwm.Trajectories | None) -> None:
    found = sbc(linear(), design(), repetitions=120, given=given)
    # 4 + 2 entries of the matrices; the noise is known
    assert found["quantity"].values.tolist()[-2:] == ["B[1]", "log_likelihood"]
    assert found.sizes["quantity"] == 7
    assert found.attrs["p_value"] > BUDGET


@pytest.mark.statistical
@pytest.mark.parametrize("given", [None, design(steps=4)])
def test_a_posterior_that_is_too_narrow_is_seen(given: bwm.Trajectories | None) -> None:
    found = sbc(linear(Narrow()), design(), repetitions=120, given=given)
    assert found.attrs["p_value"] < BUDGET
    assert float(found["coverage"].sel(level=0.9).min()) < 0.75


def test_a_design_may_be_random_and_noise_is_named_by_its_column() -> None:
    def made(world: bwm.Worlds, g: torch.Generator) -> bwm.Trajectories:
        start, action = torch.randn(3, 2, generator=g, dtype=F64), torch.randn(3, 5, 1, generator=g, dtype=F64)
        return bwm.data.simulate(world, start, action, generator=g)

    prior = {"x": LogNormal(-1.0, 0.3), "v": LogNormal(-1.0, 0.3)}
    model = linear(bwm.inference.Laplace(draws=100), noise=prior)
    found = sbc(model, made, repetitions=3, draws=20)
    assert {"process_noise.x", "process_noise.v"} <= set(found["quantity"].values.tolist())
    with pytest.raises(SpecError, match="fitted"):
        _ = model.posterior  # the model itself was not fitted


def test_a_hidden_state_needs_a_design_that_says_where_it_starts() -> None:
    schema = bwm.Schema(state=[bwm.Variable("x")], time_step=0.1)
    drift = Linear(schema, A=0.9 * torch.eye(1), c=Normal(torch.zeros(1), 1.0))
    way = bwm.inference.Laplace(starts=1, draws=50)
    model = bwm.BayesianDynamics(structure=drift, noise=0.1, sensor_noise=0.2, inference=way)
    nothing = bwm.Trajectories(schema, state=torch.zeros(2, 4, 1))
    with pytest.raises(SpecError, match="function that takes worlds"):
        sbc(model, nothing, repetitions=2, draws=9)

    def made(world: bwm.Worlds, g: torch.Generator) -> bwm.Trajectories:
        start = torch.randn(2, 1, generator=g, dtype=F64)
        nothing = torch.zeros(2, 3, 0)
        paths = bwm.rollout(world, start, nothing, particles=1, generator=g, of="measurement").particles[0, 0]
        first = start + 0.2 * torch.randn(2, 1, generator=g, dtype=F64)
        return bwm.Trajectories(schema, state=torch.cat((first[:, None], paths), 1))

    found = sbc(model, made, repetitions=2, draws=9)
    assert found["quantity"].values.tolist() == ["c[0]", "log_likelihood"]


# --- priors ----------------------------------------------------------------------------------------------------------


@pytest.mark.statistical
def test_the_prior_has_the_laws_that_were_stated() -> None:
    law = LogNormal(math.log(0.2), 0.5)
    model = bwm.BayesianDynamics(structure=Pendulum(mass=LogNormal(0.3, 0.4)), noise={"angle": 0.1, "velocity": law})
    drawn = model.prior(2000, generator=make_generator(0)).parameters
    assert torch.equal(drawn["process_noise"][:, 0], torch.full((2000,), 0.1, dtype=F64))
    said = ((drawn["mass"], (0.3, 0.4)), (drawn["process_noise"][:, 1], (law.loc, law.scale)))
    for values, (location, scale) in said:
        z = (values.log() - float(location)) / float(scale)
        assert math.erfc(abs(float(z.mean())) * math.sqrt(2000 / 2)) > BUDGET
        assert math.erfc(abs(float(z.square().mean()) - 1) * math.sqrt(2000) / 2) > BUDGET


def test_episodes_to_come_are_drawn_from_the_population() -> None:
    mass = Hierarchical(LogNormal(0.0, 0.1), LogNormal(-2.0, 0.1), relative=True)
    worlds = bwm.BayesianDynamics(structure=Pendulum(mass=mass), noise=0.1).prior(5, generator=make_generator(0))
    assert worlds.episode_noise_size == 1


def test_a_prior_that_data_move_is_refused() -> None:
    with pytest.raises(SpecError, match="whose size no data tell"):
        linear(noise=None).prior(1, generator=make_generator(0))
    network = bwm.BayesianDynamics(structure=MLP(hidden=(3,), schema=SCHEMA), noise=0.1)
    with pytest.raises(SpecError, match="expected data to fit to"):
        network.prior(1, generator=make_generator(0))
    fitted = bwm.BayesianDynamics(structure=Linear(SCHEMA), noise={"x": 0.1}, inference=Narrow()).fit(design(), seed=0)
    assert len(fitted.prior(3, generator=make_generator(0))) == 3
    with pytest.raises(SpecError, match="process_noise moved when the model was fitted"):
        sbc(fitted, design(), repetitions=2, draws=9)
    with pytest.raises(SpecError, match="DeepEnsemble has no prior"):
        sbc(bwm.DeepEnsemble(structure=MLP(schema=SCHEMA)), design(), repetitions=2)


def test_a_known_system_is_its_own_prior() -> None:
    belief = bwm.KnownDynamics(structure=Pendulum(mass=LogNormal(0.0, 0.5)), noise=0.1)
    one, two = (f(4, generator=make_generator(0)).parameters["mass"] for f in (belief.prior, belief.draw))
    assert torch.equal(one, two)
    assert Normal(0.0, 1.0).log_prob(one.log() / 0.5).isfinite().all()
