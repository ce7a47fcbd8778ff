"""Bounds against linear programs over all response-function models: they hold in each, and some model attains them."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import linprog

import bayeswm as bwm
from bayeswm.causal import benefit_bounds, causation_bounds, joint_bounds

# a unit: whether it takes the treatment by itself, and its outcome without and with it
UNITS = list(itertools.product((0, 1), repeat=3))
MASSES = st.lists(st.floats(0.0, 1.0), min_size=8, max_size=8).filter(lambda v: sum(v) > 0.1)


def share(law: np.ndarray, event: object) -> float:
    return float(sum(p for p, unit in zip(law, UNITS, strict=True) if event(*unit)))  # pyright: ignore[reportCallIssue]


def facts(law: np.ndarray) -> tuple[float, float, list[list[float]]]:
    treated, untreated = share(law, lambda x, y0, y1: y1), share(law, lambda x, y0, y1: y0)
    observed = [[share(law, lambda x, y0, y1, a=a, b=b: x == a and (y0, y1)[x] == b) for b in (0, 1)] for a in (0, 1)]
    return treated, untreated, observed


def extremes(values: list[float], rows: list[list[float]], right: list[float]) -> tuple[float, float]:
    """Return the least and the largest value over all laws that satisfy rows @ law = right."""
    found = [linprog(sign * np.array(values), A_eq=rows, b_eq=right, bounds=(0, 1)) for sign in (1, -1)]
    assert all(one.status == 0 for one in found)
    return found[0].fun, -found[1].fun


@given(MASSES)
def test_causation_against_all_models_with_the_same_numbers(masses: list[float]) -> None:
    law = np.array(masses) / sum(masses)
    treated, untreated, observed = facts(law)
    found = causation_bounds(treated, untreated, observed=observed)
    tests = [lambda x, y0, y1: y1, lambda x, y0, y1: y0, lambda x, y0, y1: 1]
    tests += [lambda x, y0, y1, a=a, b=b: x == a and (y0, y1)[x] == b for a in (0, 1) for b in (0, 1)]
    rows = [[float(test(*unit)) for unit in UNITS] for test in tests]
    right = [float(np.dot(row, law)) for row in rows]
    both = [float(y1 > y0) for _, y0, y1 in UNITS]
    assert tuple(found.both) == pytest.approx(extremes(both, rows, right), abs=1e-6)
    assert found.both.lower - 1e-9 <= np.dot(both, law) <= found.both.upper + 1e-9
    for bounds, own in ((found.necessity, observed[1][1]), (found.sufficiency, observed[0][0])):
        if own < 1e-3:  # the program's own tolerance, divided by it, would be seen
            continue
        kind = int(bounds is found.necessity)
        wanted = [float(x == kind and y1 > y0) for x, y0, y1 in UNITS]
        assert bounds is not None
        low, high = extremes(wanted, rows, right)
        assert tuple(bounds) == pytest.approx((low / own, high / own), abs=1e-4)
        assert bounds.lower - 1e-9 <= np.dot(wanted, law) / own <= bounds.upper + 1e-9
    alone = causation_bounds(treated, untreated)
    assert tuple(alone.both) == pytest.approx(extremes(both, rows[:3], right[:3]), abs=1e-6)


LAWS = st.integers(1, 4).flatmap(
    lambda n: st.tuples(*[st.lists(st.floats(0.01, 1.0), min_size=n, max_size=n) for _ in range(2)])
)


@given(LAWS)
def test_joint_laws_against_all_couplings(laws: tuple[list[float], list[float]]) -> None:
    p, q = (np.array(v) / sum(v) for v in laws)
    n = len(p)
    cells = list(itertools.product(range(n), repeat=2))
    rows = [[float(i == k) for i, _ in cells] for k in range(n)] + [[float(j == k) for _, j in cells] for k in range(n)]
    right = [*p, *q]
    low, high = joint_bounds(p, q)
    k = n - 1
    value = extremes([float(i == 0 and j == k) for i, j in cells], rows, right)
    assert (low[0, k], high[0, k]) == pytest.approx(value, abs=1e-6)
    above = extremes([float(j > i) for i, j in cells], rows, right)
    assert tuple(benefit_bounds(p, q)) == pytest.approx(above, abs=1e-6)


def test_two_classes_are_the_same_question() -> None:
    found = causation_bounds(0.7, 0.4).both
    assert tuple(benefit_bounds([0.6, 0.4], [0.3, 0.7])) == pytest.approx(tuple(found))
    assert joint_bounds([0.6, 0.4], [0.3, 0.7])[1][0, 1] == pytest.approx(found.upper)


def test_numbers_that_no_model_has() -> None:
    with pytest.raises(bwm.DataError, match="one population"):
        causation_bounds(0.1, 0.5, observed=[[0.25, 0.25], [0.1, 0.4]])
    with pytest.raises(bwm.DataError, match="untreated= as a probability"):
        causation_bounds(0.1, 1.5)
    with pytest.raises(bwm.DataError, match="sum to 1"):
        joint_bounds([0.5, 0.6], [1.0])
    with pytest.raises(bwm.DataError, match="same classes"):
        benefit_bounds([0.5, 0.5], [1.0])
    assert causation_bounds(0.5, 0.5, observed=[[0.5, 0.5], [0.0, 0.0]]).necessity is None
