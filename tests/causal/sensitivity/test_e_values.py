import math

import pytest

from bayeswm.base.errors import SpecError
from bayeswm.causal import e_value, e_value_of_difference


@pytest.mark.parametrize(
    ("ratio", "lower", "upper", "point", "limit"),
    [
        (10.73, 8.02, 14.36, 20.9, 15.5),  # smoking and lung cancer
        (3.9, 1.8, 8.7, 7.2, 3.0),  # breast feeding and infant death
        (0.80, 0.71, 0.91, 1.8, 1.4),  # breast feeding and leukaemia
    ],
)
def test_the_numbers_of_the_paper(ratio: float, lower: float, upper: float, point: float, limit: float) -> None:
    found = e_value(ratio, lower=lower, upper=upper)
    assert round(found.point, 1) == pytest.approx(point, abs=0.1)  # the paper rounded the ratio first: 7.26 is 7.2
    assert round(found.limit, 1) == pytest.approx(limit)


def test_a_ratio_and_its_inverse_are_equally_robust() -> None:
    assert e_value(4.0).point == pytest.approx(4 + math.sqrt(12))
    assert e_value(0.25, upper=0.5).point == e_value(4.0, lower=2.0).point
    assert e_value(0.25, upper=0.5).limit == e_value(4.0, lower=2.0).limit


def test_an_interval_around_no_effect_has_no_robustness() -> None:
    assert e_value(1.5, lower=0.9, upper=2.0).limit == 1.0
    assert e_value(0.7, lower=0.4, upper=1.1).limit == 1.0
    assert e_value(1.0, lower=0.5, upper=2.0) == (1.0, 1.0)
    assert math.isnan(e_value(1.5).limit)


def test_differences_become_ratios() -> None:
    """exp(0.91 * 0.5) = 1.5762 and exp(0.455 -+ 1.78 * 0.25) = (1.0101, 2.4596)."""
    found = e_value_of_difference(0.5, standard_error=0.25)
    assert found.point == pytest.approx(1.5762 + math.sqrt(1.5762 * 0.5762), abs=1e-4)
    assert found.limit == pytest.approx(1.0101 + math.sqrt(1.0101 * 0.0101), abs=1e-3)
    assert e_value_of_difference(-0.5, standard_error=0.25) == pytest.approx(found)
    assert math.isnan(e_value_of_difference(0.5).limit)


@pytest.mark.parametrize("given", [{"lower": 1.2}, {"upper": 0.8}, {"lower": 0.0}])
def test_limits_enclose_the_estimate(given: dict[str, float]) -> None:
    with pytest.raises(SpecError, match="limits"):
        e_value(1.0, **given)


def test_nonsense_is_refused() -> None:
    for ratio in (0.0, -1.0, math.inf, math.nan):
        with pytest.raises(SpecError, match="risk ratio"):
            e_value(ratio)
    with pytest.raises(SpecError, match="finite difference"):
        e_value_of_difference(math.nan)
    with pytest.raises(SpecError, match="standard_error"):
        e_value_of_difference(0.1, standard_error=-1.0)
