"""Error bars when the observations of one recording belong together: the cluster bootstrap and its limit."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from bayeswm.base.errors import DataError, EstimateWarning, SpecError, UndefinedWarning
from bayeswm.base.predictive import warn_caller
from bayeswm.base.random import uniform

# fewer recordings than this say little about how recordings differ
FEW = 5
_COLUMNS = 4096  # of the resampled means held at once


_UNDEFINED = "standard errors are undefined and are NaN: all windows come from one recording; split it into episodes"


class BootstrapEstimate(NamedTuple):
    """An estimate, its standard error and the ends of its percentile interval, all of one shape."""

    value: Tensor
    standard_error: Tensor
    lower: Tensor
    upper: Tensor


def cluster_bootstrap(
    values: Tensor,
    cluster: Tensor,
    *,
    generator: torch.Generator,
    statistic: Callable[[Tensor], Tensor] | None = None,
    resamples: int = 1000,
    confidence: float = 0.95,
) -> BootstrapEstimate:
    """Estimate a mean, or a function of means, with errors that treat the cluster as the unit.

    Whole clusters are drawn with replacement, so that whatever dependence there is inside one stays. A resample of
    clusters of different sizes is averaged over its observations. NaN marks an observation that is not there. The
    standard error is scaled by sqrt(C / (C - 1)) for C clusters: for clusters of equal size that makes the variance of
    a mean unbiased.

    Parameters
    ----------
    values : Tensor, shape (n, ...)
        Observations.
    cluster : Tensor, shape (n,)
        Which recording each came from; any labels.
    generator : torch.Generator
        Source of the resampling.
    statistic : callable, optional
        Maps means of shape (resamples, ...) to statistics of shape (resamples, ...); the means themselves by default.
    resamples : int
        How many resamples.
    confidence : float
        Of the percentile interval, which is somewhat too narrow for few clusters.

    Returns
    -------
    BootstrapEstimate
        Errors are NaN for a single cluster, and where the estimate is not finite.

    Raises
    ------
    DataError, SpecError
        For shapes that do not fit, no observation, or arguments out of range.

    Warns
    -----
    UndefinedWarning, EstimateWarning
        For a single cluster, and for fewer than 5.

    References
    ----------
    Field and Welsh (2007), Bootstrapping clustered data, Journal of the Royal Statistical Society B 69.

    Examples
    --------
    >>> x = torch.arange(20.0)  # ten recordings of two
    >>> found = cluster_bootstrap(x, torch.arange(20) // 2, generator=torch.Generator().manual_seed(0))
    >>> float(found.value), round(float(found.standard_error), 1)
    (9.5, 1.9)
    """
    if len(values) == 0:
        raise DataError("expected at least one observation, got none")
    if cluster.shape != (len(values),):
        raise DataError(f"expected one cluster label a row, shape ({len(values)},), got {tuple(cluster.shape)}")
    if resamples < 2 or not 0 < confidence < 1:
        raise SpecError(f"expected resamples >= 2 and 0 < confidence < 1, got {resamples} and {confidence}")
    statistic = statistic or (lambda mean: mean)
    total, count = _sums(values.double(), cluster)
    value = statistic((total.sum(0) / count.sum(0))[None])[0]
    clusters = len(total)
    if clusters == 1:
        warnings.warn(_UNDEFINED, UndefinedWarning, stacklevel=2)
        nothing = torch.full_like(value, float("nan"))
        return BootstrapEstimate(value, nothing, nothing, nothing)
    if clusters < FEW:
        warnings.warn(_rough(clusters), EstimateWarning, stacklevel=2)
    drawn = (uniform((resamples, clusters), generator, dtype=torch.float64).cpu() * clusters).long()
    times = torch.zeros(resamples, clusters, dtype=torch.float64).scatter_add_(
        1, drawn.clamp(max=clusters - 1), torch.ones(resamples, clusters, dtype=torch.float64)
    )
    found = statistic(_resampled(times.to(total.device), total, count).view(resamples, *values.shape[1:]))
    error = _std(found) * (clusters / (clusters - 1)) ** 0.5
    tail = (1 - confidence) / 2
    ends = _quantiles(found, (tail, 1 - tail))
    return BootstrapEstimate(value, *(torch.where(value.isfinite(), e, float("nan")) for e in (error, *ends)))


def cluster_error(values: Tensor, cluster: Tensor) -> Tensor:
    """Return the standard error of a mean that treats the cluster as the unit, in closed form.

    With r the sums over each of C clusters of the deviations from the mean of all n observations, it is
    sqrt(C / (C - 1) sum r^2) / n: the sandwich estimate. For clusters of equal size that is the limit of
    :func:`cluster_bootstrap` for many resamples, and for clusters of one observation the usual standard error.

    Parameters
    ----------
    values : Tensor, shape (n, ...)
        Observations; NaN marks one that is not there.
    cluster : Tensor, shape (n,)
        Which recording each came from; any labels.

    Returns
    -------
    Tensor, shape (...)
        NaN where fewer than two clusters have an observation.

    References
    ----------
    Liang and Zeger (1986), Longitudinal data analysis using generalized linear models.

    Examples
    --------
    >>> x = torch.arange(20.0)  # ten recordings of two
    >>> round(float(cluster_error(x, torch.arange(20) // 2)), 2), round(float(cluster_error(x, torch.arange(20))), 2)
    (1.91, 1.32)
    """
    total, count = _sums(values.double(), cluster)
    n, clusters = count.sum(0), (count > 0).sum(0)
    left = total - count * (total.sum(0) / n)
    square = left.square().sum(0) * clusters / (clusters - 1).clamp(min=1)
    return torch.where(clusters > 1, square.sqrt() / n, float("nan"))


def warn_of_few(clusters: int) -> None:
    """Warn of a standard error that rests on few recordings, at the line of the caller's code.

    Warns
    -----
    UndefinedWarning, EstimateWarning
        For a single recording, and for fewer than 5.

    Examples
    --------
    >>> warn_of_few(20)
    """
    if clusters == 1:
        warn_caller(_UNDEFINED, UndefinedWarning)
    elif clusters < FEW:
        warn_caller(_rough(clusters), EstimateWarning)


def _rough(clusters: int) -> str:
    return f"standard errors rest on {clusters} recordings only and are rough; record more"


def _sums(values: Tensor, cluster: Tensor) -> tuple[Tensor, Tensor]:
    """Return the sum and the number of the observations of each cluster, shape (clusters, ...)."""
    row = torch.unique(cluster, return_inverse=True)[1].to(values.device)
    there = ~values.isnan()
    empty = values.new_zeros(int(row.max()) + 1, *values.shape[1:])
    total = empty.index_add(0, row, torch.where(there, values, 0.0))
    return total, empty.index_add(0, row, there.to(values))


def _resampled(times: Tensor, total: Tensor, count: Tensor) -> Tensor:
    total, count = total.view(len(total), -1), count.view(len(count), -1)
    if bool(total.isinf().any()):
        total = torch.where(total.isinf().any(0), float("nan"), total)  # 0 times infinity
    shape = (len(times), total.shape[1])
    mean = total.new_empty(shape)
    for at in range(0, shape[1], _COLUMNS):
        part = slice(at, at + _COLUMNS)
        mean[:, part] = (times @ total[:, part]) / (times @ count[:, part])
    return mean


def _quantiles(values: Tensor, probabilities: tuple[float, ...]) -> list[Tensor]:
    """Return quantiles along the first axis, NaN left out (torch's own refuse large inputs)."""
    ordered = torch.from_numpy(np.sort(values.detach().cpu().numpy(), axis=0)).to(values.device)  # NaN comes last
    last = (~ordered.isnan()).sum(0, keepdim=True) - 1
    out: list[Tensor] = []
    for p in probabilities:
        position = p * last.clamp(min=0).double()
        below = position.floor().long()
        low, high = (ordered.gather(0, i)[0] for i in (below, torch.minimum(below + 1, last.clamp(min=0))))
        out.append(low + (position - below)[0] * (high - low))
    return out


def _std(values: Tensor) -> Tensor:
    there = ~values.isnan()
    n = there.sum(0)
    center = values.nanmean(0)
    return (torch.where(there, values - center, 0.0).square().sum(0) / (n - 1).clamp(min=1)).sqrt()
