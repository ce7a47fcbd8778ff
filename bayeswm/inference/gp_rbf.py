"""Which kernels are one RBF, for algebra that holds for no other."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from bayeswm.inference.gp_algebra import Kernel, Scaled
from bayeswm.inference.gp_kernels import RBF
from bayeswm.inference.gp_leaf import columns_of


class SquaredExponential(NamedTuple):
    """The kernel variance * exp(-sum(precision * (a - b)^2) / 2).

    Attributes
    ----------
    precision : Tensor, shape (D,)
        Inverse squares of the length scales; 0 where an input has no say.
    variance : Tensor, shape ()
        Of the function.
    """

    precision: Tensor
    variance: Tensor


def as_rbf(kernel: Kernel, values: Tensor, inputs: int) -> SquaredExponential | None:
    """Return what a kernel is with these hyper-parameters, or None where it is no RBF times a constant.

    Parameters
    ----------
    kernel : Kernel
        Any.
    values : Tensor, shape (P,)
        Its hyper-parameters.
    inputs : int
        How many inputs D it is given.

    Returns
    -------
    SquaredExponential or None

    Examples
    --------
    >>> import torch
    >>> from bayeswm.inference import Matern
    >>> found = as_rbf(Scaled(RBF(active=1)), torch.tensor([2.0, 3.0]), 2)
    >>> found.precision, found.variance
    (tensor([0.0000, 0.2500]), tensor(9.))
    >>> as_rbf(Scaled(Matern()), torch.ones(3), 2)
    """
    variance = kernel.variance(values, inputs)
    while isinstance(kernel, Scaled):
        kernel = kernel.kernel
        values = values[: kernel.size(inputs)]
    if not isinstance(kernel, RBF):
        return None
    precision = values.new_zeros(inputs)
    precision[list(columns_of(kernel, inputs))] = values.reciprocal().square()
    return SquaredExponential(precision, variance)
