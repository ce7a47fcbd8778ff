import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from torch import Tensor
from torch.distributions import MultivariateNormal

from bayeswm.base import SpecError
from bayeswm.base.random import make_generator
from bayeswm.inference import NormalInverseGamma
from bayeswm.inference.normal_inverse_gamma import NormalRegression
from tests.statistical.checks import BUDGET, gaussian_p

F64 = torch.float64


def randn(*shape: int, seed: int) -> Tensor:
    return torch.randn(shape, generator=make_generator(seed), dtype=F64)


def prior(size: int, *batch: int, seed: int = 0) -> NormalInverseGamma:
    a = randn(*batch, size, size, seed=seed)
    shape, scale = 1 + randn(*batch, seed=seed + 1).square(), 0.5 + randn(*batch, seed=seed + 2).square()
    return NormalInverseGamma(randn(*batch, size, seed=seed + 3), a @ a.mT + torch.eye(size), shape=shape, scale=scale)


def rows(n: int, size: int, *batch: int, seed: int = 7) -> tuple[Tensor, Tensor]:
    return randn(*batch, n, size, seed=seed), randn(*batch, n, seed=seed + 1)


def test_posterior_is_the_textbook_formula() -> None:
    before, (phi, y) = prior(3), rows(20, 3)
    after = before.update(phi, y)
    precision = before.precision + phi.mT @ phi
    mean = torch.linalg.solve(precision, before.precision @ before.mean + phi.mT @ y)
    # Murphy (2012), equations 7.70 to 7.73
    scale = before.scale + 0.5 * (y @ y + before.mean @ before.precision @ before.mean - mean @ precision @ mean)
    torch.testing.assert_close(after.precision, precision, rtol=1e-12, atol=0)
    torch.testing.assert_close(after.mean, mean, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(after.scale, scale, rtol=1e-12, atol=0)
    assert float(after.shape) == pytest.approx(float(before.shape) + 10, rel=1e-15)


@given(st.integers(1, 6), st.lists(st.integers(0, 9), min_size=1, max_size=6), st.integers(0, 10**6))
def test_in_parts_or_at_once_it_is_the_same(size: int, parts: list[int], seed: int) -> None:
    before, (phi, y) = prior(size, seed=seed), rows(sum(parts), size, seed=seed + 7)
    at_once, sequential, evidence = before.update(phi, y), before, torch.zeros((), dtype=F64)
    for some_phi, some_y in zip(phi.split(parts), y.split(parts), strict=True):
        evidence = evidence + sequential.log_evidence(some_phi, some_y)
        sequential = sequential.update(some_phi, some_y)
    for name in ("mean", "precision", "shape", "scale"):
        torch.testing.assert_close(getattr(sequential, name), getattr(at_once, name), rtol=1e-10, atol=1e-10)
    # the chain rule of densities
    torch.testing.assert_close(evidence, before.log_evidence(phi, y), rtol=1e-10, atol=1e-10)


def test_evidence_is_a_multivariate_student_density() -> None:
    before, (phi, y) = prior(3), rows(6, 3)
    covariance = torch.eye(6) + phi @ torch.linalg.inv(before.precision) @ phi.mT
    exact = stats.multivariate_t(
        phi @ before.mean, before.scale / before.shape * covariance, df=2 * float(before.shape)
    )
    assert float(before.log_evidence(phi, y)) == pytest.approx(exact.logpdf(y), rel=1e-12)


def test_predictive_is_the_evidence_of_one_row() -> None:
    law = prior(4).update(*rows(9, 4))
    phi, y = rows(5, 4, seed=70)
    each = torch.stack([law.log_evidence(p[None], v[None]) for p, v in zip(phi, y, strict=True)])
    torch.testing.assert_close(law.predictive(phi).log_prob(y), each, rtol=1e-12, atol=1e-12)


def test_batches_are_regressions_of_their_own() -> None:
    before, (phi, y) = prior(3, 2, 5), rows(7, 3, 2, 5)
    after = before.update(phi, y)
    one = NormalInverseGamma(before.mean[1, 3], before.precision[1, 3], before.shape[1, 3], before.scale[1, 3])
    alone = one.update(phi[1, 3], y[1, 3])
    for name in ("mean", "precision", "shape", "scale"):
        torch.testing.assert_close(getattr(after, name)[1, 3], getattr(alone, name), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(before.log_evidence(phi, y)[1, 3], one.log_evidence(phi[1, 3], y[1, 3]))
    torch.testing.assert_close(after.predictive(phi).log_prob(y)[1, 3], alone.predictive(phi[1, 3]).log_prob(y[1, 3]))
    drawn, variance = after.draw(4, make_generator(0))
    assert drawn.shape == (4, 2, 5, 3)
    assert variance.shape == (4, 2, 5)


def test_expected_information_gain_is_the_fall_of_entropy() -> None:
    law, noise = prior(3), 0.3
    phi = randn(5, 3, seed=9)
    gain = law.expected_information_gain(phi)
    covariance = noise**2 * torch.linalg.inv(law.precision)
    formula = 0.5 * torch.log(1 + torch.einsum("ni,ij,nj->n", phi, covariance, phi) / noise**2)
    torch.testing.assert_close(gain, formula, rtol=1e-12, atol=1e-12)
    # of a normal law the entropy is half the log determinant of the covariance; the row's value plays no part
    after = torch.stack([torch.logdet(law.update(p[None], torch.zeros(1)).precision) for p in phi])
    torch.testing.assert_close(gain, 0.5 * (after - torch.logdet(law.precision)), rtol=1e-12, atol=1e-12)


def test_known_noise_is_a_multivariate_normal() -> None:
    before = prior(3).unit
    phi, y = rows(6, 3)
    exact = MultivariateNormal(phi @ before.mean, torch.eye(6) + phi @ before.covariance @ phi.mT)
    assert float(before.log_evidence(phi, y)) == pytest.approx(float(exact.log_prob(y)), rel=1e-12)


def test_without_coefficients_only_the_noise_is_learned() -> None:
    before = NormalInverseGamma(torch.zeros(0), torch.zeros(0, 0), shape=torch.tensor(2.0), scale=torch.tensor(3.0))
    after = before.update(torch.zeros(4, 0), torch.tensor([1.0, 1.0, 2.0, 2.0]))
    assert (float(after.shape), float(after.scale)) == (4.0, 8.0)


def test_nearly_noise_free_rows_keep_their_digits() -> None:
    # y'y + m'Pm - m'P'm would lose everything here: the residuals are 1e-9 of the values
    phi = torch.stack((torch.ones(50), torch.linspace(-1, 1, 50)), -1).double()
    wiggle = 1e-3 * torch.sin(torch.arange(50.0)).double()
    law = NormalInverseGamma(
        torch.tensor([1e6, 2e6]), 1e-30 * torch.eye(2), shape=torch.tensor(1.0), scale=torch.tensor(1e-30).double()
    )
    scale = float(law.update(phi, phi @ torch.tensor([1e6, 2e6]).double() + wiggle).scale)
    residual = wiggle - phi @ torch.linalg.lstsq(phi, wiggle[:, None]).solution[:, 0]
    # values of 3e6 are rounded to 5e-10, which is 5e-7 of the residuals
    assert scale == pytest.approx(0.5 * float(residual.square().sum()), rel=1e-6)


@pytest.mark.statistical
def test_draws_have_their_law() -> None:
    law = prior(3)
    drawn, variance = law.draw(20_000, make_generator(5))
    ks = stats.kstest(variance, stats.invgamma(float(law.shape), scale=float(law.scale)).cdf)
    assert ks.pvalue > BUDGET
    white = (drawn - law.mean) / variance.sqrt()[:, None]
    assert min(gaussian_p(white, torch.zeros(3), torch.linalg.inv(law.precision))) > BUDGET
    scale = (law.scale / law.shape * torch.linalg.inv(law.precision)[0, 0]).sqrt()
    marginal = stats.t(2 * float(law.shape), float(law.mean[0]), float(scale))
    assert stats.kstest(drawn[:, 0], marginal.cdf).pvalue > BUDGET


@pytest.mark.statistical
def test_a_mixture_of_draws_is_the_student_predictive() -> None:
    law = prior(3).update(*rows(4, 3))
    phi = randn(1, 3, seed=11)
    g = make_generator(6)
    drawn, variance = law.draw(20_000, g)
    y = (drawn @ phi[0]) + variance.sqrt() * torch.randn(20_000, generator=g, dtype=F64)
    exact = law.predictive(phi)
    cdf = stats.t(float(exact.df), float(exact.loc), float(exact.scale)).cdf
    assert stats.kstest(y, cdf).pvalue > BUDGET


def test_draws_follow_the_generator_alone() -> None:
    law, state = prior(3), torch.get_rng_state()
    one, two = (law.draw(5, make_generator(3)) for _ in range(2))
    assert torch.equal(one[0], two[0])
    assert torch.equal(one[1], two[1])
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"precision": -torch.eye(2)}, "positive definite"),
        ({"precision": torch.eye(3)}, "precision"),
        ({"shape": torch.tensor(0.0)}, "shape > 0"),
        ({"scale": torch.tensor(math.inf)}, "scale > 0"),
    ],
)
def test_what_makes_no_sense_is_refused(change: dict[str, Tensor], message: str) -> None:
    given = {
        "mean": torch.zeros(2),
        "precision": torch.eye(2),
        "shape": torch.tensor(1.0),
        "scale": torch.tensor(1.0),
    }
    with pytest.raises(SpecError, match=message):
        NormalInverseGamma(**{**given, **change})


def test_known_noise_refuses_a_singular_prior() -> None:
    with pytest.raises(SpecError, match="positive definite"):
        NormalRegression(torch.zeros(2), torch.ones(2, 2))
