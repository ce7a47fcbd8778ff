"""Adjustment: sets of recorded variables given which association is effect."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import combinations

from bayeswm.base.errors import SpecError
from bayeswm.causal.graphs.bit_graph import BitGraph, bits_of
from bayeswm.causal.graphs.graph import CausalGraph
from bayeswm.causal.graphs.separation import separated, shrink
from bayeswm.causal.identification.algebra import product, sum_over
from bayeswm.causal.identification.estimand import Probability
from bayeswm.causal.identification.verdict import Identifiable, Query


def is_adjustment_set(
    graph: CausalGraph, treatment: str | Iterable[str], outcome: str | Iterable[str], *, given: str | Iterable[str]
) -> bool:
    """Return whether adjusting for a set gives the effect in every model of the graph.

    The test is the adjustment criterion, which is complete: a set that fails gives a wrong answer in some model. It
    allows more than the back-door criterion does, variables that the treatment acts on among them.

    Parameters
    ----------
    graph : CausalGraph
        What is known of causes.
    treatment, outcome : str or iterable of str
        The effect of the first on the second, of several treatments at once if there are several.
    given : str or iterable of str
        The set.

    Raises
    ------
    UnknownVariableError
        If a name is not in the graph.
    SpecError
        If the sets overlap.

    References
    ----------
    Shpitser, VanderWeele and Robins (2010), On the validity of covariate adjustment for estimating causal effects. van
    der Zander, Liskiewicz and Textor (2019), Separators and adjustment sets in causal graphs.

    Examples
    --------
    >>> from bayeswm.causal import CausalGraph, is_adjustment_set
    >>> graph = CausalGraph([("Z", "X"), ("Z", "Y"), ("X", "Y")])
    >>> is_adjustment_set(graph, "X", "Y", given="Z"), is_adjustment_set(graph, "X", "Y", given=[])
    (True, False)
    """
    x, y, z = graph.disjoint_masks(treatment=treatment, outcome=outcome, given=given)
    return not z & causal_nodes(graph.bits, x, y) and separated(without_effect(graph.bits, x, y), x, y, given=z)


def adjustment_set(
    graph: CausalGraph,
    treatment: str | Iterable[str],
    outcome: str | Iterable[str],
    *,
    allowed: str | Iterable[str] | None = None,
) -> frozenset[str] | None:
    """Return a valid adjustment set from which nothing can be left out, or None where there is no valid one.

    Parameters
    ----------
    graph : CausalGraph
        What is known of causes.
    treatment, outcome : str or iterable of str
        The effect of the first on the second.
    allowed : str or iterable of str, optional
        What may be adjusted for; all by default.

    Raises
    ------
    UnknownVariableError
        If a name is not in the graph.
    SpecError
        If treatment and outcome overlap.

    Examples
    --------
    >>> from bayeswm.causal import CausalGraph, adjustment_set
    >>> graph = CausalGraph([("Z", "X"), ("Z", "Y"), ("X", "Y"), ("X", "M"), ("M", "Y")])
    >>> adjustment_set(graph, "X", "Y")
    frozenset({'Z'})
    """
    x, y, candidates = _candidates(graph, treatment, outcome, allowed=allowed)
    bare = without_effect(graph.bits, x, y)
    if not separated(bare, x, y, given=candidates):
        return None
    return frozenset(graph.names(shrink(bare, x, y, given=candidates)))


def backdoor_sets(
    graph: CausalGraph,
    treatment: str | Iterable[str],
    outcome: str | Iterable[str],
    *,
    allowed: str | Iterable[str] | None = None,
) -> Iterator[frozenset[str]]:
    """Yield all valid adjustment sets from which nothing can be left out, small ones first.

    There can be exponentially many; take the first few of a large graph.

    Parameters
    ----------
    graph : CausalGraph
        What is known of causes.
    treatment, outcome : str or iterable of str
        The effect of the first on the second.
    allowed : str or iterable of str, optional
        What may be adjusted for; all by default.

    Raises
    ------
    UnknownVariableError
        If a name is not in the graph.
    SpecError
        If treatment and outcome overlap.

    Examples
    --------
    >>> from bayeswm.causal import CausalGraph, backdoor_sets
    >>> graph = CausalGraph([("A", "X"), ("A", "B"), ("B", "Y"), ("X", "Y")])
    >>> [sorted(found) for found in backdoor_sets(graph, "X", "Y")]
    [['A'], ['B']]
    """
    x, y, candidates = _candidates(graph, treatment, outcome, allowed=allowed)
    bare = without_effect(graph.bits, x, y)
    return (frozenset(graph.names(found)) for found in _minimal(bare, x, y, candidates=candidates))


def adjust(
    graph: CausalGraph, treatment: str | Iterable[str], outcome: str | Iterable[str], *, given: str | Iterable[str]
) -> Identifiable:
    """Return the effect by adjustment for a set.

    Parameters
    ----------
    graph : CausalGraph
        What is known of causes.
    treatment, outcome : str or iterable of str
        The effect of the first on the second.
    given : str or iterable of str
        A valid adjustment set.

    Raises
    ------
    SpecError
        If the set is not valid.

    Examples
    --------
    >>> from bayeswm.causal import CausalGraph, adjust
    >>> print(adjust(CausalGraph([("Z", "X"), ("Z", "Y"), ("X", "Y")]), "X", "Y", given="Z"))
    P(Y | do(X)) = sum_{Z} P(Z) P(Y | Z, X)
    """
    x, y, z = graph.disjoint_masks(treatment=treatment, outcome=outcome, given=given)
    if not is_adjustment_set(graph, treatment, outcome, given=given):
        raise SpecError(f"expected a valid adjustment set, got {set(graph.names(z)) or 'none'}; see backdoor_sets")
    weight = [Probability(graph.names(z))] if z else []
    inside = product([*weight, Probability(graph.names(y), graph.names(x | z))])
    return Identifiable(Query(graph.names(y), graph.names(x)), sum_over(graph.names(z), inside))


def causal_nodes(graph: BitGraph, x: int, y: int) -> int:
    """Return what must not be adjusted for: nodes on causal paths out of the treatment, and their descendants.

    Examples
    --------
    >>> causal_nodes(BitGraph.of([(0, 1), (1, 2), (1, 3)], [], size=4), 0b0001, 0b0100)
    14
    """
    return graph.descendants(_on_causal_paths(graph, x, y))


def without_effect(graph: BitGraph, x: int, y: int) -> BitGraph:
    """Return the graph without the first edges of causal paths: what is left between the two is no effect.

    Examples
    --------
    >>> without_effect(BitGraph.of([(0, 1), (0, 2)], [], size=3), 0b001, 0b010).children
    (4, 0, 0)
    """
    on_paths = _on_causal_paths(graph, x, y)
    return graph.without((i, j) for i in bits_of(x) for j in bits_of(graph.children[i] & on_paths))


def _on_causal_paths(graph: BitGraph, x: int, y: int) -> int:
    """Return the nodes after the treatment on directed paths to the outcome that leave the treatment once."""
    return graph.descendants(graph.children_of(x) & ~x, within=~x) & graph.ancestors(y, within=~x)


def _candidates(
    graph: CausalGraph,
    treatment: str | Iterable[str],
    outcome: str | Iterable[str],
    *,
    allowed: str | Iterable[str] | None,
) -> tuple[int, int, int]:
    x, y = graph.disjoint_masks(treatment=treatment, outcome=outcome)
    limit = graph.bits.all if allowed is None else graph.mask(allowed)
    forbidden = causal_nodes(graph.bits, x, y) | x | y
    # no other nodes are in a minimal set, and together these separate if any set does
    return x, y, without_effect(graph.bits, x, y).ancestors(x | y) & limit & ~forbidden


def _minimal(bare: BitGraph, x: int, y: int, *, candidates: int) -> Iterator[int]:
    if not separated(bare, x, y, given=candidates):
        return
    smaller: list[int] = []
    for size in range(candidates.bit_count() + 1):
        for chosen in combinations(bits_of(candidates), size):
            given = sum(1 << node for node in chosen)
            if any(found & given == found for found in smaller) or not separated(bare, x, y, given=given):
                continue
            smaller.append(given)
            yield given
