import math

import arviz as az
import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import MCMC, NUTS, SVI, Predictive, Trace_ELBO
from pyro.infer.autoguide import AutoNormal
from torch.distributions import Normal

from bayeswm.base import SpecError
from bayeswm.base.random import global_rng, make_generator
from bayeswm.inference import from_pyro
from tests.statistical.checks import BUDGET

SEEN = torch.tensor([0.3, 1.1, 0.7, 1.6])


def model(seen: torch.Tensor | None, n: int = 4) -> None:
    level = pyro.sample("level", dist.Normal(0.0, 1.0))
    pyro.deterministic("double", 2 * level)
    with pyro.plate("days", n):
        pyro.sample("rain", dist.Normal(level, 0.5), obs=seen)


@pytest.fixture(scope="module")
def mcmc() -> MCMC:
    with global_rng(0):
        found = MCMC(NUTS(model), num_samples=60, warmup_steps=40, num_chains=1, disable_progbar=True)
        found.run(SEEN)
    return found


def test_chains(mcmc: MCMC) -> None:
    tree = from_pyro(mcmc, model=model, args=(SEEN,), coords={"day": list("abcd")}, dims={"rain": ["day"]})
    assert sorted(tree.children) == ["log_likelihood", "observed_data", "posterior", "sample_stats"]
    level = mcmc.get_samples()["level"]
    np.testing.assert_array_equal(tree["posterior"]["level"].values[0], level)
    expected = Normal(level[:, None], 0.5).log_prob(SEEN)
    np.testing.assert_allclose(tree["log_likelihood"].rain.values[0], expected, rtol=1e-5)
    assert tree["log_likelihood"].rain.dims == ("chain", "draw", "day")
    assert list(tree["observed_data"].data_vars) == ["rain"]
    np.testing.assert_array_equal(tree["observed_data"].rain.sel(day="c"), SEEN[2])
    assert tree["sample_stats"].diverging.dtype == bool
    rate = tree["sample_stats"].acceptance_rate.values
    assert rate.shape == (1, 60)
    assert rate[0, 0] == pytest.approx(mcmc.diagnostics()["acceptance rate"]["chain 0"])
    assert np.isfinite(az.loo(tree).elpd)
    assert az.summary(tree, round_to="none").loc["level", "mean"] == pytest.approx(float(level.mean()), rel=1e-5)


def test_divergences_stand_at_their_draws(mcmc: MCMC, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mcmc, "diagnostics", lambda: {"divergences": {"chain 0": [3, 17]}})
    stats = from_pyro(mcmc)["sample_stats"]
    assert stats.diverging.values[0].nonzero()[0].tolist() == [3, 17]


@pytest.mark.statistical
def test_a_guide_is_drawn_from() -> None:
    with global_rng(0):
        pyro.clear_param_store()
        guide = AutoNormal(model)
        svi = SVI(model, guide, pyro.optim.Adam({"lr": 0.05}), Trace_ELBO())
        for _ in range(200):
            svi.step(SEEN)
    before = torch.get_rng_state()
    tree = from_pyro(guide, model=model, args=(SEEN,), draws=300, generator=make_generator(0))
    assert torch.equal(torch.get_rng_state(), before)
    assert list(tree["posterior"].data_vars) == ["level"]
    level = tree["posterior"]["level"].values
    assert level.shape == (1, 300)
    mean, scale = (float(v.detach()) for v in (guide.median()["level"], guide.scales.level))
    z = (level.mean() - mean) / scale * math.sqrt(300)
    assert math.erfc(abs(z) / math.sqrt(2)) > BUDGET
    assert "sample_stats" not in tree.children
    assert tree["log_likelihood"].rain.shape == (1, 300, 4)


def test_predictions(mcmc: MCMC) -> None:
    with global_rng(0):
        after = Predictive(model, mcmc.get_samples(), return_sites=("rain",))(None)
        before = Predictive(model, num_samples=30)(None)
    tree = from_pyro(mcmc, posterior_predictive=after, prior_predictive=before)
    np.testing.assert_array_equal(tree["posterior_predictive"].rain.values[0], after["rain"])
    assert list(tree["prior"].data_vars) == ["level"]
    assert set(tree["prior_predictive"].data_vars) - {"double"} == {"rain"}
    assert tree["prior_predictive"].rain.shape == (1, 30, 4)
    # the model tells latent from observed where there is no posterior
    alone = from_pyro(prior_predictive=before, model=model, args=(SEEN,))
    assert list(alone["prior"].data_vars) == ["level"]
    assert from_pyro(posterior_predictive=after)["posterior_predictive"].rain.shape == (1, 60, 4)


def test_groups_of_chains_are_kept_apart(mcmc: MCMC, monkeypatch: pytest.MonkeyPatch) -> None:
    # Pyro lays chains one after another in what Predictive takes
    level = torch.arange(60.0)
    monkeypatch.setattr(mcmc, "_samples", {"level": level.view(3, 20)})
    monkeypatch.setattr(mcmc, "diagnostics", lambda: {"acceptance rate": {f"chain {i}": 0.1 * i for i in range(3)}})
    tree = from_pyro(mcmc, posterior_predictive={"rain": level})
    np.testing.assert_array_equal(tree["posterior_predictive"].rain.values, level.view(3, 20))
    np.testing.assert_array_equal(tree["posterior"]["level"].values, level.view(3, 20))
    assert tree["sample_stats"].acceptance_rate.values[2, 7] == pytest.approx(0.2)


def test_masks_count_and_scales_do_not() -> None:
    def partly(seen: torch.Tensor) -> None:
        level = pyro.sample("level", dist.Normal(0.0, 1.0))
        with pyro.plate("days", 4), pyro.poutine.scale(scale=10.0):
            pyro.sample("rain", dist.Normal(level, 0.5).mask(torch.tensor([True, True, True, False])), obs=seen)

    with global_rng(0):
        guide = AutoNormal(partly)
        guide(SEEN)
    tree = from_pyro(guide, model=partly, args=(SEEN,), draws=5, generator=make_generator(0))
    level = torch.from_numpy(tree["posterior"]["level"].values[0])
    expected = Normal(level[:, None], 0.5).log_prob(SEEN)
    expected[:, 3] = 0.0
    np.testing.assert_allclose(tree["log_likelihood"].rain.values[0], expected, rtol=1e-5)


def test_what_cannot_be_converted(mcmc: MCMC) -> None:
    with pytest.raises(SpecError, match="got none"):
        from_pyro()
    with pytest.raises(SpecError, match=r"\.run"):
        from_pyro(MCMC(NUTS(model), num_samples=3, warmup_steps=2, disable_progbar=True))
    with pytest.raises(SpecError, match="generator="):
        from_pyro(AutoNormal(model), args=(SEEN,))
    with pytest.raises(SpecError, match="expected 60 samples of 'rain'"):
        from_pyro(mcmc, posterior_predictive={"rain": torch.zeros(50, 4)})
