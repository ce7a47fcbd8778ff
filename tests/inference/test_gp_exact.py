"""Marginal likelihood and posterior against ten lines of dense algebra."""

import pytest
import torch

import bayeswm as bwm
from bayeswm.inference import RBF, ExactPosterior, Hyper, Matern, Scaled, log_marginal
from bayeswm.inference.gp_exact import check_memory, factor
from tests.inference.gp_kernels import KERNELS, by_definition, values_of

F64 = torch.float64
NOISE = torch.tensor(0.2, dtype=F64)


def problem(n=12, d=2, seed=0):
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(n, d, generator=g, dtype=F64)
    return x, torch.sin(x.sum(-1)) + 0.1 * torch.randn(n, generator=g, dtype=F64)


def hyper_of(kernel, outputs=1):
    return Hyper(values_of(kernel).expand(outputs, -1), NOISE.expand(outputs))


@pytest.mark.parametrize("kernel", KERNELS, ids=repr)
def test_the_marginal_likelihood_and_its_gradient(kernel):
    x, y = problem()
    x, y = torch.cat((x, x[:1])), torch.cat((y, -y[:1]))  # a contradictory duplicate
    log_hyper = torch.cat((values_of(kernel), NOISE[None])).log()
    at = log_hyper.clone().requires_grad_()
    k = by_definition(kernel, x, x, at[:-1].exp()) + (2 * at[-1]).exp() * torch.eye(len(x), dtype=F64)
    expected = torch.distributions.MultivariateNormal(torch.zeros_like(y), k).log_prob(y)
    slope = torch.autograd.grad(expected, at)[0]
    value, gradient, _ = log_marginal(kernel, x, y, log_hyper=log_hyper)
    assert abs(value - float(expected.detach())) < 1e-9
    torch.testing.assert_close(gradient, slope, rtol=1e-8, atol=1e-8)


def test_a_constant_mean_is_the_best_one_and_the_gradient_is_that_of_the_best():
    x, y = problem()
    y, kernel = y + 3.0, Scaled(RBF())
    log_hyper = torch.cat((values_of(kernel), NOISE[None])).log()
    at, mean = log_hyper.clone().requires_grad_(), torch.tensor(3.0, dtype=F64)
    found = log_marginal(kernel, x, y, log_hyper=log_hyper, constant=True)

    def dense(mean):
        k = by_definition(kernel, x, x, at[:-1].exp()) + (2 * at[-1]).exp() * torch.eye(len(x), dtype=F64)
        return torch.distributions.MultivariateNormal(mean.expand(len(y)), k).log_prob(y)

    # quadratic in the mean: one step of Newton is exact
    mean.requires_grad_()
    slope = torch.autograd.grad(dense(mean), mean, create_graph=True)[0]
    best = (mean - slope / torch.autograd.grad(slope, mean)[0]).detach()
    assert abs(found.constant - float(best)) < 1e-10
    expected = dense(best)
    assert abs(found.value - float(expected.detach())) < 1e-9
    torch.testing.assert_close(found.gradient, torch.autograd.grad(expected, at)[0], rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("kernel", KERNELS, ids=repr)
def test_the_posterior_is_that_of_dense_algebra(kernel):
    x, y = problem()
    new, values = torch.randn(5, 2, generator=torch.Generator().manual_seed(1), dtype=F64), values_of(kernel)
    posterior = ExactPosterior(kernel, x, y[None], hyper_of(kernel))
    k = by_definition(kernel, x, x, values) + NOISE**2 * torch.eye(len(x), dtype=F64)
    cross = by_definition(kernel, new, x, values)
    mean, variance = posterior.function(new)
    torch.testing.assert_close(mean[0], cross @ torch.linalg.solve(k, y), rtol=0, atol=1e-10)
    expected = by_definition(kernel, new, new, values) - cross @ torch.linalg.solve(k, cross.mT)
    torch.testing.assert_close(variance[0], expected.diagonal(), rtol=0, atol=1e-10)
    assert posterior.jitter == (0.0,)


def test_chunks_of_points_change_nothing(monkeypatch):
    x, y = problem()
    new, kernel = torch.randn(50, 2, generator=torch.Generator().manual_seed(1), dtype=F64), Scaled(RBF())
    posterior = ExactPosterior(kernel, x, torch.stack((y, -2 * y)), hyper_of(kernel, outputs=2))
    whole = posterior.function(new)
    monkeypatch.setattr("bayeswm.inference.gp_exact._CHUNK", 7 * len(x))
    for one, parts in zip(whole, posterior.function(new), strict=True):
        torch.testing.assert_close(one, parts, rtol=0, atol=1e-12)
    torch.testing.assert_close(whole[0][1], -2 * whole[0][0])


def test_a_singular_covariance_climbs_the_ladder_and_says_how_far():
    x = torch.zeros(6, 1, dtype=F64)
    hyper = Hyper(torch.ones(1, 1, dtype=F64), torch.zeros(1, dtype=F64))
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
