"""Rules for expectations over normal numbers: moments, and use under gradients."""

import math

import pytest
import torch

from bayeswm.base.gauss_hermite import hermite_grid, sobol_normal


@pytest.mark.parametrize(("size", "order"), [(1, 15), (2, 5), (3, 4)])
def test_moments_of_low_degree_are_exact(size: int, order: int) -> None:
    points, weight = hermite_grid(size, order)
    assert points.shape == (order**size, size)
    assert weight.sum().item() == pytest.approx(1.0, abs=1e-14)
    for degree in range(2 * order):
        expected = 0.0 if degree % 2 else float(math.prod(range(degree - 1, 0, -2)))
        for i in range(size):
            found = (weight * points[:, i] ** degree).sum().item()
            assert found == pytest.approx(expected, rel=1e-9, abs=1e-9 * max(1.0, math.prod(range(degree, 0, -2))))


def test_nothing_to_integrate_over_is_one_point() -> None:
    points, weight = hermite_grid(0, 7)
    assert points.shape == (1, 0)
    assert weight.tolist() == [1.0]


def test_quasi_random_points_are_the_same_each_time() -> None:
    sobol_normal.cache_clear()
    first, _ = sobol_normal(5, 512)
    sobol_normal.cache_clear()
    again, weight = sobol_normal(5, 512)
    assert torch.equal(first, again)
    torch.testing.assert_close((weight[:, None] * again.square()).sum(0), torch.ones(5).double(), rtol=0.05, atol=0.0)


@pytest.mark.parametrize("rule", [hermite_grid, sobol_normal])
def test_what_was_kept_in_inference_mode_serves_gradients(rule) -> None:
    rule.cache_clear()
    with torch.inference_mode():
        rule(2, 4)
    points, weight = rule(2, 4)
    x = torch.ones(2, dtype=torch.float64, requires_grad=True)
    (weight * (points * x).sum(-1).square()).sum().backward()
    assert x.grad is not None
