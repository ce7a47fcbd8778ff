"""What can be said of a causal question: a formula, a proof that there is none, or that the question is too large."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bayeswm.causal.identification.estimand import Estimand
from bayeswm.causal.identification.hedge import Hedge
from bayeswm.causal.identification.tables import product_of, table_of


@dataclass(frozen=True)
class Query:
    """The law of some variables under an intervention, among cases with some observed values.

    Parameters
    ----------
    outcome, do, given : tuple of str
        What is asked for, what is intervened on, and what is observed under the intervention.

    Examples
    --------
    >>> print(Query(("Y",), ("X",), ("Z",)))
    P(Y | do(X), Z)
    """

    outcome: tuple[str, ...]
    do: tuple[str, ...]
    given: tuple[str, ...] = ()

    def __str__(self) -> str:
        parts = [f"do({', '.join(self.do)})"] * bool(self.do) + [*self.given]
        return f"P({', '.join(self.outcome)}{' | ' * bool(parts)}{', '.join(parts)})"


@dataclass(frozen=True)
class Identifiable:
    """The answer to a query follows from the observed law, by a formula.

    Parameters
    ----------
    query : Query
        What was asked.
    estimand : Estimand
        The formula.

    Examples
    --------
    >>> from bayeswm.causal import CausalGraph, identify
    >>> found = identify(CausalGraph([("Z", "X"), ("Z", "Y"), ("X", "Y")]), "Y", do="X")
    >>> print(found)
    P(Y | do(X)) = sum_{Z} P(Z) P(Y | Z, X)
    >>> joint = np.array([[[0.2, 0.2], [0.05, 0.05]], [[0.05, 0.05], [0.1, 0.3]]])
    >>> found.evaluate(joint, ["Z", "X", "Y"])[:, 1].round(3)
    array([0.5  , 0.625])
    """

    query: Query
    estimand: Estimand

    def evaluate(self, joint: np.ndarray, axes: Sequence[str]) -> np.ndarray:
        """Evaluate the formula on a table of joint probabilities.

        Parameters
        ----------
        joint : numpy.ndarray
            Probabilities that sum to 1, one axis for each variable.
        axes : sequence of str
            The variables' names in the order of the axes.

        Returns
        -------
        numpy.ndarray, axes (*do, *given, *outcome)
            Probabilities; the sum over the outcome is 1. Where the formula has a further variable, which the effect
            does not depend on, this is the mean over it.

        Raises
        ------
        DataError
            If these are no probabilities, or one that the formula divides by is zero.
        UnknownVariableError
            If a variable has no axis.
        """
        table = table_of(joint, axes)
        query = (*self.query.do, *self.query.given, *self.query.outcome)
        value = self.estimand.on(table)
        further = tuple(name for name in value.axes if name not in query)
        if further:
            weighted = product_of([value, table.marginal(further)])
            value = weighted.marginal(tuple(name for name in value.axes if name in query))
        value = value.defined()
        sizes = table.marginal(query).sizes
        return np.broadcast_to(value.along(query), [sizes[name] for name in query]).copy()

    def __str__(self) -> str:
        return f"{self.query} = {self.estimand}"


@dataclass(frozen=True)
class NotIdentifiable:
    """No formula exists: two models agree on everything observed and differ in the answer.

    Parameters
    ----------
    query : Query
        What was asked.
    hedge : Hedge
        The structure in the graph that proves it.
    reason : str
        The same in words, with what would help.

    Examples
    --------
    >>> from bayeswm.causal import CausalGraph, identify
    >>> print(identify(CausalGraph([("X", "Y")], confounded=[("X", "Y")]), "Y", do="X"))
    P(Y | do(X)) is not identifiable: hidden common causes join X and Y, so that what X does to Y cannot be told from
    what they share. Record these causes or randomise X.
    """

    query: Query
    hedge: Hedge
    reason: str

    def __str__(self) -> str:
        return f"{self.query} is not identifiable: {self.reason}"


@dataclass(frozen=True)
class Unknown:
    """The question was not decided. Only graphs in time have this answer, when they are too large.

    Parameters
    ----------
    query : Query
        What was asked.
    reason : str
        Why there is no answer.

    Examples
    --------
    >>> print(Unknown(Query(("Y",), ("X",)), "the graph has 900 nodes"))
    P(Y | do(X)) was not decided: the graph has 900 nodes
    """

    query: Query
    reason: str

    def __str__(self) -> str:
        return f"{self.query} was not decided: {self.reason}"


Verdict = Identifiable | NotIdentifiable | Unknown
