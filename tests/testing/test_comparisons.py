"""P-values of sound samples are p-values; those of unsound ones are tiny."""

import math

import pytest
import torch

from bayeswm.base.random import make_generator, standard_normal
from bayeswm.testing.comparisons import distribution_p_value, mean_p_value, normal_tail, variance_p_value, worst

REPEATS, SIZE = 8000, 512
POINTS = torch.linspace(-2, 2, 9, dtype=torch.float64)


def p_values(samples: torch.Tensor) -> dict[str, torch.Tensor]:
    one = torch.ones((), dtype=torch.float64)
    return {
        "mean": mean_p_value(samples, 0 * one, one),
        "variance": variance_p_value(samples, 0 * one, one),
        "distribution": distribution_p_value(
            samples, POINTS, torch.special.ndtr(POINTS)[:, None].expand(-1, samples.shape[1])
        ),
    }


@pytest.mark.statistical
@pytest.mark.parametrize("level", [0.05, 1e-3])
def test_sound_samples_are_rarely_refuted(level):
    samples = standard_normal((SIZE, REPEATS), make_generator(0), dtype=torch.float64)
    for name, p in p_values(samples).items():
        share = float((p < level).double().mean())
        # the number of refusals is binomial; the statistics are normal only in the limit, which may double the tail
        excess = (share - 2 * level) / math.sqrt(2 * level * (1 - 2 * level) / REPEATS)
        assert excess < 4.26, name  # one-sided p-value 1e-5


@pytest.mark.statistical
def test_a_known_mean_has_exact_p_values():
    samples = standard_normal((SIZE, REPEATS), make_generator(1), dtype=torch.float64)
    p = p_values(samples)["mean"]
    for level in (0.5, 0.05):
        share = float((p < level).double().mean())
        assert float(normal_tail(torch.tensor((share - level) / math.sqrt(level * (1 - level) / REPEATS)))) > 1e-5


@pytest.mark.parametrize(
    ("change", "name"),
    [
        (lambda x: x + 0.5, "mean"),
        (lambda x: x * 2**0.5, "variance"),
        (lambda x: 0 * x, "variance"),
        (lambda x: 0.5 * x, "distribution"),
        (lambda x: x.square() - 1, "distribution"),
    ],
    ids=["shifted", "twice the variance", "no noise", "half the scale", "skewed"],
)
def test_unsound_samples_are_refuted(change, name):
    samples = change(standard_normal((4096, 3), make_generator(2), dtype=torch.float64))
    assert float(p_values(samples)[name].max()) < 1e-12


def test_nan_is_always_refuted():
    samples = torch.full((10, 1), float("nan"), dtype=torch.float64)
    assert all(float(p.max()) == 0 for p in p_values(samples).values())


def test_no_noise_is_compared_exactly():
    zero = torch.zeros((), dtype=torch.float64)
    assert float(mean_p_value(torch.zeros(5, 1), zero, zero)) == 1
    assert float(mean_p_value(torch.full((5, 1), 1e-3), zero, zero)) == 0


def test_nan_is_the_worst_difference():
    ratio, where = worst(torch.tensor([[0.0, float("nan")], [9.0, 1.0]]), torch.tensor(1.0))
    assert (ratio, where) == (math.inf, (0, 1))
    assert worst(torch.zeros(0), torch.tensor(1.0)) == (0.0, ())
