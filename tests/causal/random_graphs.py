"""Hypothesis strategies of small causal graphs, and the graphs that every textbook has."""

import hypothesis.strategies as st

from bayeswm.causal import CausalGraph

BACK_DOOR = CausalGraph([("Z", "X"), ("Z", "Y"), ("X", "Y")])
FRONT_DOOR = CausalGraph([("X", "Z"), ("Z", "Y")], [("X", "Y")])
NAPKIN = CausalGraph([("W", "R"), ("R", "X"), ("X", "Y")], [("W", "X"), ("W", "Y")])
M_GRAPH = CausalGraph([("X", "Y")], [("X", "Z"), ("Z", "Y")])
BOW = CausalGraph([("X", "Y")], [("X", "Y")])
INSTRUMENT = CausalGraph([("Z", "X"), ("X", "Y")], [("X", "Y")])
VERMA = CausalGraph([("A", "B"), ("B", "C"), ("C", "D")], [("B", "D")])
# Actions that follow the state and a hidden cause of the next state, in one step of a process.
CONFOUNDED_ACTION = CausalGraph([("s", "a"), ("s", "after"), ("a", "after"), ("e", "a"), ("e", "after"), ("nu", "a")])
# A treatment A1 that follows a covariate L1, on which the earlier treatment and a hidden cause of the outcome act.
TIME_VARYING = CausalGraph(
    [("A0", "L1"), ("U", "L1"), ("L1", "A1"), ("A1", "Y"), ("L1", "Y"), ("U", "Y")],
    latent=["U"],
    variables=["A0", "U", "L1", "A1", "Y"],
)


@st.composite
def causal_graphs(draw, *, nodes=(2, 6)):
    """A graph over A, B, ..., with any edges along a random order and any confounded pairs."""
    count = draw(st.integers(*nodes))
    names = draw(st.permutations("ABCDEFGH"[:count]))
    pairs = [(a, b) for j, b in enumerate(names) for a in names[:j]]
    kinds = draw(st.lists(st.sampled_from(["", "", ">", "<>", "> <>"]), min_size=len(pairs), max_size=len(pairs)))
    return CausalGraph(
        [pair for pair, kind in zip(pairs, kinds, strict=True) if kind.startswith(">")],
        [pair for pair, kind in zip(pairs, kinds, strict=True) if kind.endswith("<>")],
        variables=sorted(names),
    )


@st.composite
def graphs_with_sets(draw, *, sets, nodes=(2, 6)):
    """A graph and disjoint sets of its variables; the first two are not empty."""
    graph = draw(causal_graphs(nodes=nodes))
    order = draw(st.permutations(graph.order))
    which = [0, 1] + [draw(st.integers(0, sets)) for _ in order[2:]]
    return graph, *(tuple(name for name, k in zip(order, which, strict=True) if k == i) for i in range(sets))
