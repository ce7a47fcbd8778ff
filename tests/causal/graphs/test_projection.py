"""Latent projection."""

import itertools

from hypothesis import given

from bayeswm.causal import CausalGraph
from tests.causal.random_graphs import causal_graphs


@given(causal_graphs())
def test_separation_among_recorded_variables_is_kept(graph):
    kept = sorted(graph.order)[::2] + sorted(graph.order)[1::4]
    seen = graph.project(kept)
    assert set(seen.order) == set(kept)
    for x, y in itertools.combinations(kept, 2):
        rest = [name for name in kept if name not in (x, y)]
        for n in range(len(rest) + 1):
            for z in itertools.combinations(rest, n):
                assert seen.d_separated(x, y, given=z) == graph.d_separated(x, y, given=z)


@given(causal_graphs())
def test_variables_may_be_hidden_one_by_one_or_at_once(graph):
    kept = graph.order[: len(graph.order) // 2]
    one_by_one = graph
    for name in graph.order[len(graph.order) // 2 :]:
        one_by_one = one_by_one.project(other for other in one_by_one.order if other != name)
    assert one_by_one == graph.project(kept)


def test_known_cases():
    chain = CausalGraph([("A", "L"), ("L", "B")])
    assert chain.project(["A", "B"]) == CausalGraph([("A", "B")])
    # the hidden node passes on what it is confounded with
    assert CausalGraph([("L", "B")], [("A", "L")]).project(["A", "B"]) == CausalGraph([], [("A", "B")])
    # a hidden effect shows nothing
    assert CausalGraph([("A", "L"), ("B", "L")]).project(["A", "B"]) == CausalGraph(variables=["A", "B"])
