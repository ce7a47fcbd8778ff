"""Quantiles of many predictives at once agree with those of each."""

import pytest
import torch

import bayeswm as bwm
from bayeswm.base.laws import Gaussian
from bayeswm.base.schema import Variables
from bayeswm.diagnostics import interval_widths
from bayeswm.diagnostics.intervals import quantiles

LEVELS = (0.5, 0.9, 0.95)
TAILS = [0.025, 0.05, 0.25, 0.5, 0.75, 0.95, 0.975]


def rolled(noise: float, *, dtype: torch.dtype = torch.float64, worlds: int = 5) -> bwm.Predictive:
    law = torch.distributions.LogNormal(0.0, 0.3)
    model = bwm.KnownDynamics(structure=bwm.structures.Pendulum(mass=law, length=0.5), noise=noise, dtype=dtype)
    g = torch.Generator().manual_seed(0)
    start, action = torch.randn(7, 2, generator=g), torch.randn(7, 12, 1, generator=g)
    return bwm.rollout(model, start, action, worlds=worlds, particles=20, generator=g)


@pytest.mark.parametrize("noise", [1.0, 0.05, 1e-3])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_quantiles_have_their_probability(noise: float, dtype: torch.dtype) -> None:
    """With little noise the cdf is nearly a staircase, whose steps may be steeper than numbers are dense."""
    p = rolled(noise, dtype=dtype)
    x = quantiles(p, TAILS)
    assert x.shape == (7, 7, 12, 2)
    target = torch.tensor(TAILS, dtype=dtype).view(-1, 1, 1, 1)
    tolerance = 1.01e-6 if dtype == torch.float64 else 1.5e-5  # float32 rounds the mean of 100 values as well
    near = 8 * torch.finfo(dtype).eps * x.abs()
    low, high = (torch.stack([p.cdf(row) for row in end]) for end in (x - near, x + near))
    assert bool((low - tolerance <= target).all())
    assert bool((target <= high + tolerance).all())


def test_widths_are_those_of_the_predictive_interval() -> None:
    p = rolled(1.0)
    low, high = p.interval(0.9)
    # 1e-4 in probability at each end, over the density there
    density = torch.stack([(p.cdf(x + 1e-3) - p.cdf(x - 1e-3)) / 2e-3 for x in (low, high)])
    allowed = 1.1e-4 * (1 / density).sum(0)
    assert bool(((interval_widths(p, LEVELS)[..., 1] - (high - low)).abs() <= allowed).all())


def test_points_give_the_smallest_value_that_reaches_the_probability() -> None:
    p = rolled(0.0)
    exact = p.quantile(torch.tensor(TAILS, dtype=torch.float64))
    assert torch.allclose(quantiles(p, TAILS), exact, atol=1e-9)


def test_a_point_prediction_has_width_zero_and_a_gaussian_its_own() -> None:
    scale = torch.tensor([[[0.0, 2.0]]], dtype=torch.float64)
    law = Gaussian(torch.ones(1, 1, 2, dtype=torch.float64), scale)
    group = Variables([bwm.Variable("a"), bwm.Variable("b")])
    p = bwm.Predictive(group, [law], torch.zeros(1).double(), exhaustive=True, time_step=1.0)
    width = interval_widths(p, (0.9,))
    assert float(width[0, 0, 0]) == 0
    assert float(width[0, 1, 0]) == pytest.approx(4 * 1.6448536, abs=1e-4)


def test_two_modes_far_apart_are_solved() -> None:
    mean = torch.tensor([-1e4, 1e4], dtype=torch.float64).view(2, 1, 1)
    law = Gaussian(mean, torch.tensor([[[1e-2]]], dtype=torch.float64))
    weight = torch.tensor([0.3, 0.7], dtype=torch.float64).log()
    p = bwm.Predictive(Variables([bwm.Variable("x")]), [law], weight, exhaustive=True, time_step=1.0)
    x = quantiles(p, [0.15, 0.65])
    assert x[0].item() == pytest.approx(-1e4, abs=1e-3)
    assert x[1].item() == pytest.approx(1e4, abs=1e-3)


def test_many_batch_axes() -> None:
    model = bwm.KnownDynamics(structure=bwm.structures.Pendulum.gymnasium(), noise=0.2)
    g = torch.Generator().manual_seed(0)
    p = bwm.rollout(model, torch.zeros(2, 3, 2), torch.zeros(4, 1), generator=g)
    x = quantiles(p, TAILS)
    assert x.shape == (7, 2, 3, 4, 2)
    assert torch.allclose(x[:, 1], quantiles(p[1], TAILS), rtol=1e-4, atol=1e-6)
