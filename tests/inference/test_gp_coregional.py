"""Coregionalised outputs against dense Kronecker algebra."""

import math

import pytest
import torch

import bayeswm as bwm
from bayeswm.inference import RBF, Coregionalised, ExactPosterior, Hyper, HyperPriors, Matern, Scaled
from bayeswm.inference.gp_coregional import _Target, coregional_marginal, fit_coregional, rotation
from bayeswm.inference.gp_priors import HyperPriors as Priors

F64 = torch.float64
NOISE = torch.tensor([0.3, 1.2, 0.7], dtype=F64)
LOG_VALUES = torch.tensor([0.3, -0.2], dtype=F64)


def problem(n=15, outputs=3, seed=0):
    g = torch.Generator().manual_seed(seed)
    x, y = torch.randn(n, 2, generator=g, dtype=F64), torch.randn(outputs, n, generator=g, dtype=F64)
    root = torch.randn(outputs, outputs, generator=g, dtype=F64)
    return x, y, root @ root.mT


def dense(kernel, x, *, log_values, covariance, noise):
    """Covariance of all outputs at all inputs, output by output."""
    eye = torch.eye(len(x), dtype=F64)
    return torch.kron(covariance, kernel.covariance(x, x, log_values.exp())) + torch.kron(noise.square().diag(), eye)


@pytest.mark.parametrize("kernel", [RBF(), Matern(nu=2.5)], ids=repr)
def test_the_marginal_likelihood_and_its_gradients(kernel):
    x, y, covariance = problem()
    free = [v.clone().requires_grad_() for v in (LOG_VALUES, covariance, NOISE.log())]
    full = dense(kernel, x, log_values=free[0], covariance=free[1], noise=free[2].exp())
    law = torch.distributions.MultivariateNormal(torch.zeros(y.numel(), dtype=F64), full)
    expected = law.log_prob(y.flatten())
    slopes = torch.autograd.grad(expected, free)
    value, *found, _ = coregional_marginal(kernel, x, y, log_values=LOG_VALUES, covariance=covariance, noise=NOISE)
    assert abs(value - float(expected.detach())) < 1e-9
    for one, other in zip(found, slopes, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-8, atol=1e-8)


def test_the_posterior_is_that_of_dense_algebra_with_covariances_between_outputs():
    x, y, covariance = problem()
    new = torch.randn(4, 2, generator=torch.Generator().manual_seed(1), dtype=F64)
    kernel, values = RBF(), LOG_VALUES.exp()
    full = dense(kernel, x, log_values=LOG_VALUES, covariance=covariance, noise=NOISE)
    cross = torch.kron(covariance, kernel.covariance(new, x, values))
    mean = (cross @ torch.linalg.solve(full, y.flatten())).view(3, 4)
    prior = torch.kron(covariance, kernel.covariance(new, new, values))
    expected = (prior - cross @ torch.linalg.solve(full, cross.mT)).view(3, 4, 3, 4)

    variance, mixing = rotation(covariance, NOISE)
    hyper = Hyper(torch.cat((values.expand(3, -1), variance.sqrt()[:, None]), 1), torch.ones(3, dtype=F64))
    latent = ExactPosterior(Scaled(kernel), x, torch.linalg.solve(mixing, y), hyper)
    of_latent = latent.function(new)
    torch.testing.assert_close(mixing @ of_latent[0], mean, rtol=0, atol=1e-10)
    for i in range(4):
        between = mixing @ of_latent[1][:, i].diag() @ mixing.mT
        torch.testing.assert_close(between, expected[:, i, :, i], rtol=0, atol=1e-10)


def test_the_best_constants_and_their_gradients():
    x, y, covariance = problem()
    y = y + torch.tensor([[3.0], [-1.0], [0.5]], dtype=F64)
    free = [v.clone().requires_grad_() for v in (LOG_VALUES, covariance, NOISE.log())]
    full = dense(RBF(), x, log_values=free[0], covariance=free[1], noise=free[2].exp())
    ones = torch.kron(torch.eye(3, dtype=F64), torch.ones(15, 1, dtype=F64))  # generalised least squares
    best = torch.linalg.solve(ones.mT @ torch.linalg.solve(full, ones), ones.mT @ torch.linalg.solve(full, y.flatten()))
    expected = torch.distributions.MultivariateNormal(ones @ best, full).log_prob(y.flatten())
    slopes = torch.autograd.grad(expected, free)
    value, *found, constant = coregional_marginal(
        RBF(), x, y, log_values=LOG_VALUES, covariance=covariance, noise=NOISE, constant=True
    )
    assert abs(value - float(expected.detach())) < 1e-9
    torch.testing.assert_close(constant, best.detach(), rtol=0, atol=1e-9)
    for one, other in zip(found, slopes, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-8, atol=1e-8)


def test_nearly_dependent_outputs_are_no_trouble():
    x, y, _ = problem(outputs=2)
    covariance = torch.ones(2, 2, dtype=F64)
    value, *slopes, _ = coregional_marginal(RBF(), x, y, log_values=LOG_VALUES, covariance=covariance, noise=NOISE[:2])
    full = dense(RBF(), x, log_values=LOG_VALUES, covariance=covariance, noise=NOISE[:2])
    expected = torch.distributions.MultivariateNormal(torch.zeros(30, dtype=F64), full).log_prob(y.flatten())
    assert abs(value - float(expected)) < 1e-8
    assert all(bool(s.isfinite().all()) for s in slopes)


@pytest.mark.parametrize("priors", [HyperPriors(), None], ids=["posterior", "likelihood"])
def test_the_slope_of_the_objective_agrees_with_differences(priors):
    x, y, _ = problem()
    target = _target(x, y, priors)
    at = 0.3 * torch.randn(2 + 3 + 3 + 3, generator=torch.Generator().manual_seed(2), dtype=F64)
    _, slope = target(at)
    for i in range(len(at)):
        step = torch.zeros_like(at)
        step[i] = 1e-5
        difference = (target(at + step)[0] - target(at - step)[0]) / 2e-5
        assert abs(float(slope[i]) - difference) < 1e-5 * max(1.0, abs(difference)), i


def _target(x, y, priors):
    from bayeswm.inference.gp_algebra import Parameter

    density = None
    if priors is not None:
        more = [Parameter("signals", "signal", (), (1.0,) * 3), Parameter("noises", "noise", (), (1.0,) * 2)]
        density = Priors().density([*RBF().parameters(2), *more])
    return _Target(RBF(), x, y, density, 0.5)


def test_what_outputs_share_is_found_again():
    g = torch.Generator().manual_seed(0)
    x = torch.randn(250, 2, generator=g, dtype=F64)
    root = torch.tensor([[1.0, 0.0], [-0.8, 0.6]], dtype=F64)
    tril = torch.linalg.cholesky(RBF().covariance(x, x, torch.ones(2, dtype=F64)) + 1e-8 * torch.eye(250, dtype=F64))
    latent = tril @ torch.randn(250, 2, generator=g, dtype=F64)
    noise = torch.tensor([0.1, 0.3], dtype=F64)
    y = (latent @ root.mT + noise * torch.randn(250, 2, generator=g, dtype=F64)).mT
    settings = {"priors": HyperPriors(), "restarts": 2, "noise_floor": 1e-3, "seed": 0}
    hyper, fit = fit_coregional(RBF(), x, y, outputs=Coregionalised(), **settings)
    again, _ = fit_coregional(RBF(), x, y, outputs=Coregionalised(), **settings)
    assert all(torch.equal(a, b) for a, b in zip(hyper, again, strict=True))
    assert fit.converged
    # the functions' own sample covariance, at some 30 independent places, is what can be found: within 0.25
    sample = torch.corrcoef((latent @ root.mT).mT)[0, 1]
    found = hyper.covariance[0, 1] / hyper.covariance.diagonal().prod().sqrt()
    assert abs(float(found - sample)) < 0.25
    assert bool(((hyper.noise / noise).log().abs() < 0.25).all())
    # independent outputs with the same kernel explain the data less well, by much more than the priors weigh
    apart, _ = fit_coregional(RBF(), x, y, outputs=Coregionalised(loading=1e-6), **settings)
    assert abs(float(apart.covariance[0, 1])) < 1e-3
    together, alone = (
        coregional_marginal(RBF(), x, y, log_values=h.values.log(), covariance=h.covariance, noise=h.noise)[0]
        for h in (hyper, apart)
    )
    assert together > alone + 3


def test_one_output_is_an_ordinary_process():
    from bayeswm.inference import fit_hyper

    x = torch.linspace(-2, 2, 60, dtype=F64)[:, None]
    y = torch.sin(2 * x).mT + 0.1 * torch.randn(1, 60, generator=torch.Generator().manual_seed(0), dtype=F64)
    settings = {"priors": HyperPriors(), "restarts": 1, "noise_floor": 1e-3, "seed": 0}
    one, fit = fit_coregional(RBF(), x, y, outputs=Coregionalised(), **settings)
    other, (expected,) = fit_hyper(Scaled(RBF()), x, y, **settings)
    assert math.isclose(fit.objective, expected.objective, abs_tol=1e-3)
    torch.testing.assert_close(one.noise, other.noise, rtol=0.01, atol=0)


@pytest.mark.parametrize("loading", [0.0, -1.0, math.nan])
def test_settings_that_make_no_sense_are_refused(loading):
    with pytest.raises(bwm.SpecError, match="loading > 0"):
        Coregionalised(loading=loading)
