"""Posterior draws as an ArviZ tree: its numbers, and that ArviZ reads them."""

import math

import arviz as az
import matplotlib as mpl
import numpy as np
import pytest
import torch
from torch.distributions import HalfNormal, LogNormal, Normal

import bayeswm as bwm
from bayeswm.base import Hierarchical, SpecError
from bayeswm.base.random import make_generator
from bayeswm.inference import HMC, Conjugate, HeteroscedasticLikelihood, Inference, Laplace, StudentTLikelihood
from bayeswm.inference.convergence import ess_mean
from bayeswm.structures import Linear, Pendulum
from tests.models.test_bayesian import NOISE, SCHEMA, linear_data, simulate
from tests.statistical.checks import BUDGET

mpl.use("Agg")
F64 = torch.float64
# small chains for the tree, not for inference: what R-hat says of them is beside the point
pytestmark = pytest.mark.filterwarnings("ignore:R-hat above:bayeswm.base.errors.FitWarning")
TINY = HMC(chains=4, warmup=60, draws=100)


def linear(noise: object = None, **given: object) -> bwm.BayesianDynamics:
    structure = Linear(SCHEMA, c=Normal(0.0, 1.0))
    model = bwm.BayesianDynamics(structure=structure, noise=noise, **{"inference": TINY, **given})
    return model.fit(linear_data(), seed=0, progress=False)


@pytest.fixture(scope="module")
def fitted() -> bwm.BayesianDynamics:
    return linear({"x": 0.1})


@pytest.fixture(scope="module")
def tree(fitted: bwm.BayesianDynamics):
    return fitted.to_datatree(prior=True)


# --- what is in it ----------------------------------------------------------------------------------------------------


def test_chains_and_draws_are_as_sampled(fitted: bwm.BayesianDynamics, tree) -> None:
    for name, values in fitted.posterior.items():
        found = torch.from_numpy(tree["posterior"][name].values)
        torch.testing.assert_close(found, values[..., 1:] if name == "process_noise" else values, rtol=0, atol=0)
    # of the noises those that are inferred
    assert tree["posterior"].process_noise.noise_variable.values.tolist() == ["v"]
    stats = fitted._fitted[1].sample_stats
    for name, values in stats.items():
        np.testing.assert_array_equal(tree["sample_stats"][name].values, values)
    assert tree["sample_stats"].attrs["step_size"] == fitted.diagnostics.statistics["step_size"]


def test_groups_have_the_dimensions_of_the_observed_data(tree) -> None:
    observed = tree["observed_data"].dataset
    for group in ("log_likelihood", "posterior_predictive", "prior_predictive"):
        for name, seen in observed.items():
            found = tree[group].dataset[name]
            assert found.dims == ("chain", "draw", *seen.dims)
            assert found.transition.identical(seen.transition)


def test_log_likelihood_and_log_prior_are_those_of_the_sampler(fitted: bwm.BayesianDynamics, tree) -> None:
    specification, inferred, data = fitted._fitted
    joint, flat = specification.joint(data), {k: v.flatten(0, 1) for k, v in inferred.values.items()}
    likelihood = tree["log_likelihood"].dataset.to_array().sum("variable").values.reshape(400, -1)
    torch.testing.assert_close(torch.from_numpy(likelihood), joint.log_likelihood(flat, None))
    prior = tree["log_prior"].dataset.to_array().sum("variable").values.ravel()
    torch.testing.assert_close(torch.from_numpy(prior), joint.flat.log_prior(flat))


def test_predictions_scatter_around_the_means_of_their_worlds(fitted: bwm.BayesianDynamics, tree) -> None:
    # (prediction - mean of its world) / noise of its world is standard normal
    posterior, steps = fitted.posterior, fitted._fitted[2].transitions()
    mean = steps.state @ posterior["A"].mT + steps.action @ posterior["B"].mT + posterior["c"][..., None, :]
    for i, name in enumerate(("x", "v")):
        predicted = torch.from_numpy(tree["posterior_predictive"][name].values)
        z = (predicted - mean[..., i]) / posterior["process_noise"][..., i, None]
        n = z.numel()
        assert math.erfc(abs(float(z.mean())) * math.sqrt(n / 2)) > BUDGET
        assert math.erfc(abs(float(z.square().mean()) - 1) * math.sqrt(n) / 2) > BUDGET


def test_the_prior_is_drawn_from_the_laws(tree) -> None:
    prior = tree["prior"].dataset
    assert dict(prior.c.sizes) == {"chain": 1, "draw": 100, "c_dim_0": 2}
    # 200 numbers from N(0, 1)
    assert math.erfc(abs(float(prior.c.mean())) * math.sqrt(200 / 2)) > BUDGET
    assert float(tree["prior_predictive"].v.std("draw").mean()) > 3 * float(
        tree["posterior_predictive"].v.std("draw").mean()
    )


def test_draws_are_thinned_evenly_in_all_groups(fitted: bwm.BayesianDynamics, tree) -> None:
    few = fitted.to_datatree(draws=4)
    assert few["posterior"].draw.values.tolist() == [0, 33, 66, 99]
    for group in ("posterior", "log_likelihood", "log_prior", "sample_stats"):
        assert few[group].dataset.equals(tree[group].dataset.sel(draw=[0, 33, 66, 99]))
    assert few["posterior_predictive"].sizes["draw"] == 4
    with pytest.raises(SpecError, match="draws >= 1"):
        fitted.to_datatree(draws=0)


def test_the_same_model_gives_the_same_tree(fitted: bwm.BayesianDynamics, tree) -> None:
    assert fitted.to_datatree(prior=True).identical(tree)
    other = fitted.to_datatree(generator=make_generator(1))
    assert not other["posterior_predictive"].equals(tree["posterior_predictive"])


def test_other_data_may_be_scored(fitted: bwm.BayesianDynamics) -> None:
    assert fitted.to_datatree(linear_data(episodes=1, steps=7, seed=5))["log_likelihood"].sizes["transition"] == 7


@pytest.mark.parametrize("way", [Conjugate(draws=50), Laplace(draws=50)])
def test_independent_draws_are_one_chain(way: Inference) -> None:
    tree = linear(NOISE, inference=way).to_datatree()
    assert dict(tree["log_likelihood"].sizes) == {"chain": 1, "draw": 50, "transition": 100}


def test_parameters_have_units_and_those_of_columns_their_names() -> None:
    data = simulate(Pendulum(mass=1.3), 0.05, episodes=2, steps=10)
    structure = Pendulum(mass=LogNormal(0.0, 0.5))
    model = bwm.BayesianDynamics(structure=structure, inference=TINY, likelihood=StudentTLikelihood())
    posterior = model.fit(data, seed=0, progress=False).to_datatree()["posterior"].dataset
    assert posterior.mass.units == "kg"
    assert posterior.degrees_of_freedom.state_variable.values.tolist() == ["angle", "velocity"]
    assert posterior.process_noise.noise_variable.values.tolist() == ["angle", "velocity"]
    model = bwm.BayesianDynamics(structure=structure, inference=TINY, likelihood=HeteroscedasticLikelihood())
    slope = model.fit(data, seed=0, progress=False).to_datatree()["posterior"].noise_slope
    assert slope.dims == ("chain", "draw", "state_variable", "noise_slope_dim_1")


def test_parameters_of_episodes() -> None:
    data = simulate(Pendulum(damping=0.1), 0.05, episodes=3, steps=10)
    structure = Pendulum(damping=Hierarchical(LogNormal(-2.0, 0.5), HalfNormal(0.3), relative=True))
    model = bwm.BayesianDynamics(structure=structure, inference=TINY).fit(data, seed=0, progress=False)
    specification, inferred, kept = model._fitted
    tree = model.to_datatree()
    assert tree["posterior"].damping.dims == ("chain", "draw", "episode")
    # each transition under its own episode's damping
    joint = specification.joint(kept).log_likelihood({k: v.flatten(0, 1) for k, v in inferred.values.items()}, None)
    found = tree["log_likelihood"].dataset.to_array().sum("variable").values.reshape(400, -1)
    torch.testing.assert_close(torch.from_numpy(found), joint)
    with pytest.raises(SpecError, match=r"got \[3, 4\]"):
        model.to_datatree(simulate(Pendulum(), 0.05, episodes=5, steps=4))


def test_a_likelihood_of_windows_has_one_value_for_each() -> None:
    data, structure = simulate(Pendulum(mass=1.3), 0.05, episodes=2, steps=10), Pendulum(mass=LogNormal(0.0, 0.5))
    model = bwm.BayesianDynamics(structure=structure, inference=HMC(chains=4, warmup=30, draws=50), window=5)
    specification, inferred, kept = model.fit(data, seed=0, progress=False)._fitted
    tree = model.to_datatree()
    joint = specification.joint(kept).log_likelihood({k: v.flatten(0, 1) for k, v in inferred.values.items()}, None)
    assert tree["log_likelihood"].window.dims == ("chain", "draw", "row")
    torch.testing.assert_close(torch.from_numpy(tree["log_likelihood"].window.values.reshape(200, -1)), joint)
    assert tree["posterior_predictive"].sizes["transition"] == 20


def test_with_sensors_there_are_measurements() -> None:
    data, way = simulate(Pendulum(mass=1.3), 0.05, episodes=2, steps=4), HMC(chains=4, warmup=20, draws=20)
    model = bwm.BayesianDynamics(
        structure=Pendulum(mass=LogNormal(0.0, 0.5)), noise=0.05, sensor_noise=HalfNormal(0.1), inference=way
    )
    tree = model.fit(data, seed=0, progress=False).to_datatree(prior=True)
    assert tree["posterior"].sensor_noise.sensor_variable.values.tolist() == ["angle", "velocity"]
    assert tree["log_likelihood"].window.shape == (4, 20, 2)
    np.testing.assert_array_equal(tree["observed_data"].angle.values, data.states()[..., 0])
    assert not {"posterior_predictive", "prior_predictive"} & set(tree.children)


# --- ArviZ reads it ---------------------------------------------------------------------------------------------------


def test_summary_says_what_our_diagnostics_say(fitted: bwm.BayesianDynamics, tree) -> None:
    table = az.summary(tree, round_to="none")
    posterior, diagnostics = fitted.posterior, fitted.diagnostics
    for row, name, index in (
        ("A[1, 0]", "A", (1, 0)),
        ("c[0]", "c", (0,)),
        ("process_noise[v]", "process_noise", (1,)),
    ):
        draws = posterior[name][(..., *index)]
        assert table.loc[row, "mean"] == pytest.approx(float(draws.mean()), rel=1e-12)
        assert table.loc[row, "sd"] == pytest.approx(float(draws.std()), rel=1e-12)
        assert table.loc[row, "r_hat"] == pytest.approx(float(diagnostics.r_hat[name][index]), rel=1e-9)
        assert table.loc[row, "ess_bulk"] == pytest.approx(float(diagnostics.ess_bulk[name][index]), rel=1e-9)


def exact_loo(i: int, sigma: float) -> torch.Tensor:
    """Log density of column i of each transition given all others, for the priors N(identity, 1) and N(0, 1).

    With a Gaussian posterior N(m, V) of the row given all n transitions, leaving out (f, y) gives the predictive
    N(y - r / (1 - h), sigma^2 / (1 - h)) at r = y - f m and leverage h = f V f / sigma^2 (the identity of the PRESS
    residuals, here with a prior).
    """
    t = linear_data().transitions()
    features = torch.cat((t.state, t.action, torch.ones(len(t.state), 1)), -1).double()
    y, prior = t.next_state[:, i].double(), torch.eye(4, dtype=F64)[i]
    covariance = torch.linalg.inv(torch.eye(4, dtype=F64) + features.mT @ features / sigma**2)
    mean = covariance @ (prior + features.mT @ y / sigma**2)
    h = ((features @ covariance) * features).sum(-1) / sigma**2
    return Normal(y - (y - features @ mean) / (1 - h), sigma / (1 - h).sqrt()).log_prob(y)


def test_exact_leave_one_out_is_that_of_the_other_transitions() -> None:
    # one transition left out by hand
    t = linear_data().transitions()
    features = torch.cat((t.state, t.action, torch.ones(len(t.state), 1)), -1).double()
    f, y, others = features[7], t.next_state[7, 1].double(), torch.arange(len(features)) != 7
    covariance = torch.linalg.inv(torch.eye(4, dtype=F64) + features[others].mT @ features[others] / 0.09)
    target = features[others].mT @ t.next_state[others, 1].double() / 0.09
    mean = covariance @ (torch.eye(4, dtype=F64)[1] + target)
    expected = Normal(f @ mean, (0.09 + f @ covariance @ f).sqrt()).log_prob(y)
    torch.testing.assert_close(exact_loo(1, 0.3)[7], expected)


@pytest.mark.statistical
def test_loo_is_exact_leave_one_out() -> None:
    # 1 / mean(1 / p(y_i | draw)) estimates each left-out density. Its logarithm has, to first order, the error
    # - mean(w_i) with w_i = (1 / p_i) / mean(1 / p_i) - 1, so that the sum over i has a standard error of
    # sd(sum_i w_i) / sqrt(effective draws); smoothing the largest weights changes less than that
    tree = linear(NOISE, inference=HMC(chains=8, warmup=100, draws=250)).to_datatree()
    exact = {name: exact_loo(i, sigma) for i, (name, sigma) in enumerate(NOISE.items())}
    # whole transitions: the noise is known, so that the rows of (A, B, c) are independent, and so are the columns
    exact["total"] = exact["x"] + exact["v"]
    tree["log_likelihood"]["total"] = tree["log_likelihood"].x + tree["log_likelihood"].v
    for name, expected in exact.items():
        found = az.loo(tree, var_name=name, pointwise=True)
        assert not found.warning
        inverse = torch.from_numpy((-tree["log_likelihood"][name]).values).exp()
        error = (inverse / inverse.mean((0, 1)) - 1).sum(-1)
        standard = float(error.std() / ess_mean(error[..., None])[0].sqrt())
        assert standard < 0.5  # the standard error of elpd by the data, about 7, is far larger
        assert math.erfc(abs(float(found.elpd) - float(expected.sum())) / standard / math.sqrt(2)) > BUDGET


def test_trace_and_predictive_plots(tree) -> None:
    trace = az.plot_trace_dist(tree, var_names=["c", "process_noise"], backend="matplotlib")
    assert "process_noise" in trace.viz["trace"].data_vars
    check = az.plot_ppc_dist(tree, backend="matplotlib")
    assert set(check.viz["plot"].data_vars) == {"x", "v"}
    az.plot_ppc_dist(tree, group="prior_predictive", backend="matplotlib")
    mpl.pyplot.close("all")


def test_power_scaling_tells_the_data_from_the_prior() -> None:
    # a prior as narrow as what few data say pulls; a wide one does not
    data = linear_data(episodes=1, steps=12)
    wide, narrow = (
        bwm.BayesianDynamics(structure=Linear(SCHEMA, c=Normal(0.5, s)), noise=NOISE, inference=HMC(chains=8))
        .fit(data, seed=0, progress=False)
        .to_datatree()
        for s in (10.0, 0.05)
    )
    sensitive = [float(az.psense(t, var_names=["c"], group_var_names=["c"]).c[0]) for t in (wide, narrow)]
    assert sensitive[0] < 0.05 < sensitive[1]
    assert float(az.psense(wide, group="likelihood").c.min()) > 0.05
