"""Roots of small covariances against LAPACK, singular and broken ones among them."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from bayeswm.base import EstimateWarning
from bayeswm.base.roots import back, covariance_root, factor, front, semidefinite


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@given(st.integers(1, 6), st.integers(0, 100))
def test_factor_is_the_cholesky_factor(size: int, seed: int) -> None:
    root = normal(4, size, size, seed=seed) + size * torch.eye(size, dtype=torch.float64)
    covariance = root @ root.mT
    found = factor(covariance.movedim((-2, -1), (0, 1))).movedim((0, 1), (-2, -1))
    torch.testing.assert_close(found, torch.linalg.cholesky(covariance), rtol=1e-9, atol=1e-9)


@given(st.integers(2, 6), st.integers(0, 6), st.integers(0, 100))
def test_factor_of_a_singular_matrix_is_a_root_with_a_finite_gradient(size: int, rank: int, seed: int) -> None:
    root = normal(5, size, min(rank, size), seed=seed)
    covariance = (root @ root.mT).movedim((-2, -1), (0, 1)).requires_grad_()
    found = factor(covariance)
    again = (found[:, None] * found[None]).sum(2)
    # pivots are cut at 100 eps = 2e-14 of the variance; rounding of the products is as large
    assert float((again - covariance).detach().abs().max()) <= 1e-12 * (1 + float(covariance.detach().abs().max()))
    (gradient,) = torch.autograd.grad(found.square().sum(), covariance)
    assert bool(gradient.isfinite().all())


@given(st.integers(1, 5), st.integers(0, 5), st.integers(0, 100))
def test_a_singular_covariance_has_a_lower_root_without_a_warning(size: int, rank: int, seed: int) -> None:
    half = normal(3, size, min(rank, size), seed=seed)
    covariance = half @ half.mT
    root = covariance_root(covariance)
    assert bool(semidefinite(covariance).all())
    assert bool((root.triu(1) == 0).all())
    torch.testing.assert_close(root @ root.mT, covariance, rtol=0, atol=1e-11 * (1 + float(covariance.abs().max())))
    silent = root.diagonal(dim1=-2, dim2=-1) == 0
    assert bool((root[silent[..., None, :].expand_as(root)] == 0).all())


def test_a_negative_eigenvalue_is_set_to_zero_with_a_warning_and_others_are_left_alone() -> None:
    """[[1, 2], [2, 1]] has eigenvalues 3 and -1: what is left is 3/2 [[1, 1], [1, 1]]."""
    fine = torch.tensor([[2.0, 0.5], [0.5, 1.0]], dtype=torch.float64)
    broken = torch.tensor([[1.0, 2.0], [2.0, 1.0]], dtype=torch.float64)
    both = torch.stack((fine, broken)).requires_grad_()
    assert semidefinite(both).tolist() == [True, False]
    with pytest.warns(EstimateWarning, match=r"1 covariance.*down to -33\.3%.*Unscented"):
        root = covariance_root(both)
    torch.testing.assert_close((root @ root.mT)[1], torch.full((2, 2), 1.5, dtype=torch.float64))
    torch.testing.assert_close(root[0], torch.linalg.cholesky(fine))
    (gradient,) = torch.autograd.grad(root.sum(), both)
    assert bool(gradient.isfinite().all())


def test_a_covariance_without_a_variance_is_none() -> None:
    matrix = torch.tensor([[0.0, 1.0], [1.0, 1.0]])
    assert not bool(semidefinite(matrix))
    with pytest.warns(EstimateWarning, match="repaired"):
        covariance_root(matrix)


def test_rows_and_columns_move_to_the_front_and_back() -> None:
    matrix = normal(4, 5, 2, 3)
    assert front(matrix).shape == (2, 3, 4, 5)
    assert torch.equal(back(front(matrix)), matrix)
