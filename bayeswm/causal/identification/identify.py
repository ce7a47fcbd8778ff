"""Which effects follow from what was observed: the complete algorithm for effects and conditional effects."""

from __future__ import annotations

from collections.abc import Iterable

from bayeswm.base.errors import SpecError
from bayeswm.causal.graphs.bit_graph import bits_of
from bayeswm.causal.graphs.graph import CausalGraph
from bayeswm.causal.graphs.names import as_names, at, name_and_time
from bayeswm.causal.graphs.separation import separated
from bayeswm.causal.graphs.time_graph import TimeGraph
from bayeswm.causal.identification.algebra import chain, product, ratio, sum_over
from bayeswm.causal.identification.district_factors import Blocked, factor_of
from bayeswm.causal.identification.estimand import Estimand, Probability
from bayeswm.causal.identification.hedge import Hedge, hedge_of
from bayeswm.causal.identification.instruments import instruments
from bayeswm.causal.identification.verdict import Identifiable, NotIdentifiable, Query, Unknown, Verdict


def identify(
    graph: CausalGraph | TimeGraph,
    outcome: str | Iterable[str],
    *,
    do: str | Iterable[str],
    given: str | Iterable[str] = (),
    largest: int = 400,
) -> Verdict:
    """Say whether the law of an outcome under an intervention follows from the observed law, and by which formula.

    For the graph of one slice the answer is always yes, with a formula, or no, with a proof. A graph in time is
    unrolled to the last time that the question names; above a number of nodes it is not tried.

    Parameters
    ----------
    graph : CausalGraph or TimeGraph
        What is known of causes. In time, names are such as ``s[2]``.
    outcome : str or iterable of str
        What is asked for.
    do : str or iterable of str
        What is intervened on.
    given : str or iterable of str
        What is observed under the intervention and conditioned on.
    largest : int
        Number of nodes up to which a graph in time is unrolled.

    Returns
    -------
    Identifiable, NotIdentifiable or Unknown

    Raises
    ------
    UnknownVariableError
        If a name is not in the graph, with the closest ones.
    SpecError
        If there is no outcome, or two of the sets overlap.

    References
    ----------
    Shpitser and Pearl (2006), Identification of joint interventional distributions in recursive semi-Markovian causal
    models, and Identification of conditional interventional distributions. Tian and Pearl (2002), A general
    identification condition for causal effects.

    Examples
    --------
    >>> from bayeswm.causal import CausalGraph, TimeGraph, identify
    >>> front_door = CausalGraph([("X", "Z"), ("Z", "Y")], confounded=[("X", "Y")])
    >>> print(identify(front_door, "Y", do="X"))
    P(Y | do(X)) = sum_{Z} P(Z | X) sum_{X'} P(X') P(Y | X', Z)
    >>> process = TimeGraph([("s[t]", "s[t+1]"), ("s[t]", "a[t]"), ("a[t]", "s[t+1]")])
    >>> print(identify(process, "s[2]", do=["a[0]", "a[1]"], given="s[0]"))
    P(s[2] | do(a[0], a[1]), s[0]) = sum_{s[1]} P(s[1] | s[0], a[0]) P(s[2] | s[1], a[1])
    """
    outcome, do, given = as_names(outcome), as_names(do), as_names(given)
    query = Query(outcome, do, given)
    if not outcome:
        raise SpecError("expected at least one outcome, got none; name what the effect is on")
    if isinstance(graph, TimeGraph):
        horizon = _last_time((*outcome, *do, *given))
        size = (horizon + 1) * len(graph.variables)
        if size > largest:
            reason = f"unrolled to time {horizon} the graph has {size} nodes, more than largest={largest}; raise it"
            return Unknown(query, reason)
        graph = graph.unroll(horizon)
    y, x, z = graph.disjoint_masks(outcome=outcome, do=do, given=given)
    found = _conditional_effect(graph, y, x, given=z)
    if isinstance(found, Hedge):
        return NotIdentifiable(query, found, _reason(graph, query, found))
    return Identifiable(query, chain(found))


def _last_time(nodes: Iterable[str]) -> int:
    last = 0
    for node in nodes:
        name, time = name_and_time(node)
        if time is None or time < 0:
            raise SpecError(f"expected nodes at times from 0 on, such as '{at(name, 0)}', got {node!r}")
        last = max(last, time)
    return last


def _conditional_effect(graph: CausalGraph, y: int, x: int, *, given: int) -> Estimand | Hedge:
    """Move conditions that act like interventions there (rule 2 of the do-calculus), then divide the joint effect."""
    z, moved = given, True
    while moved:
        moved = False
        for node in bits_of(z):
            one = 1 << node
            if separated(graph.bits.cut(into=x, out_of=one), y, one, given=(x | z) & ~one):
                x, z, moved = x | one, z & ~one, True
    joint = _effect(graph, y | z, x)
    return joint if isinstance(joint, Hedge) or not z else ratio(joint, sum_over(graph.names(y), joint))


def _effect(graph: CausalGraph, y: int, x: int) -> Estimand | Hedge:
    bits = graph.bits
    acting = bits.ancestors(y, within=~x)
    if not bits.parents_of(acting) & x:
        return Probability(graph.names(y))
    factors: list[Estimand] = []
    for district in bits.districts(within=acting):
        found = factor_of(bits, district, names=graph.order)
        if isinstance(found, Blocked):
            return hedge_of(graph, larger=found.larger, smaller=found.smaller, do=x, outcome=y)
        factors.append(found)
    return sum_over(graph.names(acting & ~y), product(factors))


def _reason(graph: CausalGraph, query: Query, hedge: Hedge) -> str:
    act = f"{_and(hedge.do)} {'does' if len(hedge.do) == 1 else 'do'}"
    why = (
        f"hidden common causes join {_and(hedge.larger)}, so that what {act} to {_and(hedge.roots)} cannot be told "
        "from what they share."
    )
    chosen = [name for name in hedge.do if name in query.do] or query.do
    cures = ["record these causes", f"randomise {_and(chosen)}"]
    if len(query.do) == len(query.outcome) == 1 and graph.descendants(query.do).isdisjoint(query.given):
        found = instruments(graph, query.do[0], query.outcome[0])
        cures += [f"use {found[0]}, if all mechanisms are linear"] if found else []
    cure = _and(cures, "or")
    return f"{why} {cure[0].upper()}{cure[1:]}."


def _and(names: Iterable[str], word: str = "and") -> str:
    *first, last = names
    return f"{', '.join(first)} {word} {last}" if first else last
