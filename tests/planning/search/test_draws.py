import math

import numpy as np
import pytest
import torch
from scipy import stats

import bayeswm as bwm
from bayeswm.planning import Limits, Mean, Problem
from bayeswm.planning.search.draws import colored, evenly, normally
from tests.planning.systems import spring_worlds, squares

LIKE = torch.empty(1, dtype=torch.float64)


def problem(horizon: int = 12, starts: tuple[int, ...] = (2, 3)) -> Problem:
    limits = Limits.between(-1.0, 3.0, like=LIKE)
    state = torch.zeros(*starts, 2)
    return Problem(squares(), spring_worlds(noise=0.0), state, horizon=horizon, particles=1, risk=Mean(), limits=limits)


def test_draws_are_shared_by_all_starts() -> None:
    g = torch.Generator().manual_seed(0)
    for drawn in (evenly(problem(), 7, g), normally(problem(), 7, g), normally(problem(), 7, g, exponent=2.0)):
        assert drawn.shape == (7, 1, 1, 12, 1)
        assert drawn.dtype == torch.float64
    alone = evenly(problem(starts=()), 7, torch.Generator().manual_seed(0))
    assert torch.equal(alone, evenly(problem(), 7, torch.Generator().manual_seed(0))[:, 0, 0])


@pytest.mark.statistical
def test_uniform_between_the_bounds() -> None:
    drawn = evenly(problem(), 500, torch.Generator().manual_seed(0)).flatten().numpy()
    assert stats.kstest(drawn, stats.uniform(-1.0, 4.0).cdf).pvalue > 1e-5


@pytest.mark.parametrize("steps", [1, 2, 5, 8, 30])
@pytest.mark.parametrize("exponent", [0.5, 1.0, 2.0, 4.0])
def test_covariance_of_coloured_noise(steps: int, exponent: float) -> None:
    """The filter is linear: its matrix M gives the covariance M M', by definition circulant with 1 on the diagonal."""
    matrix = colored(torch.eye(steps, dtype=torch.float64)[..., None], exponent)[..., 0].T.numpy()
    covariance = matrix @ matrix.T
    frequency = np.maximum(np.minimum(np.arange(steps), steps - np.arange(steps)), 1) / steps
    power = frequency**-exponent
    lags = np.arange(steps)
    expected = [(power * np.cos(2 * math.pi * np.arange(steps) * lag / steps)).sum() / power.sum() for lag in lags]
    for i in range(steps):
        np.testing.assert_allclose(covariance[i], np.roll(expected, i), atol=1e-12)


def test_white_noise_is_left_alone() -> None:
    white = torch.randn(4, 9, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    torch.testing.assert_close(colored(white, 0.0), white, rtol=0, atol=1e-14)


def test_single_precision_stays() -> None:
    assert colored(torch.randn(3, 10, 1), 2.0).dtype == torch.float32


def test_no_generator() -> None:
    for draw in (evenly, normally):
        with pytest.raises(bwm.SpecError, match="to draw candidates"):
            draw(problem(), 3, None)
