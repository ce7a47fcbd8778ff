"""Proper scores of predicted quantiles and intervals, as functions of tensors."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from bayeswm.base.errors import DataError, SpecError
from bayeswm.diagnostics.levels import check_level


def interval_score(lower: Tensor, upper: Tensor, observed: Tensor, *, level: float) -> Tensor:
    r"""Score of central prediction intervals; lower is better.

    .. math:: (u - l) + \tfrac{2}{\alpha} (l - y)_+ + \tfrac{2}{\alpha} (y - u)_+, \quad \alpha = 1 - \text{level}

    Parameters
    ----------
    lower, upper, observed : Tensor, shapes that broadcast
        Ends of the interval and what came.
    level : float
        Probability that the interval is said to hold.

    Returns
    -------
    Tensor, of the broadcast shape

    Raises
    ------
    SpecError
        If the level is not between 0 and 1.

    References
    ----------
    Gneiting and Raftery (2007), Strictly proper scoring rules, prediction, and estimation, eq. 43.

    Examples
    --------
    >>> float(interval_score(torch.tensor(-1.0), torch.tensor(1.0), torch.tensor(1.5), level=0.5))
    4.0
    """
    check_level(level)
    outside = (lower - observed).clamp(min=0) + (observed - upper).clamp(min=0)
    return upper - lower + 2 / (1 - level) * outside


def pinball_loss(quantile: Tensor, observed: Tensor, *, probability: float | Tensor) -> Tensor:
    r"""Score of predicted quantiles; lower is better.

    .. math:: \tau (y - q)_+ + (1 - \tau) (q - y)_+

    Its mean over all probabilities is half the CRPS.

    Parameters
    ----------
    quantile, observed : Tensor, shapes that broadcast
        Predicted quantile and what came, in one unit, which the score has too.
    probability : float or Tensor that broadcasts
        Of less than the quantile, between 0 and 1.

    Returns
    -------
    Tensor, of the broadcast shape

    Raises
    ------
    SpecError
        If a probability is not between 0 and 1.

    References
    ----------
    Koenker and Bassett (1978), Regression quantiles.

    Examples
    --------
    >>> float(pinball_loss(torch.tensor(1.0), torch.tensor(3.0), probability=0.75))
    1.5
    """
    low, high = (probability, probability) if isinstance(probability, float | int) else probability.aminmax()
    if not (low > 0 and high < 1):
        raise SpecError(f"expected probabilities between 0 and 1, ends excluded, got {probability}")
    error = observed - quantile
    return probability * error.clamp(min=0) + (1 - probability) * (-error).clamp(min=0)


def weighted_interval_score(
    lower: Tensor, upper: Tensor, observed: Tensor, *, median: Tensor, levels: Sequence[float]
) -> Tensor:
    r"""Score of a median and several central intervals, a discrete form of the CRPS; lower is better.

    .. math:: \frac{1}{K + 1/2} \left[\tfrac12 |y - m| + \sum_k \tfrac{\alpha_k}{2} \text{IS}_k\right]

    It is twice the mean pinball loss of the median and all ends.

    Parameters
    ----------
    lower, upper : Tensor, shape (K, ...)
        Ends of the intervals.
    observed, median : Tensor, shape (...)
        What came, and the predicted median.
    levels : sequence of float, length K
        Probabilities that the intervals are said to hold.

    Returns
    -------
    Tensor, shape (...)

    Raises
    ------
    DataError, SpecError
        If there are not as many intervals as levels, or a level is not between 0 and 1.

    References
    ----------
    Bracher, Ray, Gneiting and Reich (2021), Evaluating epidemic forecasts in an interval format, eq. 2.

    Examples
    --------
    >>> low, high, zero = torch.tensor([-1.0]), torch.tensor([1.0]), torch.tensor(0.0)
    >>> round(float(weighted_interval_score(low, high, torch.tensor(1.5), median=zero, levels=[0.5])), 4)
    1.1667
    """
    if not len(levels) == len(lower) == len(upper):
        raise DataError(f"expected ends of {len(levels)} interval(s), got {len(lower)} and {len(upper)}")
    total = 0.5 * (observed - median).abs()
    for level, low, high in zip(levels, lower, upper, strict=True):
        total = total + (1 - level) / 2 * interval_score(low, high, observed, level=level)
    return total / (len(levels) + 0.5)


def log_score_gaussian(mean: Tensor, scale: Tensor, observed: Tensor) -> Tensor:
    """Log density of Gaussian predictions; higher is better.

    A scale of 0 is a point prediction: infinity where it is met, minus infinity elsewhere.

    Parameters
    ----------
    mean, scale, observed : Tensor, shapes that broadcast
        Predicted mean and standard deviation, and what came.

    Returns
    -------
    Tensor, of the broadcast shape

    Examples
    --------
    >>> round(float(log_score_gaussian(torch.tensor(0.0), torch.tensor(1.0), torch.tensor(1.0))), 4)
    -1.4189
    """
    return -0.5 * (dawid_sebastiani(mean, scale.square(), observed) + math.log(2 * math.pi))


def dawid_sebastiani(mean: Tensor, variance: Tensor, observed: Tensor) -> Tensor:
    r"""Score of a predicted mean and variance, whatever the law; lower is better.

    .. math:: \log \sigma^2 + (y - \mu)^2 / \sigma^2

    A variance of 0 is a point prediction: minus infinity where it is met, infinity elsewhere.

    Parameters
    ----------
    mean, variance, observed : Tensor, shapes that broadcast
        Predicted mean and variance, and what came.

    Returns
    -------
    Tensor, of the broadcast shape

    References
    ----------
    Dawid and Sebastiani (1999), Coherent dispersion criteria for optimal experimental design.

    Examples
    --------
    >>> float(dawid_sebastiani(torch.tensor(0.0), torch.tensor(1.0), torch.tensor(2.0)))
    4.0
    """
    error = observed - mean
    silent = variance <= 0
    safe = torch.where(silent, 1.0, variance)
    met = torch.where(error.isnan(), error, torch.where(error == 0, -math.inf, math.inf))
    return torch.where(silent, met, safe.log() + error.square() / safe)
