"""A cloud of particles: moments, updates and its law against sums by hand."""

import math

import pytest
import torch
from torch import Tensor
from torch.distributions import Categorical, Independent, MixtureSameFamily, Normal

import bayeswm as bwm
from bayeswm.inference.cloud import Cloud
from bayeswm.inference.gaussian_belief import Sensors


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def cloud() -> Cloud:
    """Two worlds, one particle axis, three rows, five components of two columns."""
    shape = (2, 1, 3, 5)
    return Cloud(normal(*shape, 2), 0.1 + normal(*shape, 2, seed=1).abs(), normal(*shape, seed=2).log_softmax(-1), 0)


def mixture(c: Cloud) -> MixtureSameFamily:
    return MixtureSameFamily(Categorical(logits=c.log_weight), Independent(Normal(c.center, c.spread), 1))


def test_moments_and_density_are_the_mixtures() -> None:
    c, exact, x = cloud(), mixture(cloud()), normal(2, 1, 3, 2, seed=3)
    law = c.law()
    torch.testing.assert_close(c.mean, exact.mean)
    torch.testing.assert_close(law.variance, exact.variance)
    torch.testing.assert_close(law.covariance.diagonal(dim1=-2, dim2=-1), exact.variance)
    torch.testing.assert_close(law.log_prob(x), exact.log_prob(x))
    each = MixtureSameFamily(Categorical(logits=c.log_weight[..., None, :]), Normal(c.center.mT, c.spread.mT))
    torch.testing.assert_close(law.log_prob(x, marginal=True), each.log_prob(x))
    torch.testing.assert_close(law.cdf(x), each.cdf(x))
    with pytest.raises(bwm.NotInvertible, match="choice of a particle"):
        law.abduct(x)


def test_update_weighs_and_moves_each_component() -> None:
    """The posterior density at any point is prior density times likelihood over the evidence."""
    c, y, scale = cloud(), normal(3, 1, seed=4), torch.tensor([[0.3], [0.5]], dtype=torch.float64)
    after, log_prob = c.update(y, None, Sensors((1,), scale))
    x = normal(2, 1, 3, 2, seed=5)
    likelihood = Normal(x[..., 1], scale[:, :, None]).log_prob(y[:, 0])
    torch.testing.assert_close(after.law().log_prob(x), c.law().log_prob(x) + likelihood - log_prob)
    torch.testing.assert_close(after.log_weight.logsumexp(-1), torch.zeros(2, 1, 3, dtype=torch.float64))


def test_what_was_not_seen_changes_nothing() -> None:
    c = cloud()
    seen = torch.tensor([[True], [False], [True]])
    y = torch.tensor([[1.0], [float("nan")], [1.0]], dtype=torch.float64)
    after, log_prob = c.update(y, seen, Sensors((0,), torch.ones(2, 1, dtype=torch.float64)))
    torch.testing.assert_close(after.center[:, :, 1], c.center[:, :, 1])
    torch.testing.assert_close(after.log_weight[:, :, 1], c.log_weight[:, :, 1])
    assert float(log_prob[:, :, 1].abs().max()) < 1e-12
    assert bool((log_prob[:, :, 0] != 0).all())


def test_a_component_without_spread_is_a_point() -> None:
    center = torch.tensor([[[[0.0], [1.0]]]], dtype=torch.float64)
    points = Cloud(center, torch.zeros_like(center), torch.tensor([[[0.5, 0.5]]], dtype=torch.float64).log(), 0)
    after, log_prob = points.update(torch.tensor([1.0]).double(), None, Sensors((0,), torch.ones(1, 1).double()))
    odds = math.exp(-0.5)
    torch.testing.assert_close(after.center, center)
    assert float(after.mean) == pytest.approx(1 / (1 + odds))
    assert float(log_prob) == pytest.approx(math.log((1 + odds) / 2 / math.sqrt(2 * math.pi)))


def test_a_measurement_that_no_particle_explains_keeps_the_weights() -> None:
    c = cloud()
    far = torch.full((3, 1), 1e200, dtype=torch.float64)
    after, log_prob = c.update(far, None, Sensors((0,), torch.ones(2, 1, dtype=torch.float64)))
    assert bool(log_prob.eq(-math.inf).all())
    torch.testing.assert_close(after.log_weight, c.log_weight)


def test_draws_choose_components_in_proportion_to_their_weights() -> None:
    """Even quantiles of the first coordinate: shares are the weights up to 1 / n; the second adds the spread."""
    c, n = cloud(), 4001
    first = torch.special.ndtri((torch.arange(n, dtype=torch.float64) + 0.5) / n)
    noise = torch.cat((first.view(n, 1, 1).expand(n, 3, 1), torch.zeros(n, 3, 2, dtype=torch.float64)), -1)
    drawn = c.draw(noise.expand(2, n, 3, 3))
    share = (drawn[..., None, :] == c.center).all(-1).double().mean(1)
    assert float((share - c.log_weight[:, 0].exp()).abs().max()) < 2 / n
    moved = c.draw(noise + torch.tensor([0.0, 1.0, 0.0]))
    spread = (moved - drawn)[..., 0]
    assert float(spread.min()) >= float(c.spread[..., 0].min()) - 1e-12
    assert float(spread.max()) <= float(c.spread[..., 0].max()) + 1e-12


def test_moved_and_widened() -> None:
    c, shift = cloud(), normal(2, 4, 3, 2, seed=7)
    moved = c.moved(shift)
    torch.testing.assert_close(moved.mean, c.mean + shift)
    torch.testing.assert_close(moved.covariance, c.covariance.expand(2, 4, 3, 2, 2))
    wide = c.widened(torch.tensor([0.5, 0.0], dtype=torch.float64))
    extra = torch.tensor([[0.25, 0.0], [0.0, 0.0]], dtype=torch.float64)
    torch.testing.assert_close(wide.covariance, c.covariance + extra)
    assert c.widened(None) is c


def test_the_laws_tensors_can_be_mapped() -> None:
    law = cloud().law()
    part = law.map(lambda v: v[:, :, :2])
    torch.testing.assert_close(part.mean, law.mean[:, :, :2])
    assert part.noise_size == 3
