"""The algebra behind :class:`bayeswm.inference.RBFMoments`: sums over pairs of data, and their gradient by hand.

Of outputs a, b with length scales on the diagonals of A and B, and an input N(m, S):

* ``inner`` is F = (I + S M)^-1 and ``squeezed`` T = F S = (S^-1 + M)^-1, for M = A^-2 of an output and M = A^-2 + B^-2
  of a pair; ``log_det`` is that of I + S M. None needs an inverse of S.
* ``p`` = A^-2 (x_i - m) and ``t`` = (S + A^2)^-1 (x_i - m).
* log Q_ij = log q_i + log q_j + delta_ij, with
  delta_ij = c - p_i' (T_a - T) p_i / 2 - p_j' (T_b - T) p_j / 2 + p_i' T p_j, all of which vanish with S.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Self

import torch
from torch import Tensor

from bayeswm.inference.gp_moment_sweep import FAR, SMALL, sweep

if TYPE_CHECKING:
    from bayeswm.inference.gp_moments import RBFMoments


class Matched(NamedTuple):
    """What the closed form returns, for a batch of B inputs: see :class:`bayeswm.inference.InputMoments`."""

    mean: Tensor
    gain: Tensor
    covariance: Tensor
    variance: Tensor


class Pairs(NamedTuple):
    """Pairs of outputs a <= b, first those of an output with itself.

    Attributes
    ----------
    a, b : Tensor, shape (pairs,)
        Outputs.
    number : Tensor, shape (S, S)
        The pair that two outputs are, in either order.
    precision : Tensor, shape (S + pairs, D)
        Inverse squares of the length scales of single outputs, then their sums in pairs.
    """

    a: Tensor
    b: Tensor
    number: Tensor
    precision: Tensor

    @classmethod
    def of(cls, precision: Tensor) -> Self:
        """Return the pairs for outputs with these inverse squares of length scales, shape (S, D)."""
        own = torch.arange(len(precision), device=precision.device)
        upper = torch.triu_indices(len(own), len(own), 1, device=precision.device)
        a, b = torch.cat((own, upper[0])), torch.cat((own, upper[1]))
        number = torch.empty(len(own), len(own), dtype=torch.long, device=precision.device)
        number[a, b] = number[b, a] = torch.arange(len(a), device=precision.device)
        return cls(a, b, number, torch.cat((precision, precision[a] + precision[b])))


class Sums(NamedTuple):
    """Sums over pairs of points for k pairs of outputs, with G_ij = w_i w_j exp(delta_ij), or times C with q for w.

    Attributes
    ----------
    rows, columns : Tensor, shape (B, k, n)
        Derivatives of the result by the weights of the first and the second output.
    at_a, at_b : Tensor, shape (B, k, D + 1, D + 1)
        Of (p, 1) (p, 1)' at the points of the first and the second output, weighted by row and column sums of G.
    across : Tensor, shape (B, k, D, D)
        Of G_ij p_i p_j'.
    """

    rows: Tensor
    columns: Tensor
    at_a: Tensor
    at_b: Tensor
    across: Tensor


class Kept(NamedTuple):
    """What the gradient needs of the forward pass.

    ``inner`` and ``squeezed`` (B, S + pairs, D, D) are first of outputs, then of pairs; ``q``, ``w`` = alpha q
    (B, S, n) and ``t`` (B, S, n, D) of points; then the results, sums for pairs of outputs with weights w, and for
    single outputs with q and C.
    """

    inner: Tensor
    squeezed: Tensor
    q: Tensor
    w: Tensor
    t: Tensor
    found: Matched
    pairs: Sums
    reduced: Sums


def forward(moments: RBFMoments, mean: Tensor, covariance: Tensor, *, keep: bool) -> tuple[Matched, Kept | None]:
    """Return the moments at inputs of shapes (B, D) and (B, D, D), and what :func:`backward` needs."""
    (a, b, number, both), precision = moments.pairs, moments.precision
    outputs, inputs = precision.shape
    identity = torch.eye(inputs, dtype=mean.dtype, device=mean.device)
    factors, pivots, _ = torch.linalg.lu_factor_ex(identity + covariance[:, None] * both[:, None])
    inner = torch.linalg.lu_solve(factors, pivots, identity.expand_as(factors))
    # the determinant is that of a matrix with no eigenvalue below 1
    log_det = factors.diagonal(dim1=-2, dim2=-1).abs().log().sum(-1)
    squeezed = _symmetric(inner @ covariance[:, None])
    # one point at a time
    away = moments.centers - mean[:, None, None]
    t = away @ (precision[..., None] * inner[:, :outputs])
    fall = 0.5 * (log_det[:, :outputs, None] + (t * away).sum(-1))
    near = fall < FAR
    q = (moments.log_signal[:, None] - fall).exp() * near
    w, p = moments.alpha * q, precision[:, None] * away * near[..., None]
    # pairs of points, for each pair of outputs
    largest = log_det.amax() + 2 * squeezed.diagonal(dim1=-2, dim2=-1).sum(-1).amax() * p.square().sum(-1).amax()
    small = bool(largest < SMALL)
    p_a, p_b, w_a = p.index_select(1, a), p.index_select(1, b), w.index_select(1, a)
    left, right = _sides(squeezed, log_det, p_a, p_b, moments)
    by_w = _weighted(w, p, keep)
    by, by_q = by_w.index_select(1, b), _weighted(q, p, keep)
    rows, reduced, columns = torch.empty_like(by), torch.empty_like(by_q), None
    own = slice(outputs)
    sweep(
        left[:, own], right[:, own], by_w, small=small, out=rows[:, own], reduction=(moments.reduction, by_q, reduced)
    )
    if outputs > 1:
        rest = slice(outputs, None)
        if keep:
            columns = torch.cat((rows[:, own, :, 0], torch.empty_like(w_a[:, rest])), 1)
        back = None if columns is None else (w_a[:, rest], columns[:, rest])
        sweep(left[:, rest], right[:, rest], by[:, rest], small=small, out=rows[:, rest], back=back)
    values = (w_a * rows[..., 0]).sum(-1)
    explained = (q * reduced[..., 0]).sum(-1)
    if small:
        # what is left of the prior variance at a known input, without the digits that C has lost
        explained = explained + moments.explained(q)
        reduced = reduced + moments.reduction @ by_q
    matched = Matched(
        w.sum(-1),
        (w[..., None, :] @ t)[..., 0, :].mT,
        values[:, number],
        (moments.log_signal.exp() - explained).clamp(min=0.0),
    )
    if not keep:
        return matched, None
    columns = rows[..., 0] if columns is None else columns
    pairs = _sums((w_a, w[:, b]), (p_a, p_b), (rows, columns), (by.sum(-2), w_a.sum(-1)))
    nothing = torch.zeros_like(by_q[..., 0, :]), torch.zeros_like(q[..., 0])
    traces = _sums((q, q), (p, p), (reduced, reduced[..., 0]), nothing)
    return matched, Kept(inner, squeezed, q, w, t, matched, pairs, traces)


def _sides(  # noqa: PLR0917
    squeezed: Tensor, log_det: Tensor, p_a: Tensor, p_b: Tensor, moments: RBFMoments
) -> tuple[Tensor, Tensor]:
    """Return what the exponents delta of pairs are products of, both of shape (B, k, n, D + 2)."""
    a, b, outputs = moments.pairs.a, moments.pairs.b, len(moments.precision)
    both = squeezed[:, outputs:]
    constant = 0.5 * (log_det[:, a] + log_det[:, b] - log_det[:, outputs:])
    here = -0.5 * ((p_a @ (squeezed[:, a] - both)) * p_a).sum(-1, keepdim=True)
    there = constant[..., None, None] - 0.5 * ((p_b @ (squeezed[:, b] - both)) * p_b).sum(-1, keepdim=True)
    one = torch.ones_like(here)
    return torch.cat((p_a @ both, here, one), -1), torch.cat((p_b, one, there), -1)


def _weighted(weight: Tensor, p: Tensor, keep: bool) -> Tensor:
    """Return the columns that exponentials are multiplied with: weights, and for the gradient weighted points."""
    weight = weight[..., None]
    return torch.cat((weight, weight * p), -1) if keep else weight


def _sums(  # noqa: PLR0917
    weights: tuple[Tensor, Tensor],
    points: tuple[Tensor, Tensor],
    products: tuple[Tensor, Tensor],
    totals: tuple[Tensor, Tensor],
) -> Sums:
    """Return sums with exp(delta), given products with exp(delta) - 1 and the totals of what it was multiplied with."""
    rows, columns = products
    full = weights[0][..., None] * (rows + totals[0][..., None, :])
    there = weights[1] * (columns + totals[1][..., None])
    a, b = (torch.cat((p, torch.ones_like(p[..., :1])), -1) for p in points)
    at_a, at_b = a.mT @ (full[..., :1] * a), b.mT @ (there[..., None] * b)
    return Sums(rows[..., 0], columns, at_a, at_b, points[0].mT @ full[..., 1:])


def backward(moments: RBFMoments, kept: Kept, by: Matched) -> tuple[Tensor, Tensor]:
    """Return the gradients by mean (B, D) and covariance (B, D, D) of the input, given those by the results."""
    (a, b, number, both), precision = moments.pairs, moments.precision
    outputs = len(precision)
    inner, squeezed, q, w, t, found, pairs, reduced = kept
    by_gain, by_trace = by.gain.mT, -by.variance
    by_pair = by.covariance.new_zeros(len(w), len(a))
    by_pair.index_add_(1, number.flatten(), by.covariance.flatten(1))
    # sums over pairs of points, weighted by what is wanted of each
    many = by_pair[..., None, None]
    at_a, at_b, across = many * pairs.at_a, many * pairs.at_b, many * pairs.across
    of_trace = by_trace[..., None, None] * reduced.at_a
    at_a[:, :outputs] += of_trace
    at_b[:, :outputs] += of_trace
    across[:, :outputs] += by_trace[..., None, None] * reduced.across
    # by the weights of single points
    by_w = by.mean[..., None] + (t @ by_gain[..., None])[..., 0]
    by_w.index_add_(1, a, by_pair[..., None] * pairs.rows)
    by_w.index_add_(1, b, by_pair[..., None] * pairs.columns)
    by_log_q = q * (moments.alpha * by_w + 2 * by_trace[..., None] * reduced.rows)
    # by the logarithms of determinants and by T
    total, corner_a, corner_b = at_a[..., -1, -1], at_a[..., :-1, :-1], at_b[..., :-1, :-1]
    by_det = 0.5 * torch.cat((-by_log_q.sum(-1), -total), 1)
    by_det.index_add_(1, a, total, alpha=0.5)
    by_det.index_add_(1, b, total, alpha=0.5)
    by_squeezed = torch.cat((torch.zeros_like(inner[:, :outputs]), across + 0.5 * (corner_a + corner_b)), 1)
    by_squeezed.index_add_(1, a, corner_a, alpha=-0.5)
    by_squeezed.index_add_(1, b, corner_b, alpha=-0.5)
    covariance = (inner.mT @ by_squeezed @ inner + by_det[..., None, None] * both[..., None] * inner).sum(1)
    # by the distances of single points
    turned = ((precision[..., None] * inner[:, :outputs]) @ by_gain[..., None])[..., 0]
    covariance += 0.5 * (t.mT @ (by_log_q[..., None] * t)).sum(1) - turned.mT @ found.gain.mT
    mean = ((by_log_q[..., None, :] @ t)[..., 0, :] - found.mean[..., None] * turned).sum(1)
    # by the places of pairs of points
    here, there = at_a[..., :-1, -1:], at_b[..., :-1, -1:]
    common = squeezed[:, outputs:] @ (here + there)
    moved_a, moved_b = common - squeezed[:, a] @ here, common - squeezed[:, b] @ there
    mean -= (precision[a] * moved_a[..., 0] + precision[b] * moved_b[..., 0]).sum(1)
    return mean, _symmetric(covariance)


def _symmetric(matrix: Tensor) -> Tensor:
    return 0.5 * (matrix + matrix.mT)
