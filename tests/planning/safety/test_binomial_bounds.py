"""Confidence bounds against their definitions and SciPy's."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

import bayeswm as bwm
from bayeswm.planning import BinomialBound, ClopperPearson, Wilson

PROBABILITIES, DRAWS = st.floats(0.01, 0.4), st.integers(600, 20_000)


@given(PROBABILITIES, DRAWS, st.sampled_from([0.8, 0.95, 0.99]))
def test_clopper_pearson_is_the_largest_count_that_scipy_bounds_by_the_probability(
    probability: float, draws: int, confidence: float
) -> None:
    count = round(ClopperPearson(confidence).share(probability, draws) * draws)
    upper = [stats.beta.ppf(confidence, k + 1, draws - k) for k in (count, count + 1)]
    assert upper[0] <= probability * (1 + 1e-9)
    assert upper[1] > probability * (1 - 1e-9)


@given(PROBABILITIES, DRAWS, st.sampled_from([0.8, 0.95, 0.99]))
def test_wilsons_upper_bound_of_the_share_is_the_probability(probability: float, draws: int, confidence: float) -> None:
    k, z = Wilson(confidence).share(probability, draws), stats.norm.ppf(confidence)
    center = (k + z**2 / (2 * draws)) / (1 + z**2 / draws)
    half = z / (1 + z**2 / draws) * math.sqrt(k * (1 - k) / draws + z**2 / (4 * draws**2))
    assert center + half == pytest.approx(probability, rel=1e-9)


@given(PROBABILITIES, DRAWS)
def test_more_confidence_allows_less_and_more_draws_allow_more(probability: float, draws: int) -> None:
    for bound in (Wilson, ClopperPearson):
        sure, unsure = (bound(c).share(probability, draws) for c in (0.99, 0.8))
        assert sure <= unsure <= probability
        assert bound(0.99).share(probability, 4 * draws) > sure - 1 / draws


@pytest.mark.parametrize(("bound", "least"), [(ClopperPearson(0.95), 59), (Wilson(0.95), 52)])
def test_too_few_draws_are_refused_with_how_many_are_needed(bound: BinomialBound, least: int) -> None:
    assert bound.share(0.05, least) >= 0
    with pytest.raises(bwm.SpecError, match=f"at least {least} independent draws"):
        bound.share(0.05, least - 1)


@pytest.mark.parametrize("confidence", [0.4, 1.0, float("nan")])
def test_a_confidence_that_is_none_is_refused(confidence: float) -> None:
    with pytest.raises(bwm.SpecError, match="confidence"):
        Wilson(confidence)
