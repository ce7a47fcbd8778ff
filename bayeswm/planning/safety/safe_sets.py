"""Sets of states in which a system is to stay, bounded by hyperplanes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from bayeswm.base.errors import SpecError
from bayeswm.base.schema import Schema

Reach = tuple[float | None, float | None]


@dataclass(frozen=True, eq=False)
class HalfSpaces:
    """The states x whose product with ``normal[i]`` is at most ``offset[i]``, for every i.

    Parameters
    ----------
    normal : Tensor, shape (n, S)
        A row for each half-space.
    offset : Tensor, shape (n,)
        In the unit of ``normal . x``.

    Raises
    ------
    SpecError
        If the shapes do not fit, a row is 0 or a number is not finite.

    Examples
    --------
    >>> safe = HalfSpaces(torch.tensor([[1.0, 1.0]]), torch.tensor([2.0]))
    >>> safe(torch.tensor([[0.5, 0.5], [2.0, 1.0]]))
    tensor([ 1., -1.])
    """

    normal: Tensor
    offset: Tensor

    def __post_init__(self) -> None:
        normal, offset = self.normal, self.offset
        if normal.ndim != 2 or not len(normal) or offset.shape != normal.shape[:1]:
            raise SpecError(
                "expected normal of shape (n, S) and offset of shape (n,), n >= 1, got "
                f"{tuple(normal.shape)} and {tuple(offset.shape)}"
            )
        if not bool(normal.isfinite().all() & offset.isfinite().all()):
            raise SpecError("expected finite half-spaces, got NaN or infinity; leave out what bounds nothing")
        if not bool((normal != 0).any(-1).all()):
            raise SpecError("expected normals other than 0, got one that bounds nothing")

    @classmethod
    def between(cls, schema: Schema, bounds: Mapping[str, Reach]) -> Self:
        """Return the states whose variables lie between bounds; None is no bound on that side.

        Angles count on the lift of the trajectory, which goes on beyond a full turn.

        Parameters
        ----------
        schema : Schema
            Where the variables are.
        bounds : mapping of str to tuple of two float or None
            Lowest and highest value of each variable, in its unit.

        Raises
        ------
        UnknownVariableError, SpecError
            For a name that the schema does not have; without any bound.

        Examples
        --------
        >>> import bayeswm as bwm
        >>> schema = bwm.structures.Pendulum.swing_up().schema
        >>> slow = HalfSpaces.between(schema, {"velocity": (-6.0, 6.0)})
        >>> slow(torch.tensor([[3.0, 5.0], [0.0, -7.0]]))
        tensor([ 1., -1.])
        """
        rows: list[Tensor] = []
        ends: list[float] = []
        for name, (low, high) in bounds.items():
            column = schema.state.column(name)
            for sign, end in ((-1.0, low), (1.0, high)):
                if end is not None:
                    row = torch.zeros(schema.state.size, dtype=torch.float64)
                    row[column] = sign
                    rows.append(row)
                    ends.append(sign * end)
        if not rows:
            raise SpecError("expected a bound of at least one variable, got none")
        return cls(torch.stack(rows), torch.tensor(ends, dtype=torch.float64))

    def __call__(self, state: Tensor, *_: Tensor) -> Tensor:
        """Return the smallest margin, at least 0 inside: (..., S) to (...)."""
        return self.margins(state).amin(-1)

    def margins(self, state: Tensor) -> Tensor:
        """Return the margin to each half-space, (..., S) to (..., n)."""
        self._check(state.shape[-1])
        columns = self.columns
        # a few variables are bounded as a rule: what the others hold, NaN say, does not matter
        return self.offset.to(state) - state[..., columns] @ self.normal[:, columns].to(state).mT

    @property
    def columns(self) -> Sequence[int]:
        """The variables that are bounded."""
        return (self.normal != 0).any(0).nonzero().squeeze(-1).tolist()

    def _check(self, size: int) -> None:
        if size != self.normal.shape[1]:
            raise SpecError(f"expected half-spaces of {size} state variable(s), got {self.normal.shape[1]}")


def half_spaces(inside: object) -> HalfSpaces:
    """Return what a constraint has as its safe set, if it is bounded by hyperplanes.

    Raises
    ------
    SpecError

    Examples
    --------
    >>> half_spaces(HalfSpaces(torch.eye(2), torch.ones(2))).columns
    [0, 1]
    """
    if not isinstance(inside, HalfSpaces):
        raise SpecError(f"expected inside=HalfSpaces(...), got {inside!r}; use by=FromParticles() for any other set")
    return inside
