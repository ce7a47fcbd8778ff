"""Two ways to write a formula: plain text and LaTeX."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from bayeswm.causal.graphs.names import latex_name


@dataclass(frozen=True)
class Notation:
    """The marks of one notation, as templates.

    Parameters
    ----------
    name : callable
        How a variable is written.
    bar, gap : str
        What stands before the condition of a probability, and between two factors.
    total, ratio, group : str
        A sum over ``names`` of ``term``, a ratio of ``above`` and ``below``, parentheses around ``term``.

    Examples
    --------
    >>> TEXT.listed(["X", "Z"], {"X": "'", "Z": ""})
    "X', Z"
    """

    name: Callable[[str], str]
    bar: str
    gap: str
    total: str
    ratio: str
    group: str

    def listed(self, names: Sequence[str], primes: Mapping[str, str]) -> str:
        """Return names with their primes."""
        return ", ".join(self.name(name) + primes[name] for name in names)


TEXT = Notation(
    name=str, bar=" | ", gap=" ", total="sum_{{{names}}} {term}", ratio="[{above}] / [{below}]", group="({term})"
)
LATEX = Notation(
    name=latex_name,
    bar=r" \mid ",
    gap=r"\, ",
    total=r"\sum_{{{names}}} {term}",
    ratio=r"\frac{{{above}}}{{{below}}}",
    group=r"\left({term}\right)",
)
