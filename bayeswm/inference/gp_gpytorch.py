"""Kernels of GPyTorch as kernels of this library."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from bayeswm.base.errors import SpecError
from bayeswm.inference.gp_algebra import Kernel, Product, Scaled, Sum
from bayeswm.inference.gp_kernels import RBF, Matern
from bayeswm.inference.gp_periodic import Periodic

if TYPE_CHECKING:
    import gpytorch


def from_gpytorch(kernel: gpytorch.kernels.Kernel) -> Kernel:
    """Return this library's kernel of the same family.

    ``ScaleKernel``, ``RBFKernel``, ``MaternKernel``, ``PeriodicKernel``, ``AdditiveKernel`` and ``ProductKernel`` have
    one, with ``active_dims``, which count the columns of state, action and context. Only functions of these can be
    drawn exactly. The family is taken: hyper-parameters are learned anew, but for a period, which is the first guess.
    An output scale becomes a learned signal; a kernel under none has variance 1.

    Parameters
    ----------
    kernel : gpytorch.kernels.Kernel
        Without a batch and without priors.

    Raises
    ------
    SpecError
        For other kernels, naming them, and for settings that this library states elsewhere.

    Examples
    --------
    >>> from gpytorch.kernels import MaternKernel, RBFKernel, ScaleKernel
    >>> from_gpytorch(ScaleKernel(RBFKernel(ard_num_dims=2)) + ScaleKernel(MaternKernel(nu=1.5, active_dims=[0])))
    Scaled(RBF()) + Scaled(Matern(nu=1.5, active=0))
    """
    # who has such a kernel has imported GPyTorch: no need to wait for it to refuse another object
    if "gpytorch" not in sys.modules or not isinstance(kernel, sys.modules["gpytorch"].kernels.Kernel):
        raise SpecError(f"expected a kernel of bayeswm.inference or gpytorch.kernels, got {kernel!r}")
    if not _scaled(kernel):
        return Scaled(_converted(kernel), signal=1.0)
    return _converted(kernel)


def _scaled(kernel: Any) -> bool:
    import gpytorch

    return any(isinstance(k, gpytorch.kernels.ScaleKernel) for k in kernel.modules())


def _converted(kernel: Any) -> Kernel:
    import gpytorch.kernels as g

    name = type(kernel).__name__
    if len(kernel.batch_shape):
        raise SpecError(f"expected a {name} without batch_shape (each output has its own), got {kernel.batch_shape}")
    own_priors = [n for n, *_ in kernel.named_priors() if "." not in n]
    if own_priors:
        raise SpecError(f"expected a {name} without priors, got {own_priors[0]}; state them by priors=HyperPriors(...)")
    # a subclass is another kernel
    if type(kernel) is g.AdditiveKernel:
        return Sum(tuple(_term(k) for k in kernel.kernels))
    if type(kernel) is g.ProductKernel:
        return Product(tuple(_converted(k) for k in kernel.kernels))
    if type(kernel) is g.ScaleKernel:
        return Scaled(_converted(kernel.base_kernel))
    active = None if kernel.active_dims is None else tuple(kernel.active_dims.tolist())
    active = active[0] if active is not None and len(active) == 1 else active
    ard = kernel.ard_num_dims is not None or isinstance(active, int)
    if type(kernel) is g.RBFKernel:
        return RBF(active=active, ard=ard)
    if type(kernel) is g.MaternKernel:
        return Matern(nu=kernel.nu, active=active, ard=ard)
    if type(kernel) is g.PeriodicKernel:
        periods = tuple(kernel.period_length.detach().double().flatten().tolist())
        return Periodic(
            period=periods[0] if len(set(periods)) == 1 else periods, learn_period=True, active=active, ard=ard
        )
    raise SpecError(
        f"expected GPyTorch's Scale, RBF, Matern, Periodic, Additive or ProductKernel, got {name}: "
        "functions cannot be drawn exactly from its process"
    )


def _term(kernel: Any) -> Kernel:
    converted = _converted(kernel)
    return converted if _scaled(kernel) else Scaled(converted, signal=1.0)
