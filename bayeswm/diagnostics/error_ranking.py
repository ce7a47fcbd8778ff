"""Whether uncertainty says which errors are large, and which inputs are unlike the training data."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from bayeswm.base.errors import DataError


def sparsification_error(error: Tensor, uncertainty: Tensor) -> Tensor:
    """Return the area under the sparsification error (AUSE), normalised: 0 is the best ranking, 1 a random one.

    Let e be the mean error of the k least uncertain of n forecasts, and o that of the k smallest errors. Averaged over
    k = 1..n, the area is sum(e - o) / sum(m - o) with the mean m of all errors, which a ranking at random has on
    average for each k. A ranking that puts the largest errors first is above 1. Forecasts of equal uncertainty count as
    in every order alike.

    Parameters
    ----------
    error : Tensor, shape (n, ...)
        What is to be small, as absolute or squared errors; NaN does not count.
    uncertainty : Tensor, shape (n, ...)
        Any scale: only the order matters.

    Returns
    -------
    Tensor, shape (...)
        Lower is better; NaN for errors that are all alike, which no ranking could tell apart.

    Raises
    ------
    DataError
        If shapes differ.

    References
    ----------
    Ilg, Cicek, Galesso, Klein, Makansi, Hutter and Brox (2018), Uncertainty estimates and multi-hypotheses networks for
    optical flow; the division by the area of a random ranking is added here.

    Examples
    --------
    >>> error = torch.tensor([0.1, 0.2, 0.3, 0.4])
    >>> [round(float(sparsification_error(error, u)), 2) for u in (error, -error, torch.ones(4))]
    [0.0, 2.0, 1.0]
    """
    rows, order = _rows(error, uncertainty)
    found = [_ause(e, u) for e, u in zip(rows, order, strict=True)]
    return torch.tensor(found, dtype=torch.float64, device=error.device).view(error.shape[1:])


def rank_correlation(a: Tensor, b: Tensor) -> Tensor:
    """Return Spearman's rank correlation over the first axis; ties take their mean rank. Higher is better.

    Parameters
    ----------
    a, b : Tensor, shape (n, ...)
        As of :func:`sparsification_error`: errors and uncertainties; NaN in one of them does not count.

    Returns
    -------
    Tensor, shape (...)
        NaN where one of them is constant, or fewer than two are there.

    Raises
    ------
    DataError
        If shapes differ.

    Examples
    --------
    >>> float(rank_correlation(torch.tensor([1.0, 2.0, 3.0]), torch.tensor([1.0, 10.0, 100.0])))
    1.0
    """
    found = list[float]()
    for x, y in zip(*_rows(a, b), strict=True):
        r, s = _ranks(x), _ranks(y)
        r, s = r - r.sum() / max(len(r), 1), s - s.sum() / max(len(s), 1)
        scale = np.sqrt((r @ r) * (s @ s))
        found.append(float(r @ s / scale) if scale > 0 else float("nan"))
    return torch.tensor(found, dtype=torch.float64, device=a.device).view(a.shape[1:])


def ood_auroc(inside: Tensor, outside: Tensor) -> Tensor:
    """Return the probability that what lies outside of the training data is the more uncertain: area under the ROC.

    Parameters
    ----------
    inside, outside : Tensor, shapes (n, ...) and (m, ...)
        Uncertainties, as ``predictive.epistemic_variance``; only their order matters. NaN does not count.

    Returns
    -------
    Tensor, shape (...)
        0.5 tells nothing apart, 1 everything; equal values count half; NaN where one side is empty.

    Raises
    ------
    DataError
        If shapes differ behind the first axis.

    Examples
    --------
    >>> float(ood_auroc(torch.tensor([1.0, 2.0]), torch.tensor([2.0, 3.0])))
    0.875
    """
    if inside.shape[1:] != outside.shape[1:]:
        raise DataError(f"expected shapes (n, ...) and (m, ...), got {tuple(inside.shape)} and {tuple(outside.shape)}")
    found = list[float]()
    for a, b in zip(_columns(inside), _columns(outside), strict=True):
        x, y = a[~np.isnan(a)], b[~np.isnan(b)]
        pairs = len(x) * len(y)
        above = _ranks(np.concatenate((x, y)))[len(x) :].sum() - 0.5 * len(y) * (len(y) + 1)
        found.append(float(above / pairs) if pairs else float("nan"))
    return torch.tensor(found, dtype=torch.float64, device=inside.device).view(inside.shape[1:])


def _ause(error: np.ndarray, uncertainty: np.ndarray) -> float:
    if not len(error):
        return float("nan")
    _, group = np.unique(uncertainty, return_inverse=True)
    tied = (np.bincount(group, error) / np.bincount(group))[group]  # the mean over all orders of those that are equal
    count = np.arange(1, len(error) + 1)
    ranked = np.cumsum(tied[np.argsort(group, kind="stable")]) / count
    best = np.cumsum(np.sort(error)) / count
    area = (error.mean() - best).sum()
    rounding = 1e-12 * np.abs(error).max() * len(error)
    return float((ranked - best).sum() / area) if area > rounding else float("nan")


def _ranks(values: np.ndarray) -> np.ndarray:
    """Return ranks from 1, the mean rank of those that are equal."""
    _, group, count = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(count) - 0.5 * (count - 1))[group]


def _rows(a: Tensor, b: Tensor) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Return the columns of both without the rows in which one of them is NaN."""
    if a.shape != b.shape:
        raise DataError(f"expected errors and uncertainties of one shape, got {tuple(a.shape)} and {tuple(b.shape)}")
    pairs = [(x, y, ~(np.isnan(x) | np.isnan(y))) for x, y in zip(_columns(a), _columns(b), strict=True)]
    return [x[there] for x, _, there in pairs], [y[there] for _, y, there in pairs]


def _columns(values: Tensor) -> np.ndarray:
    return values.detach().cpu().double().reshape(len(values), values.shape[1:].numel()).T.numpy()
