"""The place of values among weighted samples on the scale of normal scores, and what lies at such a place."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from bayeswm.diagnostics.row_sort import order_of_rows

# beyond these scores no probability is told from 0 or 1
_END = 8.0


class Ranked(NamedTuple):
    """Samples in rising order, and their normal scores: Phi^-1 of the weight below, plus half of that at the value.

    All have shape (..., n), ``slope`` and ``last`` (..., 1): the standard deviation, which carries the curve on beyond
    the samples, and the index of the largest sample that counts.
    """

    values: Tensor
    scores: Tensor
    slope: Tensor
    last: Tensor


def ranked(samples: Tensor, weight: Tensor) -> Ranked:
    """Return samples by rank.

    Parameters
    ----------
    samples : Tensor, shape (..., n)
        Draws; those without weight do not count, and may be NaN.
    weight : Tensor, shape (..., n)
        Weights, not below 0; they need not be normalised.

    Returns
    -------
    Ranked

    Examples
    --------
    >>> ranked(torch.tensor([2.0, 0.0, 1.0]), torch.ones(3)).scores.numpy().round(3)
    array([-0.967,  0.   ,  0.967])
    """
    counts = (weight > 0) & samples.isfinite()
    x = torch.where(counts, samples, float("inf"))
    order = order_of_rows(x.detach())
    share = torch.where(counts, weight, 0.0).double()
    total = share.sum(-1, keepdim=True)
    share = share / torch.where(total > 0, total, 1.0)
    safe = torch.where(counts, samples, 0.0).double()
    center = (share * safe).sum(-1, keepdim=True)
    deviation = torch.where(counts, safe - center, 0.0)
    variance = (share * deviation.square()).sum(-1, keepdim=True)
    slope = torch.where(variance > 0, variance, 1.0).sqrt() * (variance > 0)
    values = x.gather(-1, order).double()
    last = counts.sum(-1, keepdim=True) - 1
    scores = _middle(values.detach(), values.detach(), share.gather(-1, order))
    return Ranked(values, scores, slope, last)


def scores_of(x: Tensor, among: Ranked) -> Tensor:
    """Return the normal scores of values by the curve through the samples, shape (..., m).

    Between two samples it is a straight line, beyond them a line with the samples' standard deviation as its slope. A
    value that meets samples has their score. Without any spread a value that is met has the score 0; one that is missed
    by more than rounding has the score -inf or inf.

    Parameters
    ----------
    x : Tensor, shape (..., m)
        Values; NaN stays NaN.
    among : Ranked
        Samples.

    Examples
    --------
    >>> among = ranked(torch.tensor([0.0, 2.0]), torch.ones(2))
    >>> scores_of(torch.tensor([1.0, 2.0, 3.0]), among).numpy().round(3)
    array([0.   , 0.674, 1.674])
    """
    x = x.double()
    values, scores = among.values, among.scores
    last, slope = among.last.clamp(min=0), among.slope
    low, high = values[..., :1], values.gather(-1, last)
    least, most = scores[..., :1], scores.gather(-1, last)
    right = torch.minimum(torch.searchsorted(values.contiguous(), x.contiguous()), last).clamp(min=1)
    right = torch.minimum(right, last)
    left = (right - 1).clamp(min=0)
    x0, x1 = values.gather(-1, left), values.gather(-1, right)
    z0, z1 = scores.gather(-1, left), scores.gather(-1, right)
    gap = torch.where(x1 > x0, x1 - x0, 1.0)
    inside = torch.where(x1 > x0, z0 + (z1 - z0) * ((x - x0) / gap), z1)
    safe = torch.where(slope > 0, slope, 1.0)
    z = torch.where(x < low, least + (x - low) / safe, torch.where(x > high, most + (x - high) / safe, inside))
    met = (x - low).abs() <= 1e-9 * low.abs().clamp(min=1.0)
    flat = torch.where(met, 0.0, torch.where(x < low, -float("inf"), float("inf")))
    z = torch.where(slope > 0, z, flat)
    return torch.where(x.isnan() | (among.last < 0), float("nan"), z)


def values_at(scores: Tensor, among: Ranked) -> Tensor:
    """Return the values at normal scores: the inverse of :func:`scores_of`, differentiable in the samples.

    Parameters
    ----------
    scores : Tensor, shape (..., m)
        Where to look.
    among : Ranked
        Samples.

    Returns
    -------
    Tensor, shape (..., m); NaN where no sample counts

    Examples
    --------
    >>> among = ranked(torch.tensor([0.0, 2.0]), torch.ones(2))
    >>> values_at(torch.tensor([0.0, 0.6744897, 1.6744897]), among).numpy().round(3)
    array([1., 2., 3.])
    """
    z = scores.double()
    knots, values, last = among.scores, among.values, among.last.clamp(min=0)
    least, most = knots[..., :1], knots.gather(-1, last)
    right = torch.minimum(torch.searchsorted(knots.contiguous(), z.contiguous()), last).clamp(min=1)
    right = torch.minimum(right, last)
    left = (right - 1).clamp(min=0)
    z0, z1 = knots.gather(-1, left), knots.gather(-1, right)
    x0, x1 = values.gather(-1, left), values.gather(-1, right)
    share = torch.where(z1 > z0, (z - z0) / torch.where(z1 > z0, z1 - z0, 1.0), 1.0)
    inside = torch.where(share == 1, x1, x0 + share * (x1 - x0))
    below = values[..., :1] + among.slope * (z - least)
    above = values.gather(-1, last) + among.slope * (z - most)
    found = torch.where(z < least, below, torch.where(z > most, above, inside))
    return torch.where(among.last < 0, float("nan"), found)


def weight_of_each(weight: Tensor, valid: Tensor) -> Tensor:
    """Return the weight of each particle, shape (W, P, ...): its world's, shared out among those that count.

    Examples
    --------
    >>> weight_of_each(torch.tensor([0.5, 0.5]), torch.tensor([[True, True], [True, False]]))
    tensor([[0.2500, 0.2500],
            [0.5000, 0.0000]])
    """
    count = valid.sum(1, keepdim=True).clamp(min=1)
    return weight.view(-1, *(1,) * (valid.ndim - 1)) * valid / count


def _middle(x: Tensor, among: Tensor, share: Tensor) -> Tensor:
    edges = torch.cat((torch.zeros_like(share[..., :1]), share.cumsum(-1)), -1)
    among, x = among.contiguous(), x.contiguous()
    below = edges.gather(-1, torch.searchsorted(among, x))
    upto = edges.gather(-1, torch.searchsorted(among, x, right=True))
    return torch.special.ndtri((0.5 * (below + upto)).clamp(0, 1)).clamp(-_END, _END)
