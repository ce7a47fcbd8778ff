"""P-values of samples against exact laws. A test passes where the p-value is above 1e-5, from a seeded generator."""

import math

import torch
from torch import Tensor

BUDGET = 1e-5


def chi_square_p(statistic: Tensor | float, degrees: float) -> float:
    """P(chi-square with so many degrees of freedom > statistic)."""
    half = torch.as_tensor(statistic, dtype=torch.float64) / 2
    return float(torch.special.gammaincc(torch.tensor(degrees / 2, dtype=torch.float64), half))


def mean_p(values: Tensor, expected: Tensor | float) -> float:
    """Smallest two-sided p-value, Bonferroni-corrected, of means over the first axis (n >= 30 independent rows)."""
    expected = torch.as_tensor(expected, dtype=torch.float64).expand(values.shape[1:]).flatten()
    values = values.double().reshape(len(values), -1)
    spread = values.std(0) / math.sqrt(len(values))
    gap = (values.mean(0) - expected).abs()
    # rounding is no evidence
    gap = torch.where(gap < 1e-12, 0.0, gap)
    z = torch.where(gap == 0, 0.0, gap / spread.clamp(min=1e-300))
    return float((torch.special.erfc(z / math.sqrt(2)).min() * values.shape[1]).clamp(max=1.0))


def gaussian_p(samples: Tensor, mean: Tensor, covariance: Tensor) -> tuple[float, float]:
    """P-values of the mean and of the covariance of independent rows (n, d) against an exact Gaussian.

    The rows are whitened; the mean gives n |m|^2 ~ chi-square(d), the covariance the likelihood ratio
    n (tr S - log det S - d) ~ chi-square(d (d + 1) / 2), with Bartlett's correction.
    """
    n, d = samples.shape
    white = torch.linalg.solve_triangular(torch.linalg.cholesky(covariance), (samples - mean).mT, upper=False).mT
    scatter = white.mT @ white / n
    ratio = n * (scatter.trace() - torch.logdet(scatter) - d)
    correction = 1 - (2 * d + 1 - 2 / (d + 1)) / (6 * n)
    return (
        chi_square_p(n * white.mean(0).square().sum(), d),
        chi_square_p(ratio * correction, d * (d + 1) / 2),
    )
