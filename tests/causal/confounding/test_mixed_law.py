"""Mixtures over drawn causes: closed where affine, and against dense integration where not."""

import math

import pytest
import torch

import bayeswm as bwm
from bayeswm.base import EstimateWarning, Gaussian, NotInvertible
from bayeswm.base.random import make_generator, standard_normal
from bayeswm.causal.confounding.mixed_law import MixedLaw
from bayeswm.causal.confounding.place import Place


class Curved:
    """x' = (x + w c + bend c^2, x + c) with noise on the first column, another w in each world."""

    def __init__(self, weight, *, bend=0.0, scale=(0.1, 0.0), size=1):
        self.weight, self.bend, self.size = weight, bend, size
        self.scale = torch.tensor(scale, dtype=torch.float64)

    def outcome(self, at, drawn):
        c = drawn.sum(-1)
        w = self.weight.view(-1, *(1,) * (c.ndim - 1))
        mean = torch.stack(
            torch.broadcast_tensors(at.state[..., 0] + w * c + self.bend * c.square(), at.state[..., 0] + c), -1
        )
        return Gaussian(mean, self.scale)

    def picked(self, index):
        return Curved(self.weight[index], bend=self.bend, scale=self.scale.tolist(), size=self.size)

    def law(self, state, *, noise_size=2):
        state = state.expand(len(self.weight), *state.shape[1:])
        blank = state[..., :0]
        return MixedLaw(self, Place(state, blank, blank, 0), drawn=self.size, noise_size=noise_size)


WEIGHT = torch.tensor([2.0, -1.0, 0.5]).double()
STATE = torch.tensor([[0.3], [1.0]]).double()[None, None]


def test_affine_steps_are_gaussian():
    law = Curved(WEIGHT, scale=(0.1, 0.2)).law(STATE)
    assert law.exact
    covariance = torch.tensor([[[w * w + 0.01, w], [w, 1.04]] for w in WEIGHT.tolist()], dtype=torch.float64)
    torch.testing.assert_close(law.covariance, covariance[:, None, None].expand(3, 1, 2, 2, 2))
    exact = bwm.MultivariateGaussian(STATE.expand(3, 1, 2, 2), torch.linalg.cholesky(covariance)[:, None, None])
    x = torch.randn(3, 1, 2, 2, dtype=torch.float64)
    for marginal in (False, True):
        torch.testing.assert_close(law.log_prob(x, marginal=marginal), exact.log_prob(x, marginal=marginal))
    torch.testing.assert_close(law.cdf(x), exact.cdf(x))


def test_a_column_without_noise_keeps_that_of_the_cause():
    law = Curved(WEIGHT).law(STATE)
    torch.testing.assert_close(law.variance[:, 0, 0], torch.stack((WEIGHT.square() + 0.01, torch.ones(3)), -1).double())
    assert bool(law.log_prob(law.mean).isfinite().all())


def test_curved_steps_against_dense_integration():
    """Moments are polynomial and exact; densities agree with a fine grid over the cause.

    A kernel of width 0.3 leaves out a bend of 0.3 * 0.3^2 * sqrt(2) = 0.04, against a scale of 0.5 of the noise: what
    is left in a log density is of the order of its square, 0.006, and in a cdf of a tenth of that.
    """
    law = Curved(WEIGHT, bend=0.3, scale=(0.5, 0.5)).law(STATE)
    assert not law.exact
    torch.testing.assert_close(law.mean[..., 0], STATE[..., 0].expand(3, 1, 2) + 0.3)
    torch.testing.assert_close(law.variance[:, 0, 0, 0], WEIGHT.square() + 2 * 0.09 + 0.25)
    c = torch.linspace(-9, 9, 4001, dtype=torch.float64)
    weight = torch.exp(-0.5 * c.square()) / math.sqrt(2 * math.pi) * (c[1] - c[0])
    x = law.push(standard_normal((3, 1, 2, 3), make_generator(0), dtype=torch.float64))
    dense = Curved(WEIGHT, bend=0.3, scale=(0.5, 0.5)).outcome(
        Place(STATE.unsqueeze(2).expand(3, 1, 1, 2, 1), STATE, STATE, 0), c.view(1, 1, -1, 1, 1)
    )
    x_dense = x.unsqueeze(2)
    for marginal in (False, True):
        parts = dense.log_prob(x_dense, marginal=marginal)
        expected = (weight.log().view(1, 1, -1, *(1,) * (parts.ndim - 3)) + parts).logsumexp(2)
        torch.testing.assert_close(law.log_prob(x, marginal=marginal), expected, rtol=0.0, atol=0.01)
    cdf = (weight.view(1, 1, -1, 1, 1) * dense.cdf(x_dense)).sum(2)
    torch.testing.assert_close(law.cdf(x), cdf, rtol=0.0, atol=1e-3)


def test_density_with_narrow_noise_is_smooth():
    """Kernels follow the slope: noise of a hundredth of the cause's spread does not show the points."""
    law = Curved(WEIGHT[:1], bend=0.05, scale=(0.02, 0.0)).law(STATE[:, :, :1])
    x = torch.linspace(-3, 3, 601, dtype=torch.float64)
    density = torch.stack([law.log_prob(torch.stack((v, v)).view(1, 1, 1, 2), marginal=True)[0, 0, 0, 0] for v in x])
    assert abs(float(torch.trapezoid(density.exp(), x)) - 0.84) < 0.06
    assert float(density.diff().abs().max()) < 0.05


def test_particles_that_change_worlds_keep_theirs():
    law = Curved(WEIGHT).law(STATE.expand(3, 4, 2, 1))
    noise = standard_normal((3, 4, 2, 3), make_generator(0), dtype=torch.float64)
    order = torch.randperm(12, generator=make_generator(1))

    def mixed(v):
        return v.expand(3, 4, *v.shape[2:]).flatten(0, 1)[order].view(3, 4, *v.shape[2:])

    torch.testing.assert_close(law.map(mixed).push(mixed(noise)), mixed(law.push(noise)))
    torch.testing.assert_close(law.map(mixed).mean, mixed(law.mean))
    torch.testing.assert_close(law.map(lambda v: v[1:]).variance, law.variance[1:])


def test_further_axes_in_front_of_the_state():
    for bend in (0.0, 0.3):
        law = Curved(WEIGHT, bend=bend, scale=(0.5, 0.5)).law(STATE)
        x = torch.randn(5, 3, 1, 2, 2, dtype=torch.float64, generator=make_generator(0))
        for marginal in (False, True):
            each = torch.stack([law.log_prob(row, marginal=marginal) for row in x])
            torch.testing.assert_close(law.log_prob(x, marginal=marginal), each)
        torch.testing.assert_close(law.cdf(x), torch.stack([law.cdf(row) for row in x]))


def test_two_causes():
    law = Curved(WEIGHT, bend=0.3, scale=(0.5, 0.5), size=2).law(STATE)
    torch.testing.assert_close(law.mean[..., 0], STATE[..., 0].expand(3, 1, 2) + 0.6)
    torch.testing.assert_close(law.variance[:, 0, 0, 0], 2 * WEIGHT.square() + 8 * 0.09 + 0.25)


def test_many_causes_are_an_estimate():
    law = Curved(WEIGHT, bend=0.3, size=5).law(STATE)
    with pytest.warns(EstimateWarning, match="5 hidden causes"):
        mean = law.mean
    torch.testing.assert_close(mean[..., 0], STATE[..., 0].expand(3, 1, 2) + 1.5, rtol=0.05, atol=0.1)


def test_hidden_causes_have_no_inverse():
    with pytest.raises(NotInvertible, match="1 hidden"):
        Curved(WEIGHT).law(STATE).abduct(STATE)


def test_small_numbers_are_not_straight_for_being_small():
    """A bend of a third of the slope, in units of 1e-5: in single precision less than rounding of numbers around 1."""
    unit = 1e-5
    curved = Curved(WEIGHT.float() * unit, bend=0.5 * unit, scale=(0.1 * unit, 0.1 * unit))
    curved.scale = curved.scale.float()
    law = curved.law(torch.zeros(1, 1, 1, 1))
    assert not law.exact
    torch.testing.assert_close(law.mean[..., 0], torch.full((3, 1, 1), 0.5 * unit), rtol=1e-5, atol=0.0)


@pytest.mark.parametrize("index", [False, True])
def test_noise_with_an_axis_in_front_is_pushed_point_by_point(index):
    law = Curved(WEIGHT, bend=0.3).law(STATE)
    if index:
        law = law.map(lambda v: v.flip(0))
    noise = torch.randn(3, 3, 1, 2, law.noise_size, dtype=torch.float64)  # as many points as worlds
    torch.testing.assert_close(law.push(noise), torch.stack([law.push(one) for one in noise]))
    single = noise[:, :1, :, :1]
    torch.testing.assert_close(law.push(single), torch.stack([law.push(one.expand(3, 1, 2, -1)) for one in single]))
