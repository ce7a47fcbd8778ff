"""Proper scores of one predicted quantity at a time, as functions of tensors."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from bayeswm.base.errors import DataError
from bayeswm.diagnostics.row_sort import by_numpy, order_of_rows, sort_rows, sorted_rows

# values in work at one time: two such blocks fit into a processor's second cache
_BLOCK = 2**16
_SQRT_PI, _SQRT_TWO_PI = math.sqrt(math.pi), math.sqrt(2 * math.pi)


def crps_gaussian(mean: Tensor, scale: Tensor, observed: Tensor) -> Tensor:
    r"""Continuous ranked probability score of Gaussian predictions; lower is better.

    .. math:: \sigma \left[z (2 \Phi(z) - 1) + 2 \varphi(z) - \pi^{-1/2}\right], \quad z = (y - \mu) / \sigma

    A scale of 0 is a point prediction, whose score is the absolute error.

    Parameters
    ----------
    mean, scale, observed : Tensor, shapes that broadcast
        Predicted mean and standard deviation, and what came, in one unit, which the score has too.

    Returns
    -------
    Tensor, of the broadcast shape

    References
    ----------
    Gneiting and Raftery (2007), Strictly proper scoring rules, prediction, and estimation, eq. 21.

    Examples
    --------
    >>> round(float(crps_gaussian(torch.tensor(0.0), torch.tensor(1.0), torch.tensor(0.0))), 4)
    0.2337
    """
    return mean_distance(observed - mean, scale) - scale / _SQRT_PI


def crps_mixture(
    mean: Tensor, scale: Tensor, observed: Tensor, *, weight: Tensor | None = None, fair: bool = False
) -> Tensor:
    r"""Continuous ranked probability score of mixtures of Gaussians, in closed form; lower is better.

    .. math:: \sum_i w_i A(y - \mu_i, \sigma_i)
              - \tfrac12 \sum_{ij} w_i w_j A\bigl(\mu_i - \mu_j, (\sigma_i^2 + \sigma_j^2)^{1/2}\bigr),
              \quad A(d, s) = E|N(d, s^2)|

    The time grows with the square of the number of components, the memory does not.

    Parameters
    ----------
    mean, scale : Tensor, shape (components, ...)
        Means and standard deviations; a scale of 0 is a point.
    observed : Tensor, shape (...)
        What came.
    weight : Tensor, shape (components,) or (components, ...), optional
        Weights, normalised here; equal by default.
    fair : bool
        The components are random draws from a population, and the score of the whole population is to be estimated
        without bias: pairs of a component with itself are left out. NaN for a single component.

    Returns
    -------
    Tensor, shape (...)

    References
    ----------
    Grimit, Gneiting, Berrocal and Johnson (2006), The continuous ranked probability score for circular variables.

    Examples
    --------
    >>> members = torch.tensor([-1.0, 1.0])
    >>> round(float(crps_mixture(members, torch.tensor([0.5, 0.5]), torch.tensor(0.0))), 4)
    0.3672
    """
    mean, scale = torch.broadcast_tensors(mean, scale)
    count = len(mean)
    weight = sample_weights(weight, mean)
    offset = mean - observed  # a common shift changes nothing but the rounding
    score = (weight * mean_distance(offset, scale)).sum(0)
    variance = scale.square()
    pairs = torch.zeros_like(score)
    for k in range(1, count):
        gap = mean_distance(offset[k:] - offset[:-k], (variance[k:] + variance[:-k]).sqrt())
        pairs = pairs + (weight[k:] * weight[:-k] * gap).sum(0)
    if fair:
        return score - pairs / (1 - weight.square().sum(0))
    return score - pairs - (weight.square() * scale).sum(0) / _SQRT_PI


def crps_samples(samples: Tensor, observed: Tensor, *, weight: Tensor | None = None, fair: bool = True) -> Tensor:
    r"""Continuous ranked probability score estimated from samples, in n log n; lower is better.

    .. math:: \sum_i w_i |x_i - y| - \frac{\sum_{ij} w_i w_j |x_i - x_j|}{2 (1 - \sum_i w_i^2)}

    This fair estimator is unbiased for the law that the samples come from; with ``fair=False`` the division by
    1 - sum of w^2 is dropped, which gives the score of the samples themselves as a discrete law. For a calibrated
    Gaussian and n equal weights that one is too high by the factor 1 + 1/n.

    Parameters
    ----------
    samples : Tensor, shape (samples, ...)
        Draws.
    observed : Tensor, shape (...)
        What came.
    weight : Tensor, shape (samples,) or (samples, ...), optional
        Weights, normalised here; equal by default.
    fair : bool
        See above. NaN for a single sample.

    Returns
    -------
    Tensor, shape (...)

    References
    ----------
    Ferro (2014), Fair scores for ensemble forecasts; Zamo and Naveau (2018), Estimation of the CRPS.

    Examples
    --------
    >>> draws, came = torch.tensor([1.0, 2.0, 4.0]), torch.tensor(3.0)
    >>> [round(float(crps_samples(draws, came, fair=f)), 4) for f in (True, False)]
    [0.3333, 0.6667]
    """
    if weight is None and by_numpy(samples) and by_numpy(observed) and samples.dtype == observed.dtype:
        return _crps_by_blocks(samples, observed, fair=fair)
    offset = samples - observed
    if weight is None:
        near, gap, loss = offset.abs().mean(0), pair_distance(offset), 1 / len(samples)
    else:
        weight = sample_weights(weight, offset)
        near, gap = (weight * offset.abs()).sum(0), pair_distance(offset, weight)
        loss = weight.square().sum(0)
    if not fair:
        return near - gap / 2
    if len(samples) == 1:
        return torch.full_like(near, float("nan"))
    return near - gap / (2 * (1 - loss))


def mean_distance(offset: Tensor, scale: Tensor) -> Tensor:
    """Return E|X| for X ~ N(offset, scale^2); a scale of 0 gives the absolute value.

    Examples
    --------
    >>> round(float(mean_distance(torch.tensor(0.0), torch.tensor(1.0))), 4)
    0.7979
    """
    silent = scale <= 0
    safe = torch.where(silent, 1.0, scale)
    z = offset / safe
    value = offset * torch.erf(z / math.sqrt(2)) + safe * (2 / _SQRT_TWO_PI) * torch.exp(-0.5 * z.square())
    return torch.where(silent, offset.abs(), value)


def pair_distance(samples: Tensor, weight: Tensor | None = None) -> Tensor:
    """Return the weighted mean distance of all ordered pairs of samples, each with itself too, by one sort.

    Parameters
    ----------
    samples : Tensor, shape (samples, ...)
        Draws.
    weight : Tensor, shape (samples, ...), optional
        Weights that sum to 1 along the first axis; equal by default.

    Returns
    -------
    Tensor, shape (...)

    Examples
    --------
    >>> float(pair_distance(torch.tensor([0.0, 1.0])))
    0.5
    """
    n = len(samples)
    rows = samples.movedim(0, -1)
    if weight is None:
        x = sorted_rows(rows)
        rank = torch.arange(1, n + 1, dtype=x.dtype, device=x.device)
        return (x * (2 * rank - n - 1)).sum(-1) * (2 / n**2)
    order = order_of_rows(rows)
    x, w = rows.gather(-1, order), weight.movedim(0, -1).gather(-1, order)
    return 2 * (w * x * (2 * w.cumsum(-1) - w - w.sum(-1, keepdim=True))).sum(-1)


def _crps_by_blocks(samples: Tensor, observed: Tensor, *, fair: bool) -> Tensor:
    """Return the score of equally weighted samples, some rows at a time, so that they stay in the cache."""
    n = len(samples)
    rows, came = samples.movedim(0, -1), observed.expand(samples.shape[1:])
    x, y = rows.reshape(-1, n).numpy(), came.reshape(-1, 1).numpy()
    if fair and n == 1:
        return torch.full_like(came, float("nan"))
    rank = (2 * np.arange(1, n + 1, dtype=x.dtype) - n - 1) / (n * (n - 1 if fair else n))
    width = -(-n // 4) * 4 if n > 8 else n  # what is added is infinite and stays behind
    step = max(1, min(len(x), _BLOCK // max(width, 1)))
    room, work = np.empty((step, width), x.dtype), np.empty((step, width), x.dtype)
    found = np.empty(len(x), x.dtype)
    for at in range(0, len(x), step):
        block, spare = room[: len(x) - at], work[: len(x) - at]
        block[:, n:] = np.inf
        np.subtract(x[at : at + step], y[at : at + step], out=block[:, :n])
        near = np.abs(block[:, :n], out=spare[:, :n]).mean(1)
        found[at : at + step] = near - sort_rows(block, spare)[:, :n] @ rank
    return torch.from_numpy(found).view(came.shape)


def sample_weights(weight: Tensor | None, values: Tensor) -> Tensor:
    """Return weights that sum to 1 along the first axis, spread over the values.

    Parameters
    ----------
    weight : Tensor, shape (n,) or (n, ...), optional
        Weights; equal by default.
    values : Tensor, shape (n, ...)
        What is weighted.

    Returns
    -------
    Tensor, shape (n, ...)

    Raises
    ------
    DataError
        If the shape does not fit, or a weight is negative or NaN.

    Examples
    --------
    >>> sample_weights(torch.tensor([1.0, 3.0]), torch.zeros(2))
    tensor([0.2500, 0.7500])
    """
    if weight is None:
        return torch.full_like(values, 1 / len(values))
    if weight.shape not in ((len(values),), values.shape):
        raise DataError(
            f"expected weights of shape ({len(values)},) or {tuple(values.shape)}, got {tuple(weight.shape)}"
        )
    if not bool((weight >= 0).all()):
        raise DataError("expected weights >= 0, got negative ones or NaN")
    weight = weight.to(values) if weight.ndim == values.ndim else weight.to(values).view(-1, *(1,) * (values.ndim - 1))
    return (weight / weight.sum(0)).expand_as(values)
