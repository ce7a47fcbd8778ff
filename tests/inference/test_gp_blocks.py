"""Forward substitution by blocks against the library's."""

import pytest
import torch

from bayeswm.inference.gp_blocks import ForwardSolver

F64 = torch.float64


@pytest.mark.parametrize("n", [1, 31, 32, 200])
def test_it_is_forward_substitution(n):
    g = torch.Generator().manual_seed(n)
    matrix = torch.randn(n, n, generator=g, dtype=F64)
    tril = torch.linalg.cholesky(matrix @ matrix.mT + torch.eye(n, dtype=F64))
    right = torch.randn(n, 7, generator=g, dtype=F64)
    expected = torch.linalg.solve_triangular(tril, right, upper=False)
    solver, work = ForwardSolver(tril), right.clone()
    assert solver.solve_(work) is work
    torch.testing.assert_close(work, expected, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(solver.squares_(right.clone()), expected.square().sum(0))


def test_it_is_as_accurate_where_the_matrix_is_nearly_singular():
    x = torch.linspace(0, 1, 200, dtype=F64)
    covariance = torch.exp(-0.5 * (x[:, None] - x).square()) + 1e-10 * torch.eye(200, dtype=F64)
    tril = torch.linalg.cholesky(covariance)
    # The covariance with itself: what is solved for is the factor's transpose. Rounding is multiplied by the condition
    # numbers of the factor, near 1e6, and of a block, near 1e3: 1e-16 * 1e9.
    found = ForwardSolver(tril).solve_(covariance.clone())
    torch.testing.assert_close(found, tril.mT, rtol=0, atol=1e-7)


def test_autograd_may_follow():
    tril = torch.tensor([[2.0, 0.0], [1.0, 4.0]], dtype=F64)
    right = torch.ones(2, 3, dtype=F64, requires_grad=True)
    assert torch.autograd.gradcheck(ForwardSolver(tril).solve_, (right,))
