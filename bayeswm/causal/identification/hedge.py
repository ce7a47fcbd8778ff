"""Why an effect cannot be told: the two forests of a hedge."""

from __future__ import annotations

from dataclasses import dataclass

from bayeswm.causal.graphs.bit_graph import BitGraph, bits_of
from bayeswm.causal.graphs.graph import CausalGraph


@dataclass(frozen=True)
class Hedge:
    """Two sets of variables, each joined by hidden common causes, that lead to the same roots.

    The larger one meets the intervention, the smaller one does not. Two models then exist that give everything observed
    the same law, and in which the intervention does different things to the roots, and through them to the outcome.

    Parameters
    ----------
    larger, smaller : tuple of str
        The two c-forests; the smaller is part of the larger.
    do : tuple of str
        What is intervened on in the larger forest. A condition that acts like an intervention counts as one.
    roots : tuple of str
        Where both lead: the variables without an edge to others of the smaller forest.
    edges : tuple of (str, str)
        The directed edges of the larger forest: one out of each variable that is no root.
    confounded : tuple of (str, str)
        Bidirected edges that join the larger forest as a tree, and within it the smaller.

    References
    ----------
    Shpitser and Pearl (2006), Identification of joint interventional distributions in recursive semi-Markovian causal
    models.

    Examples
    --------
    >>> from bayeswm.causal import CausalGraph, identify
    >>> print(identify(CausalGraph([("X", "Y")], confounded=[("X", "Y")]), "Y", do="X").hedge)
    hedge {X, Y} over {Y}, with roots {Y}
    """

    larger: tuple[str, ...]
    smaller: tuple[str, ...]
    do: tuple[str, ...]
    roots: tuple[str, ...]
    edges: tuple[tuple[str, str], ...]
    confounded: tuple[tuple[str, str], ...]

    def __str__(self) -> str:
        larger, smaller, roots = (", ".join(names) for names in (self.larger, self.smaller, self.roots))
        return f"hedge {{{larger}}} over {{{smaller}}}, with roots {{{roots}}}"


def hedge_of(graph: CausalGraph, *, larger: int, smaller: int, do: int, outcome: int) -> Hedge:
    """Return a hedge from the two sets at which identification ended, without nodes that it does not need.

    Parameters
    ----------
    graph : CausalGraph
        The graph.
    larger, smaller : int
        Sets joined by bidirected edges, the smaller inside the larger, all of the larger ancestors of the smaller.
    do, outcome : int
        What is intervened on, and what is asked for.

    Examples
    --------
    >>> from bayeswm.causal import CausalGraph
    >>> chain = CausalGraph([("W", "X"), ("X", "Y")], confounded=[("W", "X"), ("X", "Y")])
    >>> print(hedge_of(chain, larger=0b111, smaller=0b100, do=0b010, outcome=0b100))
    hedge {X, Y} over {Y}, with roots {Y}
    """
    bits = graph.bits
    reaching = bits.ancestors(outcome, within=~do)
    for node in bits_of(larger):
        less = ~(1 << node)
        if _is_hedge(bits, larger & less, smaller & less, do=do, reaching=reaching):
            larger, smaller = larger & less, smaller & less
    roots = _roots(bits, smaller)
    names = graph.order
    edges = [(names[i], names[j]) for i, j in _forest(bits, larger, smaller)]
    pairs = [(names[i], names[j]) for i, j in _spanning_tree(bits, larger, smaller)]
    return Hedge(
        larger=graph.names(larger),
        smaller=graph.names(smaller),
        do=graph.names(larger & do),
        roots=graph.names(roots),
        edges=tuple(edges),
        confounded=tuple(pairs),
    )


def _is_hedge(bits: BitGraph, larger: int, smaller: int, *, do: int, reaching: int) -> bool:
    roots = _roots(bits, smaller)
    return bool(
        smaller
        and larger & do
        and not roots & ~reaching
        and bits.district(smaller & -smaller, within=smaller) == smaller
        and bits.district(larger & -larger, within=larger) == larger
        and bits.ancestors(smaller, within=larger) == larger
    )


def _roots(bits: BitGraph, nodes: int) -> int:
    return sum(1 << i for i in bits_of(nodes) if not bits.children[i] & nodes)


def _forest(bits: BitGraph, larger: int, smaller: int) -> list[tuple[int, int]]:
    """Return one edge out of each node that is no root: towards the roots, and inside the smaller set where it is."""
    edges: list[tuple[int, int]] = []
    done = _roots(bits, smaller)
    for within in (smaller, larger):
        while left := within & ~done:
            node = next(i for i in bits_of(left) if bits.children[i] & within & done)
            edges.append((node, next(bits_of(bits.children[node] & within & done))))
            done |= 1 << node
    return edges


def _spanning_tree(bits: BitGraph, larger: int, smaller: int) -> list[tuple[int, int]]:
    edges: list[tuple[int, int]] = []
    done = smaller & -smaller
    for within in (smaller, larger):
        while left := within & ~done:
            node = next(i for i in bits_of(left) if bits.spouses[i] & within & done)
            edges.append((next(bits_of(bits.spouses[node] & within & done)), node))
            done |= 1 << node
    return edges
