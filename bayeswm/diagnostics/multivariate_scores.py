"""Proper scores of several predicted quantities together, as functions of tensors."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from bayeswm.base.errors import DataError
from bayeswm.diagnostics.univariate_scores import sample_weights

# distances in work at one time: they stay in a processor's second cache
_WORK = 2**15


def energy_score(samples: Tensor, observed: Tensor, *, weight: Tensor | None = None, fair: bool = True) -> Tensor:
    r"""Energy score estimated from samples; lower is better.

    .. math:: \sum_i w_i \|x_i - y\| - \frac{\sum_{ij} w_i w_j \|x_i - x_j\|}{2 (1 - \sum_i w_i^2)}

    For one variable it is the CRPS. Variables of different units are to be scaled before: distances add them up. The
    time grows with the square of the number of samples, the memory does not, also where gradients are taken.
    Distances come from differences, so that near-duplicates keep theirs.

    Parameters
    ----------
    samples : Tensor, shape (samples, ..., d)
        Draws.
    observed : Tensor, shape (..., d)
        What came.
    weight : Tensor, shape (samples,) or (samples, ...), optional
        Weights, normalised here; equal by default.
    fair : bool
        As in :func:`crps_samples`: unbiased for the law that the samples come from, NaN for a single sample; otherwise
        the score of the samples themselves as a discrete law, without the division by 1 - sum of w^2.

    Returns
    -------
    Tensor, shape (...)

    Raises
    ------
    DataError
        If shapes do not fit, or weights are negative.

    References
    ----------
    Gneiting and Raftery (2007), Strictly proper scoring rules, prediction, and estimation, eq. 22.

    Examples
    --------
    >>> draws, came = torch.tensor([[0.0, 0.0], [3.0, 4.0]]), torch.tensor([3.0, 0.0])
    >>> [float(energy_score(draws, came, fair=f)) for f in (True, False)]
    [1.0, 2.25]
    """
    offset = offsets(samples, observed)
    share = sample_weights(weight, offset[..., 0])
    near = (share * torch.linalg.vector_norm(offset, dim=-1)).sum(0)
    pairs = pair_norm(offset, None if weight is None else share)
    if not fair:
        return near - pairs / 2
    if len(samples) == 1:
        return torch.full_like(near, float("nan"))
    return near - pairs / (2 * (1 - share.square().sum(0)))


def pair_norm(points: Tensor, weight: Tensor | None = None) -> Tensor:
    """Return the weighted mean distance of all ordered pairs of points, each with itself too.

    Parameters
    ----------
    points : Tensor, shape (n, ..., d)
        Points.
    weight : Tensor, shape (n, ...), optional
        Weights that sum to 1 along the first axis; equal by default.

    Returns
    -------
    Tensor, shape (...)

    Examples
    --------
    >>> float(pair_norm(torch.tensor([[0.0, 0.0], [3.0, 4.0]])))
    2.5
    """
    n, *batch, d = points.shape
    rows = points.movedim(-1, 0).movedim(1, -1).reshape(d, -1, n).contiguous()
    each = None if weight is None else weight.movedim(0, -1).reshape(-1, n).contiguous()
    block = max(1, min(-(-n // 8), _WORK // n))
    step = max(1, _WORK // (block * n))
    graph = torch.is_grad_enabled() and (points.requires_grad or (weight is not None and weight.requires_grad))
    found = list[Tensor]()
    for at in range(0, rows.shape[1], step):
        part, share = rows[:, at : at + step], None if each is None else each[at : at + step]
        total = part.new_zeros(part.shape[1])
        for begin in range(0, n, block):
            if graph:  # computed again in the backward pass, so that the distances need not be kept
                total = total + checkpoint(_block, part, share, slice(begin, begin + block), use_reentrant=False)
            else:
                total += _block(part, share, slice(begin, begin + block))
        found.append(total)
    mean = torch.cat(found) if found else rows.new_zeros(0)
    return (mean if weight is not None else mean / n**2).view(batch)


def _block(rows: Tensor, share: Tensor | None, some: slice) -> Tensor:
    """Return the sum over pairs of some points with those behind them, each pair counted for both its orders."""
    first, second = rows[:, :, some, None], rows[:, :, None, some.start :]
    if rows.requires_grad:
        distance = torch.linalg.vector_norm(first - second, dim=0)  # its gradient at 0 is 0
    else:
        distance = (first[0] - second[0]).square_()
        gap = torch.empty_like(distance)
        for a, b in zip(first[1:], second[1:], strict=True):
            torch.sub(a, b, out=gap)
            distance.addcmul_(gap, gap)
        distance.sqrt_()
    inner = first.shape[2]
    if share is None:
        return 2 * distance.sum((1, 2)) - distance[:, :, :inner].sum((1, 2))
    near, behind = share[:, some], share[:, some.start :]
    twice = torch.cat((behind[:, :inner], 2 * behind[:, inner:]), 1)
    return (near * (distance @ twice[..., None])[..., 0]).sum(1)


def variogram_score(samples: Tensor, observed: Tensor, *, weight: Tensor | None = None, order: float = 0.5) -> Tensor:
    r"""Variogram score estimated from samples: how well differences between variables are told; lower is better.

    .. math:: \sum_{ij} \left(|y_i - y_j|^p - \sum_k w_k |x_{ki} - x_{kj}|^p\right)^2

    Over all ordered pairs of variables, each of weight 1; they are to be in one unit, or scaled before. Blind to a
    shift that all variables share.

    Parameters
    ----------
    samples : Tensor, shape (samples, ..., d)
        Draws.
    observed : Tensor, shape (..., d)
        What came.
    weight : Tensor, shape (samples,) or (samples, ...), optional
        Weights, normalised here; equal by default.
    order : float
        The power p.

    Returns
    -------
    Tensor, shape (...)

    Raises
    ------
    DataError
        If shapes do not fit, or weights are negative.

    References
    ----------
    Scheuerer and Hamill (2015), Variogram-based proper scoring rules for probabilistic forecasts.

    Examples
    --------
    >>> draws = torch.tensor([[0.0, 1.0], [0.0, 9.0]])
    >>> float(variogram_score(draws, torch.tensor([0.0, 4.0])))
    0.0
    """
    share = sample_weights(weight, offsets(samples, observed)[..., 0])
    d = samples.shape[-1]
    score = torch.zeros_like(observed[..., 0] if d else share[0])
    for i in range(d):
        for j in range(i + 1, d):
            told = (share * _power(samples[..., i] - samples[..., j], order)).sum(0)
            score = score + 2 * (_power(observed[..., i] - observed[..., j], order) - told).square()
    return score


def dawid_sebastiani_multivariate(mean: Tensor, covariance: Tensor, observed: Tensor) -> Tensor:
    r"""Score of a predicted mean vector and covariance, whatever the law; lower is better.

    .. math:: \log \det \Sigma + (y - \mu)^\top \Sigma^{-1} (y - \mu)

    Parameters
    ----------
    mean, observed : Tensor, shape (..., d)
        Predicted mean, and what came.
    covariance : Tensor, shape (..., d, d)
        Positive definite.

    Returns
    -------
    Tensor, shape (...)

    Raises
    ------
    DataError
        If a covariance is not positive definite.

    References
    ----------
    Dawid and Sebastiani (1999), Coherent dispersion criteria for optimal experimental design.

    Examples
    --------
    >>> float(dawid_sebastiani_multivariate(torch.zeros(2), torch.eye(2), torch.tensor([3.0, 4.0])))
    25.0
    """
    factor, failed = torch.linalg.cholesky_ex(covariance)
    if bool(failed.any()):
        raise DataError(
            f"expected positive definite covariances, got {int((failed > 0).sum())} that are not; too few samples, or "
            "variables without noise: score those that have some"
        )
    error = torch.linalg.solve_triangular(factor, (observed - mean)[..., None], upper=False)[..., 0]
    return 2 * factor.diagonal(dim1=-2, dim2=-1).log().sum(-1) + error.square().sum(-1)


def offsets(samples: Tensor, observed: Tensor) -> Tensor:
    """Return samples less what came, shape (samples, ..., d); a common shift changes nothing but the rounding.

    Raises
    ------
    DataError
        If shapes do not fit, or there is no sample.

    Examples
    --------
    >>> offsets(torch.ones(3, 2), torch.ones(2)).shape
    torch.Size([3, 2])
    """
    if samples.ndim < 2 or samples.shape[1:] != observed.shape or not len(samples) or not samples.shape[-1]:
        raise DataError(
            f"expected samples of shape (samples, ..., d), at least one of each, for outcomes (..., d), got "
            f"{tuple(samples.shape)} and {tuple(observed.shape)}"
        )
    return samples - observed


def _power(gap: Tensor, order: float) -> Tensor:
    """Return |gap|^p, with gradient 0 at 0, where a power below 1 has none."""
    zero = gap == 0
    return torch.where(zero, 0.0, torch.where(zero, 1.0, gap).abs() ** order)
