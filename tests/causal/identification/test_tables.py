"""Arrays with named axes."""

import numpy as np
import pytest

from bayeswm.base.errors import DataError, SpecError, UnknownVariableError
from bayeswm.causal.identification.tables import Table, product_of, ratio_of, table_of

JOINT = np.arange(1.0, 25.0).reshape(2, 3, 4) / 300


def test_marginals_against_numpy():
    table = table_of(JOINT, ["a", "b", "c"])
    found = table.marginal(("c", "a"))
    assert found.axes == ("a", "c")
    np.testing.assert_allclose(found.values, JOINT.sum(1))
    np.testing.assert_allclose(table.along(["c", "d", "a", "b"])[:, 0], JOINT.transpose(2, 0, 1))


def test_products_and_ratios_align_axes():
    left, right = Table(JOINT.sum(2), ("a", "b")), Table(JOINT.sum(0).T, ("c", "b"))
    found = product_of([left, right])
    np.testing.assert_allclose(found.along(["a", "b", "c"]), np.einsum("ab,bc->abc", JOINT.sum(2), JOINT.sum(0)))
    np.testing.assert_allclose(ratio_of(found, right).marginal(("a", "b")).along(["a", "b"]), 4 * left.values)
    assert product_of([]).values == 1


def test_zero_wins_over_undefined():
    undefined = ratio_of(Table(np.zeros(2), ("a",)), Table(np.array([0.0, 1.0]), ("a",)))
    np.testing.assert_array_equal(undefined.values, [np.nan, 0.0])
    assert product_of([undefined, Table(np.zeros(2), ("a",))]).values.tolist() == [0, 0]
    with pytest.raises(DataError, match="1 of 2 values over \\(a\\)"):
        undefined.defined()


@pytest.mark.parametrize(
    ("joint", "axes", "error", "message"),
    [
        (JOINT, ["a", "b"], SpecError, "expected 3 different names"),
        (JOINT, ["a", "b", "a"], SpecError, "expected 3 different names"),
        (2 * JOINT, ["a", "b", "c"], DataError, "sum to 1, got 2"),
        (np.array([1.5, -0.5]), ["a"], DataError, "negative"),
        (np.array([np.nan, 1.0]), ["a"], DataError, "not finite"),
    ],
)
def test_what_is_no_law(joint, axes, error, message):
    with pytest.raises(error, match=message):
        table_of(joint, axes)


def test_unknown_axis():
    with pytest.raises(UnknownVariableError, match="speed"):
        table_of(np.array([0.5, 0.5]), ["speed"]).marginal(("sped",))
