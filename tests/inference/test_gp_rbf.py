"""Which kernels count as an RBF, and that what comes back is the kernel."""

import pytest
import torch

from bayeswm.inference import RBF, Periodic, Scaled
from bayeswm.inference.gp_rbf import as_rbf
from tests.inference.gp_kernels import points, values_of

KERNELS = [RBF(), RBF(ard=False), RBF(active=1), Scaled(RBF()), Scaled(Scaled(RBF(active=0)), signal=0.7)]


@pytest.mark.parametrize("kernel", KERNELS, ids=repr)
def test_it_is_the_kernel(kernel):
    x, values = points(6), values_of(kernel)
    found = as_rbf(kernel, values, 2)
    square = (found.precision * (x[:, None] - x).square()).sum(-1)
    assert torch.allclose(found.variance * torch.exp(-0.5 * square), kernel.covariance(x, x, values), rtol=1e-12)


@pytest.mark.parametrize(
    "kernel", [Periodic(period=2.0), RBF() + RBF(), Scaled(RBF(active=0) * RBF(active=1))], ids=repr
)
def test_others_are_not(kernel):
    assert as_rbf(kernel, values_of(kernel), 2) is None
