"""What BayesianDynamics infers, and from which likelihood; the samplers have tests of their own."""

import pytest
import torch
from torch import Tensor
from torch.distributions import HalfNormal, Normal

import bayeswm as bwm
from bayeswm.base.random import make_generator
from bayeswm.inference import HMC, GaussianLikelihood, HeteroscedasticLikelihood, StudentTLikelihood
from bayeswm.models.sensing import Sensing
from bayeswm.models.specification import Specification, specify
from bayeswm.structures import MLP, FromFunction, Linear, Pendulum
from tests.models import random_effects as walk
from tests.models.test_bayesian import NOISE, SCHEMA, linear_data, simulate
from tests.statistical.checks import BUDGET, chi_square_p

F64 = torch.float64


def linear() -> Linear:
    return Linear(SCHEMA, c=Normal(0.0, 1.0))


def of(structure: bwm.Structure, data: bwm.Trajectories, **given: object) -> Specification:
    settings = {"noise": {}, "sensor_noise": {}, "likelihood": GaussianLikelihood(), "sensing": None, "window": None}
    return specify(structure, data, **{**settings, **given})


def values(found: Specification, data: bwm.Trajectories, count: int = 3) -> dict[str, Tensor]:
    joint = found.joint(data)
    return joint.values(joint.flat.sample(count, make_generator(0)))


def test_one_step_is_the_density_under_the_worlds() -> None:
    data = linear_data().to(F64)
    found = of(linear(), data)
    assert set(found.laws) == {"A", "B", "c", "process_noise.x", "process_noise.v"}
    drawn, joint = values(found, data), found.joint(data)
    assert joint.terms == data.transition_count
    worlds = found.worlds(drawn)
    each = worlds.log_likelihood(
        worlds.start(data.states()[:, 0]), data.states()[:, 1:], data.action, data.step_context()
    )
    torch.testing.assert_close(joint.log_likelihood(drawn, None), each[:, 0].flatten(1), rtol=1e-10, atol=0)
    rows = torch.tensor([5, 17])
    torch.testing.assert_close(joint.log_likelihood(drawn, rows), each[:, 0].flatten(1)[:, rows], rtol=1e-10, atol=0)
    mean, scale = joint.predict(drawn, None)
    torch.testing.assert_close(
        torch.distributions.Normal(mean, scale).log_prob(joint.target).sum(-1), each[:, 0].flatten(1)
    )


@pytest.mark.parametrize("likelihood", [StudentTLikelihood(), HeteroscedasticLikelihood()])
def test_other_likelihoods_are_the_laws_of_the_worlds_too(likelihood: bwm.inference.Likelihood) -> None:
    data = linear_data().to(F64)
    found = of(linear(), data, likelihood=likelihood)
    drawn, joint = values(found, data), found.joint(data)
    worlds = found.worlds(drawn)
    each = worlds.log_likelihood(
        worlds.start(data.states()[:, 0]), data.states()[:, 1:], data.action, data.step_context()
    )
    torch.testing.assert_close(joint.log_likelihood(drawn, None), each[:, 0].flatten(1), rtol=1e-10, atol=0)
    assert joint.predict is None


def test_sensors_over_whole_episodes_are_the_likelihood_of_the_worlds() -> None:
    data = linear_data().to(F64)
    start = {"x": Normal(0.0, 1.0), "v": Normal(0.0, 2.0)}
    sensing = Sensing.of(linear(), {"x": 0.1}, belief=start)
    seen = bwm.Trajectories(sensing.schema, observation=data.states()[..., :1], action=data.action)
    found = of(linear(), seen, noise=NOISE, sensor_noise={"x": HalfNormal(0.2)}, sensing=sensing)
    assert set(found.laws) == {"A", "B", "c", "sensor_noise.x"}
    drawn, joint = values(found, seen), found.joint(seen)
    assert joint.terms == len(data)
    _, log_weight = found.worlds(drawn).smooth(seen, generator=make_generator(0))
    torch.testing.assert_close(joint.log_likelihood(drawn, None), log_weight[:, 0], rtol=1e-9, atol=0)
    assert found.named(drawn)["sensor_noise"].shape == (3, 1)
    assert "process_noise" not in found.named(drawn)


def test_windows_of_one_step_forecast_what_one_step_says() -> None:
    data = linear_data().to(F64)
    found = of(linear(), data, window=2)
    drawn = values(found, data)
    single = of(linear(), data.windows(1))
    ahead = found.joint(data.windows(1)).log_likelihood(drawn, None)
    torch.testing.assert_close(ahead, single.joint(data.windows(1)).log_likelihood(drawn, None), rtol=1e-9, atol=0)


def test_minibatches_of_windows_are_unbiased() -> None:
    data = linear_data().to(F64)
    joint = of(linear(), data, window=6).joint(data)
    x = joint.flat.sample(2, make_generator(0))
    parts = [joint.log_density(x, torch.tensor([i])) for i in range(joint.terms)]
    torch.testing.assert_close(torch.stack(parts).mean(0), joint.log_density(x), rtol=1e-10, atol=0)


def test_a_networks_scales_come_from_the_data() -> None:
    data = simulate(Pendulum(), 0.01).to(F64)
    found = of(MLP(hidden=(4,)).bind(data.schema), data)
    assert set(found.laws) == {"network"}
    velocity = data.transitions().state[:, 1]
    torch.testing.assert_close(found.known["input_mean"][2], velocity.mean())
    assert found.noise == {}


def test_an_unmeasured_column_needs_its_noise() -> None:
    data = linear_data().to(F64)
    sensing = Sensing.of(linear(), {"x": 0.1}, belief={"v": Normal(0.0, 2.0)})
    seen = bwm.Trajectories(sensing.schema, observation=data.states()[..., :1], action=data.action)
    with pytest.raises(bwm.SpecError, match="expected noise= of 'x', whose size no data tell"):
        of(linear(), seen, sensor_noise={"x": 0.1}, sensing=sensing)


# --- parameters of episodes -------------------------------------------------------------------------------------------


@pytest.mark.statistical
@pytest.mark.parametrize("sensors", [False, True])
def test_population_and_episodes_have_their_exact_posterior(sensors: bool) -> None:
    prior = Normal(0.0, 1.0)
    data = walk.recordings(episodes=6)
    seen = {"sensor_noise": 1e-4, "window": 4} if sensors else {}
    model = bwm.BayesianDynamics(
        structure=walk.drift(prior), noise=walk.KICK, inference=HMC(chains=16, warmup=100, draws=300), **seen
    ).fit(data, seed=0, progress=False)
    location = model.posterior["drift.location"]
    mean, spread = walk.location_given(data, prior)
    size = float(model.diagnostics.ess_bulk["drift.location"])
    # sensors that good (1e-4 against kicks of 0.2) change the law of the changes by 1e-6
    assert chi_square_p(size * ((location.mean() - mean) / spread) ** 2, 1) > BUDGET
    assert abs(float(location.std()) / spread - 1) < 4.5 * (1 / (2 * size)) ** 0.5
    each = model.posterior["drift"]
    assert each.shape == (16, 300, 6)
    # an episode's drift given the location, averaged over the location
    changes = data.states()[:, 1:, 0] - data.states()[:, :-1, 0]
    precision = 1 / walk.SPREAD**2 + 8 / walk.KICK**2
    wanted = (mean / walk.SPREAD**2 + changes.sum(1) / walk.KICK**2) / precision
    width = (1 / precision + (spread / walk.SPREAD**2 / precision) ** 2) ** 0.5
    few = float(model.diagnostics.ess_bulk["drift"].min())
    assert chi_square_p((few * ((each.mean((0, 1)) - wanted) / width).square()).sum(), 6) > BUDGET


def test_more_episodes_are_inferred_afresh_with_parameters_of_their_own() -> None:
    data = walk.recordings(episodes=3)
    short = HMC(chains=8, warmup=40, draws=60)
    with pytest.warns(bwm.FitWarning):
        model = bwm.BayesianDynamics(structure=walk.drift(Normal(0.0, 1.0)), noise=walk.KICK, inference=short).fit(
            data, seed=0, progress=False
        )
    with pytest.warns(bwm.FitWarning):
        more = model.condition(walk.recordings(episodes=2, seed=1))
    assert more.posterior["drift"].shape[2:] == (5,)
    assert model.posterior["drift"].shape[2:] == (3,)


def test_episodes_meet_gaussian_noise_of_constant_size_only() -> None:
    data = walk.recordings(episodes=3).to(F64)
    with pytest.raises(bwm.SpecError, match=r"parameters of episodes \(drift\), got StudentTLikelihood"):
        of(walk.drift(), data, likelihood=StudentTLikelihood())

    def noisy(x, u, c, p):
        return x + p["drift"][..., None], 0.1 + 0 * x

    own = FromFunction(noisy, schema=walk.SCHEMA, parameters={"drift": bwm.Hierarchical(0.0, 1.0)})
    with pytest.raises(bwm.SpecError, match="got the noise of noisy; give noise="):
        of(own, data)


# --- what it is good for ----------------------------------------------------------------------------------------------


def test_heavy_tails_do_not_pull_the_parameters() -> None:
    g = make_generator(0)
    schema = bwm.Schema(state=[bwm.Variable("x")], action=[bwm.Variable("u")], time_step=1.0)
    u, x = torch.randn(3, 40, 1, generator=g, dtype=F64), [torch.zeros(3, 1, dtype=F64)]
    for t in range(40):
        kick = 3.0 if t % 9 == 0 else 0.01 * torch.randn(3, 1, generator=g, dtype=F64)  # now and then it is hit
        x.append(0.9 * x[-1] + 0.5 * u[:, t] + kick)
    data = bwm.Trajectories(schema, state=torch.stack(x, 1), action=u)
    structure = FromFunction(
        lambda x, u, c, p: p["a"][..., None] * x + p["b"][..., None] * u,
        schema=schema,
        parameters={"a": Normal(0.0, 1.0), "b": Normal(0.0, 1.0)},
    )

    def error(likelihood: bwm.inference.Likelihood) -> float:
        model = bwm.BayesianDynamics(structure=structure, likelihood=likelihood, inference=HMC(chains=16))
        found = model.fit(data, seed=0, progress=False).posterior
        return max(abs(float(found["a"].mean()) - 0.9), abs(float(found["b"].mean()) - 0.5))

    assert error(StudentTLikelihood()) < 0.05 * error(GaussianLikelihood())


def test_windows_forgive_a_structure_that_is_not_the_whole_truth() -> None:
    # the truth has a lag that the structure lacks: one step at a time measures the wrong slope
    g = make_generator(0)
    schema = bwm.Schema(state=[bwm.Variable("x")], action=[bwm.Variable("u")], time_step=1.0)
    u = torch.randn(8, 40, 1, generator=g, dtype=F64)
    hidden, x = torch.zeros(8, 1, dtype=F64), [torch.zeros(8, 1, dtype=F64)]
    for t in range(40):
        hidden = 0.5 * hidden + 0.5 * u[:, t]
        x.append(0.9 * x[-1] + hidden)
    noisy = torch.stack(x, 1) + 0.3 * torch.randn(8, 41, 1, generator=g, dtype=F64)
    data = bwm.Trajectories(schema, state=noisy, action=u)
    structure = FromFunction(
        lambda x, u, c, p: p["a"][..., None] * x + p["b"][..., None] * u,
        schema=schema,
        parameters={"a": Normal(0.0, 1.0), "b": Normal(0.0, 1.0)},
    )

    def error(window: int | None) -> float:
        sampler = HMC(chains=16, warmup=100, draws=300)
        model = bwm.BayesianDynamics(structure=structure, window=window, inference=sampler)
        fitted = model.fit(data[:6], seed=0, progress=False)
        future = bwm.rollout(fitted, data.states()[6:, 0], data.action[6:, :20], generator=make_generator(1))
        return float((future.mean - torch.stack(x, 1)[6:, 1:21]).square().mean().sqrt())

    assert error(10) < 0.8 * error(None)
