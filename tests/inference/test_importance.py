import math

import pytest
import torch

from bayeswm.base import FitError
from bayeswm.base.random import make_generator
from bayeswm.inference import smooth_weights
from tests.statistical.checks import BUDGET

F64 = torch.float64


def draws(n: int = 20_000) -> torch.Tensor:
    return torch.randn(n, generator=make_generator(0), dtype=F64)


@pytest.mark.statistical
def test_weights_shift_a_normal_law() -> None:
    x, shift = draws(), 0.5
    weights = smooth_weights(shift * x)
    assert float(weights.log_weight.exp().sum()) == pytest.approx(1)
    # exact: n / E[w^2] with w log-normal
    assert weights.size == pytest.approx(len(x) * math.exp(-(shift**2)), rel=0.05)
    error = math.sqrt(1 / weights.size)
    z = (float(weights.log_weight.exp() @ x) - shift) / error
    assert math.erfc(abs(z) / math.sqrt(2)) > BUDGET


def test_equal_ratios_are_equal_weights() -> None:
    weights = smooth_weights(torch.zeros(100, dtype=F64))
    torch.testing.assert_close(weights.log_weight, torch.full((100,), -math.log(100), dtype=F64))
    assert weights.size == pytest.approx(100)


def test_impossible_draws_have_no_weight() -> None:
    x = draws(1000)
    ratio = torch.where(x > 2, -torch.inf, 0.1 * x)
    weights = smooth_weights(ratio)
    assert bool((weights.log_weight[x > 2] == -torch.inf).all())
    assert bool(weights.log_weight[x <= 2].isfinite().all())


@pytest.mark.parametrize("size", [5.0, 50.0])
def test_weights_that_cannot_be_relied_on(size: float) -> None:
    with pytest.raises(FitError, match="a tenth of 20000 draws and Pareto k"):
        smooth_weights(size * draws())


def test_no_draw_is_possible() -> None:
    with pytest.raises(FitError, match="got 0 and inf"):
        smooth_weights(torch.full((10,), -torch.inf, dtype=F64))
