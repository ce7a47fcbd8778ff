import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import distributions as dist

from bayeswm.base import Gaussian, MultivariateGaussian, NotInvertible, SpecError

F64 = torch.float64
numbers = st.floats(-50, 50, allow_nan=False)
scales = st.floats(1e-3, 20)


def column(values: list[float]) -> torch.Tensor:
    return torch.tensor(values, dtype=F64).view(1, 1, -1)


@given(st.lists(st.tuples(numbers, scales, st.floats(-4, 4)), min_size=1, max_size=5))
def test_abduct_inverts_push_of_a_gaussian(rows: list[tuple[float, float, float]]) -> None:
    mean, scale, noise = (column(list(v)) for v in zip(*rows, strict=True))
    law = Gaussian(mean, scale)
    # the residual carries the rounding of mean + scale * noise
    margin = 1e-14 * (mean.abs() + scale * noise.abs()) / scale + 1e-14
    assert bool(((law.abduct(law.push(noise)) - noise).abs() <= 4 * margin).all())


@given(st.lists(st.floats(0.05, 3), min_size=3, max_size=3), st.lists(st.floats(-3, 3), min_size=6, max_size=6))
def test_abduct_inverts_push_of_a_full_gaussian(diagonal: list[float], rest: list[float]) -> None:
    factor = torch.diag(torch.tensor(diagonal, dtype=F64))
    factor[1, 0], factor[2, 0], factor[2, 1] = (0.5 * v for v in rest[:3])
    law = MultivariateGaussian(torch.zeros(1, 1, 3, dtype=F64), factor)
    noise = column(rest[3:])
    torch.testing.assert_close(law.abduct(law.push(noise)), noise, atol=1e-6, rtol=0)


def test_log_prob_and_cdf_equal_torch() -> None:
    g = torch.Generator().manual_seed(0)
    mean, x = torch.randn(2, 3, 4, generator=g, dtype=F64), torch.randn(2, 3, 4, generator=g, dtype=F64)
    scale = torch.rand(2, 3, 4, generator=g, dtype=F64) + 0.1
    law, exact = Gaussian(mean, scale), dist.Normal(mean, scale)
    torch.testing.assert_close(law.log_prob(x, marginal=True), exact.log_prob(x))
    torch.testing.assert_close(law.log_prob(x), exact.log_prob(x).sum(-1))
    torch.testing.assert_close(law.cdf(x), exact.cdf(x))
    factor = torch.randn(4, 4, generator=g, dtype=F64).tril(-1) + torch.eye(4, dtype=F64)
    full, exact_full = MultivariateGaussian(mean, factor), dist.MultivariateNormal(mean, scale_tril=factor)
    torch.testing.assert_close(full.log_prob(x), exact_full.log_prob(x))
    torch.testing.assert_close(full.variance, exact_full.variance)
    torch.testing.assert_close(full.covariance[0, 0], exact_full.covariance_matrix[0, 0])
    single = dist.Normal(mean, exact_full.variance.sqrt())
    torch.testing.assert_close(full.log_prob(x, marginal=True), single.log_prob(x))
    torch.testing.assert_close(full.cdf(x), single.cdf(x))
    torch.testing.assert_close(law.covariance.diagonal(dim1=-2, dim2=-1), law.variance)


@pytest.mark.parametrize(("dtype", "inside", "outside"), [(F64, 5e-10, 2e-9), (torch.float32, 5e-6, 2e-5)])
def test_a_component_without_noise_counts_nothing_or_forbids(dtype: torch.dtype, inside: float, outside: float) -> None:
    mean = torch.ones(1, 1, 2, dtype=dtype)
    for law in (
        Gaussian(mean, torch.tensor([0.5, 0.0], dtype=dtype)),
        Gaussian(mean, torch.tensor([0.5, 0.0], dtype=dtype), noisy=(0,)),
    ):
        x = mean + torch.tensor([0.2, inside], dtype=dtype)
        expected = dist.Normal(1.0, 0.5).log_prob(torch.tensor(1.2, dtype=F64))
        assert float(law.log_prob(x)) == pytest.approx(float(expected), abs=1e-6)
        assert law.log_prob(x, marginal=True)[0, 0, 1] == 0
        assert law.abduct(x).shape[-1] == law.noise_size
        far = mean + torch.tensor([0.2, outside], dtype=dtype)
        assert float(law.log_prob(far)) == float("-inf")
        with pytest.raises(NotInvertible, match=r"column 1 .*deviation of .*process noise.*tolerance="):
            law.abduct(far)
        assert float(law.log_prob(far, tolerance=1e-3)) == pytest.approx(float(expected), abs=1e-6)
        law.abduct(far, tolerance=1e-3)


def test_a_law_without_noise() -> None:
    law = Gaussian(torch.tensor([[[1.0, -2.0]]]))
    assert law.noise_size == 0
    assert law.push(torch.empty(1, 5, 0)).shape == (1, 5, 2)
    assert float(law.log_prob(torch.tensor([1.0, -2.0]))) == 0
    assert law.cdf(torch.tensor([0.9, -1.9])).tolist() == [[[0.0, 1.0]]]
    assert law.variance.tolist() == [[[0.0, 0.0]]]
    assert law.abduct(torch.tensor([[[1.0, -2.0]]])).shape == (1, 1, 0)


def test_some_noisy_columns_take_so_many_coordinates() -> None:
    law = Gaussian(torch.zeros(2, 1, 3), torch.tensor([0.0, 2.0, 3.0]), noisy=(1, 2))
    noise = torch.randn(2, 4, 2, generator=torch.Generator().manual_seed(0))
    pushed = law.push(noise)
    torch.testing.assert_close(pushed, torch.cat((torch.zeros(2, 4, 1), noise * torch.tensor([2.0, 3.0])), -1))
    torch.testing.assert_close(law.abduct(pushed), noise)


def test_scale_with_more_axes_than_the_mean_has() -> None:
    """One mean, one scale a world: every tensor of the law has the worlds' axis."""
    law = Gaussian(torch.zeros(1, 1, 2), torch.tensor([0.5, 1.0]).view(2, 1, 1))
    assert law.mean.shape == law.variance.shape == (2, 1, 2)
    assert law.map(lambda v: v[[1, 0]]).variance[0, 0, 0] == 1.0


def test_nan_stays_nan() -> None:
    x = torch.tensor([float("nan")])
    for law in (
        Gaussian(torch.zeros(1, 1, 1)),
        Gaussian(torch.zeros(1, 1, 1), torch.zeros(1)),
        Gaussian(torch.zeros(1, 1, 1), torch.ones(1)),
    ):
        assert bool(law.log_prob(x).isnan().all())
        assert bool(law.cdf(x).isnan().all())


def test_map_changes_leading_axes() -> None:
    factor = torch.tensor([[1.0, 0.0], [0.5, 2.0]])
    for law in (
        Gaussian(torch.randn(3, 1, 4, 2), torch.tensor([0.1, 0.2])),
        MultivariateGaussian(torch.randn(3, 1, 4, 2), factor),
    ):
        part = law.map(lambda v: v[:, :, 1])
        torch.testing.assert_close(part.mean, law.mean[:, :, 1])
        torch.testing.assert_close(part.covariance, law.covariance[:, :, 1])


@pytest.mark.parametrize("factor", [[[1.0, 0.0], [1.0, -1.0]], [[0.0, 0.0], [1.0, 1.0]]])
def test_factor_needs_a_positive_diagonal_or_columns_of_zeros(factor: list[list[float]]) -> None:
    with pytest.raises(SpecError, match="positive diagonal"):
        MultivariateGaussian(torch.zeros(1, 1, 2), torch.tensor(factor))


def test_a_singular_gaussian_is_a_density_where_it_lives_and_forbids_the_rest() -> None:
    """Column 1 is twice column 0, column 3 is fixed: the density is that of columns 0 and 2."""
    factor = torch.tensor([[0.5, 0, 0, 0], [1.0, 0, 0, 0], [0.3, 0, 2.0, 0], [0, 0, 0, 0]], dtype=F64)
    mean = torch.tensor([1.0, 2.0, -1.0, 7.0], dtype=F64).view(1, 1, 4)
    law = MultivariateGaussian(mean, factor)
    noise = torch.tensor([0.7, 9.0, -1.1, 3.0], dtype=F64)
    x = law.push(noise)
    kept = dist.MultivariateNormal(mean[0, 0, [0, 2]], scale_tril=factor[[0, 2]][:, [0, 2]])
    torch.testing.assert_close(law.log_prob(x)[0, 0], kept.log_prob(x[0, 0, [0, 2]]))
    torch.testing.assert_close(law.abduct(x), noise.view(1, 1, 4) * torch.tensor([1.0, 0.0, 1.0, 0.0]))
    off = x + torch.tensor([0.0, 1e-6, 0.0, 0.0], dtype=F64)
    assert float(law.log_prob(off)) == float("-inf")
    assert float(law.log_prob(off, tolerance=1e-3)) == pytest.approx(float(law.log_prob(x)))
    with pytest.raises(NotInvertible, match="column 1"):
        law.abduct(off)
    assert law.cdf(mean).tolist() == [[[0.5, 0.5, 0.5, 1.0]]]
    assert law.log_prob(x, marginal=True)[0, 0, 3] == 0


def test_gradients_of_a_singular_gaussian_are_finite() -> None:
    factor = torch.tensor([[0.5, 0.0], [0.0, 0.0]], dtype=F64, requires_grad=True)
    law = MultivariateGaussian(torch.zeros(1, 1, 2, dtype=F64), factor)
    x = torch.tensor([0.3, 0.0], dtype=F64)
    total = law.log_prob(x).sum() + law.log_prob(x, marginal=True).sum() + law.cdf(x).sum() + law.variance.sum()
    (gradient,) = torch.autograd.grad(total, factor)
    assert bool(gradient.isfinite().all())


def test_gradients_through_log_prob_with_a_silent_column_are_finite() -> None:
    mean = torch.zeros(1, 1, 2, dtype=F64, requires_grad=True)
    scale = torch.tensor([0.5, 0.0], dtype=F64, requires_grad=True)
    Gaussian(mean, scale).log_prob(torch.tensor([0.3, 0.0], dtype=F64)).sum().backward()
    assert mean.grad is not None
    assert scale.grad is not None
    assert bool(mean.grad.isfinite().all())
    assert bool(scale.grad.isfinite().all())
