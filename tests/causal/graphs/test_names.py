"""Nodes are identifiers, at a time or relative to one."""

import pytest

from bayeswm.base.errors import SpecError
from bayeswm.causal.graphs.names import as_names, as_pairs, at, latex_name, name_and_lag, name_and_time


@pytest.mark.parametrize("node", ["", "1x", "a b", "x[t]", "x[1", "x[1][2]", 3, None])
def test_what_is_no_node(node):
    with pytest.raises(SpecError, match="expected a node"):
        name_and_time(node)


def test_a_node_and_its_parts():
    assert name_and_time(at("joint_speed", 12)) == ("joint_speed", 12)
    assert name_and_time("x[-1]") == ("x", -1)


@pytest.mark.parametrize("node", ["x", "x[1]", "x[t*2]", "x[s-1]", "[t]", "x[t-]", 3])
def test_what_is_no_node_relative_to_a_time(node):
    with pytest.raises(SpecError, match="relative to t"):
        name_and_lag(node)


@pytest.mark.parametrize(("node", "lag"), [("x[t]", 0), ("x[t-2]", -2), ("x[t+1]", 1), ("x[t - 1]", -1)])
def test_lags(node, lag):
    assert name_and_lag(node) == ("x", lag)


def test_one_name_is_a_set_of_one():
    assert as_names("speed") == ("speed",)
    assert as_names(["b", "a", "b"]) == ("b", "a")


@pytest.mark.parametrize("edge", ["ab", ("a",), ("a", "b", "c"), ("a", 1)])
def test_edges_are_pairs_of_names(edge):
    with pytest.raises(SpecError, match="pairs of names"):
        as_pairs([edge], what="edges")


def test_latex():
    assert latex_name("a[0]") == "a_{0}"
    assert latex_name("push") == r"\mathrm{push}"
