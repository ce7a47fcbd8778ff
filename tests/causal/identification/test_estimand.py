"""Formulas evaluated on tables, against numpy by hand."""

import numpy as np
import pytest

from bayeswm.base.errors import DataError, UnknownVariableError
from bayeswm.causal import Probability, Product, Ratio, Sum

RNG = np.random.default_rng(0)
JOINT = RNG.dirichlet(np.ones(24)).reshape(2, 3, 4)
AXES = ("X", "Z", "Y")


def test_probability():
    found = Probability(("Y",), ("X",)).evaluate(JOINT, AXES)
    np.testing.assert_allclose(found.along(("X", "Y")), JOINT.sum(1) / JOINT.sum((1, 2))[:, None])


def test_back_door_formula():
    formula = Sum(("Z",), Product((Probability(("Z",)), Probability(("Y",), ("X", "Z")))))
    assert formula.free == {"X", "Y"}
    by_hand = np.einsum("z,xzy->xy", JOINT.sum((0, 2)), JOINT / JOINT.sum(2, keepdims=True))
    np.testing.assert_allclose(formula.evaluate(JOINT, AXES).along(("X", "Y")), by_hand)


def test_summed_variable_is_another_one_than_the_free_one_of_its_name():
    inner = Sum(("X",), Product((Probability(("X",)), Probability(("Y",), ("X", "Z")))))
    formula = Product((Probability(("X",)), inner))
    by_hand = np.einsum("x,w,wzy->xzy", JOINT.sum((1, 2)), JOINT.sum((1, 2)), JOINT / JOINT.sum(2, keepdims=True))
    np.testing.assert_allclose(formula.evaluate(JOINT, AXES).along(AXES), by_hand)


def test_ratio_and_a_sum_over_what_the_term_does_not_depend_on():
    formula = Ratio(Sum(("Z",), Probability(("X",))), Probability(("X",)))
    np.testing.assert_allclose(formula.evaluate(JOINT, AXES).values, [3, 3])


def test_values_that_never_happened_matter_only_where_they_are_needed():
    joint = np.zeros((2, 2, 2))
    joint[0, 0] = [0.2, 0.3]
    joint[1, 0] = [0.1, 0.4]
    # Z = 1 never happens, and the back-door formula gives it no weight
    formula = Sum(("Z",), Product((Probability(("Z",)), Probability(("Y",), ("X", "Z")))))
    np.testing.assert_allclose(formula.evaluate(joint, AXES).along(("X", "Y")), [[0.4, 0.6], [0.2, 0.8]])
    with pytest.raises(DataError, match="never happened"):
        Probability(("Y",), ("X", "Z")).evaluate(joint, AXES)


def test_missing_variable():
    with pytest.raises(UnknownVariableError, match="'Q'"):
        Probability(("Q",)).evaluate(JOINT, AXES)
