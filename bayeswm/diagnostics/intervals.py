"""Central intervals of many predictives at once."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from bayeswm.base.laws import Law
from bayeswm.base.predictive import Predictive
from bayeswm.diagnostics.pointwise import spread_out

_ITERATIONS = 60
_REACH = 8.0  # standard deviations beyond all kernels, where no quantile lies


def interval_widths(predictive: Predictive, levels: Sequence[float]) -> Tensor:
    """Return the widths of the central intervals of each level, shape (*batch, H, S, levels).

    The ends are those of :meth:`Predictive.interval`, to 1e-4 in probability: a hundredth of what 400 particles leave
    open in the tails of a 90 % interval.

    Examples
    --------
    >>> import bayeswm as bwm
    >>> model = bwm.KnownDynamics(structure=bwm.structures.Pendulum.gymnasium(), noise=1.0)
    >>> interval_widths(model.predictive(torch.zeros(2), torch.zeros(1)), (0.9,)).flatten().numpy().round(3).tolist()
    [3.29, 3.29]
    """
    tails = [0.5 - level / 2 for level in levels] + [0.5 + level / 2 for level in levels]
    ends = quantiles(predictive, tails, tolerance=1e-4)
    return (ends[len(levels) :] - ends[: len(levels)]).movedim(0, -1)


def quantiles(predictive: Predictive, probabilities: Sequence[float], *, tolerance: float = 1e-6) -> Tensor:
    """Return :meth:`Predictive.quantile` to a tolerance in probability, much faster for many windows.

    By bracketed secant steps on the scale of normal scores, where mixtures of Gaussians are nearly straight lines;
    windows that have their answer drop out. What is left at the end is handed to :meth:`Predictive.quantile`.

    Parameters
    ----------
    predictive : Predictive
        One step or a horizon.
    probabilities : sequence of float, length q
        Between 0 and 1, ends excluded.
    tolerance : float
        In probability; never below 1e-5 in float32.

    Returns
    -------
    Tensor, shape (q, *batch, H, S)

    Examples
    --------
    >>> import bayeswm as bwm
    >>> model = bwm.KnownDynamics(structure=bwm.structures.Pendulum.gymnasium(), noise=1.0)
    >>> p = model.predictive(torch.zeros(2), torch.zeros(1))
    >>> quantiles(p, [0.5, 0.975]).numpy().round(3).tolist()
    [[[0.0, 0.0]], [[1.96, 1.96]]]
    """
    probability = torch.tensor(list(probabilities), dtype=torch.float64, device=predictive.log_weight.device)
    batch, size, horizon = predictive.batch_shape, predictive.variables.size, predictive.horizon
    if horizon == 0:
        return predictive.quantile(probability)
    found, open_rows = [], []
    for h, law in enumerate(predictive.laws):
        flat = law.map(lambda t: t.expand(*t.shape[:2], *batch, *t.shape[2 + len(batch) :]))
        flat = flat.map(lambda t: t.reshape(*t.shape[:2], -1, *t.shape[2 + len(batch) :]))
        lost = predictive.diverged[..., h].any(0).any(0).reshape(-1)
        values, left = _solve_step(flat, predictive.weight, probability, tolerance=tolerance)
        found.append(values)
        open_rows.append(left | lost)
    x = torch.stack(found, -2).view(len(probability), *batch, horizon, size)
    rows = torch.stack(open_rows).any(0).view(batch)
    if not bool(rows.any()):
        return x
    if not batch:
        return predictive.quantile(probability)
    first = rows.flatten(1).any(-1) if rows.ndim > 1 else rows
    x[:, first] = predictive[first.nonzero().squeeze(-1)].quantile(probability).to(x)
    return x


def _solve_step(law: Law, weight: Tensor, probability: Tensor, *, tolerance: float) -> tuple[Tensor, Tensor]:
    """Return the quantiles of each row and variable, shape (q, n, S), and which rows lack some."""
    mean, variance = law.mean, law.variance
    share = spread_out(weight, mean[:, 0]).to(mean)
    if not bool((variance > 0).any()):
        return _of_points(mean, share, probability)
    center = (share * mean.mean(1)).sum(0)
    spread = (share * (variance + (mean - center).square()).mean(1)).sum(0).sqrt()
    reach = _REACH * variance.sqrt()
    low, high = (mean - reach).amin((0, 1)), (mean + reach).amax((0, 1))
    if center.dtype != torch.float64:
        tolerance = max(tolerance, 1e-5)
    solved = [
        _solve(law, weight, float(p), guess=(center, spread), bracket=(low, high), tolerance=tolerance)
        for p in probability
    ]
    return torch.stack([x for x, _ in solved]), torch.stack([left for _, left in solved]).any(0)


def _solve(
    law: Law,
    weight: Tensor,
    p: float,
    *,
    guess: tuple[Tensor, Tensor],
    bracket: tuple[Tensor, Tensor],
    tolerance: float,
) -> tuple[Tensor, Tensor]:
    (center, spread), (low, high) = guess, bracket
    score = torch.special.ndtri(torch.tensor(p, dtype=center.dtype, device=center.device))
    x = torch.minimum(torch.maximum(center + score * spread, low), high)
    answer, rows = x.clone(), torch.arange(len(x), device=x.device)
    before, height = x, torch.full_like(x, float("nan"))
    slope = 1 / torch.where(spread > 0, spread, 1.0)
    for k in range(_ITERATIONS):
        value = (spread_out(weight, law.mean[:, 0]).to(x) * law.cdf(x).mean(1)).sum(0)
        gap = (torch.special.ndtri(value) - score).clamp(-_REACH, _REACH)
        low, high = torch.where(gap >= 0, low, x), torch.where(gap >= 0, x, high)
        answer[rows] = x
        resolution = 4 * torch.finfo(x.dtype).eps * torch.maximum(low.abs(), high.abs())
        missed = ((value - p).abs() > tolerance) & (high - low > resolution) | ~value.isfinite()
        keep = missed.any(-1).nonzero().squeeze(-1)
        if len(keep) < 0.9 * len(rows):
            rows, law = rows[keep], law.map(lambda t, keep=keep: t[:, :, keep])
            parts = (x, low, high, before, height, slope, gap, missed)
            x, low, high, before, height, slope, gap, missed = (t[keep] for t in parts)
        if len(rows) == 0:
            break
        rise = (gap - height) / (x - before)
        slope = torch.where(rise.isfinite() & (rise > 0), rise, slope)
        before, height = x, gap
        secant = x - gap / slope
        # a bisection now and then, for steps of the cdf on which secants creep
        inside = (secant > low) & (secant < high) & (k % 4 != 3)
        x = torch.where(missed, torch.where(inside, secant, 0.5 * (low + high)), x)
    left = torch.zeros(len(answer), dtype=torch.bool, device=x.device)
    left[rows] = True
    return answer, left


def _of_points(mean: Tensor, share: Tensor, probability: Tensor) -> tuple[Tensor, Tensor]:
    """Return the smallest points of a discrete law that have at least the probability at or below them."""
    each = (share[:, None] / mean.shape[1]).expand(mean.shape).flatten(0, 1)
    points, order = mean.flatten(0, 1).sort(0)
    reached = each.gather(0, order).cumsum(0)
    index = torch.stack([(reached >= p - 1e-9).to(torch.int8).argmax(0) for p in probability])
    return points.gather(0, index), ~mean.isfinite().all(0).all(0).all(-1)
