"""Simplified formulas have the value of the plain ones."""

import hypothesis.strategies as st
import numpy as np
from hypothesis import given

from bayeswm.causal import Probability, Product, Ratio, Sum
from bayeswm.causal.identification.algebra import chain, factors_of, product, ratio, sum_over

AXES = ("A", "B", "C", "D")
JOINT = np.random.default_rng(0).dirichlet(np.ones(24)).reshape(2, 3, 2, 2)


@st.composite
def probabilities(draw):
    order = draw(st.permutations(AXES))
    ends = sorted(draw(st.tuples(st.integers(1, 4), st.integers(1, 4))))
    return Probability(tuple(order[: ends[0]]), tuple(order[ends[0] : ends[1]]))


@st.composite
def formulas(draw, depth=2):
    """A plain formula and the same one by the simplifying functions."""
    if depth == 0:
        plain = draw(probabilities())
        return plain, plain
    parts = draw(st.lists(formulas(depth=depth - 1), min_size=1, max_size=3))
    plain, simple = Product(tuple(p for p, _ in parts)), product(s for _, s in parts)
    if plain.free and (over := tuple(draw(st.sets(st.sampled_from(sorted(plain.free)), max_size=2)))):
        plain, simple = Sum(over, plain), sum_over(over, simple)
    if draw(st.booleans()):
        below, simple_below = draw(formulas(depth=depth - 1))
        plain, simple = Ratio(plain, below), ratio(simple, simple_below)
    return plain, simple


def full(formula):
    return np.broadcast_to(formula.evaluate(JOINT, AXES).along(AXES), JOINT.shape)


@given(formulas())
def test_value_is_kept(drawn):
    plain, simple = drawn
    np.testing.assert_allclose(full(simple), full(plain), rtol=1e-9)
    np.testing.assert_allclose(full(chain(simple)), full(plain), rtol=1e-9)


def test_probability_sums_to_one():
    assert sum_over(["A"], Probability(("A",), ("B",))) == Product(())
    assert sum_over(["A"], Probability(("A", "B"))) == Probability(("B",))


def test_what_depends_on_a_summed_variable_first_goes_first():
    joint = product([Probability(("A",)), Probability(("B",), ("A",)), Probability(("C",), ("B",))])
    assert sum_over(["B", "C"], joint) == Probability(("A",))
    # a chain of two is one probability, from which the variable can be summed out
    assert str(sum_over(["A"], product([Probability(("A",)), Probability(("B",), ("A",))]))) == "P(B)"


def test_common_factors_cancel():
    above = product([Probability(("A",)), Probability(("B", "C"), ("A",))])
    assert ratio(above, Probability(("A",))) == Probability(("B", "C"), ("A",))
    assert ratio(above, product([Probability(("C",), ("A",)), Probability(("A",))])) == Probability(("B",), ("C", "A"))
    assert factors_of(ratio(above, above)) == ()
