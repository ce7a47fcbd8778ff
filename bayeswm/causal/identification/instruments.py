"""Instruments: variables that move the treatment and reach the outcome in no other way."""

from __future__ import annotations

from dataclasses import dataclass

from bayeswm.base.errors import SpecError
from bayeswm.causal.graphs.bit_graph import bits_of
from bayeswm.causal.graphs.graph import CausalGraph
from bayeswm.causal.graphs.separation import nearest_separator, separated
from bayeswm.causal.identification.adjustment import causal_nodes, without_effect


@dataclass(frozen=True)
class Instrument:
    """A variable that moves the treatment and, given some others, reaches the outcome only through it.

    In a linear model the total effect is ``cov(instrument, outcome | given) / cov(instrument, treatment | given)``.
    Without linearity an instrument bounds an effect but does not determine it.

    Parameters
    ----------
    variable : str
        The instrument.
    given : tuple of str
        What is conditioned on.
    requires : str
        What the ratio of covariances takes for granted.

    Examples
    --------
    >>> print(Instrument("nu", ("s",)))
    nu given s as an instrument
    """

    variable: str
    given: tuple[str, ...] = ()
    requires: str = "linear mechanisms: the ratio of covariances is the effect in these only"

    def __str__(self) -> str:
        condition = f" given {', '.join(self.given)}" if self.given else ""
        return f"{self.variable}{condition} as an instrument"


def instruments(graph: CausalGraph, treatment: str, outcome: str) -> tuple[Instrument, ...]:
    """Return every variable that is an instrument for the total effect, each with a minimal condition.

    Conditions are sought among the ancestors of instrument and outcome, with which an instrument is found if it has any
    such condition. Instruments that need none come first.

    Parameters
    ----------
    graph : CausalGraph
        What is known of causes.
    treatment, outcome : str
        The effect of one on the other.

    Returns
    -------
    tuple of Instrument

    Raises
    ------
    SpecError
        If treatment and outcome are the same.
    UnknownVariableError
        If a name is not in the graph.

    References
    ----------
    Brito and Pearl (2002), Generalized instrumental variables. van der Zander, Textor and Liskiewicz (2015),
    Efficiently finding conditional instruments for causal inference.

    Examples
    --------
    Exploration noise that was recorded is an instrument for a confounded action:

    >>> from bayeswm.causal import CausalGraph, instruments
    >>> graph = CausalGraph([("nu", "a"), ("a", "s")], confounded=[("a", "s")])
    >>> [str(found) for found in instruments(graph, "a", "s")]
    ['nu as an instrument']
    """
    x, y = graph.disjoint_masks(treatment=treatment, outcome=outcome)
    if x & (x - 1) or y & (y - 1):
        raise SpecError("expected one treatment and one outcome")
    forbidden = causal_nodes(graph.bits, x, y)
    bare = without_effect(graph.bits, x, y)
    allowed = graph.bits.all & ~(forbidden | x | y)
    found: list[Instrument] = []
    for node in bits_of(allowed):
        one = 1 << node
        given = nearest_separator(bare, one, y, allowed=allowed & ~one)
        if given is None or separated(graph.bits, one, x, given=given):
            continue
        if separated(bare, one, y) and not separated(graph.bits, one, x):
            given = 0
        for other in bits_of(given):
            less = given & ~(1 << other)
            if separated(bare, one, y, given=less) and not separated(graph.bits, one, x, given=less):
                given = less
        found.append(Instrument(graph.order[node], graph.names(given)))
    return tuple(sorted(found, key=lambda instrument: len(instrument.given)))
