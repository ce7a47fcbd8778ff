"""Sets of nodes as bits."""

import networkx as nx
from hypothesis import given

from bayeswm.causal.graphs.bit_graph import BitGraph, bits_of, union
from tests.causal.random_graphs import causal_graphs


def test_bits():
    assert list(bits_of(0)) == []
    assert list(bits_of(1 << 200 | 4)) == [2, 200]
    assert union([1, 4, 5]) == 5


@given(causal_graphs())
def test_ancestors_and_districts_against_networkx(graph):
    bits, directed = graph.bits, nx.DiGraph(graph.edges)
    directed.add_nodes_from(graph.order)
    paired = nx.Graph(graph.confounded)
    paired.add_nodes_from(graph.order)
    for name in graph.order:
        assert set(graph.names(bits.ancestors(graph.mask(name)))) == nx.ancestors(directed, name) | {name}
        assert set(graph.names(bits.descendants(graph.mask(name)))) == nx.descendants(directed, name) | {name}
    assert {frozenset(graph.names(d)) for d in bits.districts()} == set(map(frozenset, nx.connected_components(paired)))


def test_paths_stay_within():
    chain = BitGraph.of([(0, 1), (1, 2), (0, 2)], [(0, 1), (1, 2)], size=3)
    assert chain.ancestors(0b100, within=0b110) == 0b110
    assert chain.district(0b100, within=0b101) == 0b100
    assert list(chain.districts(within=0b101)) == [0b001, 0b100]


def test_cuts_leave_the_original_alone():
    graph = BitGraph.of([(0, 1), (1, 2)], [(0, 1), (0, 2)], size=3)
    into, out = graph.cut(into=0b010), graph.cut(out_of=0b010)
    assert (into.parents, into.spouses, into.children) == ((0, 0, 2), (4, 0, 1), (0, 4, 0))
    assert (out.parents, out.spouses, out.children) == ((0, 1, 0), (6, 1, 1), (2, 0, 0))
    assert graph.without([(0, 1)]).parents == (0, 0, 2)
    assert graph.parents == (0, 1, 2)
