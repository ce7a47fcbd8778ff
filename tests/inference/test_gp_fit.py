"""Hyper-parameters: recovered, at an optimum, and the best of the starts."""

import math

import pytest
import torch

from bayeswm.inference import RBF, HyperPriors, Matern, Periodic, Scaled, fit_hyper, log_marginal

F64 = torch.float64


def drawn(n, length, *, noise=0.1, seed=0):
    """One function of the prior at n inputs, with noise, by dense algebra."""
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(n, len(length), generator=g, dtype=F64)
    k = RBF().covariance(x, x, torch.tensor(length, dtype=F64))
    tril = torch.linalg.cholesky(k + noise**2 * torch.eye(n, dtype=F64))
    return x, (tril @ torch.randn(n, 1, generator=g, dtype=F64)).mT


def fit(x, y, **settings):
    defaults = {"kernel": Scaled(RBF()), "priors": HyperPriors(), "restarts": 2, "noise_floor": 1e-3, "seed": 0}
    given = defaults | settings
    return fit_hyper(given.pop("kernel"), x, y, **given)


def objective(at, x, y, kernel, priors):
    value, gradient, _ = log_marginal(kernel, x, y, log_hyper=at)
    if priors is None:
        return value, gradient
    mean, scale = torch.tensor([*[(0.5 * math.log(2), 1.5)] * 2, (0.0, 1.5), (math.log(0.1), 2.0)], dtype=F64).mT
    return value - 0.5 * float(((at - mean) / scale).square().sum()), gradient - (at - mean) / scale**2


@pytest.mark.parametrize("n", [120, 320], ids=["all rows from every start", "starts on some rows"])
@pytest.mark.parametrize("priors", [HyperPriors(), None], ids=["posterior", "likelihood"])
def test_the_end_is_an_optimum_of_the_stated_objective(n, priors):
    x, y = drawn(n, (0.8, 2.0))
    kernel = Scaled(Matern(nu=2.5))
    hyper, (report,) = fit(x, y, kernel=kernel, priors=priors)
    at = torch.cat((hyper.values[0], hyper.noise)).log()
    value, gradient = objective(at, x, y[0], kernel, priors)
    assert abs(value - report.objective) < 1e-6
    assert abs(log_marginal(kernel, x, y[0], log_hyper=at)[0] - report.log_likelihood) < 1e-6
    # in nats for a factor e of a hyper-parameter: what is left to gain is far below 0.01
    assert float(gradient.abs().max()) < 0.05
    assert report.converged
    assert len(report.starts) == 2


def test_length_scales_and_noise_are_found_again():
    x, y = drawn(300, (0.7, 2.5))
    hyper, _ = fit(x, y)
    # the Fisher information of 300 rows leaves about 10 % for the short length scale and 5 % for the noise
    assert abs(math.log(float(hyper.values[0, 0]) / 0.7)) < 0.5
    assert abs(math.log(float(hyper.noise) / 0.1)) < 0.25
    assert float(hyper.values[0, 1]) > 1.5


def test_an_irrelevant_input_gets_a_long_length_scale():
    x, y = drawn(200, (0.8,))
    useless = torch.randn(200, 1, generator=torch.Generator().manual_seed(5), dtype=F64)
    hyper, _ = fit(torch.cat((x, useless), 1), y)
    assert float(hyper.values[0, 1]) > 5 * float(hyper.values[0, 0])


def test_the_best_start_is_kept():
    # two explanations: a fast wave, or noise around nothing; from a long length scale only noise is found
    x = torch.linspace(-3, 3, 80, dtype=F64)[:, None]
    y = torch.sin(9 * x).mT + 0.02 * torch.randn(1, 80, generator=torch.Generator().manual_seed(0), dtype=F64)
    long = HyperPriors(length=(5.0, 1.5))
    one, (first,) = fit(x, y, priors=long, restarts=1)
    many, (best,) = fit(x, y, priors=long, restarts=12)
    assert float(one.noise) > 0.5
    assert float(many.noise) < 0.1
    assert best.objective == max(best.starts) > first.objective + 10


def test_the_same_seed_gives_the_same_bits():
    x, y = drawn(100, (1.0, 1.0))
    first, second = fit(x, y, seed=3), fit(x, y, seed=3)
    assert all(torch.equal(a, b) for a, b in zip(first[0], second[0], strict=True))
    assert first[1] == second[1]
    assert fit(x, y, seed=4)[1] != first[1]


def test_a_period_is_found_from_a_guess_within_its_peak():
    x = torch.linspace(0, 10, 60, dtype=F64)[:, None]
    noise = 0.05 * torch.randn(1, 60, generator=torch.Generator().manual_seed(0), dtype=F64)
    y = torch.exp(torch.sin(2 * math.pi * x / 1.3)).mT - 1 + noise
    kernel = Scaled(Periodic(period=1.28, learn_period=True))
    hyper, _ = fit(x, y, kernel=kernel)
    # 60 rows over 8 periods fix the phase at both ends to about 0.01, the period to 0.2 %
    assert abs(float(hyper.values[0, 1]) / 1.3 - 1) < 0.005
    assert abs(math.log(float(hyper.noise) / 0.05)) < 0.4


def test_a_fixed_signal_stays():
    x, y = drawn(60, (1.0, 1.0))
    hyper, _ = fit(x, y, kernel=Scaled(RBF(), signal=1.0))
    assert hyper.values.shape == (1, 2)
