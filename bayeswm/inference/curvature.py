"""How a log density curves at its maximum: exactly, by Gauss-Newton, and by cheaper forms of that."""

from __future__ import annotations

import itertools
import math
import warnings
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, override

import torch
from torch import Tensor
from torch.distributions import Independent, Normal

from bayeswm.base.errors import FitWarning, SpecError
from bayeswm.inference.derivatives import hessian, prior_precision, slopes
from bayeswm.inference.joint import Joint
from bayeswm.inference.precisions import (
    BlockPrecision,
    DensePrecision,
    DiagonalPrecision,
    KroneckerPrecision,
    Precision,
    is_positive,
)


class Fisher(ABC):
    """Curvature of the log likelihood by groups of outputs, summed over rows of data.

    Groups are kept apart so that they can be weighed afresh when their noise changes.
    """

    @abstractmethod
    def add(self, slope: Tensor) -> None:
        """Add rows of derivatives (n, groups, outputs, d)."""

    @abstractmethod
    def precision(self, weight: Tensor, prior: Tensor) -> Precision:
        """Return the precision with these weights of the groups (groups,) and this prior, (d,) or (d, d)."""


class Curvature(ABC):
    """A choice of what a Laplace approximation takes for the curvature."""

    registry: ClassVar[dict[str, type[Curvature]]] = {}

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        if cls.__module__.startswith("bayeswm."):
            Curvature.registry[cls.__name__] = cls

    def uncertain(self, joint: Joint) -> Tensor:
        """Return the coordinates that vary, shape (d,); the others stay where they are."""
        return torch.arange(joint.flat.size)

    @abstractmethod
    def fisher(self, joint: Joint, index: Tensor, groups: int) -> Fisher:
        """Return an empty sum for these coordinates (d,)."""

    def information(self, joint: Joint, x: Tensor, index: Tensor) -> Fisher:
        """Return the Fisher information of all rows at x (D,), as one group."""
        fisher = self.fisher(joint, index, 1)
        for s in slopes(joint, x, index):
            # of a normal law: what its mean tells, and what its log deviation tells
            fisher.add(torch.cat((s.mean / s.sd[..., None], math.sqrt(2) * s.log_sd), 1)[:, None])
        return fisher

    def precision(self, joint: Joint, x: Tensor) -> Precision:
        """Return minus the curvature of the log density at x (D,), in the coordinates of :meth:`uncertain`."""
        index = self.uncertain(joint)
        fisher = self.information(joint, x, index)
        return fisher.precision(torch.ones(1, dtype=torch.float64), prior_precision(joint, x, index))


@dataclass(frozen=True)
class GaussNewton(Curvature):
    """The expected curvature: what it would be on average over data from the fitted model; never negative.

    Exact where the mean is affine and the noise known. It needs a Gaussian likelihood.

    Examples
    --------
    >>> GaussNewton()
    GaussNewton()
    """

    @override
    def fisher(self, joint: Joint, index: Tensor, groups: int) -> Fisher:
        return _DenseFisher(len(index), groups)


@dataclass(frozen=True)
class FullHessian(GaussNewton):
    """The second derivative itself; where it is not that of a maximum, Gauss-Newton, with a warning.

    Examples
    --------
    >>> FullHessian()
    FullHessian()
    """

    @override
    def precision(self, joint: Joint, x: Tensor) -> Precision:
        matrix = -hessian(joint.log_density, x)
        if not is_positive(matrix) and joint.predict is not None:
            warnings.warn(
                "the second derivative at the maximum is not negative definite: Gauss-Newton is used instead",
                FitWarning,
                stacklevel=4,
            )
            return super().precision(joint, x)
        return DensePrecision(matrix)


@dataclass(frozen=True)
class Diagonal(Curvature):
    """The diagonal of Gauss-Newton: all parameters independent.

    Examples
    --------
    >>> Diagonal()
    Diagonal()
    """

    @override
    def fisher(self, joint: Joint, index: Tensor, groups: int) -> Fisher:
        return _DiagonalFisher(len(index), groups)


@dataclass(frozen=True)
class Kronecker(Curvature):
    """Gauss-Newton with each layer of a network as a Kronecker product, independent of the other layers (KFAC).

    For a layer's weights (inputs, outputs) it is the mean of a a' over rows of data times the sum of g g', where a are
    inputs of the layer (with a 1 for the bias) and g derivatives of the prediction by its outputs (Martens & Grosse
    2015; Ritter, Botev & Barber 2018). Exact where g is the same for all rows: for a network of one layer. Parameters
    that are no network's weights share one whole Gauss-Newton block.

    Examples
    --------
    >>> Kronecker()
    Kronecker()
    """

    @override
    def fisher(self, joint: Joint, index: Tensor, groups: int) -> Fisher:
        return _KroneckerFisher(joint, index, groups)


@dataclass(frozen=True)
class LastLayer(GaussNewton):
    """Gauss-Newton for the last layer of each network, whose other layers stay where they are.

    The network is then linear regression on its last hidden units. Parameters that are no network's weights vary.

    Examples
    --------
    >>> LastLayer()
    LastLayer()
    """

    @override
    def uncertain(self, joint: Joint) -> Tensor:
        earlier = torch.zeros(joint.flat.size, dtype=torch.bool)
        for where in layer_positions(joint).values():
            for positions, _ in where[:-1]:
                earlier[positions] = True
        if not joint.layers:
            raise SpecError("expected a network, whose last layer is to vary, got none: use FullHessian")
        return (~earlier).nonzero()[:, 0]


class _DenseFisher(Fisher):
    def __init__(self, size: int, groups: int) -> None:
        self.sum = torch.zeros(groups, size, size, dtype=torch.float64)

    @override
    def add(self, slope: Tensor) -> None:
        rows = slope.transpose(0, 1).flatten(1, 2)
        self.sum.baddbmm_(rows.mT, rows)

    @override
    def precision(self, weight: Tensor, prior: Tensor) -> Precision:
        return DensePrecision(
            torch.einsum("k,kij->ij", weight, self.sum) + (prior if prior.ndim == 2 else torch.diag(prior))
        )


class _DiagonalFisher(Fisher):
    def __init__(self, size: int, groups: int) -> None:
        self.sum = torch.zeros(groups, size, dtype=torch.float64)

    @override
    def add(self, slope: Tensor) -> None:
        self.sum += slope.square().sum((0, 2))

    @override
    def precision(self, weight: Tensor, prior: Tensor) -> Precision:
        return DiagonalPrecision(weight @ self.sum + (prior.diagonal() if prior.ndim == 2 else prior))


class _KroneckerFisher(Fisher):
    def __init__(self, joint: Joint, index: Tensor, groups: int) -> None:
        if not joint.layers:
            raise SpecError("expected a network, whose layers are to be Kronecker products, got none: use GaussNewton")
        layers = [layer for where in layer_positions(joint).values() for layer in where]
        place = torch.full((joint.flat.size,), -1).index_copy(0, index, torch.arange(len(index)))
        self.where = [place[positions] for positions, _ in layers]
        self.shapes = [shape for _, shape in layers]
        self.inputs = [torch.zeros(i, i, dtype=torch.float64) for i, _ in self.shapes]
        self.outputs = [torch.zeros(groups, o, o, dtype=torch.float64) for _, o in self.shapes]
        self.counts = [0] * len(layers)
        others = torch.ones(len(index), dtype=torch.bool)
        others[torch.cat(self.where)] = False
        self.others = others.nonzero()[:, 0]
        self.rest = _DenseFisher(len(self.others), groups)

    @override
    def add(self, slope: Tensor) -> None:
        self.rest.add(slope[..., self.others])
        for k, (where, shape) in enumerate(zip(self.where, self.shapes, strict=True)):
            # by weights (i, o) it is a g', and the row of the bias, whose input is 1, is g
            product = slope[..., where].unflatten(-1, shape)
            g = product[..., -1, :]
            size = g.square().sum((1, 2, 3))
            told = size > 0  # a row of data that no output depends on says nothing of its inputs
            a = torch.einsum("nkqio,nkqo->ni", product[told], g[told]) / size[told][:, None]
            self.inputs[k] += a.mT @ a
            self.counts[k] += len(a)
            self.outputs[k] += torch.einsum("nkqo,nkqp->kop", g, g)

    @override
    def precision(self, weight: Tensor, prior: Tensor) -> Precision:
        parts: list[Precision] = []
        own = prior.diagonal() if prior.ndim == 2 else prior
        for k, (where, shape) in enumerate(zip(self.where, self.shapes, strict=True)):
            outputs = torch.einsum("k,kop->op", weight, self.outputs[k])
            parts.append(KroneckerPrecision(self.inputs[k] / max(self.counts[k], 1), outputs, own[where].view(shape)))
        rest = prior[self.others][:, self.others] if prior.ndim == 2 else prior[self.others]
        return BlockPrecision((*self.where, self.others), (*parts, self.rest.precision(weight, rest)))


def network_law(joint: Joint, name: str) -> Normal:
    """Return the law of a network's flat weights (P,).

    Raises
    ------
    SpecError
        If it is not a normal one of independent numbers.
    """
    law = joint.laws[name]
    shape = law.batch_shape + law.event_shape
    while isinstance(law, Independent):
        law = law.base_dist
    if not isinstance(law, Normal):
        raise SpecError(f"{name}: expected a Normal law of a network's weights, got {type(law).__name__}")
    return Normal(law.loc.expand(shape).flatten(), law.scale.expand(shape).flatten())


def layer_positions(joint: Joint) -> dict[str, list[tuple[Tensor, tuple[int, int]]]]:
    """Return, for each network, where the weights of each layer are in the flat vector, and their shape.

    The shape is (inputs + 1, outputs): the last row is the bias.

    Raises
    ------
    SpecError
        If the network's law is not a normal one of independent numbers, or its size another.
    """
    found: dict[str, list[tuple[Tensor, tuple[int, int]]]] = {}
    for name, layers in joint.layers.items():
        shapes = [(i + 1, o) for i, o in layers]
        sizes = [i * o for i, o in shapes]
        have = len(network_law(joint, name).loc)
        if sum(sizes) != have:
            raise SpecError(f"{name}: expected {sum(sizes)} weights in layers {layers}, got {have}")
        ends = itertools.accumulate(sizes, initial=joint.flat.slices[name].start)
        found[name] = [
            (torch.arange(*ends), shape) for ends, shape in zip(itertools.pairwise(ends), shapes, strict=True)
        ]
    return found


def fixed_log_prior(joint: Joint, x: Tensor, index: Tensor) -> Tensor:
    """Return the log prior density of the networks' weights that are not among the coordinates of index (d,)."""
    fixed = torch.ones(joint.flat.size, dtype=torch.bool).index_fill(0, index, False)
    total = x.new_zeros(())
    for name in joint.layers:
        where = joint.flat.slices[name]
        total = total + network_law(joint, name).log_prob(x[where])[fixed[where]].sum()
    return total
