"""Ranks among weighted samples."""

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.stats import norm, rankdata

from bayeswm.diagnostics.maps import scores_among
from bayeswm.diagnostics.ranks import ranked, scores_of, values_at, weight_of_each

numbers = st.floats(-100, 100, width=32)
samples = hnp.arrays(np.float64, st.integers(1, 12), elements=numbers)


@given(samples)
def test_scores_are_those_of_mean_ranks(x: np.ndarray) -> None:
    expected = norm.ppf((rankdata(x) - 0.5) / len(x))
    rows = torch.from_numpy(x)
    assert np.allclose(scores_among(rows, ranked(rows, torch.ones_like(rows))), expected, atol=1e-9)


@given(samples, st.data())
def test_equal_weights_are_repeats(x: np.ndarray, data: st.DataObject) -> None:
    times = data.draw(hnp.arrays(np.int64, len(x), elements=st.integers(0, 3)))
    rows, weight = torch.from_numpy(x), torch.from_numpy(times).double()
    if not times.any():
        assert values_at(torch.zeros(1), ranked(rows, weight)).isnan().all()
        return
    many = torch.from_numpy(np.repeat(x, times))
    z = torch.linspace(-3, 3, 13, dtype=torch.float64)
    one, other = ranked(rows, weight), ranked(many, torch.ones_like(many))
    assert torch.allclose(one.slope, other.slope, atol=1e-9)
    assert torch.allclose(values_at(z, one), values_at(z, other), atol=1e-7)
    assert torch.allclose(scores_of(many, one), scores_of(many, other), atol=1e-9)


@given(samples)
def test_curve_is_monotone_and_meets_the_samples(x: np.ndarray) -> None:
    rows = torch.from_numpy(x)
    among = ranked(rows, torch.ones_like(rows))
    z = torch.linspace(-6, 6, 97, dtype=torch.float64)
    assert bool((values_at(z, among).diff() >= -1e-9).all())
    assert torch.allclose(values_at(scores_among(rows, among), among), rows, atol=1e-9)


@given(hnp.arrays(np.float64, st.integers(2, 12), elements=st.integers(-50, 50).map(float), unique=True))
def test_inverse(x: np.ndarray) -> None:
    rows = torch.from_numpy(x)
    among = ranked(rows, torch.ones_like(rows))
    y = torch.linspace(-100, 100, 41, dtype=torch.float64)
    assert torch.allclose(values_at(scores_of(y, among), among), y, atol=1e-8)


def test_no_spread() -> None:
    among = ranked(torch.full((4,), 2.0), torch.ones(4))
    assert scores_of(torch.tensor([1.0, 2.0, 3.0]), among).tolist() == [-float("inf"), 0.0, float("inf")]
    assert values_at(torch.tensor([-3.0, 0.0, 5.0]), among).tolist() == [2.0, 2.0, 2.0]


def test_samples_without_weight_do_not_count() -> None:
    rows = torch.tensor([float("nan"), 1.0, 3.0, 1e9], dtype=torch.float64)
    among = ranked(rows, torch.tensor([1.0, 1.0, 1.0, 0.0]).double())
    plain = ranked(rows[1:3], torch.ones(2).double())
    z = torch.linspace(-3, 3, 7, dtype=torch.float64)
    assert torch.allclose(values_at(z, among), values_at(z, plain))
    assert torch.allclose(scores_of(z, among), scores_of(z, plain))


@settings(max_examples=20)
@given(hnp.arrays(np.bool_, (3, 4), elements=st.booleans()))
def test_weights_of_worlds_are_shared_out(valid: np.ndarray) -> None:
    weight = torch.tensor([0.2, 0.3, 0.5])
    each = weight_of_each(weight, torch.from_numpy(valid))
    assert torch.allclose(each.sum(1), torch.where(torch.from_numpy(valid.any(1)), weight, 0.0))


def test_values_are_differentiable_in_the_samples() -> None:
    x = torch.tensor([0.3, -1.0, 2.0], dtype=torch.float64, requires_grad=True)
    z = torch.tensor([-2.0, -0.2, 0.4, 3.0], dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda x: values_at(z, ranked(x, torch.ones_like(x))), (x,))
