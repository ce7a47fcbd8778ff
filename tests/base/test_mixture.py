import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from bayeswm.base import Gaussian, Predictive, Variable, Variables
from bayeswm.base.mixture import mix_log, mix_mean, solve_quantile, split_moments

F64 = torch.float64


def predictive(
    means: list[float], scales: list[float], weights: list[float] | None = None, *, dtype: torch.dtype = F64
) -> Predictive:
    law = Gaussian(torch.tensor(means, dtype=dtype).view(-1, 1, 1), torch.tensor(scales, dtype=dtype).view(-1, 1, 1))
    weight = torch.tensor(weights or [1.0] * len(means), dtype=F64)
    log_weight = (weight / weight.sum()).log()
    return Predictive(Variables([Variable("x")]), [law], log_weight, exhaustive=True, time_step=1.0)


members = st.lists(st.tuples(st.floats(-100, 100), st.floats(1e-4, 50), st.floats(0.01, 1)), min_size=1, max_size=6)


def test_two_members_that_disagree() -> None:
    p = predictive([0.0, 2.0], [0.1, 1.0])
    assert float(p.variance) == pytest.approx(1.505, abs=1e-12)
    assert float(p.aleatoric_variance) == pytest.approx(0.505, abs=1e-12)
    assert float(p.epistemic_variance) == pytest.approx(1.0, abs=1e-12)


@given(members, st.floats(0.001, 0.999))
def test_cdf_of_the_quantile_is_the_probability(rows: list[tuple[float, float, float]], level: float) -> None:
    p = predictive(*(list(v) for v in zip(*rows, strict=True)))
    assert float(p.cdf(p.quantile(level))) == pytest.approx(level, abs=1e-6)


@given(members, st.floats(0.01, 0.99))
def test_quantile_in_float32_is_right_to_its_rounding(rows: list[tuple[float, float, float]], level: float) -> None:
    columns = [list(v) for v in zip(*rows, strict=True)]
    p = predictive(*columns, dtype=torch.float32)
    x = p.quantile(level)
    assert x.dtype == torch.float32
    ulp = 2.4e-7 * max(1.0, abs(float(x)))
    low, high = (float(p.cdf(x.double() + s * ulp)) for s in (-1, 1))
    assert low - 1e-6 <= level <= high + 1e-6


@pytest.mark.parametrize(
    ("level", "expected"), [(0.1, 0.0), (0.2, 0.0), (0.21, 1.0), (0.6, 2.0), (0.61, 3.0), (0.99, 4.0)]
)
def test_quantile_of_point_masses_is_the_smallest_x(level: float, expected: float) -> None:
    p = predictive([3.0, 0.0, 4.0, 1.0, 2.0], [0.0] * 5)
    assert float(p.quantile(level)) == pytest.approx(expected, abs=1e-12)


def test_quantile_on_a_flat_part_is_its_left_end() -> None:
    """Half of the probability far left, half far right: the median is where the left half ends."""
    p = predictive([-1000.0, 1000.0], [1e-3, 1e-3])
    assert -1000.0 < float(p.quantile(0.5)) < -999.98


def test_quantile_of_a_point_mass_among_gaussians() -> None:
    p = predictive([0.0, 0.0], [0.0, 1.0])
    # right to 1e-11 of the narrowest Gaussian, twice since that is the width of the last bracket
    assert float(p.quantile(0.5)) == pytest.approx(0.0, abs=3e-11)
    assert float(p.quantile(0.3)) == pytest.approx(0.0, abs=3e-11)  # inside the jump from 0.25 to 0.75
    assert float(p.cdf(p.quantile(0.1))) == pytest.approx(0.1, abs=1e-6)


def test_quantile_takes_few_evaluations_of_a_smooth_cdf() -> None:
    calls = 0

    def cdf(x: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        return torch.special.ndtr(x)

    low, high = torch.full((100,), -8.0, dtype=F64), torch.full((100,), 8.0, dtype=F64)
    level = torch.linspace(0.01, 0.99, 100, dtype=F64)
    x = solve_quantile(cdf, low, high, probability=level)
    torch.testing.assert_close(x, torch.special.ndtri(level), atol=1e-9, rtol=0)
    assert calls < 40


@given(members)
def test_intervals_nest(rows: list[tuple[float, float, float]]) -> None:
    p = predictive(*(list(v) for v in zip(*rows, strict=True)))
    narrow, wide = p.interval(0.5), p.interval(0.9)
    assert float(wide[0]) <= float(narrow[0]) <= float(narrow[1]) <= float(wide[1])


@given(members)
def test_duplicating_every_member_changes_nothing(rows: list[tuple[float, float, float]]) -> None:
    columns = [list(v) for v in zip(*rows, strict=True)]
    p, double = predictive(*columns), predictive(*(c + c for c in columns))
    x = torch.zeros(1, 1, dtype=F64)
    for name in ("mean", "variance", "aleatoric_variance", "epistemic_variance"):
        torch.testing.assert_close(getattr(p, name), getattr(double, name), atol=1e-9, rtol=1e-9)
    torch.testing.assert_close(p.cdf(x), double.cdf(x))
    torch.testing.assert_close(p.log_prob(x), double.log_prob(x))
    torch.testing.assert_close(p.quantile(0.3), double.quantile(0.3), atol=1e-7, rtol=1e-7)


@given(members)
def test_equal_weights_are_no_weights(rows: list[tuple[float, float, float]]) -> None:
    means, scales, _ = (list(v) for v in zip(*rows, strict=True))
    p, weighted = predictive(means, scales), predictive(means, scales, [0.3] * len(means))
    for name in ("mean", "variance", "epistemic_variance"):
        torch.testing.assert_close(getattr(p, name), getattr(weighted, name))


def particles(seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    g = torch.Generator().manual_seed(seed)
    mean = torch.randn(3, 4, 5, 2, generator=g, dtype=F64)
    spread = torch.rand(3, 4, 5, 2, generator=g, dtype=F64)
    weight = torch.tensor([0.5, 0.3, 0.2], dtype=F64).view(3, 1, 1)
    return mean, spread, weight


def test_law_of_total_variance_and_covariance_diagonal() -> None:
    mean, spread, weight = particles()
    for exhaustive in (True, False):
        split = split_moments(mean, spread, weight, exhaustive=exhaustive, resolved=False)
        matrix = split_moments(mean, spread.diag_embed(), weight, exhaustive=exhaustive, resolved=False)
        torch.testing.assert_close(split.total, split.aleatoric + split.between.clamp(min=0))
        for part in ("aleatoric", "between", "total"):
            torch.testing.assert_close(getattr(matrix, part).diagonal(dim1=-2, dim2=-1), getattr(split, part))
        torch.testing.assert_close(matrix.mean, split.mean)


@pytest.mark.parametrize("exhaustive", [True, False])
def test_particles_that_do_not_count_are_as_if_absent(exhaustive: bool) -> None:
    mean, spread, weight = particles()
    valid = torch.ones(3, 4, 5, dtype=torch.bool)
    valid[:, 3] = False
    broken = torch.where(valid[..., None], mean, float("nan"))
    full = split_moments(mean[:, :3], spread[:, :3], weight, exhaustive=exhaustive, resolved=False)
    masked = split_moments(broken, spread, weight, exhaustive=exhaustive, resolved=False, valid=valid)
    for a, b in zip(full, masked, strict=True):
        torch.testing.assert_close(a, b)


def test_a_world_without_any_valid_particle_is_left_out() -> None:
    """The split of the other worlds stays defined."""
    mean, spread, weight = particles()
    valid = torch.ones(3, 4, 5, dtype=torch.bool)
    valid[2] = False
    rest = weight[:2] / weight[:2].sum()
    masked = split_moments(mean, spread, weight, exhaustive=True, resolved=False, valid=valid)
    for a, b in zip(split_moments(mean[:2], spread[:2], rest, exhaustive=True, resolved=False), masked, strict=True):
        torch.testing.assert_close(a, b)


def test_one_world_left_of_several_drawn_ones_has_the_total_of_one() -> None:
    mean, spread, weight = particles()
    valid = torch.zeros(3, 4, 5, dtype=torch.bool)
    valid[1] = True
    split = split_moments(mean, spread, weight, exhaustive=False, resolved=False, valid=valid)
    assert bool(split.between.isnan().all())
    torch.testing.assert_close(split.total, split.aleatoric)
    assert bool(split.total.isfinite().all())


def test_log_mixture_with_a_negligible_world_has_a_finite_error_in_float32() -> None:
    log_kernel = torch.tensor([[0.0], [250.0]]).view(2, 1, 1)
    log_weight = torch.tensor([0.0, -400.0]).view(2, 1)
    for exhaustive in (True, False):
        score = mix_log(log_kernel.expand(2, 3, 1), log_weight, exhaustive=exhaustive, resolved=False)
        assert bool(score.value.isfinite().all())
        assert bool(score.standard_error.isfinite().all())
        assert float(score.kernels) == pytest.approx(3.0)


def test_log_mixture_of_impossible_values_counts_no_kernel() -> None:
    score = mix_log(
        torch.full((2, 3, 1), float("-inf")), torch.zeros(2, 1) - math.log(2), exhaustive=True, resolved=False
    )
    assert score.value.tolist() == [float("-inf")]
    assert score.kernels.tolist() == [0.0]


def test_log_mixture_leaves_out_dead_particles_and_worlds() -> None:
    g = torch.Generator().manual_seed(0)
    log_kernel, log_weight = (
        torch.randn(3, 4, 1, generator=g, dtype=F64),
        torch.tensor([0.5, 0.3, 0.2], dtype=F64).log()[:, None],
    )
    valid = torch.ones(3, 4, 1, dtype=torch.bool)
    valid[2], valid[0, 1] = False, False
    got = mix_log(log_kernel, log_weight, exhaustive=True, resolved=False, valid=valid)
    density = log_kernel.exp()
    expected = (0.5 * density[0, [0, 2, 3]].mean() + 0.3 * density[1].mean()) / 0.8
    assert float(got.value) == pytest.approx(math.log(float(expected)), abs=1e-12)


def test_kernel_count_is_the_effective_sample_size() -> None:
    log_kernel = torch.zeros(4, 5, 1, dtype=F64)
    log_weight = torch.full((4, 1), 0.25, dtype=F64).log()
    assert float(mix_log(log_kernel, log_weight, exhaustive=True, resolved=False).kernels) == pytest.approx(20)
    log_kernel[0] += 50
    assert float(mix_log(log_kernel, log_weight, exhaustive=True, resolved=False).kernels) == pytest.approx(5)


def test_mean_over_worlds_treats_the_world_as_the_cluster() -> None:
    g = torch.Generator().manual_seed(0)
    by_world = torch.randn(400, 1, generator=g, dtype=F64)
    values = by_world.expand(400, 20)  # particles of a world that all agree tell nothing more
    estimate = mix_mean(values, torch.full((400,), 1 / 400, dtype=F64), exhaustive=False)
    assert float(estimate.standard_error) == pytest.approx(float(by_world.std() / 20), rel=1e-6)
