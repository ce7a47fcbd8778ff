import pytest
import torch
from torch.distributions import Normal

from bayeswm.causal.interventions.changes import Clamp
from bayeswm.causal.interventions.clamped import Kept

BOUNDS = [Clamp(None, 1.0), Clamp(0.5, None), Clamp(-0.2, 1.3)]


@pytest.mark.parametrize("bound", BOUNDS)
def test_moments_and_cdf_against_a_fine_grid(bound: Clamp) -> None:
    grid = torch.linspace(-8, 8, 200_001, dtype=torch.float64)
    density = Normal(0.0, 1.0).log_prob(grid).exp() * (grid[1] - grid[0])
    x = bound.apply(0.8 + 1.5 * grid)
    kept = Kept(torch.full((1,), 0.8).double(), torch.full((1,), 1.5).double(), bounds=(bound,))
    mean = (density * x).sum()
    assert kept.mean.item() == pytest.approx(float(mean), abs=1e-7)
    assert kept.variance.item() == pytest.approx(float((density * (x - mean).square()).sum()), abs=1e-7)
    for point in (-0.3, 0.7, 1.3):
        assert kept.cdf(torch.tensor([point], dtype=torch.float64)).item() == pytest.approx(
            float((density * (x <= point)).sum()), abs=1e-4
        )


def test_without_noise_or_bounds() -> None:
    kept = Kept(torch.tensor([2.0, 2.0]), torch.tensor([0.0, 3.0]), bounds=(Clamp(None, 1.0), None))
    assert (kept.mean.tolist(), kept.variance.tolist()) == ([1.0, 2.0], [0.0, 9.0])
