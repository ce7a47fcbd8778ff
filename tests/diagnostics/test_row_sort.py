"""Two ways of sorting rows that give the same rows."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bayeswm.diagnostics import row_sort
from bayeswm.diagnostics.row_sort import sort_by_quarters, sort_rows


@given(st.integers(1, 5), st.integers(1, 70), st.booleans(), st.integers(0, 1000))
def test_quarters_sort_like_numpy(rows: int, quarter: int, ties: bool, seed: int) -> None:
    x = np.random.default_rng(seed).standard_normal((rows, 4 * quarter))
    x = np.round(x) + 0.0 if ties else x
    x[0, -1] = np.inf
    found = sort_by_quarters(x.copy(), np.empty_like(x))
    assert np.array_equal(found, np.sort(x, axis=1))


@pytest.mark.parametrize("pays", [True, False])
@pytest.mark.parametrize("n", [3, 256, 260, 998, 1000, 1024, 1028])
@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_rows_of_any_length_are_sorted(pays: bool, n: int, kind: type, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(row_sort, "_quarters_pay", lambda: pays)
    x = np.random.default_rng(n).standard_normal((7, n)).astype(kind)
    assert np.array_equal(sort_rows(x.copy(), np.empty_like(x)), np.sort(x, axis=1))


def test_the_faster_way_is_known() -> None:
    assert row_sort._quarters_pay() in (True, False)
