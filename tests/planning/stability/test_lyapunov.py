import numpy as np
import pytest
import torch

from bayeswm.base.errors import DataError, SpecError
from bayeswm.planning import lyapunov
from tests.planning.linear_systems import starts


@pytest.mark.parametrize("a", [0.0, 0.5, -0.9, 0.99999])
def test_scalar(a):
    found = lyapunov(torch.tensor([[a]], dtype=torch.float64), torch.tensor([[2.0]]))
    assert float(found.P) == pytest.approx(2 / (1 - a**2), rel=1e-10)
    assert float(found.rate) == pytest.approx(a**2, rel=1e-10)
    assert float(found.spectral_radius) == pytest.approx(abs(a))
    assert bool(found.valid)


@pytest.mark.parametrize("a", [1.0, -1.0, 1.5])
def test_what_is_not_stable_has_none(a):
    found = lyapunov(torch.tensor([[a]]))
    assert not bool(found.valid)
    assert float(found.rate) == float("inf")
    assert bool(found.P.isnan().all())


def stable(count, n, radius, seed=0):
    A = torch.randn(count, n, n, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return A * (radius / torch.linalg.eigvals(A).abs().amax(-1))[:, None, None]


@pytest.mark.parametrize("radius", [0.3, 0.999])
def test_it_solves_the_equation_that_scipy_solves(radius):
    linalg = pytest.importorskip("scipy.linalg")
    A = stable(5, 4, radius)
    found = lyapunov(A)
    assert bool(found.valid.all())
    torch.testing.assert_close(found.spectral_radius, torch.full((5,), radius, dtype=torch.float64))
    for a, P in zip(A, found.P, strict=True):
        exact = linalg.solve_discrete_lyapunov(a.T.numpy(), np.eye(4))
        np.testing.assert_allclose(P.numpy(), exact, rtol=1e-8, atol=1e-8 * np.abs(exact).max())


def test_v_falls_by_q_and_at_most_by_the_rate():
    A = stable(3, 4, 0.95, seed=1)
    root = starts(4)
    Q = root @ root.T + 0.1 * torch.eye(4)
    found = lyapunov(A, Q)
    x = starts(200, seed=7)
    before = ((x @ found.P) * x).sum(-1)
    after = (((x @ A.mT) @ found.P) * (x @ A.mT)).sum(-1)
    torch.testing.assert_close(before - after, ((x @ Q) * x).sum(-1).expand(3, -1), rtol=1e-8, atol=1e-8)
    assert bool((after <= found.rate[:, None] * before * (1 + 1e-10)).all())
    # the rate is reached: the eigenvector
    for a, P, rate in zip(A, found.P, found.rate, strict=True):
        values = torch.linalg.eigvals(torch.linalg.solve(P, a.T @ P @ a)).real
        assert float(values.max()) == pytest.approx(float(rate), rel=1e-8)
    assert bool((found.rate >= found.spectral_radius.square() - 1e-12).all())


def test_a_long_transient_is_still_certified():
    A = torch.tensor([[0.5, 100.0], [0.0, 0.5]])
    found = lyapunov(A)
    assert bool(found.valid)
    torch.testing.assert_close(A.T.double() @ found.P @ A.double() - found.P, -torch.eye(2).double(), rtol=0, atol=1e-9)


def test_input_that_makes_no_sense():
    with pytest.raises(SpecError, match="positive definite"):
        lyapunov(torch.eye(2) / 2, torch.diag(torch.tensor([1.0, -1.0])))
    with pytest.raises(SpecError, match="shape"):
        lyapunov(torch.zeros(2, 3))
    with pytest.raises(DataError, match="finite"):
        lyapunov(torch.full((1, 1), float("nan")))
