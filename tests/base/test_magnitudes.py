import pytest
import torch
from torch import Tensor

from bayeswm.base.magnitudes import all_below, any_missing

NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("place", [0, 17, 999])
@pytest.mark.parametrize("value", [0.0, -3.0, 3.0, 2.999, NAN, INF, -INF])
def test_they_say_what_the_slow_way_says(dtype: torch.dtype, place: int, value: float) -> None:
    x = torch.rand(10, 100, generator=torch.Generator().manual_seed(0), dtype=dtype) - 0.5
    x.view(-1)[place] = value
    for seen in (x, x.mT, x[:, 1:]):
        assert all_below(seen) == bool(seen.isfinite().all())
        assert all_below(seen, 3.0) == bool((seen.abs() < 3.0).all())
        assert any_missing(seen) == bool(seen.isnan().any())


@pytest.mark.parametrize("blank", [torch.empty(0), torch.empty(3, 0)])
def test_of_nothing_nothing_is_large_or_missing(blank: Tensor) -> None:
    assert all_below(blank, 0.0)
    assert not any_missing(blank)


def test_a_gradient_is_no_concern_of_theirs() -> None:
    x = torch.ones(3, requires_grad=True)
    assert all_below(2 * x)
    assert not any_missing(2 * x)
