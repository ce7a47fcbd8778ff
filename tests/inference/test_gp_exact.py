"""Marginal likelihood and posterior against ten lines of dense algebra."""

import math

import pytest
import torch

import bayeswm as bwm
from bayeswm.inference import RBF, ExactPosterior, Hyper, Matern, log_marginal
from bayeswm.inference.gp_exact import check_memory, factor

F64 = torch.float64
KERNELS = [RBF(), Matern(nu=0.5), Matern(nu=1.5), Matern(nu=2.5)]


def problem(n=12, d=3, seed=0):
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(n, d, generator=g, dtype=F64)
    return x, torch.sin(x.sum(-1)) + 0.1 * torch.randn(n, generator=g, dtype=F64)


def hyper_of(log_hyper):
    length, signal, noise = log_hyper[:-2].exp(), log_hyper[-2].exp(), log_hyper[-1].exp()
    return Hyper(length[None], signal[None], noise[None])


def covariance(kernel, a, b, log_hyper):
    # differences first, with autograd through it; 1e-30 keeps the root's slope finite
    r = (((a[:, None] - b) / log_hyper[:-2].exp()).square().sum(-1) + 1e-30).sqrt()
    if isinstance(kernel, RBF):
        return (2 * log_hyper[-2]).exp() * torch.exp(-0.5 * r**2)
    s = math.sqrt(2 * kernel.nu) * r
    return (2 * log_hyper[-2]).exp() * {0.5: 1, 1.5: 1 + s, 2.5: 1 + s + s**2 / 3}[kernel.nu] * torch.exp(-s)


LOG_HYPER = torch.tensor([0.3, -0.2, 1.0, 0.4, -1.5], dtype=F64)


@pytest.mark.parametrize("kernel", KERNELS, ids=repr)
def test_the_marginal_likelihood_and_its_gradient(kernel):
    x, y = problem()
    x, y = torch.cat((x, x[:1])), torch.cat((y, -y[:1]))  # a contradictory duplicate
    at = LOG_HYPER.clone().requires_grad_()
    k = covariance(kernel, x, x, at) + (2 * at[-1]).exp() * torch.eye(len(x), dtype=F64)
    expected = torch.distributions.MultivariateNormal(torch.zeros_like(y), k).log_prob(y)
    slope = torch.autograd.grad(expected, at)[0]
    value, gradient = log_marginal(kernel, x, y, log_hyper=LOG_HYPER)
    assert abs(value - float(expected.detach())) < 1e-9
    torch.testing.assert_close(gradient, slope, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("kernel", KERNELS, ids=repr)
def test_the_posterior_is_that_of_dense_algebra(kernel):
    x, y = problem()
    new = torch.randn(5, 3, generator=torch.Generator().manual_seed(1), dtype=F64)
    posterior = ExactPosterior(kernel, x, y[None], hyper_of(LOG_HYPER))
    k = covariance(kernel, x, x, LOG_HYPER) + (2 * LOG_HYPER[-1]).exp() * torch.eye(len(x), dtype=F64)
    cross = covariance(kernel, new, x, LOG_HYPER)
    mean, variance = posterior.function(new)
    torch.testing.assert_close(mean[0], cross @ torch.linalg.solve(k, y), rtol=0, atol=1e-10)
    expected = covariance(kernel, new, new, LOG_HYPER) - cross @ torch.linalg.solve(k, cross.mT)
    torch.testing.assert_close(variance[0], expected.diagonal(), rtol=0, atol=1e-10)
    assert posterior.jitter == (0.0,)


def test_chunks_of_points_change_nothing(monkeypatch):
    x, y = problem()
    new = torch.randn(50, 3, generator=torch.Generator().manual_seed(1), dtype=F64)
    posterior = ExactPosterior(
        RBF(), x, torch.stack((y, -2 * y)), Hyper(*(torch.cat((v, v)) for v in hyper_of(LOG_HYPER)))
    )
    whole = posterior.function(new)
    monkeypatch.setattr("bayeswm.inference.gp_exact._CHUNK", 7 * len(x))
    for one, parts in zip(whole, posterior.function(new), strict=True):
        torch.testing.assert_close(one, parts, rtol=0, atol=1e-12)
    torch.testing.assert_close(whole[0][1], -2 * whole[0][0])


def test_a_singular_covariance_climbs_the_ladder_and_says_how_far():
    x = torch.zeros(6, 1, dtype=F64)
    hyper = Hyper(torch.ones(1, 1, dtype=F64), torch.ones(1, dtype=F64), torch.zeros(1, dtype=F64))
    posterior = ExactPosterior(RBF(), x, torch.ones(1, 6, dtype=F64), hyper)
    assert 0 < posterior.jitter[0] <= 1e-6
    assert float(posterior.nugget) == posterior.jitter[0]
    mean, variance = posterior.function(x[:1])
    torch.testing.assert_close(mean, torch.ones(1, 1, dtype=F64), rtol=0, atol=1e-6)
    assert 0 <= float(variance) < 1e-6


@pytest.mark.parametrize("spoilt", [[[1.0, 2.0], [2.0, 1.0]], [[1.0, float("nan")], [float("nan"), 1.0]]])
def test_what_no_jitter_saves_is_an_error_naming_kernel_and_size(spoilt):
    with pytest.raises(bwm.FitError, match=r"kernel Matern\(nu=1.5\) at n = 2 points is not positive definite"):
        factor(torch.tensor(spoilt, dtype=F64), repr(Matern(nu=1.5)))


def test_too_many_points_are_refused_before_anything_is_allocated():
    with pytest.raises(bwm.SpecError, match=r"10000000 steps need .* GB .* at most \d+ steps .* sparse"):
        check_memory(10_000_000, 4, torch.device("cpu"))
