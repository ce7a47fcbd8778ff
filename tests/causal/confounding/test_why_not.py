"""Reasons name the pairs that share causes, these causes where they have names, and cures."""

from bayeswm.causal import TimeGraph
from bayeswm.causal.confounding.why_not import reason
from tests.causal.confounding.logs import BOW, C2, STATE


def test_causes_without_a_name():
    text = reason(TimeGraph(STATE, BOW), state=["s"], action=["a"], recorded=[], composes=True)
    assert "a and the next s; record them" in text


def test_causes_with_a_name():
    text = reason(C2, state=["s"], action=["a"], recorded=["y"], composes=True)
    assert "record (e) or a measurement of it" in text
    assert "nu" not in text


def test_only_the_confounded_action_is_named():
    edges = [("s[t]", "s[t+1]"), ("a[t]", "s[t+1]"), ("b[t]", "s[t+1]")]
    text = reason(TimeGraph(edges, [("b[t]", "s[t+1]")]), state=["s"], action=["a", "b"], recorded=[], composes=True)
    assert "inject noise into b and" in text


def test_what_lasts():
    graph = TimeGraph([*STATE, ("u[t]", "u[t+1]"), ("u[t]", "s[t+1]")])
    text = reason(graph, state=["s"], action=["a"], recorded=[], composes=False)
    assert "(u) lasts beyond one step" in text
    assert "Hierarchical" in text
    known = reason(graph, state=["s"], action=["a"], recorded=["u"], composes=False)
    assert "a variable of the state if it was recorded" in known


def test_what_is_identifiable_by_another_formula():
    """A napkin: the effect is a ratio that no strategy estimates."""
    edges = [("w[t]", "x[t]"), ("x[t]", "a[t]"), ("a[t]", "s[t+1]")]
    graph = TimeGraph(edges, [("w[t]", "a[t]"), ("w[t]", "s[t+1]")])
    text = reason(graph, state=["s"], action=["a"], recorded=["w", "x"], composes=True)
    assert "identifiable in principle" in text
