"""Graphs of one slice: how they are made, what they answer, how they change."""

import networkx as nx
import pytest
from hypothesis import given

from bayeswm.base.errors import SpecError, UnknownVariableError
from bayeswm.causal import CausalGraph
from tests.causal.random_graphs import CONFOUNDED_ACTION, NAPKIN, VERMA, causal_graphs


def test_queries_on_the_napkin():
    assert NAPKIN.order == ("W", "R", "X", "Y")
    assert NAPKIN.parents(["X", "Y"]) == {"R", "X"}
    assert NAPKIN.children("W") == {"R"}
    assert NAPKIN.ancestors("X") == {"W", "R", "X"}
    assert NAPKIN.descendants("R") == {"R", "X", "Y"}
    assert NAPKIN.district("X") == {"W", "X", "Y"}
    assert set(NAPKIN.districts) == {frozenset("WXY"), frozenset("R")}


def test_intervention_removes_what_acts_on_a_variable():
    assert NAPKIN.do("X") == CausalGraph([("W", "R"), ("X", "Y")], [("W", "Y")])
    assert NAPKIN.without_effects("X") == CausalGraph([("W", "R"), ("R", "X")], [("W", "X"), ("W", "Y")])


@given(causal_graphs())
def test_do_twice_is_do_once_and_the_rest_is_untouched(graph):
    some = graph.order[::2]
    cut = graph.do(some)
    assert cut.do(some) == cut == graph.do(some[:1]).do(some[1:])
    assert not cut.parents(some)
    assert all(cut.parents(name) == graph.parents(name) for name in graph.order[1::2])


def test_parts_of_a_graph():
    assert VERMA.ancestral("C") == CausalGraph([("A", "B"), ("B", "C")])
    assert VERMA.subgraph(["B", "D"]) == CausalGraph([], [("B", "D")])


def test_written_causes_that_are_not_recorded_are_projected_out():
    hidden = CausalGraph(CONFOUNDED_ACTION.edges, latent=["e"])
    assert set(hidden.order) == {"s", "a", "after", "nu"}
    assert hidden.confounded == (("a", "after"),)
    assert CausalGraph([("U", "A"), ("A", "B")], latent="U") == CausalGraph([("A", "B")])


def test_listed_variables_set_the_order_and_may_have_no_edges():
    graph = CausalGraph([("b", "a")], variables=["c", "a", "b"])
    assert graph.order == ("c", "b", "a")
    assert repr(graph) == "CausalGraph(b -> a, c)"
    assert repr(CausalGraph()) == "CausalGraph()"


def test_equality_is_that_of_edges_whatever_their_order():
    one = CausalGraph([("a", "b"), ("c", "b")], [("a", "c")])
    other = CausalGraph([("c", "b"), ("a", "b")], [("c", "a"), ("a", "c")])
    assert one == other
    assert hash(one) == hash(other)
    assert one != CausalGraph([("a", "b"), ("c", "b")])
    assert one != "a -> b"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: CausalGraph([("a", "b"), ("b", "c"), ("c", "a")]),
            "got (a -> b -> c -> a|b -> c -> a -> b|c -> a -> b)",
        ),
        (lambda: CausalGraph([("a", "b")], [("a", "a")]), "different names"),
        (lambda: CausalGraph(["ab"]), "pairs of names"),
        (lambda: CausalGraph([("a b", "c")]), "expected a node"),
        (lambda: NAPKIN.d_separated("X", "Y", given=["X"]), "got X in x and in given"),
        (lambda: CausalGraph.from_networkx(nx.Graph([("a", "b")])), "directed graph"),
    ],
)
def test_nonsense_is_refused(make, message):
    with pytest.raises(SpecError, match=message):
        make()


@pytest.mark.parametrize(
    "ask",
    [
        lambda g: g.parents("torqe"),
        lambda g: g.ancestors(["speed", "torqe"]),
        lambda g: g.do("torqe"),
        lambda g: g.d_separated("speed", "torque", given="torqe"),
        lambda g: g.project(["torqe"]),
        lambda g: CausalGraph([("torqe", "speed")], variables=g.order),
        lambda g: CausalGraph([("speed", "torque")], latent=["torqe"]),
        lambda g: CausalGraph(variables=g.order, latent=["torqe"]),
    ],
)
def test_unknown_names_are_answered_with_the_closest(ask):
    with pytest.raises(UnknownVariableError, match="'torqe'; did you mean 'torque'"):
        ask(CausalGraph([("torque", "speed")]))


@given(causal_graphs())
def test_networkx_and_back(graph):
    found = graph.to_networkx()
    assert set(found.edges) == set(graph.edges)
    assert CausalGraph.from_networkx(found) == graph


def test_plain_networkx_graph_has_no_hidden_causes():
    assert CausalGraph.from_networkx(nx.DiGraph([("a", "b")])) == CausalGraph([("a", "b")])
