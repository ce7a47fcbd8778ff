"""Plans of treatments, against all plans and against the truth in models of the graph."""

import itertools

import numpy as np
import pytest
from hypothesis import given

from bayeswm.base.errors import SpecError
from bayeswm.causal import CausalGraph, TimeGraph, identify, sequential_backdoor
from bayeswm.causal.identification.verdict import Identifiable
from tests.causal.discrete_models import random_model
from tests.causal.linear_models import LinearModel, gaussian_effect
from tests.causal.random_graphs import BOW, TIME_VARYING, graphs_with_sets


def admissible(graph, treatments, outcome, sets):
    """The criterion as it is written: Pearl and Robins (1995)."""
    given = []
    for k, (name, chosen) in enumerate(zip(treatments, sets, strict=True)):
        if graph.descendants(treatments[k:]) & set(chosen):
            return False
        given += chosen
        cut = graph.do(treatments[k + 1 :]).without_effects(name)
        if not cut.d_separated(outcome, name, given=given):
            return False
        given.append(name)
    return True


@given(graphs_with_sets(sets=3, nodes=(3, 5)))
def test_a_plan_is_found_if_there_is_one(drawn):
    graph, x, y, _ = drawn
    treatments = [name for name in graph.order if name in x]
    rest = [name for name in graph.order if name not in (*x, *y)]
    # each other variable is added before one of the treatments, or never
    plans = itertools.product(range(len(treatments) + 1), repeat=len(rest))
    split = ([[n for n, k in zip(rest, plan, strict=True) if k == i] for i in range(len(treatments))] for plan in plans)
    exists = any(admissible(graph, treatments, y, sets) for sets in split)
    found = sequential_backdoor(graph, x, y)
    assert (found is not None) == exists
    if found is None:
        return
    assert admissible(graph, treatments, y, [sorted(z) for z in found.sets])
    for k, chosen in enumerate(found.sets):
        for name in chosen:
            less = [sorted(z - {name}) if i == k else sorted(z) for i, z in enumerate(found.sets)]
            assert not admissible(graph, treatments, y, less)
    model = random_model(graph, np.random.default_rng(0))
    value = found.effect.evaluate(model.law(), graph.order)
    np.testing.assert_allclose(value, model.effect(found.effect.query.outcome, treatments), atol=1e-12)
    assert isinstance(identify(graph, y, do=x), Identifiable)


def test_time_varying_confounder_of_reference_c5():
    found = sequential_backdoor(TIME_VARYING, ["A1", "A0"], "Y")
    assert found.treatments == ("A0", "A1")
    assert found.sets == (frozenset(), frozenset({"L1"}))
    assert str(found.effect) == "P(Y | do(A0, A1)) = sum_{L1} P(L1 | A0) P(Y | A0, L1, A1)"
    one = dict.fromkeys([("A0", "L1"), ("U", "L1"), ("L1", "A1"), ("A1", "Y"), ("L1", "Y"), ("U", "Y")], 1.0)
    model = LinearModel(one, dict.fromkeys(["A0", "U", "L1", "A1", "Y"], 1.0))
    for effect in (found.effect, identify(TIME_VARYING, "Y", do=["A0", "A1"])):
        weights, variance = gaussian_effect(effect, model)
        # E[Y | do(a0, a1)] = a0 + a1, with variance 6
        np.testing.assert_allclose([*weights, variance], [1, 1, 6])
    # regressions, which are not the effect
    covariance = model.covariance()
    at = [model.names.index(name) for name in ("A0", "A1", "L1", "Y")]
    c = covariance[np.ix_(at, at)]
    np.testing.assert_allclose(np.linalg.solve(c[:2, :2], c[:2, 3]), [0, 2], atol=1e-12)
    np.testing.assert_allclose(np.linalg.solve(c[:3, :3], c[:3, 3]), [-0.5, 1, 1.5])


def test_feedback_through_a_policy():
    process = TimeGraph([("s[t]", "s[t+1]"), ("s[t]", "a[t]"), ("a[t]", "s[t+1]")]).unroll(3)
    found = sequential_backdoor(process, ["a[0]", "a[1]", "a[2]"], "s[3]")
    assert found.sets == ({"s[0]"}, {"s[1]"}, {"s[2]"})


def test_what_may_be_adjusted_for_can_be_limited():
    graph = CausalGraph([("B", "X"), ("A", "B"), ("A", "Y"), ("X", "Y")])
    assert sequential_backdoor(graph, "X", "Y", allowed=["A"]).sets == ({"A"},)
    assert sequential_backdoor(graph, "X", "Y", allowed=[]) is None
    assert sequential_backdoor(BOW, "X", "Y") is None


def test_nonsense_is_refused():
    with pytest.raises(SpecError, match="at least one treatment"):
        sequential_backdoor(BOW, [], "Y")
    with pytest.raises(SpecError, match="common variables"):
        sequential_backdoor(BOW, "X", ["X", "Y"])
