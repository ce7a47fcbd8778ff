"""Weighted mixtures of one-step laws: moments that split by world, quantiles, estimates with their errors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from bayeswm.base.laws import Law


class Estimate(NamedTuple):
    """A Monte Carlo estimate and its standard error, of equal shape."""

    value: Tensor
    standard_error: Tensor


class LogScore(NamedTuple):
    """An estimated log density, its standard error and how many kernels effectively contribute (inf if exact)."""

    value: Tensor
    standard_error: Tensor
    kernels: Tensor


class Step(NamedTuple):
    """The mixture at one step: a law in each world and particle, and how to weigh them.

    ``log_weight``, shape (W,), is normalised. ``exhaustive`` and ``resolved`` are as for :func:`split_moments`.
    ``valid``, shape (W, P, *batch), says which particles count; all do where it is None.
    """

    law: Law
    log_weight: Tensor
    exhaustive: bool
    resolved: bool
    valid: Tensor | None = None

    def weight(self, mean: Tensor) -> Tensor:
        """Return the weights for means (W, P, ...), broadcastable to (W, ...)."""
        return self.log_weight.exp().to(mean).view(-1, *(1,) * (mean.ndim - 2))


class Split(NamedTuple):
    """Moments of a mixture over worlds.

    ``mean``, ``aleatoric``, ``between`` (unclamped) and ``total`` have shape (*batch, S), or (*batch, S, S) for all
    but the mean where covariances were asked for.
    """

    mean: Tensor
    aleatoric: Tensor
    between: Tensor
    total: Tensor


def split_moments(
    mean: Tensor,
    spread: Tensor,
    weight: Tensor,
    *,
    exhaustive: bool,
    resolved: bool,
    valid: Tensor | None = None,
    merged: bool = False,
) -> Split:
    """Split the variance of a mixture into the part within worlds and the part between them, without bias.

    The means of each world's particles scatter by Monte Carlo error too; that part is taken out of ``between``
    (law of total variance with P - 1 in the denominators, and 1 - sum w^2 for drawn worlds).

    Parameters
    ----------
    mean : Tensor, shape (W, P, *batch, S)
        Mean of each particle's law.
    spread : Tensor, shape (W, P, *batch, S) or (W, P, *batch, S, S)
        Variance or covariance of each particle's law.
    weight : Tensor, shape (W, ...), broadcastable to (W, *batch, S)
        Weights of the worlds, summing to 1.
    exhaustive : bool
        Whether the worlds are the posterior or draws from it.
    resolved : bool
        Whether the particles carry no noise, so that one of them tells everything about a world.
    valid : Tensor, shape (W, P, *batch), optional
        Particles to count; all by default.
    merged : bool
        Particles have no lasting world: no split, one pool.

    Returns
    -------
    Split
        ``aleatoric`` and ``between`` are NaN where they are undefined.
    """
    matrix = spread.ndim > mean.ndim
    outer = (lambda d: d[..., :, None] * d[..., None, :]) if matrix else torch.square
    if merged:
        spread = spread.flatten(0, 1)[:, None]
        mean, weight, valid = _one_pool(mean, weight, valid)
    world_mean, weight, count = _by_world(mean, weight, valid)
    if valid is None:
        law = spread.mean(1)
        scatter = outer(mean - world_mean[:, None]).sum(1)
    else:
        inside = valid[..., None, None] if matrix else valid[..., None]
        law = torch.where(inside, spread, 0.0).sum(1) / (count[..., None] if matrix else count).clamp(min=1)
        scatter = torch.where(inside, outer(mean - world_mean[:, None]), 0.0).sum(1)

    center = (weight * world_mean).sum(0)
    if matrix:
        weight, count = weight[..., None], count[..., None]
    if resolved:
        scatter = torch.zeros_like(scatter)
    else:
        scatter = torch.where(count > 1, scatter / (count - 1).clamp(min=1), float("nan"))
        scatter = torch.where(weight == 0, 0.0, scatter)
    raw = (weight * outer(world_mean - center)).sum(0)
    drawn = merged or not exhaustive
    finite = (1 - weight.square().sum(0)).expand_as(raw) if drawn else torch.ones_like(raw)
    single = finite <= 1e-12
    spread_out = torch.where(single, float("nan"), raw / torch.where(single, 1.0, finite))
    within = (weight * law).sum(0)
    if merged:
        nothing = torch.full_like(within, float("nan"))
        return Split(center, nothing, nothing, within + spread_out)
    aleatoric = within + (weight * scatter).sum(0)
    noise = (weight * (1 - weight) * scatter / count.clamp(min=1)).sum(0)
    between = torch.where(single, float("nan"), (raw - noise) / torch.where(single, 1.0, finite))
    if matrix:
        positive = between.diagonal(dim1=-2, dim2=-1) > 0
        shown = torch.where(positive[..., :, None] & positive[..., None, :], between, 0.0)
    else:
        shown = between.clamp(min=0)
    # without a split (one particle a world) the scatter of the particles is part of the spread between worlds
    total = torch.where(aleatoric.isnan(), within + spread_out, aleatoric + torch.where(single, 0.0, shown))
    if mean.shape[0] == 1 and not resolved:
        total = aleatoric  # one world: nothing but its own particles shows its spread
    return Split(center, aleatoric, between, total)


def pooled_mean(mean: Tensor, weight: Tensor, *, valid: Tensor | None = None, merged: bool = False) -> Tensor:
    """Return the mean of a mixture alone, shape (*batch, S): that of :func:`split_moments`, as are the arguments."""
    if merged:
        mean, weight, valid = _one_pool(mean, weight, valid)
    world_mean, weight, _ = _by_world(mean, weight, valid)
    return world_mean[0] if len(mean) == 1 and valid is None else (weight * world_mean).sum(0)


def _one_pool(mean: Tensor, weight: Tensor, valid: Tensor | None) -> tuple[Tensor, Tensor, Tensor | None]:
    """Return particles as worlds of one: each keeps the weight of the world that its first step was taken in."""
    weight = (weight / mean.shape[1]).repeat_interleave(mean.shape[1], 0)
    return mean.flatten(0, 1)[:, None], weight, None if valid is None else valid.flatten(0, 1)[:, None]


def _by_world(mean: Tensor, weight: Tensor, valid: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """Return each world's mean, its weight among those that have particles left, and how many it has."""
    if valid is None:
        by_world = mean.squeeze(1) if mean.shape[1] == 1 else mean.mean(1)
        return by_world, weight, mean.new_full((1,) * (mean.ndim - 1), mean.shape[1])
    inside = valid[..., None]
    count = inside.sum(1).to(mean)
    weight = torch.where(count > 0, weight, 0.0)
    weight = weight / weight.sum(0)  # 0 / 0 = NaN where every particle diverged
    return torch.where(inside, mean, 0.0).sum(1) / count.clamp(min=1), weight, count


def valid_particles(law: Law, diverged: Tensor) -> Tensor:
    """Return which particles count at a step, shape (W, P, *batch): those whose law is finite and that live.

    Parameters
    ----------
    law : Law
        The law of the step in each world and particle.
    diverged : Tensor, shape (W, P, *batch)
        Particles that left the finite numbers; not looked at where the law has fewer particles than were sampled.
    """
    finite = law.mean.isfinite().all(-1) & law.variance.isfinite().all(-1)
    return finite & ~diverged if finite.shape == diverged.shape else finite


def step_moments(step: Step, *, matrix: bool = False, merged: bool = False) -> Split:
    """Return the moments of a step, each of shape (*batch, S): see :func:`split_moments`.

    With ``matrix`` they are covariances, shape (*batch, S, S), for all but the mean.
    """
    mean = step.law.mean
    return split_moments(
        mean,
        step.law.covariance if matrix else step.law.variance,
        step.weight(mean),
        exhaustive=step.exhaustive,
        resolved=step.resolved,
        valid=step.valid,
        merged=merged,
    )


def circular_mean(step: Step, index: Sequence[int]) -> Tensor:
    """Return the mean direction of some variables of a step, in [-pi, pi], shape (*batch, len(index)).

    The law of each particle is taken for Gaussian: it shortens the mean direction by exp(-variance / 2).
    """
    at = list(index)
    shrink, angle = torch.exp(-0.5 * step.law.variance[..., at]), step.law.mean[..., at]
    weight = step.log_weight.exp()
    sine, cosine = (weighted_mean(shrink * f(angle), weight, valid=step.valid) for f in (torch.sin, torch.cos))
    return torch.atan2(sine, cosine)


def solve_quantile(
    cdf: Callable[[Tensor], Tensor],
    low: Tensor,
    high: Tensor,
    *,
    probability: Tensor,
    resolution: Tensor | float = 1e-30,
) -> Tensor:
    """Invert increasing functions element by element: the smallest x with cdf(x) >= probability.

    Chandrupatla's method (1997): inverse quadratic steps where the last three points allow them, halving elsewhere, so
    that jumps and flat parts of the cdf cost no more than bisection.

    Parameters
    ----------
    cdf : callable
        Maps a tensor of the shape of ``low`` to cdf values.
    low, high : Tensor
        Brackets, widened where they do not hold the answer.
    probability : Tensor, broadcastable to ``low``
        Between 0 and 1, ends excluded.
    resolution : Tensor or float, broadcastable to ``low``
        Differences of x that do not matter, beyond rounding.

    Returns
    -------
    Tensor, shape as ``low``; NaN where the cdf is.

    Examples
    --------
    >>> zero, one = torch.zeros(1, dtype=torch.float64), torch.ones(1, dtype=torch.float64)
    >>> round(float(solve_quantile(torch.special.ndtr, zero, one, probability=torch.tensor(0.975))), 4)
    1.96
    """
    target = probability * (1 - 1e-12)  # sums of weights carry rounding: a tie must still find the smaller x
    eps = torch.finfo(low.dtype).eps
    lost = ~(low.isfinite() & high.isfinite())
    low, high = torch.where(lost, 0.0, low), torch.where(lost, 0.0, high)
    width = (high - low).clamp(min=1e-12)
    for _ in range(60):
        under, over = cdf(low) >= target, cdf(high) < target
        if not bool((under | over).any()):
            break
        low, high = torch.where(under, low - width, low), torch.where(over, high + width, high)
        width = 2 * width
    # x is the newest point, other the end across the root, old the point before
    x, other, old = high, low, low
    fx, f_other, f_old = cdf(high) - target, cdf(low) - target, cdf(low) - target
    share = torch.full_like(low, 0.5)
    for _ in range(250):
        new = x + share * (other - x)
        f_new = cdf(new) - target
        same = (f_new >= 0) == (fx >= 0)
        old, f_old = torch.where(same, x, other), torch.where(same, fx, f_other)
        other, f_other = torch.where(same, other, x), torch.where(same, f_other, fx)
        x, fx = new, f_new
        width = (other - x).abs()
        least = 2 * eps * torch.maximum(x.abs(), other.abs()) + resolution
        if bool(((width <= 2 * least) | fx.isnan()).all()):
            break
        xi, phi = (x - other) / (old - other), (fx - f_other) / (f_old - f_other)
        quadratic = (phi.square() < xi) & ((1 - phi).square() < 1 - xi)
        step = fx / (f_other - fx) * f_old / (f_other - f_old)
        step = step + (old - x) / (other - x) * fx / (f_old - fx) * f_other / (f_old - f_other)
        edge = (least / width).clamp(max=0.5)
        share = torch.where(quadratic & step.isfinite(), step, 0.5)
        share = torch.minimum(torch.maximum(share, edge), 1 - edge)
    return torch.where(lost | fx.isnan(), float("nan"), torch.where(fx >= 0, x, other))


def mix_log(
    log_kernel: Tensor, log_weight: Tensor, *, exhaustive: bool, resolved: bool, valid: Tensor | None = None
) -> LogScore:
    """Return the log of a weighted mean of kernels over worlds and particles, with its Monte Carlo error.

    Parameters
    ----------
    log_kernel : Tensor, shape (W, P, ...)
        Log densities.
    log_weight : Tensor, broadcastable to (W, ...)
        Normalised log weights of the worlds.
    exhaustive, resolved : bool
        Whether worlds are the posterior, and whether particles carry no noise: if both, nothing is estimated.
    valid : Tensor, shape (W, P, ...), optional
        Particles to count.

    Returns
    -------
    LogScore, each of shape (...)
        Worlds are the clusters of the error where they are drawn, particles where worlds are exhaustive.
    """
    log_weight = log_weight.to(log_kernel.dtype)
    count = log_kernel.new_full((1,) * (log_kernel.ndim - 1), log_kernel.shape[1])
    if valid is not None:
        log_kernel = torch.where(valid, log_kernel, float("-inf"))
        count = valid.sum(1).to(log_kernel)
        # worlds without a particle left out like diverged particles; NaN where none has any
        log_weight = torch.log_softmax(torch.where(count > 0, log_weight, float("-inf")), 0)
    joint = log_kernel + (log_weight - count.clamp(min=1).log())[:, None]
    value = torch.logsumexp(joint.flatten(0, 1), 0)
    if exhaustive and resolved:
        return LogScore(value, torch.zeros_like(value), torch.full_like(value, float("inf")))
    # shares of the density: a weight times a huge kernel is never formed
    share = torch.exp(joint - torch.where(value.isinf(), 0.0, value))
    tiny = torch.finfo(share.dtype).tiny
    kernels = share.sum((0, 1)).square() / share.square().sum((0, 1)).clamp(min=tiny)
    by_world = share.sum(1)
    worlds = log_kernel.shape[0]
    if exhaustive:
        deviation = share * count[:, None] - by_world[:, None]
        deviation = deviation if valid is None else torch.where(valid, deviation, 0.0)
        variance = (deviation.square().sum(1) / ((count - 1).clamp(min=1) * count.clamp(min=1))).sum(0)
        known = ((count > 1) | (log_weight.exp() == 0)).all(0)
    else:
        variance = (by_world - log_weight.exp()).square().sum(0) * worlds / max(worlds - 1, 1)
        known = torch.tensor(worlds > 1, device=value.device)
    error = torch.where(known & ~value.isinf(), variance.sqrt(), float("nan"))
    return LogScore(value, error, kernels)


def mix_mean(values: Tensor, weight: Tensor, *, exhaustive: bool) -> Estimate:
    """Return the weighted mean over worlds and particles, shape (...), of values (W, P, ...), with its error."""
    weight = weight.to(values).view(-1, *(1,) * (values.ndim - 2))
    worlds, particles = values.shape[:2]
    by_world = values.mean(1)
    value = (weight * by_world).sum(0)
    if exhaustive:
        if particles < 2:
            return Estimate(value, torch.full_like(value, float("nan")))
        variance = (weight.square() * values.var(1) / particles).sum(0)
    else:
        if worlds < 2:
            return Estimate(value, torch.full_like(value, float("nan")))
        variance = (weight.square() * (by_world - value).square()).sum(0) * worlds / (worlds - 1)
    return Estimate(value, variance.sqrt())


def weighted_mean(values: Tensor, weight: Tensor, *, valid: Tensor | None = None) -> Tensor:
    """Return the weighted mean over worlds and particles.

    Parameters
    ----------
    values : Tensor, shape (W, P, *batch, n)
        What to average.
    weight : Tensor, shape (W,)
        Weights of the worlds, summing to 1.
    valid : Tensor, shape (W, P, *batch), optional
        Particles to count; all by default.

    Returns
    -------
    Tensor, shape (*batch, n); NaN where no particle counts
    """
    weight = weight.to(values).view(-1, *(1,) * (values.ndim - 2))
    if valid is None:
        return (weight * values.mean(1)).sum(0)
    inside = valid[..., None]
    count = inside.sum(1).to(values)
    weight = torch.where(count > 0, weight, 0.0)
    by_world = torch.where(inside, values, 0.0).sum(1) / count.clamp(min=1)
    return (weight * by_world).sum(0) / weight.sum(0)
