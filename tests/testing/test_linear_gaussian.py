"""The exact moments of linear-Gaussian systems against dense algebra, and the model's samples against them."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import bayeswm as bwm
from bayeswm.base.random import make_generator
from bayeswm.testing import LinearGaussianSystem
from bayeswm.testing.comparisons import mean_p_value, normal_tail
from bayeswm.testing.strategies import linear_gaussian_systems

STEPS = 5


def unrolled(system: LinearGaussianSystem, start: torch.Tensor, actions: torch.Tensor) -> bwm.testing.JointMoments:
    """Moments by solving all steps at once: (I - shifted A) x = b + noise, dense and slow."""
    size = len(start)
    n = STEPS * size
    matrix = torch.eye(n, dtype=torch.float64)
    for t in range(1, STEPS):
        matrix[t * size : (t + 1) * size, (t - 1) * size : t * size] = -system.A
    inverse = torch.linalg.inv(matrix)
    pushed = (actions @ system.B.mT).flatten()
    pushed[:size] += system.A @ start
    noise = system.noise.repeat(STEPS).square().diag()
    drift = system.drift.diag().repeat(STEPS, 1)
    return bwm.testing.JointMoments(
        inverse @ pushed, inverse @ noise @ inverse.mT, inverse @ drift @ drift.mT @ inverse.mT
    )


@given(linear_gaussian_systems(), st.integers(0, 2**31))
def test_moments_equal_dense_algebra(system, seed):
    g = make_generator(seed)
    start = torch.randn(len(system.A), generator=g, dtype=torch.float64)
    actions = torch.randn(STEPS, system.B.shape[1], generator=g, dtype=torch.float64)
    for got, expected in zip(system.joint(start, actions), unrolled(system, start, actions), strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-10, atol=1e-12)


@pytest.mark.statistical
@pytest.mark.parametrize("drift", [0.0, 0.3])
def test_samples_of_the_model_have_these_moments(drift):
    A = torch.tensor([[0.9, 0.2], [-0.3, 0.7]], dtype=torch.float64)
    noise = torch.tensor([0.1, 0.4], dtype=torch.float64)
    system = LinearGaussianSystem(A=A, B=torch.ones(2, 1).double(), noise=noise, drift=torch.full((2,), drift).double())
    start, actions = torch.tensor([1.0, -2.0]).double(), torch.linspace(-1, 1, STEPS).double()[:, None]
    model = system.model()
    n = 20000
    worlds, particles = (n, 1) if system.uncertain else (1, n)
    r = bwm.rollout(model, start, actions, worlds=worlds, particles=particles, generator=make_generator(1))
    paths = r.particles.flatten(0, 1).flatten(-2)
    exact = system.joint(start, actions)
    covariance = exact.covariance
    p_mean = mean_p_value(paths, exact.mean, covariance.diagonal())
    residual = paths - exact.mean
    # Gaussian: var(xy) = c_xx c_yy + c_xy^2
    spread = covariance.diagonal()[:, None] * covariance.diagonal() + covariance.square()
    p_covariance = normal_tail((residual.mT @ residual / n - covariance) / (spread / n).sqrt())
    p = torch.cat((p_mean, p_covariance.flatten()))
    assert float(p.min()) * p.numel() > 1e-5


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"noise": torch.ones(3)}, "noise of shape"),
        ({"A": torch.ones(2, 3)}, "A of shape"),
        ({"noise": -torch.ones(2)}, "at least 0"),
        ({"drift": torch.tensor([1.0, 0.0])}, "in all variables or in none"),
    ],
)
def test_what_does_not_fit_is_refused(change, message):
    sound = {"A": torch.eye(2), "B": torch.ones(2, 1), "noise": torch.ones(2), "drift": torch.zeros(2)}
    with pytest.raises(bwm.SpecError, match=message):
        LinearGaussianSystem(**{**sound, **change})
