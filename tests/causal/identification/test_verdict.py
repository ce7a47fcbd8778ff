"""Verdicts as text and as numbers."""

import numpy as np
import pytest

from bayeswm.base.errors import DataError, SpecError, UnknownVariableError
from bayeswm.causal import Query, Unknown, identify
from tests.causal.discrete_models import random_model
from tests.causal.random_graphs import BACK_DOOR, BOW, NAPKIN


@pytest.mark.parametrize(
    ("query", "text"),
    [
        (Query(("Y",), ("X",)), "P(Y | do(X))"),
        (Query(("Y", "Z"), ("X", "W"), ("A",)), "P(Y, Z | do(X, W), A)"),
        (Query(("Y",), (), ("A", "B")), "P(Y | A, B)"),
        (Query(("Y",), ()), "P(Y)"),
    ],
)
def test_queries_as_text(query, text):
    assert str(query) == text


def test_axes_are_those_of_the_query():
    model = random_model(BACK_DOOR, np.random.default_rng(0), values=3)
    found = identify(BACK_DOOR, ["Y", "Z"], do="X")
    value = found.evaluate(model.law(), BACK_DOOR.order)
    assert value.shape == (3, 3, 3)
    np.testing.assert_allclose(value, model.effect(("Y", "Z"), ("X",)))
    np.testing.assert_allclose(value.sum((1, 2)), 1)
    # the order of the table's axes does not matter
    turned = found.evaluate(model.law().transpose(2, 0, 1), [BACK_DOOR.order[i] for i in (2, 0, 1)])
    np.testing.assert_allclose(turned, value)


def test_variable_that_the_effect_does_not_depend_on_is_averaged_over():
    model = random_model(NAPKIN, np.random.default_rng(0))
    found = identify(NAPKIN, "Y", do="X")
    assert found.estimand.free == {"R", "X", "Y"}
    np.testing.assert_allclose(found.evaluate(model.law(), NAPKIN.order), model.effect(("Y",), ("X",)))
    # a table of another origin: the mean over R with its probabilities
    other = np.random.default_rng(1).dirichlet(np.ones(16)).reshape(2, 2, 2, 2)
    by_value = found.estimand.evaluate(other, NAPKIN.order).along(("R", "X", "Y"))
    want = np.einsum("r,rxy->xy", other.sum((0, 2, 3)), by_value)
    np.testing.assert_allclose(found.evaluate(other, NAPKIN.order), want)


def test_table_without_overlap_gives_no_number():
    joint = np.zeros((2, 2, 2))  # Z, X, Y: X is always 0 where Z is 1
    joint[0] = 0.125
    joint[1, 0] = 0.25
    with pytest.raises(DataError, match="never happened"):
        identify(BACK_DOOR, "Y", do="X").evaluate(joint, BACK_DOOR.order)


def test_tables_must_fit():
    found = identify(BACK_DOOR, "Y", do="X")
    with pytest.raises(UnknownVariableError, match="'Z'"):
        found.evaluate(np.full((2, 2), 0.25), ["X", "Y"])
    with pytest.raises(SpecError, match="3 different names"):
        found.evaluate(np.full((2, 2, 2), 0.125), ["X", "Y"])


def test_verdicts_as_text():
    assert str(identify(BACK_DOOR, "Y", do="X")) == "P(Y | do(X)) = sum_{Z} P(Z) P(Y | Z, X)"
    assert "is not identifiable: hidden common causes join X and Y" in str(identify(BOW, "Y", do="X"))
    assert "was not decided: too large" in str(Unknown(Query(("Y",), ("X",)), "too large"))
