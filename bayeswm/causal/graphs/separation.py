"""m-separation: which sets of nodes a third set makes independent in every model of the graph."""

from __future__ import annotations

from bayeswm.causal.graphs.bit_graph import BitGraph, bits_of, union


def separated(graph: BitGraph, x: int, y: int, *, given: int = 0) -> bool:
    """Return whether no path between two sets is open given a third, by a search along open walks.

    Parameters
    ----------
    graph : BitGraph
        Directed and bidirected edges.
    x, y, given : int
        Disjoint sets of nodes.

    References
    ----------
    Richardson (2003), Markov properties for acyclic directed mixed graphs.

    Examples
    --------
    >>> collider = BitGraph.of([(0, 2), (1, 2)], [], size=3)
    >>> separated(collider, 0b001, 0b010), separated(collider, 0b001, 0b010, given=0b100)
    (True, False)
    """
    opened = graph.ancestors(given)
    # Nodes reached against an arrow out of them, and nodes reached by an arrowhead: only the latter can be colliders.
    backward, forward = graph.parents_of(x), graph.children_of(x) | union(graph.spouses[i] for i in bits_of(x))
    new_backward, new_forward = backward, forward
    while new_backward | new_forward:
        if (backward | forward) & y:
            return False
        through, collided = new_backward & ~given, new_forward & opened
        up = graph.parents_of(through | collided)
        side = union(graph.spouses[i] for i in bits_of(through | collided))
        down = graph.children_of(through | (new_forward & ~given)) | side
        new_backward, new_forward = up & ~backward, down & ~forward
        backward |= new_backward
        forward |= new_forward
    return True


def moral_neighbours(graph: BitGraph, *, within: int = -1) -> list[int]:
    """Return for each node its neighbours in the moralised graph on ``within``.

    A district and its parents are all joined: between any two of them runs a path of colliders.

    Examples
    --------
    >>> moral_neighbours(BitGraph.of([(0, 2), (1, 2)], [], size=3))
    [6, 5, 3]
    """
    neighbours = [0] * len(graph.parents)
    for district in graph.districts(within=within):
        joined = district | graph.parents_of(district) & within
        for node in bits_of(joined):
            neighbours[node] |= joined & ~(1 << node)
    return neighbours


def nearest_separator(graph: BitGraph, x: int, y: int, *, allowed: int) -> int | None:
    """Return the separator of two sets that is nearest to the second, or None where the allowed nodes hold none.

    Its nodes are ancestors of the two sets. Each of them can be reached from ``y`` past no other allowed node.

    References
    ----------
    van der Zander, Textor and Liskiewicz (2015), Efficiently finding conditional instruments for causal inference.

    Examples
    --------
    >>> chain = BitGraph.of([(0, 1), (1, 2), (2, 3)], [], size=4)
    >>> nearest_separator(chain, 0b0001, 0b1000, allowed=0b0110)
    4
    """
    within = graph.ancestors(x | y)
    neighbours = moral_neighbours(graph, within=within)
    allowed &= within & ~(x | y)
    reached = new = y
    met = 0
    while new:
        beside = union(neighbours[i] for i in bits_of(new)) & within & ~reached
        met |= beside & allowed
        new = beside & ~allowed
        reached |= new
    return None if reached & x else met


def shrink(graph: BitGraph, x: int, y: int, *, given: int, keep: int = 0) -> int:
    """Return a separator inside ``given``, from which no node can be left out.

    Parameters
    ----------
    graph : BitGraph
        Directed and bidirected edges.
    x, y : int
        The sets that ``given`` separates.
    given : int
        A separator made of ancestors of the two sets.
    keep : int
        Nodes that are not left out.

    Examples
    --------
    >>> chain = BitGraph.of([(0, 1), (1, 2), (2, 3)], [], size=4)
    >>> shrink(chain, 0b0001, 0b1000, given=0b0110)
    2
    """
    # Among ancestors separation is that of one moral graph, so that leaving nodes out one by one finds a minimal set.
    for node in reversed(list(bits_of(given & ~keep))):
        less = given & ~(1 << node)
        if separated(graph, x, y, given=less):
            given = less
    return given
