"""The algebra behind :class:`bayeswm.inference.RBFMoments`: sums over pairs of data, and their gradient by hand.

Symbols: ``F = (I + S M)^-1`` for a diagonal M and the input's covariance S, ``T = F S``, ``p = M (x_i - m)``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, Self

import torch
from torch import Tensor

if TYPE_CHECKING:
    from bayeswm.inference.gp_moments import RBFMoments

# doubles in the largest temporary: what a core keeps close to it
_CHUNK = 2**16
# -log q / k(0) from which on a point is infinitely far: what it adds is below exp(-_FAR / 2), and exp(_FAR) is finite
_FAR = 600.0
# exponents up to which exp(x) - 1 is a short series, since the difference itself would have lost digits
_SMALL = 1e-3


class Matched(NamedTuple):
    """What the closed form returns, for a batch of B inputs: see :class:`bayeswm.inference.FunctionMoments`."""

    mean: Tensor
    gain: Tensor
    covariance: Tensor
    variance: Tensor


@dataclass(frozen=True, eq=False)
class Pairs:
    """Pairs of outputs a <= b, first those of an output with itself.

    Attributes
    ----------
    a, b : Tensor, shape (pairs,)
        Outputs.
    precision : Tensor, shape (S + pairs, D)
        Inverse squares of the length scales of single outputs, then sums of those of pairs.
    """

    a: Tensor
    b: Tensor
    precision: Tensor

    @classmethod
    def of(cls, precision: Tensor) -> Self:
        """Return the pairs for outputs with these inverse squares of length scales, shape (S, D)."""
        own = torch.arange(len(precision), device=precision.device)
        upper = torch.triu_indices(len(own), len(own), 1, device=precision.device)
        a, b = torch.cat((own, upper[0])), torch.cat((own, upper[1]))
        return cls(a, b, torch.cat((precision, precision[a] + precision[b])))


class Sums(NamedTuple):
    """Sums over pairs of points, for a batch of B inputs and k pairs of outputs, with G_ij = w_i w_j exp(delta_ij).

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


class Single(NamedTuple):
    """What single points have to do with the input: q, w = alpha q (B, S, n); t = (S + M^-1)^-1 (x - m), p (B, S, n, D)."""

    q: Tensor
    w: Tensor
    t: Tensor
    p: Tensor


class Kept(NamedTuple):
    """What the gradient needs of the forward pass: F and T of shape (B, S + pairs, D, D), points, results and sums."""

    inner: Tensor
    squeezed: Tensor
    single: Single
    found: Matched
    own: Sums
    reduced: Sums
    cross: Sums


def forward(moments: RBFMoments, mean: Tensor, covariance: Tensor, *, keep: bool) -> tuple[Matched, Kept | None]:
    """Return the moments at inputs of shapes (B, D) and (B, D, D), and what :func:`backward` needs."""
    pairs, precision = moments.pairs, moments.precision
    outputs, inputs = precision.shape
    identity = torch.eye(inputs, dtype=mean.dtype, device=mean.device)
    factors, pivots, _ = torch.linalg.lu_factor_ex(identity + covariance[:, None] * pairs.precision[:, None])
    inner = torch.linalg.lu_solve(factors, pivots, identity.expand_as(factors))
    # the determinant is that of a matrix with no eigenvalue below 1
    log_det = factors.diagonal(dim1=-2, dim2=-1).abs().log().sum(-1)
    squeezed = _symmetric(inner @ covariance[:, None])
    away = moments.centers - mean[:, None, None]
    t = away @ (precision[..., None] * inner[:, :outputs])
    fall = 0.5 * (log_det[:, :outputs, None] + (t * away).sum(-1))
    near = fall < _FAR
    q = (moments.log_signal[:, None] - fall).exp() * near
    single = Single(q, moments.alpha * q, t, precision[:, None] * away * near[..., None])
    diagonal, trace, own, reduced = _with_itself(moments, squeezed, log_det, single, keep)
    found = torch.diag_embed(diagonal)
    a, b = pairs.a[outputs:], pairs.b[outputs:]
    cross = own
    if outputs > 1:
        beside, cross = _with_others(moments, squeezed, log_det, single, keep)
        found[:, a, b] = beside
        found[:, b, a] = beside
    gain = (single.w[..., None, :] @ t)[..., 0, :]
    matched = Matched(single.w.sum(-1), gain.mT, found, moments.log_signal.exp() - trace)
    return matched, Kept(inner, squeezed, single, matched, own, reduced, cross) if keep else None


def _sides(
    moments: RBFMoments, squeezed: Tensor, log_det: Tensor, p: Tensor, which: slice
) -> tuple[Tensor, Tensor]:
    """Return what the exponents delta of pairs are products of, both of shape (B, k, n, D + 2)."""
    outputs, (a, b) = len(moments.precision), (moments.pairs.a[which], moments.pairs.b[which])
    both, p_a, p_b = squeezed[:, outputs:][:, which], p[:, a], p[:, b]
    constant = 0.5 * (log_det[:, a] + log_det[:, b] - log_det[:, outputs:][:, which])
    here = -0.5 * ((p_a @ (squeezed[:, a] - both)) * p_a).sum(-1, keepdim=True)
    there = constant[..., None, None] - 0.5 * ((p_b @ (squeezed[:, b] - both)) * p_b).sum(-1, keepdim=True)
    one = torch.ones_like(here)
    return torch.cat((p_a @ both, here, one), -1), torch.cat((p_b, one, there), -1)


def _with_itself(  # noqa: PLR0917
    moments: RBFMoments, squeezed: Tensor, log_det: Tensor, single: Single, keep: bool
) -> tuple[Tensor, Tensor, Sums, Sums]:
    """Return variances of the mean function, tr(C Q), both (B, S), and the sums for their gradients."""
    outputs = len(moments.precision)
    left, right = _sides(moments, squeezed, log_det, single.p, slice(outputs))
    by, by_q = _weighted(single.w, single.p, keep), _weighted(single.q, single.p, keep)
    rows, reduced = torch.empty_like(by), torch.empty_like(by)
    for s in range(outputs):
        rows[:, s], _, reduced[:, s] = _sweep(
            left[:, s], right[:, s], by[:, s], reduction=moments.reduction[s], by_q=by_q[:, s]
        )
    diagonal, trace = (single.w * rows[..., 0]).sum(-1), (single.q * reduced[..., 0]).sum(-1)
    if not keep:
        nothing = Sums(rows, rows, rows, rows, rows)
        return diagonal, trace, nothing, nothing
    points = single.p, single.p
    own = _sums((single.w, single.w), points, rows, rows[..., 0], by.sum(-2), single.w.sum(-1))
    none = torch.zeros_like(by[..., 0, :])
    return diagonal, trace, own, _sums((single.q, single.q), points, reduced, reduced[..., 0], none, none[..., 0])


def _with_others(  # noqa: PLR0917
    moments: RBFMoments, squeezed: Tensor, log_det: Tensor, single: Single, keep: bool
) -> tuple[Tensor, Sums]:
    """Return covariances of pairs of different outputs (B, k), and the sums for their gradient."""
    which = slice(len(moments.precision), None)
    a, b = moments.pairs.a[which], moments.pairs.b[which]
    left, right = _sides(moments, squeezed, log_det, single.p, which)
    by, back = _weighted(single.w, single.p, keep)[:, b], single.w[:, a]
    flat = [v.flatten(0, 1) for v in (left, right, by)]
    rows, columns, _ = _sweep(*flat, back=back.flatten(0, 1) if keep else None)
    rows = rows.view_as(by)
    beside = (back * rows[..., 0]).sum(-1)
    if not keep:
        return beside, Sums(rows, rows, rows, rows, rows)
    columns = columns.view_as(back)
    weights, points = (back, single.w[:, b]), (single.p[:, a], single.p[:, b])
    return beside, _sums(weights, points, rows, columns, by.sum(-2), back.sum(-1))


def _weighted(weight: Tensor, p: Tensor, keep: bool) -> Tensor:
    """Return the columns that exponentials are multiplied with: weights, and for the gradient weighted points."""
    return torch.cat((weight[..., None], weight[..., None] * p), -1) if keep else weight[..., None]


def _sweep(
    left: Tensor,
    right: Tensor,
    by: Tensor,
    *,
    back: Tensor | None = None,
    reduction: Tensor | None = None,
    by_q: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return (exp(delta) - 1) @ by, back @ (exp(delta) - 1) and (reduction * exp(delta)) @ by_q, block by block.

    Of shapes (tasks, n, k), (tasks, n) and (tasks, n, k), with delta = left @ right' for sides (tasks, n, D + 2).
    """
    tasks, n, _ = left.shape
    rows_at_once = max(min(_CHUNK // max(n, 1), n), 1)
    tasks_at_once = max(_CHUNK // max(n * n, 1), 1)
    # no exponent is larger than this; where all are small, what is left of exp(x) after taking 1 off has lost digits
    small = bool((left.abs().amax(-2) * right.abs().amax(-2)).sum(-1).amax() < _SMALL)
    found = torch.empty_like(by)
    found_back = by.new_zeros(tasks, n)
    reduced = found if by_q is None else torch.empty_like(by_q)
    buffer = left.new_empty(min(tasks, tasks_at_once) * rows_at_once * n)
    for i in range(0, tasks, tasks_at_once):
        some = slice(i, i + tasks_at_once)
        across = right[some].mT
        for j in range(0, n, rows_at_once):
            rows = slice(j, j + rows_at_once)
            part = left[some, rows]
            e = buffer[: part.shape[0] * part.shape[1] * n].view(*part.shape[:2], n)
            torch.bmm(part, across, out=e)
            e = _series(e) if small else e.exp_()
            found[some, rows] = e @ by[some]
            if back is not None:
                found_back[some] += (back[some, None, rows] @ e)[:, 0]
            if reduction is not None and by_q is not None:
                c = reduction[rows]
                reduced[some, rows] = (torch.addcmul(c, c, e) if small else e.mul_(c)) @ by_q[some]
    if not small:
        found -= by.sum(-2, keepdim=True)
        if back is not None:
            found_back -= back.sum(-1, keepdim=True)
    return found, found_back, reduced


def _series(x: Tensor) -> Tensor:
    """Return exp(x) - 1 for small x."""
    return x * (1 + x * (1 / 2 + x * (1 / 6 + x * (1 / 24 + x / 120))))


def _sums(  # noqa: PLR0917
    weights: tuple[Tensor, Tensor],
    points: tuple[Tensor, Tensor],
    rows: Tensor,
    columns: Tensor,
    by: Tensor,
    back: Tensor,
) -> Sums:
    """Return sums with exp(delta), given products with exp(delta) - 1 and the totals of what it was multiplied with."""
    p_a, p_b = points
    full = weights[0][..., None] * (rows + by[..., None, :])
    there = weights[1] * (columns + back[..., None])
    a, b = (torch.cat((p, torch.ones_like(p[..., :1])), -1) for p in points)
    return Sums(
        rows[..., 0], columns, a.mT @ (full[..., :1] * a), b.mT @ (there[..., None] * b), p_a.mT @ full[..., 1:]
    )


def backward(moments: RBFMoments, kept: Kept, by: Matched) -> tuple[Tensor, Tensor]:
    """Return the gradients by mean (B, D) and covariance (B, D, D) of the input, given those by the results."""
    precision, pairs = moments.precision, moments.pairs
    outputs, inputs = precision.shape
    (q, w, t, _), by_gain = kept.single, by.gain.mT
    a, b = pairs.a[outputs:], pairs.b[outputs:]
    own, reduced, cross = kept.own, kept.reduced, kept.cross
    by_own, by_trace = by.covariance.diagonal(dim1=-2, dim2=-1), -by.variance
    by_cross = by.covariance[:, a, b] + by.covariance[:, b, a]
    # sums over pairs, weighted by what is wanted of each
    own_at = by_own[..., None, None] * own.at_a + by_trace[..., None, None] * reduced.at_a
    own_across = by_own[..., None, None] * own.across + by_trace[..., None, None] * reduced.across
    many = by_cross[..., None, None]
    at_a, at_b = torch.cat((own_at, many * cross.at_a), 1), torch.cat((own_at, many * cross.at_b), 1)
    across = torch.cat((own_across, many * cross.across), 1)
    # weights of single points
    by_w = by.mean[..., None] + (t @ by_gain[..., None])[..., 0] + 2 * by_own[..., None] * own.rows
    by_w.index_add_(1, a, by_cross[..., None] * cross.rows)
    by_w.index_add_(1, b, by_cross[..., None] * cross.columns)
    by_log_q = q * (moments.alpha * by_w + 2 * by_trace[..., None] * reduced.rows)
    # by the logarithms of determinants and by T, of single outputs and of pairs
    total, corner_a, corner_b = at_a[..., -1, -1], at_a[..., :-1, :-1], at_b[..., :-1, :-1]
    log_det = 0.5 * torch.cat((-by_log_q.sum(-1), -total), 1)
    log_det.index_add_(1, pairs.a, total, alpha=0.5)
    log_det.index_add_(1, pairs.b, total, alpha=0.5)
    squeezed = torch.cat((torch.zeros_like(kept.inner[:, :outputs]), across + 0.5 * (corner_a + corner_b)), 1)
    squeezed.index_add_(1, pairs.a, corner_a, alpha=-0.5)
    squeezed.index_add_(1, pairs.b, corner_b, alpha=-0.5)
    inner = kept.inner
    covariance = (inner.mT @ squeezed @ inner).sum(1)
    covariance += (log_det[..., None, None] * pairs.precision[..., None] * inner).sum(1)
    # by the distances of single points
    sharp = precision[..., None] * inner[:, :outputs]
    turned = (sharp @ by_gain[..., None])[..., 0]
    covariance += 0.5 * (t.mT @ (by_log_q[..., None] * t)).sum(1)
    covariance -= turned.mT @ kept.found.gain.mT
    mean = ((by_log_q[..., None, :] @ t)[..., 0, :] - kept.found.mean[..., None] * turned).sum(1)
    # by the places of pairs of points
    both = kept.squeezed[:, outputs:]
    here, there = at_a[..., :-1, -1:], at_b[..., :-1, -1:]
    moved_a = both @ (here + there) - kept.squeezed[:, pairs.a] @ here
    moved_b = both @ (here + there) - kept.squeezed[:, pairs.b] @ there
    mean -= (precision[pairs.a] * moved_a[..., 0] + precision[pairs.b] * moved_b[..., 0]).sum(1)
    return mean, _symmetric(covariance)


def _symmetric(matrix: Tensor) -> Tensor:
    return 0.5 * (matrix + matrix.mT)
