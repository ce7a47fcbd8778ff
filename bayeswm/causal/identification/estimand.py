"""Formulas in observed probabilities, as trees: an effect written in terms of what was recorded."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from bayeswm.causal.identification.notation import LATEX, TEXT, Notation
from bayeswm.causal.identification.tables import Table, product_of, ratio_of, table_of


class Estimand(ABC):
    """A function of named variables, made of observed probabilities by sums, products and ratios.

    Every part prints as text (``str``) and as :meth:`latex`, and is evaluated on a joint table.
    """

    @property
    @abstractmethod
    def free(self) -> frozenset[str]:
        """Names of the variables that the value depends on."""

    @abstractmethod
    def on(self, joint: Table) -> Table:
        """Evaluate on a joint table; the axes of the result are the free variables. 0/0 is NaN."""

    @abstractmethod
    def write(self, notation: Notation, primes: Mapping[str, str]) -> str:
        """Write the formula where ``primes`` has the primes of each name in sight."""

    def evaluate(self, joint: np.ndarray, axes: Sequence[str]) -> Table:
        """Evaluate on an array of joint probabilities.

        Parameters
        ----------
        joint : numpy.ndarray
            Probabilities that sum to 1, one axis for each variable.
        axes : sequence of str
            The variables' names in the order of the axes.

        Returns
        -------
        Table
            With the free variables as axes.

        Raises
        ------
        DataError
            If these are no probabilities, or one that the formula divides by is zero.
        UnknownVariableError
            If a variable of the formula has no axis.

        Examples
        --------
        >>> joint = np.array([[0.1, 0.3], [0.2, 0.4]])
        >>> Probability(("Y",), ("X",)).evaluate(joint, ["X", "Y"]).values.round(3)
        array([[0.25 , 0.75 ],
               [0.333, 0.667]])
        """
        return self.on(table_of(joint, axes)).defined()

    def latex(self) -> str:
        r"""Return the formula as LaTeX.

        Examples
        --------
        >>> print(Probability(("Y",), ("a[0]",)).latex())
        P(Y \mid a_{0})
        """
        return self.write(LATEX, dict.fromkeys(self.free, ""))

    def __str__(self) -> str:
        return self.write(TEXT, dict.fromkeys(self.free, ""))


@dataclass(frozen=True)
class Probability(Estimand):
    """An observed probability of some variables given others.

    Parameters
    ----------
    of : tuple of str
        Variables, not empty.
    given : tuple of str
        Variables it is conditioned on.

    Examples
    --------
    >>> print(Probability(("Y",), ("X", "Z")))
    P(Y | X, Z)
    """

    of: tuple[str, ...]
    given: tuple[str, ...] = ()

    @property
    def free(self) -> frozenset[str]:
        """Names of the variables that the value depends on."""
        return frozenset(self.of + self.given)

    def on(self, joint: Table) -> Table:
        """Evaluate on a joint table."""
        both = joint.marginal(self.of + self.given)
        return ratio_of(both, both.marginal(self.given)) if self.given else both

    def write(self, notation: Notation, primes: Mapping[str, str]) -> str:
        """Write the formula where ``primes`` has the primes of each name in sight."""
        given = notation.bar + notation.listed(self.given, primes) if self.given else ""
        return f"P({notation.listed(self.of, primes)}{given})"


@dataclass(frozen=True)
class Sum(Estimand):
    """A sum over the values of some variables.

    Parameters
    ----------
    over : tuple of str
        Variables, free in ``term``.
    term : Estimand
        What is summed.

    Examples
    --------
    >>> print(Sum(("Z",), Product((Probability(("Z",)), Probability(("Y",), ("X", "Z"))))))
    sum_{Z} P(Z) P(Y | X, Z)
    """

    over: tuple[str, ...]
    term: Estimand

    @property
    def free(self) -> frozenset[str]:
        """Names of the variables that the value depends on."""
        return self.term.free - frozenset(self.over)

    def on(self, joint: Table) -> Table:
        """Evaluate on a joint table."""
        table = self.term.on(joint)
        kept = table.marginal(tuple(name for name in table.axes if name not in self.over))
        absent = math.prod(joint.sizes[name] for name in self.over if name not in table.axes)
        return Table(kept.values * absent, kept.axes)

    def write(self, notation: Notation, primes: Mapping[str, str]) -> str:
        """Write the formula where ``primes`` has the primes of each name in sight."""
        # a name that is in sight already means another variable: here it gets one prime more
        inner = {**primes, **{name: primes[name] + "'" if name in primes else "" for name in self.over}}
        return notation.total.format(names=notation.listed(self.over, inner), term=self.term.write(notation, inner))


@dataclass(frozen=True)
class Product(Estimand):
    """A product; without factors it is 1.

    Parameters
    ----------
    factors : tuple of Estimand
        What is multiplied.

    Examples
    --------
    >>> print(Product((Probability(("X",)), Probability(("Y",), ("X",)))))
    P(X) P(Y | X)
    """

    factors: tuple[Estimand, ...]

    @property
    def free(self) -> frozenset[str]:
        """Names of the variables that the value depends on."""
        return frozenset[str]().union(*(factor.free for factor in self.factors))

    def on(self, joint: Table) -> Table:
        """Evaluate on a joint table; a zero counts as zero whatever it is multiplied by."""
        return product_of([factor.on(joint) for factor in self.factors])

    def write(self, notation: Notation, primes: Mapping[str, str]) -> str:
        """Write the formula where ``primes`` has the primes of each name in sight."""
        written = [factor.write(notation, primes) for factor in self.factors]
        # a sum reaches to the end of its product: it stands last, or in parentheses
        for i, factor in enumerate(self.factors[:-1]):
            if isinstance(factor, Sum):
                written[i] = notation.group.format(term=written[i])
        return notation.gap.join(written) or "1"


@dataclass(frozen=True)
class Ratio(Estimand):
    """A numerator over a denominator.

    Parameters
    ----------
    numerator, denominator : Estimand
        The two parts.

    Examples
    --------
    >>> print(Ratio(Probability(("X", "Y")), Probability(("X",))))
    [P(X, Y)] / [P(X)]
    """

    numerator: Estimand
    denominator: Estimand

    @property
    def free(self) -> frozenset[str]:
        """Names of the variables that the value depends on."""
        return self.numerator.free | self.denominator.free

    def on(self, joint: Table) -> Table:
        """Evaluate on a joint table."""
        return ratio_of(self.numerator.on(joint), self.denominator.on(joint))

    def write(self, notation: Notation, primes: Mapping[str, str]) -> str:
        """Write the formula where ``primes`` has the primes of each name in sight."""
        above, below = (part.write(notation, primes) for part in (self.numerator, self.denominator))
        return notation.ratio.format(above=above, below=below)
