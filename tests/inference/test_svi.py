import math

import pyro
import pytest
import torch
from pyro.infer import Trace_ELBO
from pyro.infer.autoguide import AutoMultivariateNormal as PyroMultivariateNormal
from pyro.infer.autoguide import AutoNormal as PyroNormal
from torch import Tensor
from torch.distributions import MultivariateNormal, Normal

from bayeswm.base import FitError, FitWarning, SpecError
from bayeswm.base.random import make_generator
from bayeswm.inference import (
    SVI,
    AutoLowRankMultivariateNormal,
    AutoMultivariateNormal,
    AutoNormal,
    Guide,
    Inference,
    Joint,
)
from bayeswm.inference.pyro_state import own_pyro
from tests.statistical.checks import BUDGET, chi_square_p, gaussian_p, mean_p

F64 = torch.float64
ROWS, SIZE, NOISE = 40, 5, 0.5


def randn(*shape: int, seed: int) -> Tensor:
    return torch.randn(shape, generator=make_generator(seed), dtype=F64)


# neighbouring features depend on each other
X = randn(ROWS, SIZE, seed=0) @ (torch.eye(SIZE, dtype=F64) + 0.6 * torch.diag(torch.ones(SIZE - 1, dtype=F64), 1))
Y = X @ randn(SIZE, seed=1) + NOISE * randn(ROWS, seed=2)
PRECISION = torch.eye(SIZE, dtype=F64) + X.mT @ X / NOISE**2
COVARIANCE = torch.linalg.inv(PRECISION)
MEAN = COVARIANCE @ X.mT @ Y / NOISE**2
LOG_EVIDENCE = float(
    MultivariateNormal(torch.zeros(ROWS, dtype=F64), NOISE**2 * torch.eye(ROWS, dtype=F64) + X @ X.mT).log_prob(Y)
)


def regression() -> Joint:
    def log_likelihood(values, rows):
        x, y = (X, Y) if rows is None else (X[rows], Y[rows])
        return Normal(values["w"] @ x.mT, NOISE).log_prob(y)

    return Joint({"w": Normal(torch.zeros(SIZE, dtype=F64), 1.0)}, log_likelihood, terms=ROWS)


# --- what it finds is right -------------------------------------------------------------------------------------------


@pytest.mark.statistical
@pytest.mark.parametrize("guide", [AutoMultivariateNormal(), AutoLowRankMultivariateNormal(rank=SIZE)])
def test_a_gaussian_posterior_is_recovered_exactly(guide: Guide) -> None:
    found = SVI(guide=guide, steps=4000, draws=4000).infer(regression(), generator=make_generator(0))
    assert min(gaussian_p(found.values["w"][0], MEAN, COVARIANCE)) > BUDGET
    # where the law is the posterior, every draw says what the evidence is: the bound is tight, and has no noise
    assert found.statistics["elbo"] == pytest.approx(LOG_EVIDENCE, abs=1e-4)
    assert found.statistics["elbo_error"] < 1e-4
    assert found.statistics["pareto_k"] < 0.5
    stats = found.sample_stats
    torch.testing.assert_close(
        stats["lp"] - stats["log_q"], torch.full((1, 4000), LOG_EVIDENCE, dtype=F64), rtol=1e-4, atol=0
    )


@pytest.mark.statistical
@pytest.mark.filterwarnings("ignore:Pareto k:bayeswm.base.errors.FitWarning")  # as it should be: the law is another
def test_independent_normal_laws_have_the_exact_mean_and_the_variances_of_mean_field() -> None:
    settings = SVI(guide=AutoNormal(), steps=4000)
    found = settings.infer(regression(), generator=make_generator(0))
    variances = torch.diag(1 / PRECISION.diagonal())
    assert min(gaussian_p(found.values["w"][0], MEAN, variances)) > BUDGET
    # KL(q | p) = (log det P^-1 - log det V) / 2 where the mean is exact and tr(P V) = D
    gap = 0.5 * float(torch.logdet(COVARIANCE) - torch.logdet(variances))
    error = found.statistics["elbo_error"]
    assert abs(found.statistics["elbo"] - (LOG_EVIDENCE - gap)) < 4.5 * error + 1e-3  # the last for noise of the steps


@pytest.mark.statistical
def test_batches_of_rows_find_the_same() -> None:
    settings = SVI(guide=AutoMultivariateNormal(), steps=8000, learning_rate=0.02, batch=10)
    found = settings.infer(regression(), generator=make_generator(0))
    # rows drawn at random leave noise in the steps, which 8,000 of them take out to a tenth of a standard deviation
    white = torch.linalg.solve_triangular(
        torch.linalg.cholesky(COVARIANCE), (found.values["w"][0] - MEAN).mT, upper=False
    )
    n = white.shape[1]
    assert chi_square_p(white.mean(1).square().sum() / (1 / n + 0.1**2), SIZE) > BUDGET
    assert found.statistics["elbo"] > LOG_EVIDENCE - 0.1


def test_gradients_of_batches_are_unbiased() -> None:
    joint, x = regression(), randn(3, SIZE, seed=4)

    def gradient(rows: Tensor | None) -> Tensor:
        at = x.clone().requires_grad_()
        (found,) = torch.autograd.grad(joint.log_density(at, rows).sum(), at)
        return found

    batches = SVI(batch=10).batches(ROWS, make_generator(0))
    epoch = [next(batches) for _ in range(4)]
    assert torch.cat(epoch).sort().values.tolist() == list(range(ROWS))
    mean = torch.stack([gradient(rows) for rows in epoch]).mean(0)
    torch.testing.assert_close(mean, gradient(None), rtol=1e-10, atol=1e-10)
    # a last batch that is smaller is left out, and a batch of all rows is none
    uneven = SVI(batch=15).batches(ROWS, make_generator(0))
    assert {len(next(uneven)) for _ in range(8)} == {15}
    assert next(SVI(batch=ROWS).batches(ROWS, make_generator(0))) is None


@pytest.mark.statistical
@pytest.mark.parametrize(
    ("own", "theirs"), [(AutoNormal, PyroNormal), (AutoMultivariateNormal, PyroMultivariateNormal)]
)
def test_the_bound_is_that_of_pyro(own: type[Guide], theirs: type) -> None:
    """At the same law, both estimates of the ELBO have the same mean."""
    joint, guide = regression(), own(init_scale=0.1)
    noise = randn(4000, SIZE, seed=6)
    drawn = guide.draw(guide.start(MEAN, make_generator(0)), noise, SIZE)
    ours = joint.log_density(drawn.x) - drawn.log_density

    def model() -> None:
        w = pyro.sample("w", pyro.distributions.Normal(torch.zeros(SIZE, dtype=F64), 1.0).to_event(1))
        pyro.sample("y", pyro.distributions.Normal(X @ w, NOISE).to_event(1), obs=Y)

    with own_pyro(0):
        made = theirs(model, init_loc_fn=pyro.infer.autoguide.init_to_value(values={"w": MEAN}), init_scale=0.1)
        bound = torch.tensor([-Trace_ELBO().loss(model, made) for _ in range(400)], dtype=F64)
    spread = math.hypot(float(ours.std()) / math.sqrt(4000), float(bound.std()) / math.sqrt(400))
    assert math.erfc(abs(float(ours.mean() - bound.mean())) / spread / math.sqrt(2)) > BUDGET


def test_positive_parameters_have_the_law_of_an_exponential() -> None:
    # counts of 50 in 10 turn Gamma(1, 0.1) into Gamma(51, 10.1)
    counts = torch.full((10,), 5.0, dtype=F64)

    def log_likelihood(values, rows):
        return torch.distributions.Poisson(values["rate"][:, None]).log_prob(counts if rows is None else counts[rows])

    joint = Joint({"rate": torch.distributions.Gamma(1.0, 0.1)}, log_likelihood, terms=10)
    rate = SVI(draws=4000).infer(joint, generator=make_generator(0)).values["rate"][0]
    # the density of u = log rate is 51 u - 10.1 exp(u); of normal laws N(m, v) the best has E exp(u) = 51 / 10.1 and
    # the variance one in 51
    assert mean_p(rate.log(), math.log(51 / 10.1) - 0.5 / 51) > BUDGET
    size = len(rate) - 1
    assert chi_square_p(size * rate.log().var() * 51, size) > BUDGET
    assert chi_square_p(2 * size - size * rate.log().var() * 51, size) > BUDGET


# --- what goes wrong --------------------------------------------------------------------------------------------------


def shifted(value: float, at: int) -> Joint:
    """A density that turns bad in ``w[1]`` at some evaluation."""
    calls = 0

    def log_likelihood(values, rows):
        nonlocal calls
        calls += 1
        w = values["w"]
        return (w[:, 1] * (value if calls > at else 0.0))[:, None] + 0 * w[:, :1]

    return Joint({"w": Normal(torch.zeros(2, dtype=F64), 1.0)}, log_likelihood, terms=1)


def test_a_step_that_is_not_finite_is_an_error_that_names_step_and_parameter() -> None:
    with pytest.raises(FitError, match=r"step 5: .* the gradient is not finite in w\[1\]; a lower learning_rate"):
        SVI(steps=20).infer(shifted(math.nan, 5), generator=make_generator(0))  # the first evaluation is of the starts


def test_no_start_is_an_error() -> None:
    with pytest.raises(FitError, match="expected a finite start"):
        SVI(steps=20).infer(shifted(math.nan, 0), generator=make_generator(0))


def test_an_interrupted_run_keeps_its_state() -> None:
    calls = 0
    joint = regression()
    inner = joint.log_likelihood

    def interrupted(values, rows):
        nonlocal calls
        calls += 1
        if calls == 1500:
            raise KeyboardInterrupt
        return inner(values, rows)

    joint.log_likelihood = interrupted
    with pytest.warns(FitWarning, match="interrupted after 1498 steps: the state so far is kept"):
        found = SVI(guide=AutoMultivariateNormal()).infer(joint, generator=make_generator(0))
    assert found.statistics["steps"] == 1498
    assert found.statistics["elbo"] > LOG_EVIDENCE - 0.1
    calls = 1498
    with pytest.raises(KeyboardInterrupt):  # before the first step there is nothing to keep
        SVI().infer(joint, generator=make_generator(0))


def test_a_family_that_misses_the_posterior_is_reported() -> None:
    # two directions of nearly opposite sign: independent laws are far too narrow
    def log_likelihood(values, rows):
        return Normal(values["w"].sum(-1, keepdim=True), 0.01).log_prob(torch.zeros(1, dtype=F64))

    joint = Joint({"w": Normal(torch.zeros(3, dtype=F64), 1.0)}, log_likelihood, terms=1)
    with pytest.warns(FitWarning, match=r"Pareto k .* above 0.7: the family misses part of the posterior"):
        found = SVI(guide=AutoNormal(), steps=3000).infer(joint, generator=make_generator(0))
    assert found.statistics["pareto_k"] > 0.7
    assert found.statistics["weight_share"] < 0.5


@pytest.mark.filterwarnings("ignore:Pareto k:bayeswm.base.errors.FitWarning")
def test_a_climb_that_has_not_ended_is_reported() -> None:
    def log_likelihood(values, rows):
        return Normal(values["level"][:, None], 1.0).log_prob(torch.zeros(1, dtype=F64))

    joint = Joint({"level": Normal(0.0, 1e4)}, log_likelihood, terms=1)  # the best start is about 100 away
    with pytest.warns(FitWarning, match="the ELBO still rose by .* in the last quarter of 200 steps: raise steps"):
        SVI(steps=200).infer(joint, generator=make_generator(0))


@pytest.mark.parametrize(
    "wrong",
    [{"steps": 0}, {"particles": 0}, {"batch": 0}, {"draws": 1.5}, {"learning_rate": 0.0}, {"guide": 3}],
)
def test_settings_that_make_no_sense(wrong: dict[str, object]) -> None:
    with pytest.raises(SpecError, match=next(iter(wrong))):
        SVI(**wrong)


def test_a_class_of_guides_is_not_a_guide() -> None:
    with pytest.raises(SpecError, match=r"write AutoNormal\(\)"):
        SVI(guide=AutoNormal)


# --- files ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("guide", [AutoNormal(), AutoMultivariateNormal(0.2), AutoLowRankMultivariateNormal(rank=3)])
def test_settings_are_rebuilt(guide: Guide) -> None:
    settings = SVI(guide=guide, steps=10, batch=4)
    assert Inference.registry["SVI"].from_config(settings.config()) == settings


def test_a_guide_of_ones_own_cannot_be_saved() -> None:
    with pytest.raises(SpecError, match="cannot save a guide of your own; use one of AutoNormal"):
        SVI(guide=PyroNormal).config()
    with pytest.raises(SpecError, match="expected a guide among"):
        SVI.from_config({**SVI().config(), "guide": {"name": "os", "config": {}}})
