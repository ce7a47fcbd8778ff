import math

import pytest
import torch
from scipy import stats
from torch import Tensor
from torch.distributions import Gamma, HalfNormal, Normal, Poisson

from bayeswm.base import FitError, SpecError
from bayeswm.base.random import make_generator
from bayeswm.inference import (
    Conjugate,
    Curvature,
    Diagonal,
    FullHessian,
    GaussNewton,
    Inference,
    Joint,
    Kronecker,
    Laplace,
    LastLayer,
)
from bayeswm.inference.maximum import maximise
from bayeswm.inference.normal_inverse_gamma import NormalRegression
from bayeswm.structures.networks import evaluate
from tests.inference.joints import F64, WAVE, X, by_column, gaussian_joint, network_joint, randn
from tests.statistical.checks import BUDGET, gaussian_p

PHI = torch.cat((torch.ones(30, 1, dtype=F64), randn(30, 2, seed=0)), -1)
Y = PHI @ randn(3, 2, seed=1) + 0.3 * randn(30, 2, seed=2)
SIZES, WEIGHTS = (1, 8, 1), 25


def linear() -> Joint:
    prior = Normal(0.1 * torch.ones(2, 3, dtype=F64), torch.tensor([1.0, 2.0, 3.0], dtype=F64).expand(2, 3))
    return gaussian_joint(by_column(PHI), Y, laws={"w": prior}, noise={"x": 0.3, "y": 2.0})


def network(noise: float | None = None) -> Joint:
    laws = {"net": Normal(torch.zeros(WEIGHTS, dtype=F64), 1.0)}
    if noise is not None:
        return network_joint(SIZES, X, WAVE, laws=laws, noise={"known": noise})
    return network_joint(SIZES, X, WAVE, laws=laws | {"s": HalfNormal(torch.tensor(1.0, dtype=F64))}, noise={"s": 1e-5})


@pytest.mark.parametrize("curvature", [FullHessian(), GaussNewton()])
def test_linear_gaussian_is_exact(curvature: Curvature) -> None:
    joint = linear()
    top = maximise(joint.log_density, torch.zeros(1, 6, dtype=F64), scale=torch.ones(6)).x
    factor = curvature.precision(joint, top).spread(torch.eye(6, dtype=F64))
    for i, sigma in enumerate((0.3, 2.0)):
        prior = torch.tensor([1.0, 2.0, 3.0], dtype=F64) ** -2
        covariance = torch.linalg.inv(torch.diag(prior) + PHI.mT @ PHI / sigma**2)
        mean = covariance @ (0.1 * prior + PHI.mT @ Y[:, i] / sigma**2)
        where = slice(3 * i, 3 * i + 3)
        torch.testing.assert_close(top[where], mean, rtol=1e-8, atol=1e-10)
        torch.testing.assert_close((factor.mT @ factor)[where, where], covariance, rtol=1e-8, atol=1e-10)
    found = Laplace(curvature=curvature).infer(joint, generator=make_generator(0))
    exact = Conjugate().infer(joint, generator=make_generator(0)).statistics["log_evidence"]
    assert found.statistics["log_evidence"] == pytest.approx(exact, rel=1e-10)


@pytest.mark.statistical
def test_draws_have_the_law() -> None:
    found = Laplace(draws=20_000).infer(linear(), generator=make_generator(1))
    drawn = found.values["w"][0, :, 1]
    covariance = torch.linalg.inv(torch.diag(torch.tensor([1.0, 0.25, 1 / 9], dtype=F64)) + PHI.mT @ PHI / 4)
    prior = 0.1 * torch.tensor([1.0, 0.25, 1 / 9], dtype=F64)
    assert min(gaussian_p(drawn, covariance @ (prior + PHI.mT @ Y[:, 1] / 4), covariance)) > BUDGET


@pytest.mark.statistical
def test_a_positive_parameter_is_approximated_by_a_law_of_its_logarithm() -> None:
    counts = torch.tensor([9.0, 12.0, 11.0, 8.0], dtype=F64)
    joint = Joint(
        {"rate": Gamma(torch.tensor(1.0, dtype=F64), 0.1)},
        lambda v, rows: Poisson(v["rate"][:, None]).log_prob(counts),
        terms=4,
    )
    found = Laplace(draws=4000).infer(joint, generator=make_generator(0))
    # the posterior is Gamma(41, 4.1): with the volume change counted, log rate has the top log(41 / 4.1) and the
    # curvature 41 there; of the rate itself the top would be 40 / 4.1
    law = stats.norm(math.log(10), 41**-0.5)
    assert stats.kstest(found.values["rate"][0].log(), law.cdf).pvalue > BUDGET
    # what the approximation errs by is Stirling's 1 / (12 * 41)
    exact = 41 * math.log(1 / 4.1) + math.log(0.1) + math.lgamma(41) - float(torch.lgamma(counts + 1).sum())
    assert found.statistics["log_evidence"] == pytest.approx(exact - 1 / (12 * 41), abs=1e-6)


def test_last_layer_is_regression_on_the_last_hidden_units() -> None:
    joint, noise = network(0.1), 0.1
    settings = Laplace(curvature=LastLayer(), draws=8, starts=2)
    found = settings.infer(joint, generator=make_generator(0))
    net = found.values["net"][0]
    assert bool((net[:, :16] == net[0, :16]).all())
    hidden = torch.nn.functional.silu(X @ net[0, :8][None] + net[0, 8:16])
    phi = torch.cat((hidden, torch.ones(24, 1, dtype=F64)), -1) / noise
    before = NormalRegression(torch.zeros(9, dtype=F64), torch.eye(9, dtype=F64))
    after = before.update(phi, WAVE[:, 0] / noise)
    exact = float(before.log_evidence(phi, WAVE[:, 0] / noise)) - 24 * math.log(noise)
    assert found.statistics["log_evidence"] == pytest.approx(exact, rel=1e-9)
    # the same noise, put through the exact posterior
    index = LastLayer().uncertain(joint)
    top = torch.cat((net[0, :16], after.mean))
    factor = LastLayer().precision(joint, top).spread(torch.eye(9, dtype=F64))
    assert index.tolist() == list(range(16, 25))
    torch.testing.assert_close(factor.mT @ factor, after.covariance, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("curvature", [FullHessian(), GaussNewton(), Kronecker(), Diagonal(), LastLayer()])
def test_a_network_is_finite_and_less_sure_away_from_data(curvature: Curvature) -> None:
    found = Laplace(curvature=curvature, starts=2).infer(network(), generator=make_generator(0))
    assert all(bool(v.isfinite().all()) for v in found.values.values())
    assert found.sample_stats["lp"].shape == (1, 1000)
    inside, outside = X[:12], torch.tensor([[-4.0], [4.0]], dtype=F64)

    def spread(x: Tensor) -> Tensor:
        net = found.values["net"][0]
        return evaluate(net, x.expand(len(net), -1, -1), SIZES).std(0)

    assert float(spread(outside).min()) > 2 * float(spread(inside).median())


def test_the_same_generator_gives_the_same_draws() -> None:
    state = torch.get_rng_state()
    one, two = (Laplace().infer(linear(), generator=make_generator(3)).values["w"] for _ in range(2))
    assert torch.equal(one, two)
    assert torch.equal(torch.get_rng_state(), state)


def test_a_density_that_is_nowhere_finite_is_refused() -> None:
    joint = Joint({"w": Normal(0.0, 1.0)}, lambda v, r: torch.nan * v["w"][:, None], terms=1)
    with pytest.raises(FitError, match="finite density"):
        Laplace().infer(joint, generator=make_generator(0))


@pytest.mark.parametrize("curvature", [FullHessian(), Kronecker(), LastLayer()])
def test_settings_are_saved(curvature: Curvature) -> None:
    settings = Laplace(curvature=curvature, empirical_bayes=True, draws=77)
    assert Inference.registry["Laplace"].from_config(settings.config()) == settings


def test_settings_that_make_no_sense_are_refused() -> None:
    class Own(GaussNewton):
        pass

    with pytest.raises(SpecError, match="expected a Curvature"):
        Laplace(curvature="full")  # type: ignore[arg-type]
    with pytest.raises(SpecError, match="starts"):
        Laplace(starts=0)
    with pytest.raises(SpecError, match="cannot save a curvature of class Own"):
        Laplace(curvature=Own()).config()
    with pytest.raises(SpecError, match="expected a curvature among"):
        Laplace.from_config({**Laplace().config(), "curvature": "Own"})
