import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bayeswm.base import FitError, FitWarning, SpecError
from bayeswm.inference.precisions import (
    BlockPrecision,
    DensePrecision,
    DiagonalPrecision,
    KroneckerPrecision,
    Precision,
    project,
)
from tests.inference.joints import F64, randn


def covariance(law: Precision, size: int) -> torch.Tensor:
    """What spread does to standard normal deviations, exactly."""
    factor = law.spread(torch.eye(size, dtype=F64))
    return factor.mT @ factor


def positive(size: int, seed: int) -> torch.Tensor:
    a = randn(size, size, seed=seed)
    return a @ a.mT


@given(st.integers(1, 4), st.integers(1, 3), st.integers(0, 1000))
def test_kronecker_is_the_matrix_that_it_stands_for(inputs: int, outputs: int, seed: int) -> None:
    a, g = positive(inputs, seed), positive(outputs, seed + 1)
    prior = (0.1 + randn(inputs, 1, seed=seed + 2).square()) * (0.1 + randn(outputs, seed=seed + 3).square())
    law = KroneckerPrecision(a, g, prior)
    whole = torch.kron(a, g) + torch.diag(prior.flatten())
    torch.testing.assert_close(covariance(law, len(whole)) @ whole, torch.eye(len(whole)).double(), rtol=0, atol=1e-7)
    torch.testing.assert_close(law.log_det, torch.logdet(whole), rtol=1e-9, atol=1e-9)


def test_kronecker_refuses_a_prior_that_does_not_split() -> None:
    with pytest.raises(SpecError, match="factor of the input"):
        KroneckerPrecision(torch.eye(2), torch.eye(2), torch.tensor([[1.0, 1.0], [1.0, 2.0]]))


def test_blocks_are_put_where_they_belong() -> None:
    dense, diagonal = positive(2, 0) + torch.eye(2), torch.tensor([4.0], dtype=F64)
    law = BlockPrecision(
        (torch.tensor([2, 0]), torch.tensor([1])), (DensePrecision(dense), DiagonalPrecision(diagonal))
    )
    whole = torch.zeros(3, 3, dtype=F64)
    whole[1, 1] = 4.0
    whole[torch.tensor([[2], [0]]), torch.tensor([2, 0])] = dense
    torch.testing.assert_close(covariance(law, 3), torch.linalg.inv(whole))
    torch.testing.assert_close(law.log_det, torch.logdet(whole))


def test_a_matrix_of_extreme_units_is_positive() -> None:
    scale = torch.tensor([1e-12, 1.0, 1e12], dtype=F64)
    plain = 0.5 * torch.eye(3, dtype=F64) + 0.5
    found = covariance(DensePrecision(scale[:, None] * plain * scale), 3)
    torch.testing.assert_close(scale[:, None] * found * scale, torch.linalg.inv(plain), rtol=1e-12, atol=1e-12)


def test_directions_of_negative_curvature_are_turned_with_a_warning() -> None:
    with pytest.warns(FitWarning, match="does not fall in 1 of 2 directions"):
        turned = project(torch.diag(torch.tensor([2.0, -3.0], dtype=F64)))
    torch.testing.assert_close(turned, torch.diag(torch.tensor([2.0, 3.0], dtype=F64)))
    with pytest.warns(FitWarning):
        DensePrecision(torch.zeros(2, 2, dtype=F64)).spread(torch.ones(1, 2, dtype=F64))


def test_what_is_no_curvature_of_a_maximum_is_refused() -> None:
    with pytest.raises(FitError, match="finite curvature"):
        DensePrecision(torch.full((2, 2), torch.nan))
    with pytest.raises(FitError, match="curves upwards"):
        DiagonalPrecision(torch.tensor([1.0, -1.0]))
