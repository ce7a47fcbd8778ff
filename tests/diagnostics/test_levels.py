"""Levels between 0 and 1, or an error that says so."""

import pytest

import bayeswm as bwm
from bayeswm.diagnostics.levels import check_level, check_levels


@pytest.mark.parametrize("level", [0.0, 1.0, 90, -0.1, float("nan")])
def test_what_is_no_share_is_refused(level: float) -> None:
    with pytest.raises(bwm.SpecError, match=r"expected a level between 0 and 1, got .*; 0\.9 is a 90 % interval"):
        check_level(level)
    with pytest.raises(bwm.SpecError, match="expected levels between 0 and 1"):
        check_levels([0.5, level])


def test_levels_rise_without_repeats() -> None:
    assert check_level(0.9) == 0.9
    assert check_levels([0.9, 0.5, 0.9]) == (0.5, 0.9)
    with pytest.raises(bwm.SpecError, match="levels between 0 and 1"):
        check_levels([])
