import pytest
import torch
from torch import Tensor

from bayeswm.base.random import make_generator
from bayeswm.inference.adaptation import StepSize, Target, TrajectoryLength, halton

F64 = torch.float64
COVARIANCE = torch.tensor([[4.0, 0.03], [0.03, 0.0004]], dtype=F64)
PRECISION = torch.linalg.inv(COVARIANCE)
MEAN = torch.tensor([100.0, -0.1], dtype=F64)


def gaussian(x: Tensor) -> Tensor:
    return -0.5 * (((x - MEAN) @ PRECISION) * (x - MEAN)).sum(-1)


def test_curvature_of_a_gaussian_gives_its_own_coordinates() -> None:
    target = Target(gaussian, 2, dense=True)
    target.follow_curvature(torch.tensor([90.0, 0.3], dtype=F64))
    torch.testing.assert_close(target.factor @ target.factor.mT, COVARIANCE, rtol=1e-5, atol=0)
    z = torch.randn(5, 2, generator=make_generator(0), dtype=F64)
    torch.testing.assert_close(target.coordinates(target.position(z)), z)
    value, gradient = target(z)
    torch.testing.assert_close(value, gaussian(target.position(z)))
    # in its own coordinates the gradient changes by minus the move
    torch.testing.assert_close(target(z + 1)[1] - gradient, -torch.ones(5, 2, dtype=F64), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("dense", [True, False])
def test_draws_give_their_own_coordinates(dense: bool) -> None:
    factor = torch.linalg.cholesky(COVARIANCE)
    draws = MEAN + torch.randn(64, 400, 2, generator=make_generator(0), dtype=F64) @ factor.mT
    target = Target(gaussian, 2, dense=dense)
    target.follow_draws(draws)
    got = target.factor @ target.factor.mT if dense else torch.diag(target.factor.square())
    expected = draws.reshape(-1, 2).mT.cov() if dense else torch.diag(draws.reshape(-1, 2).var(0))
    torch.testing.assert_close(target.centre, draws.mean((0, 1)))
    # dense: what D / (D + effective draws) takes off the covariance, with some 25,000 draws
    torch.testing.assert_close(got, expected, rtol=2e-4, atol=0)


def test_shrinkage_keeps_few_draws_from_a_singular_map() -> None:
    draws = torch.randn(3, 1, 8, generator=make_generator(0), dtype=F64)
    target = Target(lambda x: -0.5 * x.square().sum(-1), 8, dense=True)
    target.follow_draws(draws)
    assert float(torch.linalg.cond(target.factor)) < 20


def test_not_finite_is_minus_infinity_without_a_slope() -> None:
    target = Target(lambda x: x.sum(-1).log(), 2, dense=True)
    value, gradient = target(torch.tensor([[1.0, 1.0], [-1.0, -1.0]], dtype=F64))
    assert value[1] == -torch.inf
    assert gradient[1].tolist() == [0.0, 0.0]
    torch.testing.assert_close(gradient[0], torch.full((2,), 0.5, dtype=F64))


def test_step_size_finds_its_acceptance() -> None:
    step = StepSize(5.0, 0.8)
    for _ in range(500):
        step.update(max(0.0, 1 - 0.5 * step.now))
    assert step.average == pytest.approx(0.4, rel=0.05)


def test_trajectory_length_stays_within_its_limits_and_ignores_what_is_not_finite() -> None:
    lengths = TrajectoryLength(1.0)
    start = torch.randn(16, 3, generator=make_generator(0), dtype=F64)
    ones, limits = torch.ones(16, dtype=F64), (0.5, 1.2)
    for _ in range(50):  # outwards at the end: longer is better
        lengths.update(start, 3 * start, momentum=start, acceptance=ones, time=1.0, limits=limits)
    assert lengths.now == pytest.approx(1.2)
    for _ in range(50):  # the distance grows, but the end moves back: shorter is better
        lengths.update(start, 3 * start, momentum=-start, acceptance=ones, time=1.0, limits=limits)
    assert lengths.now == pytest.approx(0.5)
    before = lengths.now
    lengths.update(start, start * torch.nan, momentum=start, acceptance=ones, time=1.0, limits=limits)
    lengths.update(start, start, momentum=start, acceptance=0 * ones, time=1.0, limits=limits)
    assert lengths.now == before


def test_halton_fills_the_interval_evenly() -> None:
    values = sorted(halton(i) for i in range(1, 64))
    assert values == [i / 64 for i in range(1, 64)]
