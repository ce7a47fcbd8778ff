"""Kernels that the tests of Gaussian processes share, and what they are by definition."""

import math

import torch

from bayeswm.inference import RBF, Matern, Periodic, Scaled
from bayeswm.inference.gp_algebra import Product, Sum

F64 = torch.float64
LEAVES = [
    RBF(),
    Matern(nu=0.5),
    Matern(nu=1.5),
    Matern(nu=2.5),
    Periodic(period=3.1),
    Periodic(period=(2.0, 5.0), learn_period=True),
]
COMPOSED = [
    Scaled(Matern(nu=2.5, ard=False)),
    Scaled(RBF(), signal=0.7),
    RBF() + Matern(nu=0.5, active=0) + Periodic(period=3.1, active=1),
    Scaled(RBF(active=1) * Periodic(active=0, learn_period=True)),
    Scaled(Periodic(period=3.1, ard=False, learn_period=True) * Matern(nu=1.5) * RBF(ard=False)),
    (RBF(active=0) + Periodic(active=(1, 0))) * Matern(nu=2.5),
]
KERNELS = [*LEAVES, *COMPOSED]


def points(n, d=2, seed=0):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=F64)


def values_of(kernel, inputs=2, seed=0):
    """Hyper-parameters near their usual sizes."""
    typical = torch.tensor([t for p in kernel.parameters(inputs) for t in p.typical], dtype=F64)
    return typical * torch.exp(
        0.3 * torch.randn(len(typical), generator=torch.Generator().manual_seed(seed), dtype=F64)
    )


def by_definition(kernel, a, b, values):
    """Covariances as the textbook writes them, with differences first; autograd can follow."""
    if isinstance(kernel, Scaled):
        if kernel.signal is not None:
            return kernel.signal**2 * by_definition(kernel.kernel, a, b, values)
        return values[-1] ** 2 * by_definition(kernel.kernel, a, b, values[:-1])
    if isinstance(kernel, Sum | Product):
        parts = values.split([k.size(a.shape[-1]) for k in kernel.children])
        each = torch.stack([by_definition(k, a, b, v) for k, v in zip(kernel.children, parts, strict=True)])
        return each.sum(0) if isinstance(kernel, Sum) else each.prod(0)
    columns = list(kernel.parameters(a.shape[-1])[0].columns)
    difference = a[:, None, columns] - b[:, columns]
    if isinstance(kernel, Periodic):
        size = len(columns) if kernel.ard else 1
        period = values[size:] if kernel.learn_period else torch.as_tensor(kernel.period, dtype=F64)
        return torch.exp(-2 * (torch.sin(math.pi * difference / period) / values[:size]).square().sum(-1))
    # 1e-30 keeps the root's slope finite
    r = ((difference / values).square().sum(-1) + 1e-30).sqrt()
    if isinstance(kernel, RBF):
        return torch.exp(-0.5 * r**2)
    s = math.sqrt(2 * kernel.nu) * r
    return {0.5: 1, 1.5: 1 + s, 2.5: 1 + s + s**2 / 3}[kernel.nu] * torch.exp(-s)
