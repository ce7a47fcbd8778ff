"""The calibration check itself, on a normal mean: it passes the exact posterior and sees wrong ones."""

import math

import pytest
import torch
from torch import Tensor

from bayeswm.base.random import make_generator
from tests.inference.sbc import combined_p, ranks, uniform_p
from tests.statistical.checks import BUDGET

pytestmark = pytest.mark.statistical
DRAWS, N = 63, 5


def p_value(*, widen: float = 1.0, shift: float = 0.0, replications: int = 300) -> float:
    def prior(g: torch.Generator) -> dict[str, Tensor]:
        return {"mean": torch.randn(2, generator=g, dtype=torch.float64)}

    def simulate(truth: dict[str, Tensor], g: torch.Generator) -> Tensor:
        return truth["mean"] + torch.randn(N, 2, generator=g, dtype=torch.float64)

    def infer(data: Tensor, g: torch.Generator) -> dict[str, Tensor]:
        # prior N(0, 1) and N observations of variance 1: N(sum / (N + 1), 1 / (N + 1))
        scale = 1 / math.sqrt(N + 1)
        noise = torch.randn(DRAWS, 2, generator=g, dtype=torch.float64)
        return {"mean": data.sum(0) / (N + 1) + shift * scale + widen * scale * noise}

    found = ranks(prior, simulate, infer, replications=replications, draws=DRAWS, generator=make_generator(0))
    assert found["mean"].shape == (replications, 2)
    return combined_p(uniform_p(found, draws=DRAWS))


def test_an_exact_posterior_is_calibrated() -> None:
    assert p_value() > BUDGET


@pytest.mark.parametrize("wrong", [{"widen": 0.6}, {"widen": 1.7}, {"shift": 0.6}])
def test_a_wrong_posterior_is_seen(wrong: dict[str, float]) -> None:
    assert p_value(**wrong) < BUDGET


def test_p_values_of_uniform_ranks_are_honest() -> None:
    g = make_generator(1)
    p = [combined_p(uniform_p({"x": torch.randint(0, 32, (80,), generator=g)}, draws=31)) for _ in range(400)]
    # Bonferroni's correction makes them conservative; at most 5 % below 0.05, within 4 standard errors
    assert sum(v < 0.05 for v in p) / 400 < 0.05 + 4 * math.sqrt(0.05 * 0.95 / 400)


def test_equal_numbers_are_ordered_at_random() -> None:
    found = ranks(
        lambda g: {"x": torch.tensor(1.0)},
        lambda truth, g: None,
        lambda data, g: {"x": torch.ones(9)},
        replications=400,
        draws=9,
        generator=make_generator(0),
    )
    assert combined_p(uniform_p(found, draws=9)) > BUDGET


def test_too_few_draws_are_refused() -> None:
    with pytest.raises(ValueError, match="5 draws, 9 wanted"):
        ranks(
            lambda g: {"x": torch.tensor(1.0)},
            lambda truth, g: None,
            lambda data, g: {"x": torch.ones(5)},
            replications=1,
            draws=9,
            generator=make_generator(0),
        )
