"""Tian and Pearl's factors: the law of some variables while all else is held fixed, from the observed law."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from bayeswm.causal.graphs.bit_graph import BitGraph, bits_of
from bayeswm.causal.identification.algebra import product, ratio, sum_over
from bayeswm.causal.identification.estimand import Estimand, Probability


@dataclass(frozen=True)
class Blocked:
    """The two sets at which the recursion ended without an answer: the smaller one's factor was asked for.

    Parameters
    ----------
    larger, smaller : int
        Districts; all of the larger are ancestors of the smaller.
    """

    larger: int
    smaller: int


def factor_of(graph: BitGraph, district: int, *, names: Sequence[str]) -> Estimand | Blocked:
    """Return Q of a set, the law of its variables under an intervention on all others, or where it gets stuck.

    Parameters
    ----------
    graph : BitGraph
        Directed and bidirected edges.
    district : int
        A set joined by bidirected edges.
    names : sequence of str
        Names of the nodes.

    References
    ----------
    Tian and Pearl (2002), A general identification condition for causal effects. That this is complete: Huang and
    Valtorta (2006), Identifiability in causal Bayesian networks: a sound and complete algorithm; Shpitser and Pearl
    (2006), Identification of joint interventional distributions in recursive semi-Markovian causal models.

    Examples
    --------
    >>> front_door = BitGraph.of([(0, 1), (1, 2)], [(0, 2)], size=3)
    >>> print(factor_of(front_door, 0b100, names=["X", "Z", "Y"]))
    sum_{X} P(X) P(Y | X, Z)
    """

    def named(nodes: int) -> tuple[str, ...]:
        return tuple(names[i] for i in bits_of(nodes))

    def given_earlier(node: int) -> Estimand:
        later = sum_over(named(kept & ~((2 << node) - 1)), factor)
        return ratio(later, sum_over([names[node]], later))

    before = graph.ancestors(district)
    within = graph.district(district, within=before)
    factor = product(Probability((names[i],), named(pillow(graph, i, within=before))) for i in bits_of(within))
    while True:
        kept = graph.ancestors(district, within=within)
        if kept == district:
            return sum_over(named(within & ~kept), factor)
        if kept == within:
            return Blocked(within, district)
        factor = sum_over(named(within & ~kept), factor)
        within = graph.district(district, within=kept)
        if within != kept:
            factor = product([given_earlier(i) for i in bits_of(within)])


def pillow(graph: BitGraph, node: int, *, within: int) -> int:
    """Return what a node depends on among the earlier ones: its district up to there, and the parents of that.

    Examples
    --------
    >>> pillow(BitGraph.of([(0, 1), (1, 2)], [(0, 2)], size=3), 2, within=0b111)
    3
    """
    earlier = within & ((2 << node) - 1)
    district = graph.district(1 << node, within=earlier)
    return (district | graph.parents_of(district) & within) & ~(1 << node)
