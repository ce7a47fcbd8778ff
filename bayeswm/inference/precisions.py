"""Precision matrices of Gaussians that are too large, or too structured, to be written out."""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import override

import torch
from torch import Tensor

from bayeswm.base.errors import FitError, FitWarning, SpecError

# smallest eigenvalue that is left to a matrix of unit diagonal
_SMALLEST = 1e-12


class Precision(ABC):
    """The inverse of a covariance in d dimensions."""

    @property
    @abstractmethod
    def log_det(self) -> Tensor:
        """Log determinant, differentiable."""

    @abstractmethod
    def spread(self, z: Tensor) -> Tensor:
        """Return deviations (n, d) with this precision from standard normal ones (n, d); linear."""


@dataclass(frozen=True)
class DensePrecision(Precision):
    """A whole matrix (d, d).

    Examples
    --------
    >>> law = DensePrecision(torch.tensor([[4.0, 0.0], [0.0, 0.25]]))
    >>> law.spread(torch.ones(1, 2)).tolist(), float(law.log_det)
    ([[0.5, 2.0]], 0.0)
    """

    matrix: Tensor

    def __post_init__(self) -> None:
        matrix = self.matrix if is_positive(self.matrix) else project(self.matrix)
        object.__setattr__(self, "_factor", torch.linalg.cholesky(matrix))

    @property
    def _lower(self) -> Tensor:
        return self.__dict__["_factor"]

    @property
    @override
    def log_det(self) -> Tensor:
        return 2 * self._lower.diagonal().log().sum()

    @override
    def spread(self, z: Tensor) -> Tensor:
        return torch.linalg.solve_triangular(self._lower.mT, z.mT, upper=True).mT


@dataclass(frozen=True)
class DiagonalPrecision(Precision):
    """A diagonal (d,).

    Examples
    --------
    >>> DiagonalPrecision(torch.tensor([4.0, 0.25])).spread(torch.ones(1, 2)).tolist()
    [[0.5, 2.0]]
    """

    diagonal: Tensor

    def __post_init__(self) -> None:
        if not bool((self.diagonal > 0).all() and self.diagonal.isfinite().all()):
            raise FitError("expected a maximum, got a point where the density curves upwards; use FullHessian")

    @property
    @override
    def log_det(self) -> Tensor:
        return self.diagonal.log().sum()

    @override
    def spread(self, z: Tensor) -> Tensor:
        return z / self.diagonal.sqrt()


@dataclass(frozen=True)
class KroneckerPrecision(Precision):
    """A Kronecker product with a diagonal added, inputs (i, i) x outputs (o, o) + diag(prior), for weights (i, o).

    The diagonal has to be a product of one factor for inputs and one for outputs.

    Raises
    ------
    SpecError
        If it is not.

    Examples
    --------
    >>> law = KroneckerPrecision(2 * torch.eye(2), 3 * torch.eye(1), torch.ones(2, 1))  # 6 + 1
    >>> round(float(law.log_det.exp())), law.spread(torch.ones(1, 2)).numpy().round(3).tolist()
    (49, [[0.3779999911785126, 0.3779999911785126]])
    """

    inputs: Tensor
    outputs: Tensor
    prior: Tensor

    def __post_init__(self) -> None:
        scale = self.prior.rsqrt()
        by_input, by_output = scale[:, 0] / scale[0, 0], scale[0]
        if not torch.allclose(scale, by_input[:, None] * by_output, rtol=1e-6, atol=0.0):
            raise SpecError(
                "expected the scale of the prior of a layer's weights to be a factor of the input times one of the "
                "output; give the layer one scale, or use GaussNewton"
            )
        # in units of the prior's scale the diagonal is 1, which every rotation leaves alone
        object.__setattr__(self, "_scale", scale)
        object.__setattr__(self, "_a", by_input[:, None] * self.inputs * by_input)
        object.__setattr__(self, "_g", by_output[:, None] * self.outputs * by_output)

    @property
    @override
    def log_det(self) -> Tensor:
        a, g = (torch.linalg.eigvalsh(self.__dict__[k]).clamp(min=0) for k in ("_a", "_g"))
        return torch.log1p(a[:, None] * g).sum() + self.prior.log().sum()

    @override
    def spread(self, z: Tensor) -> Tensor:
        (a, left), (g, right) = (torch.linalg.eigh(self.__dict__[k]) for k in ("_a", "_g"))
        root = (1 + a.clamp(min=0)[:, None] * g.clamp(min=0)).rsqrt()
        rotated = left @ (root * z.unflatten(-1, self.prior.shape)) @ right.mT
        return (self.__dict__["_scale"] * rotated).flatten(1)


@dataclass(frozen=True)
class BlockPrecision(Precision):
    """Several precisions of some coordinates each, (d_k,) positions, independent of each other.

    Examples
    --------
    >>> parts = (DiagonalPrecision(torch.tensor([4.0])), DensePrecision(torch.eye(1)))
    >>> law = BlockPrecision((torch.tensor([1]), torch.tensor([0])), parts)
    >>> law.spread(torch.ones(1, 2)).tolist()
    [[1.0, 0.5]]
    """

    positions: Sequence[Tensor]
    parts: Sequence[Precision]

    @property
    @override
    def log_det(self) -> Tensor:
        return torch.stack([part.log_det for part in self.parts]).sum()

    @override
    def spread(self, z: Tensor) -> Tensor:
        out = z.clone()
        for where, part in zip(self.positions, self.parts, strict=True):
            out[:, where] = part.spread(z[:, where])
        return out


def is_positive(matrix: Tensor) -> bool:
    """Whether a symmetric matrix is positive definite, also when every coordinate is brought to unit size.

    Raises
    ------
    FitError
        If it is not finite.
    """
    if not bool(matrix.isfinite().all()):
        raise FitError("expected a finite curvature at the maximum, got NaN or infinity; look at laws and data")
    diagonal = matrix.detach().diagonal()
    if not bool((diagonal > 0).all()):
        return False
    size = diagonal.rsqrt()
    scaled = size[:, None] * matrix.detach() * size
    return int(torch.linalg.cholesky_ex(scaled - _SMALLEST * torch.eye(len(size), dtype=size.dtype))[1]) == 0


def project(matrix: Tensor) -> Tensor:
    """Return a positive definite matrix: directions of negative curvature get the same curvature downwards.

    Warns
    -----
    FitWarning
        With the number of such directions.
    """
    size = matrix.diagonal().abs().clamp(min=1e-300).rsqrt()
    values, vectors = torch.linalg.eigh(size[:, None] * matrix * size)
    bad = int((values <= _SMALLEST).sum())
    warnings.warn(
        f"the density does not fall in {bad} of {len(values)} directions at the point that was found: the spread there "
        "is a guess; give parameters that data do not determine narrower laws",
        FitWarning,
        stacklevel=2,
    )
    # twice the smallest one: what rounding takes away must not undo it
    return ((vectors * values.abs().clamp(min=2 * _SMALLEST)) @ vectors.mT) / (size[:, None] * size)
