"""Every error and warning of the library, in one tree.

A message says what was expected, what came and what to do about it.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class BayeswmError(Exception):
    """Base of every error that this library raises on purpose."""


class DataError(BayeswmError, ValueError):
    """The data handed in cannot be used as they are."""


class SpecError(BayeswmError, ValueError):
    """A schema, an argument or a combination of arguments makes no sense."""


class FitError(BayeswmError, RuntimeError):
    """Inference failed, and its result must not be used."""


class CheckpointError(BayeswmError, OSError):
    """A saved file cannot be read as what it is said to be."""


class NotInvertible(BayeswmError, RuntimeError):
    """The law is not a bijection in its noise, or the state has probability zero under it."""


class ConfoundedError(BayeswmError, RuntimeError):
    """Actions and what followed them share causes, so that the answer does not say what an action does."""


class UnknownVariableError(BayeswmError, KeyError):
    """A variable name that the schema does not have.

    Examples
    --------
    >>> print(UnknownVariableError.of("angel", ["angle", "velocity"]))
    unknown variable 'angel'; did you mean 'angle'? Known: angle, velocity.
    """

    @classmethod
    def of(cls, name: str, known: Iterable[str]) -> UnknownVariableError:
        """Build the error with the closest known names."""
        known = list(known)
        folded = {k.casefold(): k for k in reversed(known)}
        close = [folded[k] for k in difflib.get_close_matches(name.casefold(), folded, n=2)]
        hint = f"; did you mean {' or '.join(map(repr, close))}?" if close else "."
        return cls(f"unknown variable {name!r}{hint} Known: {', '.join(known) or 'none'}.")

    def __str__(self) -> str:  # KeyError would print the repr of the message
        return str(self.args[0]) if self.args else ""


class BayeswmWarning(UserWarning):
    """Base of every warning of this library."""


class DataWarning(BayeswmWarning):
    """Usable data with a property worth knowing: a constant column, an action outside its bounds."""


class UndefinedWarning(BayeswmWarning):
    """A quantity is undefined for this input and is returned as NaN."""


class DivergenceWarning(BayeswmWarning):
    """Some particles of a rollout left the finite numbers and are left out of its statistics."""


class EstimateWarning(BayeswmWarning):
    """A Monte Carlo estimate rests on too few effective samples."""


class FitWarning(BayeswmWarning):
    """A fit ended, but part of it failed or stopped early."""


class SupportWarning(BayeswmWarning):
    """An answer rests on states or actions that the data hardly contain."""
