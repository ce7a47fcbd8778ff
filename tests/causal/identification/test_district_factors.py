"""Factors of districts, against the truth in models whose other variables are all intervened on."""

import itertools

import numpy as np

from bayeswm.causal.identification.district_factors import Blocked, factor_of, pillow
from tests.causal.discrete_models import random_graph, random_model
from tests.causal.random_graphs import BOW, NAPKIN, VERMA


def test_factors_of_random_graphs():
    rng = np.random.default_rng(0)
    blocked = 0
    for _ in range(30):
        graph = random_graph(rng, 4)
        model = random_model(graph, rng)
        for n in (1, 2, 3):
            for some in itertools.combinations(graph.order, n):
                district = graph.mask(some)
                if graph.bits.district(district & -district, within=district) != district:
                    continue
                found = factor_of(graph.bits, district, names=graph.order)
                if isinstance(found, Blocked):
                    blocked += 1
                    assert found.smaller == district
                    continue
                value = found.evaluate(model.law(), graph.order)
                others = tuple(name for name in graph.order if name not in some)
                want = model.effect(some, others)
                got = np.broadcast_to(value.along((*others, *some)), want.shape)
                np.testing.assert_allclose(got, want, atol=1e-12)
    assert blocked > 20


def test_named_cases():
    assert str(factor_of(VERMA.bits, VERMA.mask(["D", "B"]), names=VERMA.order)) == "P(B | A) P(D | A, B, C)"
    assert factor_of(BOW.bits, BOW.mask("Y"), names=BOW.order) == Blocked(0b11, 0b10)
    assert not isinstance(factor_of(NAPKIN.bits, NAPKIN.mask("Y"), names=NAPKIN.order), Blocked)


def test_pillow_separates_from_the_other_earlier_nodes():
    rng = np.random.default_rng(1)
    for _ in range(50):
        graph = random_graph(rng, 6)
        for i, name in enumerate(graph.order):
            beside = graph.names(pillow(graph.bits, i, within=graph.bits.all))
            others = set(graph.order[:i]) - set(beside)
            assert graph.subgraph(graph.order[: i + 1]).d_separated(name, others, given=beside)
