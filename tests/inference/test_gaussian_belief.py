"""Beliefs by their square root: updates and draws against dense algebra."""

import pytest
import torch
from torch import Tensor

from bayeswm.inference.gaussian_belief import GaussianBelief, Sensors


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def belief(size: int, *, seed: int = 0) -> GaussianBelief:
    """Two worlds, one particle, three rows."""
    return GaussianBelief(normal(2, 1, 3, size, seed=seed), normal(2, 1, 3, size, size, seed=seed + 1))


@pytest.mark.parametrize("size", [1, 2, 5])
def test_update_is_conditioning(size: int) -> None:
    before = belief(size)
    columns = tuple(range(0, size, 2))
    scale = 0.1 + normal(2, len(columns), seed=5).abs()
    y = normal(3, len(columns), seed=6)
    seen = torch.ones(3, len(columns), dtype=torch.bool)
    seen[1, 0] = False
    after, log_prob = before.update(torch.where(seen, y, float("nan")), seen, Sensors(columns, scale))
    for w in range(2):
        for i in range(3):
            rows = torch.tensor(columns)[seen[i]]
            mean, cover = before.mean[w, 0, i], before.covariance[w, 0, i]
            S = cover[rows][:, rows] + scale[w][seen[i]].square().diag()
            gain = torch.linalg.solve(S, cover[rows]).mT
            torch.testing.assert_close(after.mean[w, 0, i], mean + gain @ (y[i][seen[i]] - mean[rows]))
            torch.testing.assert_close(after.covariance[w, 0, i], cover - gain @ cover[rows])
            exact = torch.zeros((), dtype=torch.float64)
            if len(rows):
                exact = torch.distributions.MultivariateNormal(mean[rows], S).log_prob(y[i][seen[i]])
            torch.testing.assert_close(log_prob[w, 0, i], exact)


def test_an_update_that_is_a_million_times_sharper_keeps_the_covariance_positive() -> None:
    """With P - K H P the variance of what was measured would be lost in rounding: here it is right to 1e-9."""
    before = GaussianBelief(torch.zeros(1, 1, 2, dtype=torch.float64), 1e3 * normal(1, 1, 2, 2))
    after, _ = before.update(torch.zeros(2, dtype=torch.float64), None, Sensors((0, 1), torch.full((1, 2), 1e-4)))
    assert bool((torch.linalg.eigvalsh(after.covariance) > 0).all())
    torch.testing.assert_close(after.covariance.diagonal(dim1=-2, dim2=-1), torch.full((1, 1, 2), 1e-8).double())


def test_laws_draws_and_moves_of_a_belief() -> None:
    given = belief(3)
    torch.testing.assert_close(given.law().covariance, given.covariance)
    noise = normal(2, 1, 3, 3, seed=9)
    expected = given.mean + (given.root @ noise[..., None])[..., 0]
    torch.testing.assert_close(given.draw(noise), expected)
    shift = normal(2, 4, 3, 3, seed=8)
    moved = given.moved(shift)
    assert moved.mean.shape == (2, 4, 3, 3)
    torch.testing.assert_close(moved.covariance, given.covariance.expand(2, 4, 3, 3, 3))
