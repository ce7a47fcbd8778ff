"""Mechanisms: what one variable of a slice is made of."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from bayeswm.base.errors import SpecError


@dataclass(frozen=True, eq=False)
class Mechanism:
    """A variable as a function of its parents plus Gaussian noise.

    Parameters
    ----------
    fn : callable
        Elementwise: takes one tensor for each parent, all of one shape, and returns the value without noise, a tensor
        of that shape or a number.
    parents : sequence of str, optional
        Variables of the same slice (``"Z"``), of the slice before (``"Z[t-1]"``), actions of the step that leads
        here, context, and parameters. By default the names of the function's arguments.
    noise : float or str
        Standard deviation of the noise, a number or the name of a parameter; 0 is none.

    Raises
    ------
    SpecError
        If the function cannot take the parents, or the noise is negative.

    Examples
    --------
    >>> Mechanism(lambda x, z: 2 * x - 3 * z, noise=0.5)
    Mechanism(x, z, noise=0.5)
    >>> Mechanism(lambda s, a: 0.8 * s + 0.5 * a, parents=("s[t-1]", "a"), noise=1.0).parents
    ('s[t-1]', 'a')
    """

    fn: Callable[..., Any]
    parents: tuple[str, ...] | None = None
    noise: float | str = 0.0

    def __post_init__(self) -> None:
        signature = inspect.signature(self.fn)
        if self.parents is None:
            kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
            if any(p.kind not in kinds for p in signature.parameters.values()):
                raise SpecError("expected parents=, since the function's arguments are not all positional")
            object.__setattr__(self, "parents", tuple(signature.parameters))
        elif isinstance(self.parents, str):
            raise SpecError(f"expected parents as a sequence of names, got the string {self.parents!r}")
        object.__setattr__(self, "parents", tuple(self.parents or ()))
        try:
            signature.bind(*self.parents or ())
        except TypeError:
            raise SpecError(f"expected a function of {len(self.parents or ())} argument(s), {self.parents}") from None
        if not isinstance(self.noise, str) and not 0 <= self.noise < math.inf:
            raise SpecError(f"expected noise >= 0 or the name of a parameter, got {self.noise!r}")

    @property
    def causes(self) -> tuple[str, ...]:
        """The parents, as a tuple."""
        return self.parents or ()

    @property
    def noisy(self) -> bool:
        """Whether there is noise."""
        return bool(self.noise)

    def __repr__(self) -> str:
        return f"Mechanism({', '.join((*self.causes, f'noise={self.noise}'))})"
