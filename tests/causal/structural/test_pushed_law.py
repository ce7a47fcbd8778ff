import pytest
import torch

import bayeswm as bwm
from bayeswm.causal import Mechanism, StructuralModel
from bayeswm.causal.structural import pushed_law
from tests.causal.reference_models import EMPTY, c6


def test_marginals_of_a_nonlinear_slice_integrate_over_the_parents() -> None:
    law = c6().draw(1).transition(torch.zeros(1, 1, 3).double(), EMPTY.double())
    grid = torch.linspace(-30, 40, 701, dtype=torch.float64)
    x = torch.stack((grid, grid, grid), -1)
    density = law.log_prob(x[:, None, None], marginal=True).exp()[:, 0, 0]
    dx = 0.1
    torch.testing.assert_close(density.sum(0) * dx, torch.ones(3).double(), rtol=1e-6, atol=0)
    mean = (density * x).sum(0) * dx
    torch.testing.assert_close(mean, law.mean[0, 0], rtol=1e-6, atol=1e-9)
    cdf = law.cdf(x[:, None, None])[:, 0, 0]
    # the trapezoidal rule and the first term of its error
    slope = (density[301] - density[299]) / (2 * dx)
    below = (density[:301].sum(0) - 0.5 * density[300]) * dx - dx**2 / 12 * slope
    torch.testing.assert_close(cdf[300], below, rtol=1e-5, atol=1e-8)


def test_a_mechanism_far_from_a_polynomial_is_warned_of() -> None:
    model = StructuralModel(
        {"x": Mechanism(lambda: 0.0, noise=1.0), "y": Mechanism(lambda x: (x > 0.1).double(), noise=0.1)}
    )
    with pytest.warns(bwm.EstimateWarning, match="quadrature"):
        assert model.predictive(torch.zeros(2), EMPTY).mean.isfinite().all()


def test_moments_of_a_product_are_exact() -> None:
    """Y = X + 0.5 M + 0.25 X M with M = 1 + 2 X + U: polynomials of normal numbers, by hand."""
    p = c6().predictive(torch.zeros(3), EMPTY)
    # Y = 0.5 + 2.25 X + 0.5 X^2 + 0.5 U + 0.25 X U + noise
    assert p.mean[0, 2].item() == pytest.approx(1.0)
    assert p.variance[0, 2].item() == pytest.approx(2.25**2 + 0.5**2 * 2 + 0.25 + 0.0625 + 1)
    # Cov(M, Y) = Cov(2 X + U, 2.25 X + 0.5 U)
    assert p.covariance[0, 1, 2].item() == pytest.approx(5.0)


def chain(size: int, *, bend: float) -> StructuralModel:
    """x0 -> x1 -> ..., each with noise."""
    mechanisms = {"x0": Mechanism(lambda: 0.0, noise=1.0)}
    for i in range(1, size):
        mechanisms[f"x{i}"] = Mechanism(lambda x: x + bend * x**2, (f"x{i - 1}",), noise=1.0)
    return StructuralModel(mechanisms)


def test_many_variables() -> None:
    p = chain(20, bend=0.0).predictive(torch.zeros(20), EMPTY)
    torch.testing.assert_close(p.variance[0], torch.arange(1.0, 21.0, dtype=torch.float64))
    bent = chain(10, bend=0.01)
    with pytest.warns(bwm.EstimateWarning, match="quasi-random"):
        p = bent.predictive(torch.zeros(10), EMPTY)
    assert p.mean[0, 1].item() == pytest.approx(0.01, abs=1e-3)


def test_cdfs_in_parts_are_those_at_once(monkeypatch):
    model = StructuralModel(
        {
            "z": Mechanism(lambda: 0.0, noise=1.0),
            "y": Mechanism(lambda z: z.square(), noise=0.5),
        }
    )
    state = torch.tensor([[0.1, 0.7]], dtype=torch.float64)

    def answers():
        law = model.draw(1).transition(torch.zeros(1, 1, 2).double(), torch.zeros(1, 1, 0).double())
        return law.cdf(state), law.log_prob(state, marginal=True)

    whole = answers()
    monkeypatch.setattr(pushed_law, "_CHUNK", 8)
    torch.testing.assert_close(answers(), whole)
