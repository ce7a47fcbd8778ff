"""Scores by quadrature against closed forms."""

import pytest
import torch

from bayeswm.base.laws import Gaussian
from bayeswm.diagnostics.cdf_score import crps_of_cdf
from bayeswm.diagnostics.univariate_scores import crps_mixture

MEAN = torch.tensor([[0.0, 1.0], [0.5, -1.0], [1.5, 0.3]], dtype=torch.float64)
SCALE = torch.tensor([[1.0, 0.2], [0.5, 2.0], [0.8, 0.7]], dtype=torch.float64)
WEIGHT = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)


@pytest.mark.parametrize("fair", [False, True])
@pytest.mark.parametrize("outcome", [[0.0, 0.0], [-4.0, 9.0], [60.0, 0.3]])
def test_mixtures_of_gaussians(outcome: list[float], fair: bool) -> None:
    x = torch.tensor(outcome, dtype=torch.float64)
    found = crps_of_cdf(Gaussian(MEAN[:, None], SCALE[:, None]), x, weight=WEIGHT, fair=fair)
    exact = crps_mixture(MEAN, SCALE, x, weight=WEIGHT, fair=fair)
    torch.testing.assert_close(found, exact, rtol=1e-4, atol=1e-5)


def test_points_without_noise() -> None:
    mean = torch.tensor([[[1.0]]], dtype=torch.float64)
    found = crps_of_cdf(Gaussian(mean), torch.tensor([3.0], dtype=torch.float64), weight=torch.ones(1))
    torch.testing.assert_close(found, torch.tensor([2.0], dtype=torch.float64))
