"""Drawn functions: exact mean and covariance, one function however it is asked."""

import pytest
import torch

from bayeswm.inference import RBF, ExactPosterior, Hyper, Scaled, draw_paths, evaluate_paths
from tests.inference.gp_kernels import COMPOSED, LEAVES, by_definition, values_of
from tests.statistical.checks import BUDGET, gaussian_p, mean_p

F64 = torch.float64
KERNELS = [*(Scaled(leaf) for leaf in LEAVES), *COMPOSED]


def known(kernel, n=15):
    g = torch.Generator().manual_seed(0)
    x = torch.randn(n, 2, generator=g, dtype=F64)
    y = torch.stack((torch.sin(2 * x[:, 0]), 0.5 * torch.cos(x[:, 1]))) + 0.1 * torch.randn(
        2, n, generator=g, dtype=F64
    )
    values = torch.stack([values_of(kernel, seed=s) for s in range(2)])
    return ExactPosterior(kernel, x, y, Hyper(values, torch.tensor([0.2, 0.1], dtype=F64)))


def dense(posterior, output, new):
    """Mean and covariance of the function at new points, by dense algebra."""
    values, noise = (v[output] for v in posterior.hyper)
    x = posterior.x
    k = by_definition(posterior.kernel, x, x, values) + noise**2 * torch.eye(len(x), dtype=F64)
    cross = by_definition(posterior.kernel, x, new, values)
    gain = torch.linalg.solve(k, cross).mT
    return gain @ posterior.y[output], by_definition(posterior.kernel, new, new, values) - gain @ cross


NEW = torch.tensor([[0.0, 0.0], [0.4, -0.3], [1.5, 1.0], [-2.0, 2.5], [6.0, -6.0]], dtype=F64)


@pytest.mark.statistical
@pytest.mark.parametrize("kernel", KERNELS, ids=repr)
def test_draws_have_the_exact_mean_and_covariance(kernel):
    posterior = known(kernel)
    paths = draw_paths(posterior, 2000, features=512, generator=torch.Generator().manual_seed(1))
    values = evaluate_paths(posterior, paths, NEW[None])
    for output in range(2):
        p_mean, p_covariance = gaussian_p(values[..., output], *dense(posterior, output, NEW))
        assert p_mean > BUDGET
        assert p_covariance > BUDGET
    # outputs are independent
    centred = values - torch.stack([dense(posterior, s, NEW)[0] for s in range(2)], -1)
    assert mean_p(centred[..., 0, None] * centred[:, None, :, 1], 0.0) > BUDGET


@pytest.mark.statistical
@pytest.mark.parametrize("kernel", [Scaled(RBF()), *COMPOSED[2:]], ids=repr)
def test_mean_and_covariance_are_exact_with_few_features_too(kernel):
    posterior = known(kernel)
    paths = draw_paths(posterior, 20_000, features=4, generator=torch.Generator().manual_seed(2))
    values = evaluate_paths(posterior, paths, NEW[None])[..., 0]
    mean, covariance = dense(posterior, 0, NEW)
    assert mean_p(values, mean) > BUDGET
    # the law is not Gaussian with so few, hence products with their own standard errors
    centred = values - mean
    assert mean_p(centred[:, :, None] * centred[:, None, :], covariance) > BUDGET


@pytest.mark.parametrize("kernel", KERNELS, ids=repr)
def test_a_function_is_one_function_however_it_is_asked(kernel, monkeypatch):
    posterior = known(kernel)
    paths = draw_paths(posterior, 6, features=128, generator=torch.Generator().manual_seed(3))
    points = torch.randn(6, 40, 2, generator=torch.Generator().manual_seed(4), dtype=F64)
    values = evaluate_paths(posterior, paths, points)
    assert torch.equal(values, evaluate_paths(posterior, paths, points))
    order = torch.randperm(40, generator=torch.Generator().manual_seed(5))
    parts = torch.cat([evaluate_paths(posterior, paths, points[:, i : i + 1]) for i in order], 1)
    torch.testing.assert_close(parts, values[:, order], rtol=0, atol=1e-11)
    alone = evaluate_paths(posterior, {k: v[2:3] for k, v in paths.items()}, points[2:3])
    torch.testing.assert_close(alone, values[2:3], rtol=0, atol=1e-11)
    shared = evaluate_paths(posterior, paths, points[:1])
    torch.testing.assert_close(shared, evaluate_paths(posterior, paths, points[:1].repeat(6, 1, 1)), rtol=0, atol=1e-11)
    monkeypatch.setattr("bayeswm.inference.pathwise._CHUNK", 6 * 128 * 7)
    torch.testing.assert_close(evaluate_paths(posterior, paths, points), values, rtol=0, atol=1e-11)


def test_worlds_have_features_of_their_own():
    paths = draw_paths(known(Scaled(RBF())), 3, features=8, generator=torch.Generator().manual_seed(0))
    for name in ("frequency", "phase", "amplitude", "update"):
        assert not torch.equal(paths[name][0], paths[name][1])
        assert not torch.equal(paths[name][:, 0], paths[name][:, 1])


@pytest.mark.parametrize("kernel", KERNELS, ids=repr)
def test_gradients_by_the_inputs_agree_with_differences(kernel):
    posterior = known(kernel)
    paths = draw_paths(posterior, 2, features=32, generator=torch.Generator().manual_seed(0))
    points = NEW[None].repeat(2, 1, 1).requires_grad_()
    assert torch.autograd.gradcheck(lambda p: evaluate_paths(posterior, paths, p), (points,), atol=1e-5, rtol=1e-4)
    at_data = posterior.x[None].clone().requires_grad_()  # where a distance is 0
    gradient = torch.autograd.grad(evaluate_paths(posterior, paths, at_data).sum(), at_data)[0]
    assert bool(gradient.isfinite().all())
