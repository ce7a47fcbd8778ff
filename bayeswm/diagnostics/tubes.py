"""Ways to make a tube of a predictive's own trajectories: sup-t, ranks, an ellipsoid."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from bayeswm.base.predictive import Predictive
from bayeswm.diagnostics.draws import draw_quantile, draws_of
from bayeswm.diagnostics.levels import check_level
from bayeswm.diagnostics.row_sort import order_of_rows
from bayeswm.diagnostics.tube import (
    AXES,
    EllipsoidTube,
    Tube,
    check_over,
    grouped,
    reach_of,
    ungrouped,
    warn_of_infinite,
    whitening,
)

_FEWEST = 3  # units: without one of them, the others must still show a spread


@dataclass(frozen=True)
class SupT:
    """The tube mean +- c standard deviations, with one c for all steps and variables.

    c is the quantile of the largest standardised deviation of a trajectory, max abs(x - m) / s. Finite draws are taken
    honestly: each one's deviation is from the mean and in the standard deviations of the others, as that of a new
    trajectory is, and the new one takes its share of the probability, 1 / (n + 1) of n draws, at infinity. Where worlds
    are drawn, all particles of a world are left out together.

    Parameters
    ----------
    over : sequence of str
        ("horizon", "variable") for one tube that holds all, ("horizon",) for one for each variable, ("variable",) for
        one for each step.

    References
    ----------
    Montiel Olea and Plagborg-Moller (2019), Simultaneous confidence bands.

    Examples
    --------
    A random walk, whose exact critical value for 5 steps is 2.123:

    >>> import bayeswm as bwm
    >>> schema = bwm.Schema(state=[bwm.Variable("x")], time_step=1.0)
    >>> still = bwm.structures.FromFunction(lambda x, u: x, schema=schema, name="walk")
    >>> walk, g = bwm.KnownDynamics(structure=still, noise=1.0), torch.Generator().manual_seed(0)
    >>> p = bwm.rollout(walk, torch.zeros(1).double(), horizon=5, particles=20_000, generator=g)
    >>> tube = SupT()(p, level=0.9)
    >>> round(float(tube.width[0, 0] / 2), 1), bool(tube.contains(p.mean))
    (2.1, True)
    """

    over: Sequence[str] = AXES

    def __call__(self, predictive: Predictive, *, level: float) -> Tube:
        """Return the tube that holds ``level`` of the probability, for every window of a batch."""

        def ends(x: Tensor, weight: Tensor) -> tuple[Tensor, ...]:
            center, scale, score = leave_one_out(x, weight)
            half = reach_of(draw_quantile(score.amax(-1), weight, level)[..., None], scale)
            return center - half, center + half

        return _box(predictive, ends, level=level, over=self.over)


@dataclass(frozen=True)
class Ranks:
    """The tube between two quantiles of each step and variable, at one rank for all: no shape is assumed.

    The rank is the most central one that still leaves the level of the trajectories inside. Each draw is ranked among
    those of the other units. It needs many draws: one that is the most extreme anywhere lies outside any finite tube,
    and where more than 1 - level of them are, the tube is infinite.

    Parameters
    ----------
    over : sequence of str
        As for :class:`SupT`.

    References
    ----------
    Besag, Green, Higdon and Mengersen (1995), Bayesian computation and stochastic systems, section 6.3.

    Examples
    --------
    >>> import bayeswm as bwm
    >>> model, g = bwm.KnownDynamics(structure=bwm.structures.Pendulum(), noise=0.1), torch.Generator().manual_seed(0)
    >>> p = bwm.rollout(model, torch.zeros(2).double(), torch.zeros(5, 1), particles=2000, generator=g)
    >>> round(float(Ranks()(p, level=0.9).contains(p.particles[0]).double().mean()), 2)
    0.91
    """

    over: Sequence[str] = AXES

    def __call__(self, predictive: Predictive, *, level: float) -> Tube:
        """Return the tube that holds ``level`` of the probability, for every window of a batch."""

        def ends(x: Tensor, weight: Tensor) -> tuple[Tensor, ...]:
            depth = _depth(x, weight)
            tail = -draw_quantile(-depth, weight, level)[..., None]
            return _order_statistics(x, weight, tail)

        return _box(predictive, ends, level=level, over=self.over)


@dataclass(frozen=True)
class Ellipsoid:
    """The ellipsoid of the trajectories' covariance: the smallest region for a Gaussian, but no box.

    ``contains`` asks for the Mahalanobis distance; the ends are the box around the ellipsoid, which is larger than any
    other tube's. The radius is that of the draws, each left out of the mean and covariance that it is measured by.
    Directions without any spread are left to the box. It needs more draws than K, the steps times the variables, and
    K^2 numbers for each window.

    Parameters
    ----------
    over : sequence of str
        As for :class:`SupT`.

    Examples
    --------
    >>> import bayeswm as bwm
    >>> model, g = bwm.KnownDynamics(structure=bwm.structures.Pendulum(), noise=0.1), torch.Generator().manual_seed(0)
    >>> p = bwm.rollout(model, torch.zeros(2).double(), torch.zeros(5, 1), particles=2000, generator=g)
    >>> tube = Ellipsoid()(p, level=0.9)
    >>> round(float(tube.contains(p.particles[0]).double().mean()), 2)
    0.91
    """

    over: Sequence[str] = AXES

    def __call__(self, predictive: Predictive, *, level: float) -> EllipsoidTube:
        """Return the ellipsoid that holds ``level`` of the probability, for every window of a batch."""

        def shape(x: Tensor, weight: Tensor) -> tuple[Tensor, ...]:
            center, scale, correlation, distance = _leave_one_out_distance(x, weight)
            return center, scale, correlation, draw_quantile(distance, weight, level)

        over = check_over(self.over)
        center, scale, correlation, radius = _by_part(predictive, shape, level=level, over=over)
        warn_of_infinite(radius, level)
        batch = predictive.batch_shape
        center, scale = (ungrouped(v, over, steps=predictive.horizon) for v in (center, scale))
        return EllipsoidTube(
            *(v.reshape(*batch, *v.shape[1:]) for v in (center, scale, correlation, radius)),
            level=level,
            over=over,
            variables=predictive.variables,
            time_step=predictive.time_step,
        )


def leave_one_out(x: Tensor, weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return mean, standard deviation and each draw's deviation, standardised by the moments of the other units.

    Parameters
    ----------
    x : Tensor, shape (units, members, ...)
        Draws.
    weight : Tensor, shape (units, members, windows), broadcastable from the left
        Weights that sum to 1 over the first two axes.

    Returns
    -------
    tuple of Tensor
        Mean and standard deviation, shape (...), and |deviation|, shape as ``x``: 0 where there is no spread and the
        draw is met within rounding, infinite for fewer than 3 units.

    Examples
    --------
    Four draws; the others of the last one are 0, 0, 0, which says nothing of a 1.

    >>> x, w = torch.tensor([0.0, 0.0, 0.0, 1.0]).double().view(4, 1, 1), torch.full((4, 1, 1), 0.25)
    >>> mean, scale, score = leave_one_out(x, w)
    >>> float(mean), float(scale), score.flatten().numpy().round(2).tolist()
    (0.25, 0.5, [0.58, 0.58, 0.58, inf])
    """
    w = weight.view(*weight.shape, *(1,) * (x.ndim - weight.ndim))
    unit = w.sum(1)
    center = (w * x).sum((0, 1))
    off = x - center
    of_unit, square = (w * off).sum(1), (w * off.square()).sum(1)
    variance, share = square.sum(0), unit.square()
    scale = (variance / (1 - share.sum(0))).clamp(min=0).sqrt()
    rest = 1 - unit
    shift = -of_unit / rest  # from the mean of all to that of the others
    others = (variance - square) / rest - shift.square()
    # sum w^2 of the others, whose weights are to sum to 1 again
    others = others / (1 - (share.sum(0) - share) / rest.square())
    rounding = 16 * torch.finfo(x.dtype).eps * x.abs().amax((0, 1))
    gap = (off - shift[:, None]).abs()
    spread = torch.where(others > rounding.square(), others, 0.0).sqrt()
    score = torch.where(gap <= rounding, 0.0, gap / spread[:, None])
    few = (unit > 0).sum(0) < _FEWEST
    scale = torch.where(scale <= rounding, 0.0, scale)
    return center, scale, torch.where(few, float("inf"), score)


def _leave_one_out_distance(x: Tensor, weight: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return mean, scale, correlation and each draw's Mahalanobis distance by the moments of the other units.

    ``x`` has shape (units, members, windows, groups, K). Without a unit, the covariance in whitened coordinates is
    (I - V V') / (1 - w), with a column in V for each member and one for the shift of the mean: Woodbury's identity.
    """
    center, scale, _ = leave_one_out(x, weight)
    silent = scale <= 0
    z = torch.where(silent, 0.0, (x - center) / torch.where(silent, 1.0, scale))
    w = weight[..., None, None]
    unit = weight.sum(1)
    share = unit.square()
    finite = (1 - share.sum(0))[:, None, None, None]
    correlation = torch.einsum("upb,upbgk,upbgl->bgkl", weight, z, z) / finite
    correlation = correlation + torch.diag_embed(silent.to(x))
    # population moments from here on: those without a unit are then plain weighted sums
    e = torch.einsum("upbgk,bgkl->upbgl", z, whitening(correlation)) / finite.sqrt()[..., 0]
    rest = (1 - unit)[..., None, None]
    mean = (w * e).sum(1) / unit[..., None, None].clamp(min=1e-300)
    v = torch.cat((w.sqrt() * e, (unit[..., None, None] / rest.sqrt() * mean)[:, None]), 1).movedim(1, -2)
    factor, failed = torch.linalg.cholesky_ex(torch.eye(v.shape[-2]).to(v) - v @ v.mT)
    f = (e + (unit[..., None, None] / rest * mean)[:, None]).movedim(1, -2)
    solved = torch.linalg.solve_triangular(factor, v @ f.mT, upper=False)
    square = rest[..., 0, None] * (f.square().sum(-1) + solved.square().sum(-2))
    bias = 1 - (share.sum(0) - share) / (1 - unit).square()
    square = square * bias[..., None, None]
    few = ((unit > 0).sum(0) < _FEWEST)[None, :, None, None]
    # where the others do not span the space, nothing bounds a deviation into what they leave out
    lost = (failed > 0)[..., None] | (factor.diagonal(dim1=-2, dim2=-1).amin(-1) < 1e-6)[..., None] | few
    return center, scale, correlation, torch.where(lost, float("inf"), square).sqrt().movedim(-1, 1)


def _depth(x: Tensor, weight: Tensor) -> Tensor:
    """Return how deep each draw lies among those of the other units: its smallest tail, (units, members, B, groups)."""
    units, members = x.shape[:2]
    rows = x.flatten(0, 1).movedim(0, -1)  # (B, groups, K, draws)
    all_of = weight.flatten(0, 1).movedim(0, -1)[:, None, None]
    below, above = _tails(rows, all_of.expand_as(rows))
    if members == 1:
        own_below = own_above = all_of
    else:
        inside = x.movedim((0, 1), (-2, -1))
        own = weight.movedim((0, 1), (-2, -1))[:, None, None].expand_as(inside)
        own_below, own_above = (v.flatten(-2) for v in _tails(inside, own))
    depth = torch.minimum(below - own_below, above - own_above).amin(-2).clamp(min=0)
    return depth.movedim(-1, 0).unflatten(0, (units, members))


def _tails(rows: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Return the weight at or below, and at or above, each entry of the last axis."""
    ordered, total = _sorted(rows, weight)
    upto = torch.cat((torch.zeros_like(total[..., :1]), total), -1)
    rows = rows.contiguous()
    below = upto.gather(-1, torch.searchsorted(ordered, rows, right=True))
    return below, total[..., -1:] - upto.gather(-1, torch.searchsorted(ordered, rows))


def _sorted(rows: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    order = order_of_rows(rows.detach())
    return rows.gather(-1, order), weight.gather(-1, order).cumsum(-1)


def _order_statistics(x: Tensor, weight: Tensor, tail: Tensor) -> tuple[Tensor, Tensor]:
    """Return the smallest and largest draws with at least ``tail`` of the weight at or beyond; infinite for none."""
    rows = x.flatten(0, 1).movedim(0, -1)
    ordered, total = _sorted(rows, weight.flatten(0, 1).movedim(0, -1)[:, None, None].expand_as(rows))
    above = total[..., -1:] - total + torch.diff(total, prepend=torch.zeros_like(total[..., :1]))
    enough = (tail - 1e-10)[..., None]
    low = (total >= enough).to(torch.int8).argmax(-1, keepdim=True)
    high = (above >= enough).sum(-1, keepdim=True) - 1
    none = ~(tail > 1e-10)
    lower, upper = (ordered.gather(-1, at.clamp(min=0))[..., 0] for at in (low, high))
    lost = total[..., -1].isnan()
    ends = torch.where(none, -float("inf"), lower), torch.where(none, float("inf"), upper)
    return torch.where(lost, float("nan"), ends[0]), torch.where(lost, float("nan"), ends[1])


def _by_part(
    predictive: Predictive,
    answer: Callable[[Tensor, Tensor], tuple[Tensor, ...]],
    *,
    level: float,
    over: Sequence[str],
) -> list[Tensor]:
    """Return what is answered for draws (units, members, windows, groups, K) and weights, of all windows."""
    check_level(level)
    parts = [answer(grouped(some.paths, over), some.weight) for some in draws_of(predictive)]
    like = predictive.particles if predictive._paths is not None else predictive.laws[0].mean
    return [torch.cat(v).to(like) for v in zip(*parts, strict=True)]


def _box(
    predictive: Predictive,
    ends: Callable[[Tensor, Tensor], tuple[Tensor, ...]],
    *,
    level: float,
    over: Sequence[str],
) -> Tube:
    over = check_over(over)
    shape = (*predictive.batch_shape, predictive.horizon, predictive.variables.size)
    lower, upper = (
        ungrouped(v, over, steps=predictive.horizon).reshape(shape)
        for v in _by_part(predictive, ends, level=level, over=over)
    )
    warn_of_infinite(upper, level)
    return Tube(lower, upper, level=level, over=over, variables=predictive.variables, time_step=predictive.time_step)
