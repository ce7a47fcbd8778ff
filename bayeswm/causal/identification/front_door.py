"""The front door: an effect told from what it passes through."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import combinations

from bayeswm.causal.graphs.bit_graph import BitGraph, bits_of
from bayeswm.causal.graphs.graph import CausalGraph
from bayeswm.causal.graphs.separation import separated


def is_front_door_set(
    graph: CausalGraph, treatment: str | Iterable[str], outcome: str | Iterable[str], *, given: str | Iterable[str]
) -> bool:
    """Return whether a set meets Pearl's front-door criterion.

    Every directed path from treatment to outcome passes through it, nothing else joins the treatment to it, and given
    the treatment nothing else joins it to the outcome. The effect is then
    ``sum_z P(z | x) sum_x' P(x') P(y | x', z)``.

    Parameters
    ----------
    graph : CausalGraph
        What is known of causes.
    treatment, outcome : str or iterable of str
        The effect of the first on the second.
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
    Pearl (1995), Causal diagrams for empirical research.

    Examples
    --------
    >>> from bayeswm.causal import CausalGraph, is_front_door_set
    >>> graph = CausalGraph([("X", "Z"), ("Z", "Y")], confounded=[("X", "Y")])
    >>> is_front_door_set(graph, "X", "Y", given="Z")
    True
    """
    x, y, z = graph.disjoint_masks(treatment=treatment, outcome=outcome, given=given)
    return _is_front_door(graph.bits, x, y, through=z)


def front_door_sets(
    graph: CausalGraph, treatment: str | Iterable[str], outcome: str | Iterable[str]
) -> Iterator[frozenset[str]]:
    """Yield the front-door sets from which no subset is one, small ones first.

    Parameters
    ----------
    graph : CausalGraph
        What is known of causes.
    treatment, outcome : str or iterable of str
        The effect of the first on the second.

    Raises
    ------
    UnknownVariableError
        If a name is not in the graph.
    SpecError
        If treatment and outcome overlap.

    Examples
    --------
    >>> from bayeswm.causal import CausalGraph, front_door_sets
    >>> graph = CausalGraph([("X", "A"), ("A", "B"), ("B", "Y")], confounded=[("X", "Y")])
    >>> [sorted(found) for found in front_door_sets(graph, "X", "Y")]
    [['A'], ['B']]
    """
    x, y = graph.disjoint_masks(treatment=treatment, outcome=outcome)
    return (frozenset(graph.names(found)) for found in _minimal(graph.bits, x, y))


def _is_front_door(bits: BitGraph, x: int, y: int, *, through: int) -> bool:
    return (
        not bits.descendants(x, within=~through) & y
        and separated(bits.cut(out_of=x), x, through)
        and separated(bits.cut(out_of=through), through, y, given=x)
    )


def _minimal(bits: BitGraph, x: int, y: int) -> Iterator[int]:
    apart = bits.cut(out_of=x)
    candidates = [i for i in bits_of(bits.ancestors(y) & ~(x | y)) if separated(apart, x, 1 << i)]
    found: list[int] = []
    for size in range(len(candidates) + 1):
        for chosen in combinations(candidates, size):
            z = sum(1 << node for node in chosen)
            if not any(less & z == less for less in found) and _is_front_door(bits, x, y, through=z):
                found.append(z)
                yield z
