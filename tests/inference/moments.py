"""P-values of draws of many chains against exact moments."""

import torch
from torch import Tensor

from tests.statistical.checks import mean_p


def chain_moments_p(draws: Tensor, mean: Tensor, factor: Tensor) -> float:
    """P-value of means and products of draws (chains, n, D), whitened by the exact mean and Cholesky factor.

    Draws of one chain depend on each other; chains do not, so each gives one row.
    """
    white = (draws - mean) @ torch.linalg.inv(factor).mT
    products = (white[..., :, None] * white[..., None, :]).mean(1)
    return min(mean_p(white.mean(1), 0.0), mean_p(products, torch.eye(len(mean), dtype=draws.dtype)))
