import pytest

from bayeswm.base import SpecError
from bayeswm.base.counts import check_counts


def test_what_counts():
    check_counts(worlds=1, particles=10**12)
    check_counts(0, latency=0)
    check_counts()


@pytest.mark.parametrize("wrong", [0, -1, 2.0, "3", True, None])
def test_what_does_not(wrong):
    with pytest.raises(SpecError, match=r"expected an integer particles >= 1, got"):
        check_counts(worlds=1, particles=wrong)


def test_another_least_value():
    with pytest.raises(SpecError, match="latency >= 0, got -1"):
        check_counts(0, latency=-1)
