"""Moments of sines and cosines against quadrature, and where numbers are very small or very large."""

import math

import pytest
import torch

from bayeswm.inference.gaussian_waves import with_waves

F64 = torch.float64


def belief(size=0.5, seed=0):
    g = torch.Generator().manual_seed(seed)
    root = size * torch.randn(3, 3, generator=g, dtype=F64)
    return torch.randn(3, generator=g, dtype=F64), root @ root.mT


def quadrature(mean, covariance, columns, nodes=40):
    """Moments by Gauss-Hermite quadrature: eigenvalues of the polynomials' recurrence."""
    side = torch.arange(1, nodes, dtype=F64).sqrt().diag(1)
    x, vectors = torch.linalg.eigh(side + side.mT)
    weight = vectors[0].square()
    grid = torch.cartesian_prod(x, x, x)
    weights = torch.cartesian_prod(weight, weight, weight).prod(-1)
    points = mean + grid @ torch.linalg.cholesky(covariance).mT
    values = torch.cat((points, points[:, columns].sin(), points[:, columns].cos()), -1)
    center = weights @ values
    off = values - center
    return center, off.mT @ (weights[:, None] * off)


@pytest.mark.parametrize("size", [0.01, 0.5, 1.0])
@pytest.mark.parametrize("columns", [(0,), (2, 0)])
def test_it_is_the_integral(size, columns):
    given = belief(size)
    found = with_waves(*given, columns)
    mean, covariance = quadrature(*given, list(columns))
    assert torch.allclose(found.mean, mean, rtol=1e-10, atol=1e-12)
    assert torch.allclose(found.covariance, covariance, rtol=1e-9, atol=1e-12)


def test_small_variances_keep_their_digits():
    mean, covariance = belief()
    found = with_waves(mean, 1e-20 * covariance, (0, 1, 2))
    slope = torch.cat((torch.eye(3, dtype=F64), mean.cos().diag(), -mean.sin().diag()))
    assert torch.allclose(found.covariance, 1e-20 * slope @ covariance @ slope.mT, rtol=1e-9, atol=0)


def test_a_known_angle_and_one_about_which_nothing_is_known():
    mean = torch.tensor([0.3, 2.0], dtype=F64)
    found = with_waves(mean, torch.zeros(2, 2, dtype=F64), (0, 1))
    assert found.mean.tolist() == pytest.approx([0.3, 2.0, *mean.sin().tolist(), *mean.cos().tolist()])
    assert bool((found.covariance == 0).all())
    found = with_waves(mean, torch.full((2, 2), 1e6, dtype=F64), (0, 1))  # the same number twice, but for the mean
    assert found.mean[2:].abs().max() < 1e-12
    apart = math.cos(1.7) / 2
    assert found.covariance[2, 3].item() == pytest.approx(apart)
    assert found.covariance[2, 2].item() == pytest.approx(0.5)
    assert bool(found.covariance.isfinite().all())


@pytest.mark.parametrize("size", [0.0, 0.5])
def test_the_gradient(size):
    mean, covariance = belief(size)

    def symmetric(m, s):
        return tuple(with_waves(m, 0.5 * (s + s.mT), (0, 2)))

    assert torch.autograd.gradcheck(symmetric, (mean.requires_grad_(), covariance.requires_grad_()))


def test_without_columns_nothing_happens_and_a_batch_is_its_rows():
    mean, covariance = belief()
    found = with_waves(mean, covariance, ())
    assert found.mean is mean
    both = with_waves(torch.stack((mean, 2 * mean)), torch.stack((covariance, covariance)), (1,))
    assert torch.equal(both.covariance[1], with_waves(2 * mean, covariance, (1,)).covariance)
