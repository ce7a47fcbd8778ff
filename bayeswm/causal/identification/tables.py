"""Arrays of probabilities whose axes have names."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bayeswm.base.errors import DataError, SpecError, UnknownVariableError

# of a sum of probabilities that come out of a division of counts, in float64
_ROUNDING = 1e-6


@dataclass(frozen=True)
class Table:
    """Values over the values of named variables.

    Parameters
    ----------
    values : numpy.ndarray
        One axis for each variable.
    axes : tuple of str
        Names of the variables.

    Examples
    --------
    >>> Table(np.array([[0.1, 0.3], [0.2, 0.4]]), ("X", "Y")).marginal(("Y",)).values.round(3)
    array([0.3, 0.7])
    """

    values: np.ndarray
    axes: tuple[str, ...]

    @property
    def sizes(self) -> dict[str, int]:
        """Number of values of each variable."""
        return dict(zip(self.axes, self.values.shape, strict=True))

    def marginal(self, names: tuple[str, ...]) -> Table:
        """Return the sum over all other variables, axes in the order of the table.

        Raises
        ------
        UnknownVariableError
            If there is no axis of that name.
        """
        for name in names:
            if name not in self.axes:
                raise UnknownVariableError.of(name, self.axes)
        away = tuple(i for i, name in enumerate(self.axes) if name not in names)
        return Table(self.values.sum(axis=away), tuple(name for name in self.axes if name in names))

    def along(self, axes: Sequence[str]) -> np.ndarray:
        """Return the values with their axes in this order, and axes of size 1 for further names."""
        order = [self.axes.index(name) for name in axes if name in self.axes]
        shape = [self.sizes.get(name, 1) for name in axes]
        return self.values.transpose(order).reshape(shape)

    def defined(self) -> Table:
        """Return the table.

        Raises
        ------
        DataError
            If a value is NaN: it was divided by a probability of zero.
        """
        if missing := int(np.isnan(self.values).sum()):
            raise DataError(
                f"expected positive probabilities of all that is conditioned on, but {missing} of {self.values.size} "
                f"values over ({', '.join(self.axes)}) need the law given something that never happened; merge values, "
                "or leave out interventions that were never observed"
            )
        return self


def table_of(joint: np.ndarray, axes: Sequence[str]) -> Table:
    """Return joint probabilities as a table.

    Parameters
    ----------
    joint : numpy.ndarray
        Probabilities that sum to 1.
    axes : sequence of str
        A name for each axis.

    Raises
    ------
    SpecError
        If names and axes do not match.
    DataError
        If these are no probabilities.

    Examples
    --------
    >>> table_of(np.array([0.4, 0.6]), ["X"]).axes
    ('X',)
    """
    values = np.asarray(joint, dtype=float)
    if len(axes) != values.ndim or len(set(axes)) != len(axes):
        raise SpecError(f"expected {values.ndim} different names, one for each axis, got {list(axes)}")
    if not np.isfinite(values).all() or (values < 0).any():
        raise DataError("expected probabilities, got negative values or values that are not finite")
    if abs(values.sum() - 1) > _ROUNDING:
        raise DataError(f"expected probabilities that sum to 1, got {values.sum():.6g}; divide by the sum")
    return Table(values, tuple(axes))


def product_of(tables: Sequence[Table]) -> Table:
    """Return the product; a zero counts as zero even where the other factor is undefined.

    Examples
    --------
    >>> product_of([Table(np.array([0.0, 1.0]), ("X",)), Table(np.array([np.nan, 0.5]), ("X",))]).values
    array([0. , 0.5])
    """
    axes = tuple(dict.fromkeys(name for table in tables for name in table.axes))
    found = np.ones((1,) * len(axes))
    for table in tables:
        one, other = np.broadcast_arrays(found, table.along(axes))
        found = np.where((one == 0) | (other == 0), 0.0, one * other)
    return Table(found, axes)


def ratio_of(numerator: Table, denominator: Table) -> Table:
    """Return the ratio, NaN where both are zero.

    Examples
    --------
    >>> ratio_of(Table(np.array([0.2, 0.0]), ("X",)), Table(np.array([0.4, 0.0]), ("X",))).values
    array([0.5, nan])
    """
    axes = tuple(dict.fromkeys((*numerator.axes, *denominator.axes)))
    above, below = np.broadcast_arrays(numerator.along(axes), denominator.along(axes))
    return Table(np.divide(above, below, out=np.full(above.shape, np.nan), where=below != 0), axes)
