"""m-separation, against d-separation by networkx with hidden causes written out, and against the moral graph."""

import itertools

import networkx as nx
from hypothesis import given

from bayeswm.causal import CausalGraph
from bayeswm.causal.graphs.bit_graph import bits_of
from bayeswm.causal.graphs.separation import moral_neighbours, nearest_separator, separated, shrink
from tests.causal.random_graphs import graphs_with_sets


def written_out(graph):
    """The directed graph in which each confounded pair has a hidden cause of its own."""
    found = nx.DiGraph(graph.edges)
    found.add_nodes_from(graph.order)
    for a, b in graph.confounded:
        found.add_edges_from([((a, b), a), ((a, b), b)])
    return found


@given(graphs_with_sets(sets=3))
def test_separation_against_networkx(drawn):
    graph, x, y, z = drawn
    assert graph.d_separated(x, y, given=z) == nx.is_d_separator(written_out(graph), set(x), set(y), set(z))


@given(graphs_with_sets(sets=3))
def test_separation_is_that_of_the_ancestral_moral_graph(drawn):
    graph, x, y, z = drawn
    neighbours = nx.Graph()
    ancestral = graph.ancestral([*x, *y, *z])
    neighbours.add_nodes_from(ancestral.order)
    neighbours.add_edges_from((a, b) for a, beside in ancestral.moralised().items() for b in beside)
    neighbours.remove_nodes_from(z)
    joined = any(nx.has_path(neighbours, a, b) for a, b in itertools.product(x, y))
    assert graph.d_separated(x, y, given=z) == (not joined)


@given(graphs_with_sets(sets=3))
def test_separators_against_all_sets(drawn):
    graph, x, y, allowed = drawn
    bits, (xs, ys, limit) = graph.bits, (graph.mask(names) for names in (x, y, allowed))
    sets = [graph.mask(c) for n in range(len(allowed) + 1) for c in itertools.combinations(allowed, n)]
    exists = any(separated(bits, xs, ys, given=z) for z in sets)
    nearest = nearest_separator(bits, xs, ys, allowed=limit)
    assert (nearest is not None) == exists
    if nearest is not None:
        assert separated(bits, xs, ys, given=nearest)
        least = shrink(bits, xs, ys, given=nearest)
        assert separated(bits, xs, ys, given=least)
        proper = [z for z in sets if z & least == z and z != least]
        assert not any(separated(bits, xs, ys, given=z) for z in proper)


def test_nodes_that_must_stay_are_not_left_out():
    chain = CausalGraph([("A", "B"), ("B", "C"), ("C", "D")])
    kept = shrink(chain.bits, 0b0001, 0b1000, given=0b0110, keep=0b0100)
    assert list(bits_of(kept)) == [2]


def test_districts_and_their_parents_are_joined():
    graph = CausalGraph([("P", "A"), ("Q", "C")], [("A", "B"), ("B", "C")])
    assert all(graph.moralised()[name] == set("ABCPQ") - {name} for name in "ABCPQ")
    # without the middle of the district both ends have only their parents
    without = moral_neighbours(graph.bits, within=graph.mask(list("ACPQ")))
    assert graph.names(without[graph.order.index("A")]) == ("P",)
