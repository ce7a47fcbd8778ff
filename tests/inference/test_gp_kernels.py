"""Kernels against their definitions, their gradients against autograd, their frequencies against Bochner's theorem."""

import pytest
import torch

import bayeswm as bwm
from bayeswm.inference import RBF, Matern, Periodic
from bayeswm.inference.gp_kernels import kernel_from_dict
from tests.inference.gp_kernels import KERNELS, by_definition, points, values_of
from tests.statistical.checks import BUDGET, mean_p

F64 = torch.float64


@pytest.mark.parametrize("kernel", KERNELS, ids=repr)
def test_covariances_are_those_of_the_definition(kernel):
    a, b, values = points(7), points(5, seed=1), values_of(kernel)
    torch.testing.assert_close(kernel.covariance(a, b, values), by_definition(kernel, a, b, values), rtol=0, atol=1e-14)
    again = torch.cat((a, a[:2]))  # a repeated input is at distance 0, not 1e-8
    variance = kernel.variance(values, 2)
    torch.testing.assert_close(kernel.covariance(again, again, values)[-2:, :2].diagonal(), variance.expand(2))


@pytest.mark.parametrize("kernel", KERNELS, ids=repr)
def test_the_closed_form_gradient_is_that_of_autograd(kernel):
    x, values = torch.cat((points(8), points(1))), values_of(kernel)
    weight = points(9, 9, seed=2)
    weight = weight + weight.mT
    log_values = values.log().requires_grad_()
    slope = torch.autograd.grad((weight * by_definition(kernel, x, x, log_values.exp())).sum(), log_values)[0]
    covariance, gradient = kernel.with_gradient(x, values)
    torch.testing.assert_close(covariance, kernel.covariance(x, x, values), rtol=0, atol=0)
    torch.testing.assert_close(gradient(weight), slope, rtol=1e-9, atol=1e-10)


@pytest.mark.statistical
@pytest.mark.parametrize("kernel", KERNELS, ids=repr)
def test_waves_at_the_frequencies_average_to_the_kernel(kernel):
    values = values_of(kernel)
    frequency = kernel.frequencies((1, 2, 40_000), values, torch.Generator().manual_seed(0))[0]
    lags = points(6) * torch.tensor([0.1, 0.3, 0.6, 1.0, 1.5, 2.0], dtype=F64)[:, None]
    origin = torch.zeros(1, 2, dtype=F64)
    expected = by_definition(kernel, lags, origin, values)[:, 0] / by_definition(kernel, origin, origin, values)[0, 0]
    assert mean_p(torch.cos(lags @ frequency).mT, expected) > BUDGET


@pytest.mark.statistical
@pytest.mark.parametrize("length", [0.05, 0.5, 2.0, 5.0])
def test_periodic_waves_are_whole_and_have_the_fourier_weights(length):
    from scipy.special import ive

    frequency = Periodic(period=4.0).frequencies(
        (1, 1, 50_000), torch.tensor([length], dtype=F64), torch.Generator().manual_seed(0)
    )[0, 0]
    number = frequency * 4.0 / (2 * torch.pi)
    torch.testing.assert_close(number, number.round(), rtol=0, atol=1e-9)
    found = torch.stack([number.round() == n for n in (0, 1, -1, 2, 7)], -1).double()
    weights = torch.tensor([ive(abs(n), length**-2) for n in (0, 1, -1, 2, 7)], dtype=F64)
    enough = 50_000 * weights * (1 - weights) > 20  # for the normal approximation
    assert mean_p(found[:, enough], weights[enough]) > BUDGET
    assert bool((found[:, 50_000 * weights < 1e-3] == 0).all())


def test_what_is_no_kernel_is_refused():
    with pytest.raises(bwm.SpecError, match=r"nu = 0\.5, 1\.5 or 2\.5"):
        Matern(nu=1.0)
    with pytest.raises(bwm.SpecError, match="period > 0"):
        Periodic(period=-1.0)
    with pytest.raises(bwm.SpecError, match="one period with ard=False"):
        Periodic(period=(1.0, 2.0), ard=False)
    with pytest.raises(bwm.SpecError, match="a period for each of the 3 inputs"):
        Periodic(period=(1.0, 2.0)).covariance(points(2, 3), points(2, 3), torch.ones(3, dtype=F64))
    with pytest.raises(bwm.SpecError, match="different names or indices"):
        RBF(active=("angle", "angle"))
    for active in (5, "angle"):
        with pytest.raises(bwm.SpecError, match="indices of the 2 inputs"):
            RBF(active=active).parameters(2)
    with pytest.raises(bwm.SpecError, match="RBF, Matern, Periodic"):
        kernel_from_dict({"name": "Cosine"})
