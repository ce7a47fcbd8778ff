"""Front-door sets, against the truth in models of the graph."""

import itertools

import numpy as np
import pytest
from hypothesis import given

from bayeswm.base.errors import SpecError
from bayeswm.causal import CausalGraph, Probability, Product, Sum, front_door_sets, identify, is_front_door_set
from bayeswm.causal.identification.verdict import Identifiable
from tests.causal.discrete_models import random_model
from tests.causal.linear_models import LinearModel, gaussian_effect
from tests.causal.random_graphs import BACK_DOOR, BOW, FRONT_DOOR, graphs_with_sets


@given(graphs_with_sets(sets=3, nodes=(3, 6)))
def test_minimal_sets_against_all_sets_and_the_formula_against_the_truth(drawn):
    graph, x, y, _ = drawn
    rest = [name for name in graph.order if name not in (*x, *y)]
    sets = [frozenset(z) for n in range(len(rest) + 1) for z in itertools.combinations(rest, n)]
    # sets with a part that does not act on the outcome are of no use, though they meet the criterion
    valid = [z for z in sets if is_front_door_set(graph, x, y, given=z) and z <= graph.ancestors(y)]
    found = list(front_door_sets(graph, x, y))
    assert set(found) == {z for z in valid if not any(other < z for other in valid)}
    model = random_model(graph, np.random.default_rng(0))
    want = model.effect(y, x)
    for z in found:
        inner = Sum(x, Product((Probability(x), Probability(y, (*x, *z)))))
        outer = Sum(tuple(z), Product((Probability(tuple(z), x), inner))) if z else Probability(y)
        value = outer.evaluate(model.law(), graph.order).along((*x, *y))
        np.testing.assert_allclose(np.broadcast_to(value, want.shape), want, atol=1e-12)
        assert isinstance(identify(graph, y, do=x), Identifiable)


def test_a_cause_outside_the_causal_path_may_be_needed():
    graph = CausalGraph([("X", "M"), ("M", "Y"), ("W", "M"), ("W", "Y")], [("X", "Y")])
    assert not is_front_door_set(graph, "X", "Y", given="M")
    assert list(front_door_sets(graph, "X", "Y")) == [{"M", "W"}]


def test_known_graphs():
    assert list(front_door_sets(FRONT_DOOR, "X", "Y")) == [{"Z"}]
    assert list(front_door_sets(BOW, "X", "Y")) == []
    assert list(front_door_sets(BACK_DOOR, "X", "Y")) == []


def test_linear_model():
    weights = {("X", "Z"): 2.0, ("Z", "Y"): 0.5, ("U", "X"): 1.0, ("U", "Y"): -3.0}
    model = LinearModel(weights, {"U": 1.0, "X": 1.0, "Z": 0.5, "Y": 0.2})
    found, variance = gaussian_effect(identify(FRONT_DOOR, "Y", do="X"), model)
    # the path through Z is 2 x 0.5; the variance is 9 of U, 0.25 x 0.5 of Z and 0.2
    np.testing.assert_allclose([found[0], variance], [1.0, 9.325])


def test_overlap_is_refused():
    with pytest.raises(SpecError, match="common variables"):
        is_front_door_set(FRONT_DOOR, "X", "Y", given="X")
