"""Formulas as text and as LaTeX."""

from bayeswm.causal import Probability, Product, Ratio, Sum
from bayeswm.causal.identification.notation import LATEX, TEXT

INNER = Sum(("X",), Product((Probability(("X",)), Probability(("Y",), ("X", "Z")))))


def test_summed_variable_with_the_name_of_a_free_one_gets_a_prime():
    both = Product((Probability(("Z",), ("X",)), INNER))
    assert str(both) == "P(Z | X) sum_{X'} P(X') P(Y | X', Z)"
    assert str(Sum(("Z",), both)) == "sum_{Z} P(Z | X) sum_{X'} P(X') P(Y | X', Z)"


def test_each_inner_sum_over_the_same_name_gets_one_prime_more():
    nested = Sum(("X",), Product((Probability(("X",), ("Y",)), INNER)))
    assert str(nested) == "sum_{X} P(X | Y) sum_{X'} P(X') P(Y | X', Z)"
    assert str(Product((Probability(("X",)), nested))).endswith("sum_{X'} P(X' | Y) sum_{X''} P(X'') P(Y | X'', Z)")


def test_a_sum_before_another_factor_stands_in_parentheses():
    assert str(Product((INNER, Probability(("Z",))))) == "(sum_{X} P(X) P(Y | X, Z)) P(Z)"
    assert str(Product(())) == "1"


def test_latex():
    ratio = Ratio(Sum(("a[0]",), Probability(("a[0]", "push"), ("s_1",))), Probability(("push",), ("s_1",)))
    assert ratio.latex() == (
        r"\frac{\sum_{a_{0}} P(a_{0}, \mathrm{push} \mid \mathrm{s\_1})}{P(\mathrm{push} \mid \mathrm{s\_1})}"
    )


def test_listed_names():
    assert TEXT.listed(["a", "b"], {"a": "", "b": "'"}) == "a, b'"
    assert LATEX.listed(["push"], {"push": "'"}) == r"\mathrm{push}'"
