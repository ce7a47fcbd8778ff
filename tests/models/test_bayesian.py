import math
import threading
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.distributions import Gamma, HalfNormal, LogNormal, Normal, Uniform

import bayeswm as bwm
from bayeswm.base import Schema, Variable
from bayeswm.base.random import make_generator
from bayeswm.inference import HMC
from bayeswm.structures import MLP, FromFunction, Linear, Pendulum
from tests.inference.moments import chain_moments_p
from tests.statistical.checks import BUDGET, chi_square_p

F64 = torch.float64
SCHEMA = Schema(state=[Variable("x"), Variable("v")], action=[Variable("u")], time_step=0.1)
NOISE = {"x": 0.1, "v": 0.3}
QUICK = HMC(chains=32, warmup=100)


def simulate(structure: bwm.Structure, noise: object, *, episodes: int = 4, steps: int = 25, seed: int = 0):
    """Episodes of a known system under random actions within 2."""
    truth, g = bwm.KnownDynamics(structure=structure, noise=noise), make_generator(seed)
    start = torch.randn(episodes, truth.schema.state.size, generator=g, dtype=F64)
    action = 4 * torch.rand(episodes, steps, truth.schema.action.size, generator=g, dtype=F64) - 2
    paths = bwm.rollout(truth, start, action, particles=1, generator=g).particles[0, 0]
    return bwm.Trajectories(truth.schema, state=torch.cat((start[:, None], paths), 1), action=action)


def linear_data(**sizes: int) -> bwm.Trajectories:
    structure = Linear(SCHEMA, A=torch.tensor([[1.0, 0.1], [-0.2, 0.9]]), B=torch.tensor([[0.0], [0.5]]))
    return simulate(structure, NOISE, **sizes)


def test_nodes_are_the_posterior() -> None:
    data = linear_data()
    inference = bwm.inference.Conjugate(draws=4000)
    model = bwm.BayesianDynamics(structure=Linear(SCHEMA, A=torch.eye(2).double()), noise=NOISE, inference=inference)
    model.fit(data, seed=0, progress=False)
    nodes = model.nodes(order=5)
    assert (len(nodes), nodes.exhaustive) == (25, True)
    points, drawn = nodes.parameters["B"][..., 0], model.posterior["B"][0, ..., 0]
    mean = nodes.weight @ points
    covariance = torch.einsum("n,ni,nj->ij", nodes.weight, points - mean, points - mean)
    with pytest.raises(bwm.SpecError, match="expected a fitted model"):
        bwm.BayesianDynamics(structure=Linear(SCHEMA), noise=NOISE, inference=inference).nodes()
    model.inference = QUICK
    with pytest.raises(bwm.SpecError, match=r"inference=Conjugate\(\) for nodes"):
        model.nodes()
    z = (drawn.mean(0) - mean) / (covariance.diagonal() / len(drawn)).sqrt()
    assert float(z.abs().max()) < 4.5
    ratio = (drawn.var(0) / covariance.diagonal() - 1) / (2 / len(drawn)) ** 0.5
    assert float(ratio.abs().max()) < 4.5


def conjugate(data: bwm.Trajectories) -> list[tuple[Tensor, Tensor]]:
    """Exact posterior of each row of (A, B, c): mean and Cholesky factor, for the priors N(identity, 1) and N(0, 1)."""
    t = data.transitions()
    features = torch.cat((t.state, t.action, torch.ones(len(t.state), 1)), -1).double()
    rows = []
    for i, sigma in enumerate(NOISE.values()):
        prior = torch.zeros(4, dtype=F64)
        prior[i] = 1.0
        precision = torch.eye(4, dtype=F64) + features.mT @ features / sigma**2
        covariance = torch.linalg.inv(precision)
        mean = covariance @ (prior + features.mT @ t.next_state[:, i].double() / sigma**2)
        rows.append((mean, torch.linalg.cholesky(covariance)))
    return rows


def row(values: dict[str, Tensor], i: int) -> Tensor:
    return torch.cat((values["A"][..., i, :], values["B"][..., i, :], values["c"][..., i, None]), -1)


def linear(data: bwm.Trajectories, **settings: object) -> bwm.BayesianDynamics:
    structure = Linear(SCHEMA, c=Normal(0.0, 1.0))
    return bwm.BayesianDynamics(structure=structure, noise=NOISE, **settings).fit(data, seed=0, progress=False)


@pytest.fixture(scope="module")
def fitted() -> bwm.BayesianDynamics:
    return linear(linear_data())


# --- the posterior is right -------------------------------------------------------------------------------------------


@pytest.mark.statistical
def test_linear_dynamics_have_their_conjugate_posterior(fitted: bwm.BayesianDynamics) -> None:
    for i, (mean, factor) in enumerate(conjugate(linear_data())):
        assert chain_moments_p(row(fitted.posterior, i), mean, factor) > BUDGET


@pytest.mark.statistical
@pytest.mark.parametrize(("episodes", "steps"), [(1, 12), (4, 50)])
def test_an_addition_gives_the_conjugate_posterior(fitted: bwm.BayesianDynamics, episodes: int, steps: int) -> None:
    new = linear_data(episodes=episodes, steps=steps, seed=1)
    model = fitted.condition(new)
    found = model.diagnostics.statistics
    assert "stages" not in fitted.diagnostics.statistics
    assert found["stages"] >= (2 if steps == 50 else 1)
    # the power of a stage leaves half; smoothing the weights' tail moves that a little
    assert found["weight_share"] > 0.45
    assert found["pareto_k"] <= 0.7
    # every stage left at least half of the draws distinct, and moved all of them
    size = next(iter(model.posterior.values())).shape[1] / 2
    for i, (mean, factor) in enumerate(conjugate(bwm.Trajectories.concatenate([linear_data(), new]))):
        draws = row(model.posterior, i)[0]
        error = torch.linalg.solve_triangular(factor, (draws - mean).mT, upper=False)
        assert chi_square_p(size * error.mean(1).square().sum(), 4) > BUDGET
        assert chi_square_p(size * (error @ error.mT / draws.shape[0]).diagonal().sum(), 4 * size) > BUDGET


def pendulum(**given: object) -> Pendulum:
    return Pendulum(length=0.5, inertia=0.3, time_step=0.05, **given)


@pytest.mark.statistical
def test_a_pendulum_of_unknown_mass_and_damping() -> None:
    data = simulate(pendulum(mass=1.3, damping=0.15), {"angle": 0.01, "velocity": 0.05})
    structure = pendulum(mass=LogNormal(0.0, 0.5), damping=HalfNormal(0.5))
    model = bwm.BayesianDynamics(structure=structure, inference=QUICK).fit(data, seed=0, progress=False)
    posterior = model.posterior
    truth = {"mass": 1.3, "damping": 0.15, "process_noise": torch.tensor([0.01, 0.05], dtype=F64)}
    assert set(posterior) == set(truth)
    for name, value in truth.items():
        z = (posterior[name].mean((0, 1)) - value) / posterior[name].std((0, 1))
        assert float(torch.special.erfc(z.abs().max() / math.sqrt(2))) > BUDGET, name
    assert float(posterior["mass"].std()) < 0.05  # the data say much more than the prior
    assert posterior["process_noise"].shape == (32, 400, 2)
    assert model.diagnostics.divergences <= 12


@pytest.mark.slow
@pytest.mark.statistical
# with 16 chains a correct R-hat is above 1.01 now and then; to drop those fits would bias the ranks
@pytest.mark.filterwarnings("ignore:R-hat above:bayeswm.base.errors.FitWarning")
def test_simulation_based_calibration() -> None:
    # ranks of the truth among draws 20 apart are uniform; 8 bins, so that 40 replicas fill them
    prior, ranks, replicas = {"mass": LogNormal(0.0, 0.3), "damping": HalfNormal(0.3)}, [], 40
    noise = {"angle": 0.05, "velocity": Gamma(4.0, 20.0)}
    settings = HMC(chains=16, warmup=100, draws=400)
    g = make_generator(3)
    laws = bwm.inference.Unconstrained({**prior, "sigma": noise["velocity"]})
    for replica in range(replicas):
        truth = {k: float(v) for k, v in laws.constrain(laws.sample(1, g)[0])[0].items()}
        scale = {"angle": 0.05, "velocity": truth["sigma"]}
        data = simulate(pendulum(mass=truth["mass"], damping=truth["damping"]), scale, episodes=1, seed=100 + replica)
        model = bwm.BayesianDynamics(structure=pendulum(**prior), inference=settings, noise=noise)
        posterior = model.fit(data, seed=replica, progress=False).posterior
        drawn = {"mass": posterior["mass"], "damping": posterior["damping"]}
        drawn["sigma"] = posterior["process_noise"][..., 1]
        ranks.append([float((drawn[k][:, ::20] < truth[k]).double().mean()) for k in ("mass", "damping", "sigma")])
    bins = (torch.tensor(ranks) * 8).long().clamp(max=7)
    for i in range(3):
        counts = torch.bincount(bins[:, i], minlength=8).double()
        assert chi_square_p((counts - replicas / 8).square().sum() / (replicas / 8), 7) > BUDGET


# --- noise ------------------------------------------------------------------------------------------------------------


def scalar(noise: object = None) -> bwm.BayesianDynamics:
    structure = Linear(Schema(state=[Variable("x")], time_step=1.0), A=Normal(0.0, 1.0))
    return bwm.BayesianDynamics(structure=structure, noise=noise, inference=QUICK)


def steps(*states: float) -> bwm.Trajectories:
    schema = Schema(state=[Variable("x")], time_step=1.0)
    return bwm.Trajectories(schema, state=torch.tensor(states, dtype=F64)[:, None])


def test_noise_known_by_column_and_with_a_law_of_ones_own() -> None:
    structure = Linear(SCHEMA, c=Normal(0.0, 1.0))
    law = Uniform(0.25, 0.35)
    model = bwm.BayesianDynamics(structure=structure, noise={"x": 0.1, "v": law}, inference=QUICK)
    noise = model.fit(linear_data(), seed=0, progress=False).posterior["process_noise"]
    assert bool((noise[..., 0] == 0.1).all())
    assert 0.25 < float(noise[..., 1].min()) < float(noise[..., 1].max()) < 0.35


def test_columns_that_are_not_named_keep_the_default_prior() -> None:
    model = bwm.BayesianDynamics(structure=Linear(SCHEMA), noise={"x": 0.1}, inference=QUICK)
    noise = model.fit(linear_data(), seed=0, progress=False).posterior["process_noise"]
    assert float(noise[..., 1].mean()) == pytest.approx(0.3, rel=0.3)  # 100 steps: sd of the estimate 7 %


def test_a_structure_keeps_its_own_noise() -> None:
    class Growing(FromFunction):
        def transition(self, parameters, state, action, context, step):
            return super().transition(parameters, state, action, context, step)[0], 0.1 + 0 * state

    structure = Growing(lambda x, u, c, p: p["a"] * x, schema=SCHEMA, parameters={"a": Normal(0.0, 1.0)})
    data = linear_data()
    model = bwm.BayesianDynamics(structure=structure, inference=QUICK).fit(data, seed=0, progress=False)
    assert set(model.posterior) == {"a"}
    law = model.draw(3, generator=make_generator(0))
    law = law.transition(law.start(torch.ones(2)), torch.zeros(1, dtype=F64))
    torch.testing.assert_close(law.variance, torch.full((3, 1, 2), 0.01, dtype=F64))
    given = bwm.BayesianDynamics(structure=structure, inference=QUICK, noise=0.4).fit(data, seed=0, progress=False)
    assert set(given.posterior) == {"a"}
    assert bool((given.draw(3, generator=make_generator(0)).parameters["process_noise"] == 0.4).all())


@pytest.mark.filterwarnings("ignore::bayeswm.base.errors.FitWarning")  # few draws, enough to see the floor
def test_data_without_noise_keep_a_floor() -> None:
    data = steps(*(0.9**t for t in range(30)))
    structure = Linear(data.schema, A=Normal(0.0, 1.0))
    model = bwm.BayesianDynamics(structure=structure, inference=HMC(chains=16, warmup=50, draws=50))
    model.fit(data, seed=0, progress=False)
    size = float(data.transitions().next_state.sub(data.transitions().state).square().mean().sqrt())
    assert float(model.posterior["process_noise"].min()) >= 1e-5 * size
    assert float(model.posterior["A"].mean()) == pytest.approx(0.9, abs=1e-4)


def test_contradictory_duplicates_raise_the_noise() -> None:
    schema = Schema(state=[Variable("x")], time_step=1.0)
    pairs = torch.tensor([[[1.0], [0.0]], [[1.0], [2.0]]], dtype=F64).repeat(20, 1, 1)
    model = scalar().fit(bwm.Trajectories(schema, state=pairs), seed=0, progress=False)
    assert float(model.posterior["process_noise"].mean()) == pytest.approx(1.0, rel=0.3)


def test_a_single_step_leaves_the_prior() -> None:
    structure = Linear(Schema(state=[Variable("x")], time_step=1.0), A=Normal(0.0, 1.0))
    model = bwm.BayesianDynamics(structure=structure, inference=HMC(chains=32, target_acceptance=0.97))
    a = model.fit(steps(0.0, 0.1), seed=0, progress=False).posterior["A"]  # A multiplies 0
    assert abs(float(a.mean())) < 0.1
    assert float(a.std()) == pytest.approx(1.0, abs=0.1)


def test_a_column_that_never_changes() -> None:
    with pytest.warns(bwm.DataWarning, match="x never changes"):
        model = scalar().fit(steps(*[2.0] * 20), seed=0, progress=False)
    assert bool(model.posterior["process_noise"].isfinite().all())


@pytest.mark.parametrize("wrong", [0.0, -1.0, math.nan, Normal(0.0, 1.0), HalfNormal(torch.ones(2)), {"x": 0.0}])
def test_noise_that_makes_no_sense(wrong: object) -> None:
    with pytest.raises(bwm.SpecError, match="noise of x: expected a number > 0 or a law of one such number"):
        scalar(wrong)


def test_noise_of_an_unknown_column() -> None:
    with pytest.raises(bwm.UnknownVariableError, match="did you mean 'v'"):
        bwm.BayesianDynamics(structure=Linear(SCHEMA), noise={"vv": 0.1})


# --- answers ----------------------------------------------------------------------------------------------------------


def test_worlds_are_posterior_draws(fitted: bwm.BayesianDynamics) -> None:
    worlds = fitted.draw(500, generator=make_generator(0))
    assert not worlds.exhaustive
    every = fitted.posterior["A"].flatten(0, 1)
    assert {tuple(r) for r in worlds.parameters["A"].flatten(1).tolist()} <= {
        tuple(r) for r in every.flatten(1).tolist()
    }
    # as many as there are: each comes once
    whole = fitted.draw(len(every), generator=make_generator(1)).parameters["A"]
    torch.testing.assert_close(whole.flatten(1).sort(0).values, every.flatten(1).sort(0).values, rtol=0, atol=0)
    again = fitted.draw(500, generator=make_generator(0))
    assert torch.equal(again.parameters["A"], worlds.parameters["A"])
    with pytest.raises(bwm.SpecError, match="worlds >= 1"):
        fitted.draw(0, generator=make_generator(0))
    with pytest.raises(bwm.SpecError, match="generator"):
        fitted.draw(5)


def test_diagnostics_have_the_shapes_of_the_parameters(fitted: bwm.BayesianDynamics) -> None:
    found = fitted.diagnostics
    for name, shape in {"A": (2, 2), "B": (2, 1), "c": (2,)}.items():
        assert tuple(found.r_hat[name].shape) == tuple(found.ess_bulk[name].shape) == shape
        assert float(found.r_hat[name].max()) < 1.01
        assert float(found.ess_bulk[name].min()) > 400
    assert 0.7 < found.statistics["acceptance"] < 0.95
    assert found.divergences == 0


def test_data_in_training_change_nothing(fitted: bwm.BayesianDynamics) -> None:
    assert fitted.condition(linear_data(), in_training=True) is fitted


def test_saved_and_loaded(fitted: bwm.BayesianDynamics, tmp_path: Path) -> None:
    path = tmp_path / "linear.bwm"
    for model in (fitted, fitted.condition(linear_data(episodes=1, steps=2, seed=1))):
        model.save(path)
        again = bwm.load(path)
        assert isinstance(again, bwm.BayesianDynamics)
        assert again.inference == model.inference
        assert again.noise == model.noise
        for name, values in model.posterior.items():
            assert torch.equal(again.posterior[name], values)
        assert again.diagnostics.statistics == model.diagnostics.statistics
        assert torch.equal(again.diagnostics.r_hat["A"], model.diagnostics.r_hat["A"])
        more = linear_data(episodes=1, steps=3, seed=5)
        assert torch.equal(again.condition(more).posterior["A"], model.condition(more).posterior["A"])


@pytest.mark.filterwarnings("ignore::bayeswm.base.errors.FitWarning")
def test_same_seed_same_posterior_and_nothing_else_is_touched() -> None:
    before, data = torch.get_rng_state(), linear_data()
    kept = data.state.clone()
    short = HMC(chains=4, warmup=20, draws=10)
    one, two = linear(data, inference=short), linear(data, inference=short)
    assert torch.equal(one.posterior["A"], two.posterior["A"])
    assert torch.equal(before, torch.get_rng_state())
    assert torch.equal(data.state, kept)
    with torch.inference_mode():
        assert torch.equal(linear(data, inference=short).posterior["A"], one.posterior["A"])


@pytest.mark.filterwarnings("ignore::bayeswm.base.errors.FitWarning")
def test_two_fits_in_two_threads_are_those_of_one() -> None:
    short = HMC(chains=4, warmup=20, draws=10)
    data = [linear_data(seed=i) for i in (0, 1)]
    alone = [linear(d, inference=short).posterior["A"] for d in data]
    found: dict[int, Tensor] = {}

    def work(i: int) -> None:
        found[i] = linear(data[i], inference=short).posterior["A"]

    threads = [threading.Thread(target=work, args=(i,)) for i in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(torch.equal(found[i], alone[i]) for i in range(2))


# --- refusals ---------------------------------------------------------------------------------------------------------


def test_nothing_uncertain() -> None:
    with pytest.raises(bwm.SpecError, match="at least one parameter of Pendulum to be a law"):
        bwm.BayesianDynamics(structure=Pendulum())
    with pytest.raises(bwm.SpecError, match="a structure with a schema, got MLP"):
        _ = bwm.BayesianDynamics(structure=MLP()).schema


def test_a_positive_parameter_with_a_law_that_is_not() -> None:
    with pytest.raises(bwm.SpecError, match="mass: expected a law of numbers > 0, got Normal; try LogNormal"):
        bwm.BayesianDynamics(structure=Pendulum(mass=Normal(1.0, 0.1)))


@pytest.mark.parametrize("wrong", [{"inference": HMC}, {"inference": "hmc"}, {"likelihood": "student"}])
def test_objects_that_are_none(wrong: dict[str, object]) -> None:
    with pytest.raises(bwm.SpecError, match=f"expected {next(iter(wrong))} to be an object such as"):
        bwm.BayesianDynamics(structure=Linear(SCHEMA), **wrong)


def test_before_the_fit() -> None:
    model = bwm.BayesianDynamics(structure=Linear(SCHEMA))
    for ask in (
        lambda: model.posterior,
        lambda: model.diagnostics,
        lambda: model.draw(2, generator=make_generator(0)),
        lambda: model.condition(linear_data()),
        model.state_dict,
    ):
        with pytest.raises(bwm.SpecError, match="fitted model"):
            ask()
    with pytest.raises(bwm.SpecError, match="seed="):
        model.fit(linear_data(), progress=False)
    with pytest.raises(bwm.SpecError, match="expected state"):
        model.fit(steps(0.0, 1.0), seed=0, progress=False)


def test_no_start_names_the_parameter() -> None:
    structure = FromFunction(
        lambda x, u, c, p: x + (p["a"] * 0).sqrt(),
        schema=SCHEMA,
        parameters={"b": Normal(0.0, 1.0), "a": Normal(0, 1.0)},
    )
    with pytest.raises(bwm.FitError, match="the gradient is not finite in a;"):
        bwm.BayesianDynamics(structure=structure, noise=1.0).fit(linear_data(), seed=0, progress=False)
