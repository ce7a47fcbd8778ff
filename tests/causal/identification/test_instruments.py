"""Instruments, against total effects in linear models and against all conditions."""

import itertools

import numpy as np
import pytest
from hypothesis import given

from bayeswm.base.errors import SpecError
from bayeswm.causal import CausalGraph, Instrument, instruments
from bayeswm.causal.graphs.separation import separated
from bayeswm.causal.identification.adjustment import causal_nodes, without_effect
from tests.causal.linear_models import LinearModel, random_linear_model
from tests.causal.random_graphs import BOW, CONFOUNDED_ACTION, INSTRUMENT, causal_graphs


def ratio_of_covariances(model, instrument, treatment, outcome):
    names = model.names
    given = [names.index(name) for name in instrument.given]
    z, x, y = (names.index(name) for name in (instrument.variable, treatment, outcome))
    c = model.covariance()
    left = c - c[:, given] @ np.linalg.solve(c[np.ix_(given, given)], c[given]) if given else c
    return left[z, y] / left[z, x]


@given(causal_graphs(nodes=(3, 6)))
def test_ratio_of_covariances_is_the_total_effect(graph):
    model = random_linear_model(graph, np.random.default_rng(0))
    for treatment, outcome in itertools.permutations(graph.order, 2):
        (effect,), _ = model.effect(outcome, [treatment])
        for found in instruments(graph, treatment, outcome):
            got = ratio_of_covariances(model, found, treatment, outcome)
            np.testing.assert_allclose(got, effect, rtol=1e-6, atol=1e-8)


@given(causal_graphs(nodes=(3, 5)))
def test_instruments_against_all_conditions_of_ancestors(graph):
    treatment, outcome = graph.order[-2:]
    bits, x, y = graph.bits, graph.mask(treatment), graph.mask(outcome)
    forbidden, bare = causal_nodes(bits, x, y) | x | y, without_effect(bits, x, y)
    found = {instrument.variable for instrument in instruments(graph, treatment, outcome)}
    for name in graph.order:
        one = graph.mask(name)
        if one & forbidden:
            assert name not in found
            continue
        rest = graph.names(bare.ancestors(one | y) & ~(forbidden | one))
        sets = (graph.mask(z) for n in range(len(rest) + 1) for z in itertools.combinations(rest, n))
        exists = any(separated(bare, one, y, given=z) and not separated(bits, one, x, given=z) for z in sets)
        assert (name in found) == exists


def test_exploration_noise_of_reference_c2():
    graph = CausalGraph(CONFOUNDED_ACTION.edges, latent=["e"])
    (found,) = instruments(graph, "a", "after")
    assert (found.variable, found.given) == ("nu", ())
    assert "linear" in found.requires
    weights = {
        ("s", "a"): -0.3,
        ("s", "after"): 0.9,
        ("a", "after"): 0.5,
        ("e", "a"): 1,
        ("e", "after"): 1,
        ("nu", "a"): 1,
    }
    model = LinearModel(weights, {"s": 1.0, "e": 1.0, "nu": 1.0, "a": 1e-12, "after": 0.01})
    assert ratio_of_covariances(model, found, "a", "after") == pytest.approx(0.5)


def test_condition_is_minimal():
    graph = CausalGraph([("W", "Z"), ("W", "Y"), ("Z", "X"), ("X", "Y"), ("Q", "Z")], [("X", "Y")])
    assert [(i.variable, i.given) for i in instruments(graph, "X", "Y")] == [("Q", ()), ("Z", ("W",))]
    assert str(Instrument("Z", ("W", "V"))) == "Z given W, V as an instrument"


def test_without_instruments():
    assert instruments(BOW, "X", "Y") == ()
    assert instruments(INSTRUMENT, "X", "Z") == ()
    with pytest.raises(SpecError, match="common variables"):
        instruments(BOW, "X", "X")
    with pytest.raises(SpecError, match="one treatment"):
        instruments(INSTRUMENT, ["X", "Z"], "Y")
