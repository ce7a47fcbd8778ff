"""Hedges are what their definition says."""

import networkx as nx
import numpy as np

from bayeswm.causal import CausalGraph, NotIdentifiable, identify
from bayeswm.causal.identification.hedge import hedge_of
from tests.causal.discrete_models import random_graph, random_query
from tests.causal.random_graphs import BOW


def check_forest(graph, hedge, nodes):
    """A c-forest: joined by a tree of bidirected edges, at most one child each, and all leads to the roots."""
    edges = [edge for edge in hedge.edges if set(edge) <= set(nodes)]
    pairs = [pair for pair in hedge.confounded if set(pair) <= set(nodes)]
    assert set(edges) <= set(graph.edges)
    assert set(map(frozenset, pairs)) <= set(map(frozenset, graph.confounded))
    tree = nx.Graph(pairs)
    tree.add_nodes_from(nodes)
    assert nx.is_tree(tree)
    assert sorted(a for a, _ in edges) == sorted(set(nodes) - set(hedge.roots))
    directed = nx.DiGraph(edges)
    directed.add_nodes_from(nodes)
    assert {name for name in nodes if directed.out_degree(name) == 0} == set(hedge.roots)


def test_hedges_of_random_graphs():
    rng = np.random.default_rng(0)
    seen = 0
    for k in range(400):
        graph = random_graph(rng, 5 + k % 3, edges=0.5, confounded=0.4)
        y, x, _ = random_query(graph, rng)
        found = identify(graph, y, do=x)
        if not isinstance(found, NotIdentifiable):
            continue
        seen += 1
        hedge = found.hedge
        check_forest(graph, hedge, hedge.larger)
        check_forest(graph, hedge, hedge.smaller)
        assert set(hedge.smaller) < set(hedge.larger)
        assert set(hedge.larger) & set(x) == set(hedge.do) != set()
        assert not set(hedge.smaller) & set(x)
        assert set(hedge.roots) <= graph.do(x).ancestors(y)
    assert seen > 150


def test_nodes_that_prove_nothing_are_left_out():
    hedge = hedge_of(BOW, larger=0b11, smaller=0b10, do=0b01, outcome=0b10)
    assert (hedge.larger, hedge.smaller, hedge.roots) == (("X", "Y"), ("Y",), ("Y",))
    assert (hedge.edges, hedge.confounded) == ((("X", "Y"),), (("Y", "X"),))
    # A belongs to the district and leads to Y, but the two others are a hedge without it
    longer = CausalGraph([("A", "X"), ("X", "Y")], [("A", "X"), ("X", "Y")])
    found = identify(longer, "Y", do="X")
    assert isinstance(found, NotIdentifiable)
    assert found.hedge.larger == ("X", "Y")
    assert str(found.hedge) == "hedge {X, Y} over {Y}, with roots {Y}"
