"""Adjustment sets, against the truth in models of the graph."""

import itertools

import numpy as np
import pytest
from hypothesis import given

from bayeswm.base.errors import SpecError, UnknownVariableError
from bayeswm.causal import CausalGraph, adjust, adjustment_set, backdoor_sets, is_adjustment_set
from bayeswm.causal.identification.adjustment import causal_nodes, without_effect
from tests.causal.discrete_models import random_graph, random_model
from tests.causal.linear_models import LinearModel, gaussian_effect, random_linear_model
from tests.causal.random_graphs import BACK_DOOR, CONFOUNDED_ACTION, FRONT_DOOR, M_GRAPH, TIME_VARYING, graphs_with_sets


def adjusted(model, x, y, z):
    """The formula of adjustment, by numpy alone."""
    names = model.order
    at = dict(zip(names, "abcdefgh", strict=False))
    some = lambda group: "".join(at[name] for name in group)  # noqa: E731
    law, whole = model.law(), some(names)
    xzy = np.einsum(f"{whole}->{some((*x, *z, *y))}", law)
    conditional = xzy / xzy.sum(tuple(range(len(x) + len(z), xzy.ndim)), keepdims=True)
    weight = np.einsum(f"{whole}->{some(z)}", law)
    return np.einsum(f"{some(z)},{some((*x, *z, *y))}->{some((*x, *y))}", weight, conditional)


def test_a_set_is_valid_if_and_only_if_it_gives_the_effect():
    rng = np.random.default_rng(0)
    counts = {True: 0, False: 0}
    for _ in range(70):
        graph = random_graph(rng, int(rng.integers(3, 6)), confounded=0.2)
        nodes = [str(name) for name in rng.permutation(graph.order)]
        x, y, rest = nodes[:1], nodes[1:2], nodes[2:]
        models = [random_model(graph, rng) for _ in range(3)]
        for n in range(len(rest) + 1):
            for z in itertools.combinations(rest, n):
                valid = is_adjustment_set(graph, x, y, given=z)
                errors = [abs(adjusted(model, x, y, z) - model.effect(y, x)).max() for model in models]
                assert (max(errors) < 1e-12) == valid, (graph, x, y, z)
                counts[valid] += 1
                if valid:
                    value = adjust(graph, x, y, given=z).evaluate(models[0].law(), graph.order)
                    np.testing.assert_allclose(value, models[0].effect(y, x), atol=1e-12)
    assert min(counts.values()) > 100


@given(graphs_with_sets(sets=3))
def test_minimal_sets_against_all_sets(drawn):
    graph, x, y, allowed = drawn
    sets = [frozenset(z) for n in range(len(allowed) + 1) for z in itertools.combinations(allowed, n)]
    valid = [z for z in sets if is_adjustment_set(graph, x, y, given=z)]
    found = list(backdoor_sets(graph, x, y, allowed=allowed))
    assert set(found) == {z for z in valid if not any(other < z for other in valid)}
    assert len(set(found)) == len(found)
    assert sorted(map(len, found)) == list(map(len, found))
    one = adjustment_set(graph, x, y, allowed=allowed)
    assert one in found if valid else one is None


@given(graphs_with_sets(sets=3, nodes=(3, 5)))
def test_joint_treatments_in_linear_models(drawn):
    graph, x, y, _ = drawn
    y = y[:1]
    z = adjustment_set(graph, x, y)
    if z is None:
        return
    model = random_linear_model(graph, np.random.default_rng(0))
    weights, variance = model.effect(y[0], x)
    found = adjust(graph, x, y, given=z)
    got, got_variance = gaussian_effect(found, model)
    index = [x.index(name) for name in found.query.do]
    np.testing.assert_allclose(got, weights[index], atol=1e-8)
    np.testing.assert_allclose(got_variance, variance, rtol=1e-8)


def test_known_graphs():
    assert list(backdoor_sets(BACK_DOOR, "X", "Y")) == [{"Z"}]
    assert list(backdoor_sets(M_GRAPH, "X", "Y")) == [set()]
    assert not is_adjustment_set(M_GRAPH, "X", "Y", given="Z")
    assert adjustment_set(FRONT_DOOR, "X", "Y") is None
    # what the treatment acts on may be adjusted for where no causal path meets it
    behind = CausalGraph([("X", "Y"), ("X", "D")])
    assert is_adjustment_set(behind, "X", "Y", given="D")
    # no set for both treatments at once: L1 lies behind the first and before the second
    assert adjustment_set(TIME_VARYING, ["A0", "A1"], "Y") is None


def test_back_door_of_reference_c1():
    model = LinearModel({("Z", "X"): 1, ("X", "Y"): 2, ("Z", "Y"): -3}, {"Z": 1, "X": 1, "Y": 0.25})
    weights, variance = gaussian_effect(adjust(BACK_DOOR, "X", "Y", given="Z"), model)
    np.testing.assert_allclose([weights[0], variance], [2, 9.25])


def test_recorded_confounder_of_an_action_reference_c2():
    weights = {
        ("s", "a"): -0.3,
        ("s", "after"): 0.9,
        ("a", "after"): 0.5,
        ("e", "a"): 1,
        ("e", "after"): 1,
        ("nu", "a"): 1,
    }
    model = LinearModel(weights, {"s": 1.0, "e": 1.0, "nu": 1.0, "a": 1e-9, "after": 0.01})
    assert adjustment_set(CONFOUNDED_ACTION, "a", "after") == {"s", "e"}
    effect, _ = gaussian_effect(adjust(CONFOUNDED_ACTION, "a", "after", given=["s", "e"]), model)
    np.testing.assert_allclose(effect, [0.5], atol=1e-6)


def test_what_must_not_be_adjusted_for():
    graph = CausalGraph([("X", "M"), ("M", "Y"), ("M", "D"), ("Z", "X"), ("Z", "Y")])
    x, y = graph.mask("X"), graph.mask("Y")
    assert set(graph.names(causal_nodes(graph.bits, x, y))) == {"M", "Y", "D"}
    assert without_effect(graph.bits, x, y).children[graph.order.index("X")] == 0


def test_nonsense_is_refused():
    with pytest.raises(SpecError, match="valid adjustment set, got none"):
        adjust(BACK_DOOR, "X", "Y", given=[])
    with pytest.raises(SpecError, match="common variables"):
        backdoor_sets(BACK_DOOR, "X", "X")
    with pytest.raises(UnknownVariableError, match="did you mean 'X'"):
        adjustment_set(BACK_DOOR, "XX", "Y")
    with pytest.raises(UnknownVariableError):
        adjustment_set(BACK_DOOR, "X", "Y", allowed=["Q"])
