"""Topological orders."""

import itertools

import pytest

from bayeswm.base.errors import SpecError
from bayeswm.causal.graphs.order import topological


def test_given_order_is_kept_where_edges_allow():
    assert topological(["d", "c", "b", "a"], [("a", "c")]) == ("d", "b", "a", "c")


@pytest.mark.parametrize(
    ("edges", "cycle"),
    [
        ([("a", "a")], "a -> a"),
        ([("a", "b"), ("b", "a")], "a -> b -> a"),
        ([("r", "a"), ("a", "b"), ("b", "c"), ("c", "a"), ("c", "d")], "a -> b -> c -> a"),
    ],
)
def test_cycle_is_named(edges, cycle):
    names = sorted({name for edge in edges for name in edge}, reverse=True)
    with pytest.raises(SpecError, match="without cycles") as caught:
        topological(names, edges)
    # it may be told from any of its nodes on
    told = str(caught.value).split("got ")[1].split(";")[0].split(" -> ")
    want = cycle.split(" -> ")
    assert told[0] == told[-1]
    assert set(itertools.pairwise(told)) == set(itertools.pairwise(want))
