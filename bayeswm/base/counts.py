"""Whole numbers of something, as settings."""

from __future__ import annotations

from bayeswm.base.errors import SpecError


def check_counts(least: int = 1, /, **values: object) -> None:
    """Refuse settings that are no integers, or too small.

    Parameters
    ----------
    least : int
        The smallest possible.
    values : int
        Settings by name.

    Raises
    ------
    SpecError
        Naming the setting.

    Examples
    --------
    >>> check_counts(horizon=3, samples=1)
    >>> check_counts(0, latency=0)
    """
    for name, value in values.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise SpecError(f"expected an integer {name} >= {least}, got {value!r}")
