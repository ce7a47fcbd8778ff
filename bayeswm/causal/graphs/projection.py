"""Latent projection: what the graph of some variables looks like when the others are not recorded."""

from __future__ import annotations

from itertools import combinations, product

from bayeswm.causal.graphs.bit_graph import BitGraph, bits_of, union


def projected(graph: BitGraph, keep: int) -> tuple[set[tuple[int, int]], set[tuple[int, int]]]:
    """Return the directed edges and the confounded pairs among the nodes that are kept.

    Parameters
    ----------
    graph : BitGraph
        Directed and bidirected edges.
    keep : int
        The nodes that are recorded.

    References
    ----------
    Verma and Pearl (1990), Equivalence and synthesis of causal models.

    Examples
    --------
    >>> fork = BitGraph.of([(0, 1), (0, 2)], [], size=3)
    >>> projected(fork, 0b110)
    (set(), {(1, 2)})
    """
    # What each node shows itself as: itself if it is kept, else the kept nodes to which it leads past hidden ones.
    shown = [0] * len(graph.parents)
    for i in reversed(range(len(shown))):
        shown[i] = 1 << i if keep >> i & 1 else union(shown[j] for j in bits_of(graph.children[i]))
    edges = {(i, k) for i in bits_of(keep) for j in bits_of(graph.children[i]) for k in bits_of(shown[j])}
    pairs = {pair for i in bits_of(graph.all & ~keep) for pair in combinations(bits_of(shown[i]), 2)}
    for i, spouses in enumerate(graph.spouses):
        for j in bits_of(spouses):
            pairs |= {(a, b) for a, b in product(bits_of(shown[i]), bits_of(shown[j])) if a < b}
    return edges, pairs
