import math

import pytest
import torch
from torch import Tensor
from torch.distributions import MultivariateNormal

from bayeswm.base import SpecError
from bayeswm.base.random import make_generator
from bayeswm.inference import AutoLowRankMultivariateNormal, AutoMultivariateNormal, AutoNormal, Guide
from tests.statistical.checks import BUDGET, gaussian_p

F64 = torch.float64
SIZE = 4
GUIDES = [
    AutoNormal(),
    AutoMultivariateNormal(),
    AutoLowRankMultivariateNormal(rank=1),
    AutoLowRankMultivariateNormal(),
    AutoLowRankMultivariateNormal(rank=9),
]


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=make_generator(seed), dtype=F64)


def somewhere(guide: Guide, size: int = SIZE) -> Tensor:
    theta = guide.start(randn(size), make_generator(0))
    return theta + 0.3 * randn(len(theta), seed=2)


def law(guide: Guide, theta: Tensor) -> MultivariateNormal:
    """The law that the numbers stand for, written out."""
    loc, scale = theta[:SIZE], torch.diag(theta[SIZE : 2 * SIZE].exp())
    rest, eye = theta[2 * SIZE :], torch.eye(SIZE, dtype=F64)
    if isinstance(guide, AutoNormal):
        return MultivariateNormal(loc, scale_tril=scale)
    if isinstance(guide, AutoMultivariateNormal):
        row, column = torch.tril_indices(SIZE, SIZE, -1)
        return MultivariateNormal(loc, scale_tril=scale @ eye.index_put((row, column), rest))
    factor = rest.view(SIZE, -1)
    return MultivariateNormal(loc, covariance_matrix=scale @ (eye + factor @ factor.mT) @ scale)


@pytest.mark.parametrize("guide", GUIDES)
def test_density_and_score_are_those_of_the_law(guide: Guide) -> None:
    theta = somewhere(guide)
    drawn = guide.draw(theta, randn(5, guide.noise(SIZE), seed=3), SIZE)
    x = drawn.x.detach().requires_grad_()
    wanted = law(guide, theta).log_prob(x)
    (score,) = torch.autograd.grad(wanted.sum(), x)
    torch.testing.assert_close(drawn.log_density, wanted.detach(), rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(drawn.score, score, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("guide", GUIDES)
def test_gradients_by_hand_are_those_of_autograd(guide: Guide) -> None:
    theta, noise = somewhere(guide).requires_grad_(), randn(5, guide.noise(SIZE), seed=3)
    x = guide.draw(theta, noise, SIZE).x
    slope = randn(5, SIZE, seed=4)
    (wanted,) = torch.autograd.grad((slope * x).sum(-1).mean(), theta)
    torch.testing.assert_close(guide.pull(theta.detach(), noise, slope), wanted, rtol=1e-10, atol=1e-12)


@pytest.mark.statistical
@pytest.mark.parametrize("guide", GUIDES)
def test_draws_have_the_mean_and_covariance_of_the_law(guide: Guide) -> None:
    theta = somewhere(guide)
    x = guide.draw(theta, randn(4000, guide.noise(SIZE), seed=5), SIZE).x
    exact = law(guide, theta)
    assert min(gaussian_p(x, exact.mean, exact.covariance_matrix)) > BUDGET


@pytest.mark.parametrize("guide", GUIDES)
@pytest.mark.parametrize("size", [1, 2, 7])
def test_the_start_is_narrow_and_of_any_size(guide: Guide, size: int) -> None:
    centre = randn(size, seed=6)
    theta = guide.start(centre, make_generator(0))
    drawn = guide.draw(theta, torch.zeros(1, guide.noise(size), dtype=F64), size)
    torch.testing.assert_close(drawn.x[0], centre)
    pulled = guide.pull(theta, randn(3, guide.noise(size)), randn(3, size))
    assert pulled.shape == theta.shape


def test_sizes() -> None:
    assert len(somewhere(AutoNormal(), 6)) == 12
    assert len(somewhere(AutoMultivariateNormal(), 6)) == 6 + 21
    assert len(somewhere(AutoLowRankMultivariateNormal(rank=2), 6)) == 12 + 12
    assert AutoLowRankMultivariateNormal().noise(49) == 49 + 7


@pytest.mark.parametrize("guide", GUIDES)
def test_they_are_found_by_name_and_rebuilt(guide: Guide) -> None:
    made = Guide.registry[type(guide).__name__]
    assert made.from_config(guide.config()) == guide


def test_settings_that_make_no_sense() -> None:
    for made in (AutoNormal, AutoMultivariateNormal, AutoLowRankMultivariateNormal):
        for wrong in (0.0, -1.0, math.nan, math.inf):
            with pytest.raises(SpecError, match="init_scale > 0"):
                made(init_scale=wrong)
    for rank in (0, 1.5, True):
        with pytest.raises(SpecError, match="rank"):
            AutoLowRankMultivariateNormal(rank=rank)
