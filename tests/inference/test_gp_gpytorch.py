"""Kernels of GPyTorch: the same covariances as ours, or refused by name."""

import gpytorch.kernels as g
import pytest
import torch

import bayeswm as bwm
from bayeswm.inference import RBF, Periodic, Scaled, from_gpytorch

F64 = torch.float64


def kernels():
    periodic = g.PeriodicKernel(active_dims=[0])
    periodic.period_length = 2.5
    several = g.PeriodicKernel(active_dims=[0, 2], ard_num_dims=2)
    several.period_length = torch.tensor([[1.5, 4.0]])
    for p in (periodic, several):
        p.lengthscale = 0.7
    return {
        "RBF": g.RBFKernel(),
        "ARD": g.ScaleKernel(g.RBFKernel(ard_num_dims=3)),
        "Matern 1/2": g.ScaleKernel(g.MaternKernel(nu=0.5, active_dims=[1, 2])),
        "Matern 3/2": g.MaternKernel(nu=1.5, ard_num_dims=3),
        "Matern 5/2": g.ScaleKernel(g.MaternKernel(nu=2.5, ard_num_dims=1, active_dims=[2])),
        "product": g.ScaleKernel(g.RBFKernel(ard_num_dims=3)) * periodic,
        "sum": g.ScaleKernel(g.RBFKernel(ard_num_dims=2, active_dims=[0, 2])) + g.ScaleKernel(several) + g.RBFKernel(),
        "scale of both": g.ScaleKernel(g.RBFKernel(active_dims=[1]) * periodic + g.ScaleKernel(g.MaternKernel())),
    }


def values_of(kernel):
    """The hyper-parameters of GPyTorch's kernel in the order of ours: roots of scales and of periodic length scales."""
    if isinstance(kernel, g.AdditiveKernel | g.ProductKernel):
        return torch.cat([values_of(k) for k in kernel.kernels])
    if isinstance(kernel, g.ScaleKernel):
        return torch.cat((values_of(kernel.base_kernel), kernel.outputscale.sqrt().view(1)))
    if isinstance(kernel, g.PeriodicKernel):
        return torch.cat((kernel.lengthscale.sqrt().flatten(), kernel.period_length.flatten()))
    return kernel.lengthscale.flatten()


@pytest.mark.parametrize("name", kernels())
def test_a_converted_kernel_has_the_same_covariances(name):
    theirs = kernels()[name].double()
    with torch.no_grad():
        for i, parameter in enumerate(theirs.parameters()):
            parameter.add_(0.1 * (i + 1))
    ours = from_gpytorch(theirs)
    draws = torch.Generator().manual_seed(0)
    a, b = torch.randn(6, 3, generator=draws, dtype=F64), torch.randn(4, 3, generator=draws, dtype=F64)
    values = values_of(theirs).detach()
    assert ours.size(3) == len(values)
    torch.testing.assert_close(ours.covariance(a, b, values), theirs(a, b).to_dense().detach(), rtol=0, atol=1e-12)


def test_the_period_is_the_first_guess_and_no_scale_means_variance_1():
    theirs = g.PeriodicKernel(active_dims=[1])
    theirs.period_length = 2.0  # kept in single precision behind a softplus
    period = theirs.period_length.item()
    assert abs(period - 2.0) < 1e-6
    assert from_gpytorch(theirs) == Scaled(Periodic(period=period, learn_period=True, active=1), signal=1.0)
    summed = from_gpytorch(g.ScaleKernel(g.RBFKernel()) + g.RBFKernel())
    assert summed == Scaled(RBF(ard=False)) + Scaled(RBF(ard=False), signal=1.0)


class Wider(g.RBFKernel):
    """A kernel of one's own."""


@pytest.mark.parametrize(
    ("kernel", "message"),
    [
        (g.ScaleKernel(g.RQKernel()), "got RQKernel: functions cannot be drawn exactly"),
        (g.LinearKernel() + g.RBFKernel(), "got LinearKernel"),
        (g.CosineKernel(), "got CosineKernel"),
        (Wider(), "got Wider"),
        (g.RBFKernel(batch_shape=torch.Size([2])), "without batch_shape"),
        ("RBF", r"expected a kernel of bayeswm\.inference or gpytorch\.kernels, got 'RBF'"),
    ],
)
def test_other_kernels_are_refused_by_name(kernel, message):
    with pytest.raises(bwm.SpecError, match=message):
        from_gpytorch(kernel)


def test_priors_of_a_kernel_are_stated_elsewhere():
    from gpytorch.priors import GammaPrior

    with pytest.raises(bwm.SpecError, match="without priors, got lengthscale_prior; state them by priors="):
        from_gpytorch(g.ScaleKernel(g.RBFKernel(lengthscale_prior=GammaPrior(3.0, 6.0))))
