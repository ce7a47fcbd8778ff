import pyro
import pyro.distributions as dist
import pytest
import torch
from torch.distributions import HalfNormal, Normal

import bayeswm as bwm
from bayeswm.base.random import make_generator
from bayeswm.inference import HMC, NUTS, SVI, AutoMultivariateNormal, Inference, StudentTLikelihood
from bayeswm.structures import Linear
from tests.inference.moments import chain_moments_p
from tests.models.test_bayesian import NOISE, SCHEMA, conjugate, linear_data, row
from tests.statistical.checks import BUDGET, mean_p

F64 = torch.float64
SIGMA = torch.tensor([0.1, 0.3], dtype=F64)


def linear(t: bwm.base.trajectories.Transitions, noise: torch.Tensor = SIGMA, *, plate: bool = True) -> None:
    """Linear dynamics, as a user of Pyro writes them."""
    A = pyro.sample("A", dist.Normal(torch.eye(2, dtype=F64), 1.0).to_event(2))
    B = pyro.sample("B", dist.Normal(torch.zeros(2, 1, dtype=F64), 1.0).to_event(2))
    c = pyro.sample("c", dist.Normal(torch.zeros(2, dtype=F64), 1.0).to_event(1))
    law = dist.Normal(t.state @ A.mT + t.action @ B.mT + c, noise)
    if not plate:
        pyro.sample("next", law.to_event(2), obs=t.next_state)
        return
    with pyro.plate("steps", len(t.state)):
        pyro.sample("next", law.to_event(1), obs=t.next_state)


def fitted(model=linear, inference: Inference | None = None, **given: object) -> bwm.BayesianDynamics:
    structure = Linear(SCHEMA, c=Normal(0.0, 1.0))
    given = {"noise": NOISE, **given}
    made = bwm.BayesianDynamics(structure=structure, inference=inference, pyro_model=model, **given)
    return made.fit(linear_data(), seed=0, progress=False)


@pytest.mark.statistical
def test_hmc_gives_the_posterior_of_the_built_in_model() -> None:
    model = fitted(inference=HMC(chains=32))
    for i, (mean, factor) in enumerate(conjugate(linear_data())):
        assert chain_moments_p(row(model.posterior, i), mean, factor) > BUDGET
    worlds = model.draw(50, generator=make_generator(0))
    assert set(worlds.parameters) == {"A", "B", "c", "process_noise"}
    x = bwm.rollout(model, torch.zeros(2, 2), torch.zeros(2, 5, 1), particles=4, generator=make_generator(0))
    assert bool(x.particles.isfinite().all())
    # a row is a transition, so that more data are taken in by tempering
    new = linear_data(episodes=1, steps=12, seed=1)
    assert model.condition(new).diagnostics.statistics["stages"] >= 1


@pytest.mark.slow
@pytest.mark.statistical
def test_nuts_gives_the_posterior_of_the_built_in_model() -> None:
    model = fitted(inference=NUTS(draws=1200, warmup=300, chains=1))
    for i, (mean, factor) in enumerate(conjugate(linear_data())):
        white = (row(model.posterior, i)[0] - mean) @ torch.linalg.inv(factor).mT
        blocks = white.reshape(30, 40, 4)  # which depend on each other hardly
        assert mean_p(blocks.mean(1), 0.0) > BUDGET
        assert mean_p((blocks[..., :, None] * blocks[..., None, :]).mean(1), torch.eye(4)) > BUDGET


def test_noise_is_a_site_and_other_sites_stay_in_the_posterior() -> None:
    def model(t: bwm.base.trajectories.Transitions) -> None:
        size = pyro.sample("size", dist.HalfNormal(torch.ones((), dtype=F64)))
        linear(t, pyro.sample("process_noise", dist.HalfNormal(size.expand(2)).to_event(1)))

    found = fitted(model, HMC(chains=32), noise=None)
    assert set(found.posterior) == {"A", "B", "c", "process_noise", "size"}
    assert found.posterior["process_noise"].shape == (32, 400, 2)
    scale = found.posterior["process_noise"]
    assert bool(((scale.mean((0, 1)) - SIGMA).abs() < 4 * scale.std((0, 1))).all())
    assert "size" not in found.draw(3, generator=make_generator(0)).parameters


@pytest.mark.filterwarnings("ignore::bayeswm.base.errors.FitWarning")
def test_a_model_without_a_plate_is_conditioned_afresh() -> None:
    way = SVI(guide=AutoMultivariateNormal(), steps=50)
    model = fitted(lambda t: linear(t, plate=False), way)
    after = model.condition(linear_data(episodes=1, steps=12, seed=1))
    assert "stages" not in after.diagnostics.statistics
    assert after.diagnostics.statistics["steps"] == 50


def test_site_names_are_checked() -> None:
    def misspelt(t):
        pyro.sample("a", dist.Normal(torch.eye(2, dtype=F64), 1.0).to_event(2))
        pyro.sample("B", dist.Normal(torch.zeros(2, 1), 1.0).to_event(2))
        c = pyro.sample("c", dist.Normal(torch.zeros(2), 1.0).to_event(1))
        pyro.sample("next", dist.Normal(c, 1.0).to_event(1), obs=torch.zeros(2))

    with pytest.raises(bwm.SpecError, match=r"the sites A, B, c: A is missing \(did you mean 'a'\?\)"):
        fitted(misspelt)
    with pytest.raises(bwm.SpecError, match="process_noise is missing; or give known numbers as noise="):
        fitted(noise=None)
    with pytest.raises(bwm.SpecError, match=r"process_noise: expected shape \(2,\), got \(\)"):
        fitted(lambda t: linear(t, pyro.sample("process_noise", dist.HalfNormal(1.0))), noise=None)
    known = bwm.BayesianDynamics(structure=Linear(SCHEMA), noise=NOISE, pyro_model=linear)
    with pytest.raises(bwm.SpecError, match="c: the Pyro model infers it, but it is known in Linear"):
        known.fit(linear_data(), seed=0, progress=False)
    with pytest.raises(bwm.SpecError, match="the Pyro model <lambda> cannot be run: AttributeError"):
        fitted(lambda t: linear(t.states))


def test_what_the_model_says_itself_is_not_said_twice() -> None:
    for given in ({"window": 3}, {"likelihood": StudentTLikelihood()}, {"sensor_noise": HalfNormal(1.0)}):
        with pytest.raises(bwm.SpecError, match="pyro_model= without"):
            bwm.BayesianDynamics(structure=Linear(SCHEMA), pyro_model=linear, **given)
    c = bwm.Hierarchical(0.0, HalfNormal(0.3))
    structure = bwm.structures.FromFunction(lambda x, u, context, p: p["c"] * x, schema=SCHEMA, parameters={"c": c})
    with pytest.raises(bwm.SpecError, match="c: a Pyro model cannot have parameters that differ between episodes"):
        bwm.BayesianDynamics(structure=structure, pyro_model=linear).fit(linear_data(), seed=0, progress=False)


@pytest.mark.filterwarnings("ignore::bayeswm.base.errors.FitWarning")
def test_it_cannot_be_saved(tmp_path) -> None:
    model = fitted(inference=SVI(steps=20))
    with pytest.raises(bwm.SpecError, match="cannot save a Pyro model of your own"):
        model.save(tmp_path / "model")
