"""Kernels against their definitions, their slopes against autograd, their frequencies against Bochner's theorem."""

import math

import pytest
import torch

import bayeswm as bwm
from bayeswm.inference import RBF, Kernel, Matern
from tests.statistical.checks import BUDGET, mean_p

F64 = torch.float64
KERNELS = [RBF(), Matern(nu=0.5), Matern(nu=1.5), Matern(nu=2.5)]


def by_definition(kernel, r):
    if isinstance(kernel, RBF):
        return torch.exp(-0.5 * r**2)
    s = math.sqrt(2 * kernel.nu) * r
    return {0.5: 1, 1.5: 1 + s, 2.5: 1 + s + s**2 / 3}[kernel.nu] * torch.exp(-s)


def points(n, d=3, seed=0):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=F64)


@pytest.mark.parametrize("kernel", KERNELS, ids=repr)
def test_correlations_are_those_of_the_definition(kernel):
    a, b = points(7), points(5, seed=1)
    r = (a[:, None] - b).norm(dim=-1)
    torch.testing.assert_close(kernel.correlation(a, b), by_definition(kernel, r), rtol=0, atol=1e-14)
    again = torch.cat((a, a[:2]))  # a repeated input is at distance 0, not 1e-8
    torch.testing.assert_close(kernel.correlation(again, again)[-2:, :2].diagonal(), torch.ones(2, dtype=F64))


@pytest.mark.parametrize("kernel", KERNELS, ids=repr)
def test_the_slope_is_the_derivative_by_the_squared_distance(kernel):
    a = points(6)
    square = (a[:, None] - a).square().sum(-1)
    square = square.fill_diagonal_(1.0).requires_grad_()
    expected = -2 * torch.autograd.grad(by_definition(kernel, square.sqrt()).sum(), square)[0]
    correlation, slope = kernel.with_slope(a)
    torch.testing.assert_close(correlation, kernel.correlation(a, a), rtol=0, atol=0)
    apart = ~torch.eye(6, dtype=torch.bool)
    torch.testing.assert_close(slope[apart], expected[apart])
    assert bool(slope.isfinite().all())


@pytest.mark.statistical
@pytest.mark.parametrize("kernel", KERNELS, ids=repr)
def test_waves_at_the_frequencies_average_to_the_kernel(kernel):
    frequency = kernel.frequencies((3, 20_000), torch.Generator().manual_seed(0), torch.device("cpu"))
    lags = points(6) * torch.tensor([0.1, 0.3, 0.6, 1.0, 1.5, 2.0], dtype=F64)[:, None]
    waves = torch.cos(lags @ frequency).mT
    assert mean_p(waves, by_definition(kernel, lags.norm(dim=-1))) > BUDGET


@pytest.mark.parametrize("kernel", KERNELS, ids=repr)
def test_kernels_come_back_from_plain_values(kernel):
    assert Kernel.from_dict(kernel.to_dict()) == kernel


def test_what_is_no_kernel_is_refused():
    with pytest.raises(bwm.SpecError, match=r"nu = 0\.5, 1\.5 or 2\.5"):
        Matern(nu=1.0)
    with pytest.raises(bwm.SpecError, match="named RBF or Matern"):
        Kernel.from_dict({"name": "Periodic"})
