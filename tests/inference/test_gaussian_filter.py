"""Moments of transitions, and the way back, against dense algebra."""

import pytest
import torch
from torch import Tensor

from bayeswm.inference.gaussian_belief import GaussianBelief
from bayeswm.inference.gaussian_filter import LinearGaussian, Unscented
from tests.statistical.checks import BUDGET, gaussian_p


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def belief(size: int, *, seed: int = 0) -> GaussianBelief:
    """Two worlds, one particle, three rows."""
    return GaussianBelief(normal(2, 1, 3, size, seed=seed), normal(2, 1, 3, size, size, seed=seed + 1))


@pytest.mark.parametrize("size", [1, 2, 3, 4, 6])
@pytest.mark.parametrize("method", [Unscented(), LinearGaussian()])
def test_moments_of_a_linear_transition_are_exact(size: int, method: Unscented | LinearGaussian) -> None:
    before, A, c = belief(size), normal(size, size, seed=3), normal(size, seed=4)
    scale = normal(size, seed=5).abs()
    passage = method.passage(before, lambda x: (x @ A.mT + c, scale))
    later = passage.predicted()
    cover = before.covariance
    torch.testing.assert_close(later.mean, before.mean @ A.mT + c, atol=1e-12, rtol=1e-10)
    torch.testing.assert_close(later.covariance, A @ cover @ A.mT + scale.square().diag(), atol=1e-11, rtol=1e-10)
    torch.testing.assert_close(passage.settled().covariance, A @ cover @ A.mT, atol=1e-11, rtol=1e-10)
    torch.testing.assert_close(passage.after @ passage.before.mT, A @ cover, atol=1e-11, rtol=1e-10)


def test_unscented_mean_is_exact_for_cubics_and_the_variance_of_a_square() -> None:
    """x = m + s z: E[x^3] = m^3 + 3 m s^2; x^2 has variance 4 m^2 s^2 + 2 s^4."""
    m, s = 0.7, 0.4
    one = torch.ones(1, 1, 1, dtype=torch.float64)
    before = GaussianBelief(m * one, s * one[..., None])
    cubic = Unscented().passage(before, lambda x: (x**3, None))
    assert float(cubic.mean) == pytest.approx(m**3 + 3 * m * s**2, abs=1e-14)
    square = Unscented().passage(before, lambda x: (x**2, None)).predicted()
    assert float(square.covariance) == pytest.approx(4 * m**2 * s**2 + 2 * s**4, abs=1e-14)


def test_noise_of_a_structure_that_differs_between_points_is_averaged() -> None:
    """Sd |x| of x ~ N(1, 0.5^2): the mean variance is E[x^2] = 1.25."""
    one = torch.ones(1, 1, 1, dtype=torch.float64)
    passage = Unscented().passage(GaussianBelief(one, 0.5 * one[..., None]), lambda x: (0 * x, x.abs()))
    assert float(passage.predicted().covariance) == pytest.approx(1.25, abs=1e-12)


def test_a_known_state_stays_known_without_noise_and_gets_the_noise_with_it() -> None:
    known = GaussianBelief(normal(2, 1, 3, 2), torch.zeros(2, 1, 3, 2, 2, dtype=torch.float64))
    silent = Unscented().passage(known, lambda x: (x.sin(), None)).predicted()
    assert float(silent.root.abs().max()) < 1e-15
    torch.testing.assert_close(silent.mean, known.mean.sin())
    noisy = Unscented().passage(known, lambda x: (x.sin(), torch.tensor([0.5, 0.0]))).predicted()
    expected = torch.tensor([[0.25, 0.0], [0.0, 0.0]], dtype=torch.float64).expand(2, 1, 3, 2, 2)
    torch.testing.assert_close(noisy.covariance, expected, atol=1e-12, rtol=0)


@pytest.mark.parametrize("method", [Unscented(), LinearGaussian()])
def test_the_way_back_is_the_conditional_law(method: Unscented | LinearGaussian) -> None:
    """x | x' has mean m + C P'^-1 (x' - m') and covariance P - C P'^-1 C'; a later belief is averaged over."""
    before, A, scale = belief(2), normal(2, 2, seed=3), torch.tensor([0.5, 0.2], dtype=torch.float64)
    passage = method.passage(before, lambda x: (x @ A.mT, scale))
    P, moved = before.covariance, A @ before.covariance @ A.mT + scale.square().diag()
    gain = P @ A.mT @ torch.linalg.inv(moved)
    later = GaussianBelief(normal(2, 1, 3, 2, seed=7), 0.3 * normal(2, 1, 3, 2, 2, seed=8))
    found = passage.smoothed(later)
    mean = before.mean + (gain @ (later.mean - before.mean @ A.mT)[..., None])[..., 0]
    torch.testing.assert_close(found.mean, mean, atol=1e-10, rtol=1e-8)
    covariance = P + gain @ (later.covariance - moved) @ gain.mT
    torch.testing.assert_close(found.covariance, covariance, atol=1e-10, rtol=1e-8)
    known = GaussianBelief(later.mean, torch.zeros_like(later.root))
    torch.testing.assert_close(passage.smoothed(known).covariance, P - gain @ moved @ gain.mT, atol=1e-10, rtol=1e-8)


@pytest.mark.statistical
def test_draws_of_the_state_before_have_the_conditional_law() -> None:
    before, A = belief(2), normal(2, 2, seed=3)
    passage = LinearGaussian().passage(before, lambda x: (x @ A.mT, torch.tensor([0.5, 0.2]).double()))
    state = normal(2, 1, 3, 2, seed=7)
    drawn = passage.draw_before(state.expand(2, 4000, 3, 2), torch.Generator().manual_seed(0))
    exact = passage.smoothed(GaussianBelief(state, torch.zeros_like(before.root)))
    for w in range(2):
        for i in range(3):
            p = gaussian_p(drawn[w, :, i], exact.mean[w, 0, i], exact.covariance[w, 0, i])
            assert min(p) > BUDGET


def test_columns_with_and_without_noise_have_two_derivatives() -> None:
    """Noise (0, s): the variance of the noisy column grows by s^2, derivatives 2 s and 2; the root of 0 has none."""
    before = belief(2)
    s = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
    scale = torch.stack((torch.zeros_like(s).detach(), s))
    variance = Unscented().passage(before, lambda x: (x, scale)).predicted().covariance[..., 1, 1].mean()
    (first,) = torch.autograd.grad(variance, s, create_graph=True)
    (second,) = torch.autograd.grad(first, s)
    assert float(first.detach()) == pytest.approx(0.6, abs=1e-10)
    assert float(second) == pytest.approx(2.0, abs=1e-8)
