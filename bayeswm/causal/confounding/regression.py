"""Several numbers that are linear in features with Gaussian errors of any covariance: conjugate, one after another."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from bayeswm.base.errors import DataError, SpecError
from bayeswm.base.schema import Schema
from bayeswm.inference import NormalInverseGamma

# of the priors in units of the data's own scales: far below what one row tells
_WEAK = 1e-6
_SHAPE = 0.01


def features_of(schema: Schema, state: Tensor, context: Tensor | None) -> Tensor:
    """Return what linear laws are linear in: 1, the state (..., S) and the context (..., C), angles by sine and cosine.

    Raises
    ------
    SpecError
        Without the context that the system has.

    Examples
    --------
    >>> from bayeswm.base.schema import Variable
    >>> s = Schema(state=[Variable("s")], context=[Variable("e")], time_step=1.0)
    >>> features_of(s, torch.tensor([[2.0], [3.0]]), torch.tensor([5.0]))
    tensor([[1., 2., 5.],
            [1., 3., 5.]])
    """
    parts = [torch.ones_like(state[..., :1]), schema.state.embed(state)]
    if schema.context.size:
        if context is None:
            raise SpecError(f"expected context ({', '.join(schema.context.columns)}), got none")
        parts.append(schema.context.embed(context.to(state)).expand(*state.shape[:-1], -1))
    return torch.cat(parts, -1)


@dataclass(frozen=True)
class LinearMap:
    """In each world ``y = weight phi + root noise`` with noise ~ N(0, I).

    Parameters
    ----------
    weight : Tensor, shape (worlds, Y, D)
        Coefficients.
    root : Tensor, shape (worlds, Y, Y)
        Lower-triangular root of the covariance of the errors.

    Examples
    --------
    >>> law = LinearMap(torch.tensor([[[2.0]]]), torch.tensor([[[0.5]]]))
    >>> y = law.push(torch.ones(1, 1, 3, 1), torch.ones(1, 1, 3, 1))
    >>> y.flatten(), law.abduct(torch.ones(1, 1, 3, 1), y).flatten()
    (tensor([2.5000, 2.5000, 2.5000]), tensor([1., 1., 1.]))
    """

    weight: Tensor
    root: Tensor

    def mean(self, phi: Tensor) -> Tensor:
        """Return the means at features of shape (worlds, particles, *batch, D)."""
        return _each(self.weight, phi)

    def push(self, phi: Tensor, noise: Tensor) -> Tensor:
        """Return the numbers that noise of shape (worlds, particles, *batch, Y) leads to."""
        return _each(self.weight, phi) + _each(self.root, noise)

    def abduct(self, phi: Tensor, y: Tensor) -> Tensor:
        """Return the noise that leads to y."""
        residual = (y - self.mean(phi))[..., None]
        root = self.root.view(len(self.root), *(1,) * (residual.ndim - 3), *self.root.shape[1:]).to(residual)
        return torch.linalg.solve_triangular(root, residual, upper=False)[..., 0]

    @property
    def covariance(self) -> Tensor:
        """Covariance of the errors, shape (worlds, Y, Y)."""
        return self.root @ self.root.mT


class LinearRegression:
    """The posterior of a linear map with Gaussian errors of unknown covariance.

    The joint law of several numbers is that of the first, of the second given the first, and so on, each a conjugate
    regression (:class:`bayeswm.inference.NormalInverseGamma`) under a prior that counts for less than one row.

    Parameters
    ----------
    columns : sequence of NormalInverseGamma
        For each number the regression on the features and on the numbers before it, in scaled units.
    loc, scale : Tensor, shape (D + Y,)
        Shift and scale of the features, then of the numbers; those of a constant feature are 0 and 1.

    Examples
    --------
    >>> g = torch.Generator().manual_seed(0)
    >>> x = torch.randn(1000, 1, generator=g)
    >>> phi = torch.cat((torch.ones(1000, 1), x), -1)
    >>> found = LinearRegression.fit(phi, 1 + 2 * x + 0.1 * torch.randn(1000, 1, generator=g))
    >>> found.centre().weight.numpy().round(2).tolist(), found.draw(5, generator=g).root.shape
    ([[[1.0, 2.0]]], torch.Size([5, 1, 1]))
    """

    def __init__(self, columns: list[NormalInverseGamma], loc: Tensor, scale: Tensor) -> None:
        self.columns, self.loc, self.scale = columns, loc, scale

    @classmethod
    def fit(cls, phi: Tensor, y: Tensor) -> Self:
        """Return the posterior given rows of features (n, D), a constant first, and of numbers (n, Y).

        Raises
        ------
        DataError
            If there are no more rows than coefficients.
        """
        phi, y = phi.double(), y.double()
        if len(phi) <= phi.shape[-1] + y.shape[-1]:
            raise DataError(f"expected more than {phi.shape[-1] + y.shape[-1]} steps to regress on, got {len(phi)}")
        both = torch.cat((phi, y), -1)
        loc, scale = both.mean(0), both.std(0)
        loc[0], scale[0] = 0.0, 1.0
        scale = torch.where(scale > 1e-12 * (1 + loc.abs()), scale, 1.0)
        rows, size = (both - loc) / scale, phi.shape[-1]
        columns: list[NormalInverseGamma] = []
        for i in range(size, rows.shape[-1]):
            prior = NormalInverseGamma(
                torch.zeros(i, dtype=rows.dtype, device=rows.device),
                _WEAK * torch.eye(i, dtype=rows.dtype, device=rows.device),
                shape=rows.new_tensor(_SHAPE),
                scale=rows.new_tensor(_WEAK * _SHAPE),
            )
            columns.append(prior.update(rows[:, :i], rows[:, i]))
        return cls(columns, loc, scale)

    def centre(self) -> LinearMap:
        """Return the map at the posterior means, as one world."""
        variance = [c.scale / c.shape for c in self.columns]
        return self._map([c.mean[None] for c in self.columns], [v[None] for v in variance])

    def draw(self, worlds: int, *, generator: torch.Generator) -> LinearMap:
        """Return maps drawn from the posterior."""
        drawn = [c.draw(worlds, generator) for c in self.columns]
        return self._map([w for w, _ in drawn], [v for _, v in drawn])

    def spread(self, worlds: int, *, generator: torch.Generator) -> LinearMap:
        """Return as many maps as there are worlds that are the posterior, such as members of an ensemble.

        With the posterior's mean and about its covariance, as far as so few can have it; the spread of the errors is
        the posterior mean. One world gets the posterior mean.
        """
        centre = self.centre()
        weight, root = (v.expand(worlds, *v.shape[1:]) for v in (centre.weight, centre.root))
        if worlds > 1:
            drawn = self.draw(worlds, generator=generator).weight
            weight = weight + (drawn - drawn.mean(0)) * (worlds / (worlds - 1)) ** 0.5
        return LinearMap(weight, root)

    def _map(self, weights: list[Tensor], variances: list[Tensor]) -> LinearMap:
        """Return the map in the numbers' own units, the numbers before solved for."""
        size, count = len(self.loc) - len(self.columns), len(self.columns)
        direct = torch.stack([w[:, :size] for w in weights], 1)
        earlier = torch.stack(
            [torch.nn.functional.pad(w[:, size:], (0, count - w.shape[1] + size)) for w in weights], 1
        )
        solved = torch.linalg.inv(torch.eye(count, dtype=earlier.dtype, device=earlier.device) - earlier)
        root = solved * torch.stack(variances, 1).sqrt()[:, None]
        weight = (solved @ direct) * self.scale[size:, None] / self.scale[:size]
        offset = self.loc[size:] - (weight * self.loc[:size]).sum(-1)
        weight = torch.cat((weight[..., :1] + offset[..., None], weight[..., 1:]), -1)
        return LinearMap(weight, root * self.scale[size:, None])

    def tensors(self) -> dict[str, Tensor]:
        """Return what :meth:`from_tensors` needs."""
        found = {"loc": self.loc, "scale": self.scale}
        for i, c in enumerate(self.columns):
            found |= {f"mean{i}": c.mean, f"precision{i}": c.precision, f"law{i}": torch.stack((c.shape, c.scale))}
        return found

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor]) -> Self:
        """Rebuild the regression from :meth:`tensors`."""
        columns = [
            NormalInverseGamma(
                tensors[f"mean{i}"], tensors[f"precision{i}"], shape=tensors[f"law{i}"][0], scale=tensors[f"law{i}"][1]
            )
            for i in range(sum(name.startswith("mean") for name in tensors))
        ]
        return cls(columns, tensors["loc"], tensors["scale"])


def _each(matrix: Tensor, vector: Tensor) -> Tensor:
    """Return the product in each world, of matrices (W, Y, D) and vectors (W or 1, P, *batch, D)."""
    matrix = matrix.to(vector)
    if vector.ndim == 2:
        return (matrix @ vector[..., None])[..., 0]
    flat = vector.reshape(len(vector), -1, vector.shape[-1])
    found = flat @ matrix.mT
    return found.view(len(found), *vector.shape[1:-1], matrix.shape[-2])
