"""Levels of intervals and tubes, checked in one place."""

from __future__ import annotations

from collections.abc import Sequence

from bayeswm.base.errors import SpecError


def check_level(level: float) -> float:
    """Return a level.

    Raises
    ------
    SpecError
        If it is not between 0 and 1.

    Examples
    --------
    >>> check_level(0.9)
    0.9
    """
    if not 0 < level < 1:
        raise SpecError(f"expected a level between 0 and 1, got {level}; 0.9 is a 90 % interval")
    return level


def check_levels(levels: Sequence[float]) -> tuple[float, ...]:
    """Return the levels in rising order, without repeats.

    Raises
    ------
    SpecError
        If there is none, or one is not between 0 and 1.

    Examples
    --------
    >>> check_levels([0.9, 0.5])
    (0.5, 0.9)
    """
    found = tuple(sorted({float(v) for v in levels}))
    if not found or not all(0 < v < 1 for v in found):
        raise SpecError(f"expected levels between 0 and 1, got {levels}; 0.9 is a 90 % interval")
    return found
