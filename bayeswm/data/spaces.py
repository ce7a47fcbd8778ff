"""Gymnasium's spaces as flat columns that a schema can name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from bayeswm.base.errors import SpecError
from bayeswm.base.kinds import Categorical
from bayeswm.base.schema import Variables
from bayeswm.data.optional import need


@dataclass(frozen=True)
class FlatSpace:
    """A space whose values are rows of numbers: classes of each column (0 for a real one) and their lowest codes."""

    space: Any
    classes: tuple[int, ...]
    first: np.ndarray

    @property
    def size(self) -> int:
        """Number of columns."""
        return len(self.classes)

    def rows(self, values: Any) -> np.ndarray:
        """Return n values of the space as rows, codes counted from 0, shape (n, size)."""
        array = np.asarray(values)
        array = array.reshape(len(array), self.size)
        return array - self.first if any(self.classes) else array

    def values(self, rows: np.ndarray) -> np.ndarray:
        """Return n values of the space from rows, the inverse of :meth:`rows`."""
        shaped = (rows + self.first if any(self.classes) else rows).reshape(len(rows), *self.space.shape)
        return shaped.astype(self.space.dtype)


def flat_space(space: Any, name: str) -> FlatSpace:
    """Return how a space is written in columns.

    Raises
    ------
    SpecError
        For spaces of dictionaries, tuples, texts and graphs.

    Examples
    --------
    >>> import gymnasium
    >>> flat_space(gymnasium.spaces.MultiDiscrete([2, 3]), "action").classes
    (2, 3)
    """
    spaces = need("gymnasium", "rl").spaces
    if isinstance(space, spaces.Box):
        size = int(np.prod(space.shape))
        return FlatSpace(space, (0,) * size, np.zeros(size))
    if isinstance(space, spaces.Discrete):
        return FlatSpace(space, (int(space.n),), np.array([int(space.start)]))
    if isinstance(space, spaces.MultiDiscrete):
        return FlatSpace(space, tuple(int(n) for n in space.nvec.ravel()), np.asarray(space.start).ravel())
    if isinstance(space, spaces.MultiBinary):
        size = int(np.prod(space.shape))
        return FlatSpace(space, (2,) * size, np.zeros(size, dtype=np.int64))
    raise SpecError(
        f"expected a Box, Discrete, MultiDiscrete or MultiBinary {name} space, got {type(space).__name__}; "
        "wrap the environment with gymnasium.wrappers.FlattenObservation, or pass state= and no observation"
    )


def check_fits(flat: FlatSpace, variables: Variables, name: str) -> None:
    """Refuse variables that cannot hold the values of a space.

    Raises
    ------
    SpecError
        Saying both sizes, or the classes that a discrete space needs.
    """
    if flat.size != variables.size:
        raise SpecError(
            f"expected as many {name} columns in the schema as in the environment: the environment has {flat.size} "
            f"({flat.space}), the schema {variables.size} ({', '.join(variables.columns) or 'none'})"
        )
    slots = {variables.slices[v.name].start: v for v in variables}
    for column, n in enumerate(flat.classes):
        variable = slots.get(column)
        found = variable.kind if variable is not None else None
        if n and not (isinstance(found, Categorical) and found.n == n):
            got = f"{variable.name!r} of kind {found.name!r}" if variable is not None and found is not None else "none"
            raise SpecError(f"expected kind=bayeswm.categorical({n}) for discrete {name} column {column}, got {got}")
