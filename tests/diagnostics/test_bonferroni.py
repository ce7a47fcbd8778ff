"""The tube of pointwise intervals: exact for laws, and of few draws at least its level."""

import math
import warnings

import pytest
import torch
from scipy import stats
from torch import Tensor

import bayeswm as bwm
from bayeswm.base.laws import Gaussian
from bayeswm.diagnostics import Bonferroni
from bayeswm.diagnostics.intervals import quantiles
from bayeswm.diagnostics.tube import AXES
from tests.diagnostics.paths import of_moments, of_paths, variables


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def of_kernels(center: Tensor, sd: float, *, exhaustive: bool = False, resolved: bool = True) -> bwm.Predictive:
    """Return the rollout whose laws are N(center, sd^2), of shape (worlds, particles, *batch, H, S)."""
    worlds, steps = len(center), center.shape[-2]
    return bwm.Predictive(
        variables(center.shape[-1]),
        [Gaussian(center[..., h, :], torch.full_like(center[..., h, :], sd)) for h in range(steps)],
        torch.full((worlds,), 1 / worlds, dtype=center.dtype).log(),
        exhaustive=exhaustive,
        time_step=0.1,
        particles=center.movedim(-2, 0),
        resolved=[resolved] * steps,
    )


def test_bonferroni_is_the_interval_of_its_share() -> None:
    p = of_moments(torch.zeros(5, 2).double(), torch.ones(5, 2).double())
    for over, count in ((AXES, 10), (("horizon",), 5), (("variable",), 2)):
        tube = Bonferroni(over)(p, level=0.9)
        expected = float(stats.norm.isf(0.05 / count))
        assert torch.allclose(tube.upper, torch.full_like(tube.upper, expected), atol=1e-4)
        assert torch.allclose(tube.lower, -tube.upper, atol=1e-4)


@pytest.mark.parametrize("rank", [1, 3])
def test_draws_that_are_points_give_order_statistics(rank: int) -> None:
    """Tail t of n draws: the rank is (n + 1) t; with K = 2 and a level of 0.8, t = 0.05."""
    x = normal(20 * rank - 1, 1, 5, 2, 1)
    tube = Bonferroni()(of_paths(x, exhaustive=False), level=0.8)
    ordered = x[:, 0].sort(0).values
    assert torch.equal(tube.lower, ordered[rank - 1])
    assert torch.equal(tube.upper, ordered[-rank])


@pytest.mark.statistical
@pytest.mark.parametrize(
    ("draws", "steps", "level"), [(10, 1, 0.8), (19, 1, 0.9), (39, 2, 0.9), (60, 2, 0.9), (119, 2, 0.9)]
)
def test_one_more_draw_is_inside_with_its_probability(draws: int, steps: int, level: float) -> None:
    """Of points, each step holds 1 - 2 k / (n + 1) for the rank k exactly, and all together the level at least."""
    windows = 8000
    paths = normal(draws + 1, 1, windows, steps, 1)
    tube = Bonferroni()(of_paths(paths[1:], exhaustive=False), level=level)
    rank = math.floor(round((draws + 1) * 0.5 * (1 - level) / steps, 9))
    each = 1 - 2 * rank / (draws + 1)
    inside = (paths[0, 0] >= tube.lower) & (paths[0, 0] <= tube.upper)
    for h in range(steps):
        assert stats.binomtest(int(inside[:, h].sum()), windows, each).pvalue > 1e-5
    held = int(tube.contains(paths[0, 0]).sum())
    assert stats.binomtest(held, windows, level, alternative="less").pvalue > 1e-5


@pytest.mark.statistical
@pytest.mark.parametrize("sd", [0.1, 0.5, 2.0])
def test_one_more_world_is_inside_where_worlds_are_few(sd: float) -> None:
    """Of 19 worlds, each a kernel, from narrow ones to wide ones that overlap."""
    worlds, windows = 19, 4000
    center = normal(worlds + 1, 1, windows, 1, 1)
    new = center[0, 0] + sd * normal(windows, 1, 1, seed=1)
    p = of_kernels(center[1:], sd)
    tube = Bonferroni()(p, level=0.9)
    held = int(tube.contains(new).sum())
    assert stats.binomtest(held, windows, 0.9, alternative="less").pvalue > 1e-5


def test_too_few_draws_are_infinite_with_a_warning() -> None:
    """2 K / (1 - level) - 1 = 39 draws are needed."""
    for n, finite in ((39, True), (38, False)):
        p = of_paths(normal(n, 1, 4, 2, 1), exhaustive=False)
        if finite:
            assert bool(Bonferroni()(p, level=0.9).upper.isfinite().all())
        else:
            with pytest.warns(bwm.EstimateWarning, match="100% of the tubes are infinite"):
                tube = Bonferroni()(p, level=0.9)
            assert bool(tube.contains(1e9 * normal(4, 2, 1)).all())


def test_what_is_exact_is_not_corrected() -> None:
    """Three members that are the posterior, before any noise: a mixture that is known, however few they are."""
    p = of_kernels(normal(3, 1, 4, 1, 2), 0.5, exhaustive=True)
    tube = Bonferroni()(p, level=0.9)
    lower, upper = quantiles(p, [0.025, 0.975])
    assert torch.equal(tube.lower, lower)
    assert torch.equal(tube.upper, upper)
    # of a rollout the first step is exact, the later ones are mixtures over particles
    later = of_kernels(normal(3, 20, 4, 2, 1), 0.5, exhaustive=True, resolved=False)
    later._resolved = (True, False)
    tube, tail = Bonferroni()(later, level=0.9), 0.025
    corrected = tail - (1 - tail) / 60
    first, second = quantiles(later, [tail])[0], quantiles(later, [corrected])[0]
    assert torch.allclose(tube.lower[..., 0, :], first[..., 0, :], rtol=1e-9)
    # lower ends are moved by 4e-9 in probability, at densities above 0.01
    assert torch.allclose(tube.lower[..., 1, :], second[..., 1, :], atol=4e-7)


def test_particles_of_a_drawn_world_are_one_draw_also_where_it_is_fresh() -> None:
    law = torch.distributions.LogNormal(0.0, 0.3)
    model = bwm.KnownDynamics(structure=bwm.structures.Pendulum(mass=law), noise=0.1)
    for fresh in (False, True):
        for worlds, finite in ((79, True), (78, False)):  # 2 K / (1 - level) - 1 for K = 4
            p = bwm.rollout(
                model, torch.zeros(2), torch.zeros(2, 1), worlds=worlds, particles=5, fresh_worlds=fresh,
                generator=torch.Generator().manual_seed(0),
            )  # fmt: skip
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", bwm.EstimateWarning)
                tube = Bonferroni()(p, level=0.9)
            assert bool(tube.upper.isfinite().all()) == finite


def test_windows_that_lost_particles_have_fewer_draws() -> None:
    paths = normal(60, 1, 3, 2, 1)
    paths[:25, :, 1] = float("inf")
    with pytest.warns(bwm.EstimateWarning, match="33% of the tubes are infinite"):
        tube = Bonferroni()(of_paths(paths, exhaustive=False), level=0.9)
    assert tube.upper.isfinite()[:, 0, 0].tolist() == [True, False, True]
    assert torch.equal(tube.upper[2], Bonferroni()(of_paths(paths[:, :, 2], exhaustive=False), level=0.9).upper)


@pytest.mark.parametrize("level", [0.0, 1.0, -0.1, float("nan")])
def test_levels_out_of_range_are_refused(level: float) -> None:
    with pytest.raises(bwm.SpecError, match="level between 0 and 1"):
        Bonferroni()(of_paths(normal(50, 1, 3, 1)), level=level)
