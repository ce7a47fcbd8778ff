"""Weighted mixtures of one-step laws: moments that split by world, quantiles, estimates with their errors."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor


class Estimate(NamedTuple):
    """A Monte Carlo estimate and its standard error, of equal shape."""

    value: Tensor
    standard_error: Tensor


class LogScore(NamedTuple):
    """An estimated log density, its standard error and how many kernels effectively contribute (inf if exact)."""

    value: Tensor
    standard_error: Tensor
    kernels: Tensor


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
        mean, spread = mean.flatten(0, 1)[None], spread.flatten(0, 1)[None]
        valid = None if valid is None else valid.flatten(0, 1)[None]
        weight = torch.ones_like(weight[:1])
    count = mean.new_tensor(float(mean.shape[1]))
    if valid is None:
        world_mean, law = mean.mean(1), spread.mean(1)
        scatter = outer(mean - world_mean[:, None]).sum(1) / (count - 1).clamp(min=1)
    else:
        inside = valid[..., None]
        count = inside.sum(1).to(mean)
        world_mean = torch.where(inside, mean, 0.0).sum(1) / count.clamp(min=1)
        wide = inside[..., None] if matrix else inside
        law = torch.where(wide, spread, 0.0).sum(1) / (count[..., None] if matrix else count).clamp(min=1)
        scatter = torch.where(wide, outer(mean - world_mean[:, None]), 0.0).sum(1)
        scatter = scatter / ((count[..., None] if matrix else count) - 1).clamp(min=1)
        weight = torch.where(count > 0, weight, 0.0)
        weight = weight / weight.sum(0)  # 0 / 0 = NaN where every particle diverged
    if resolved:
        scatter = torch.zeros_like(scatter)
    elif matrix or count.ndim:
        scatter = torch.where((count[..., None] if matrix and count.ndim else count) > 1, scatter, float("nan"))
    elif count <= 1:
        scatter = torch.full_like(scatter, float("nan"))

    center = (weight * world_mean).sum(0)
    wide = weight[..., None] if matrix else weight
    wide_count = count[..., None] if matrix and count.ndim else count
    raw = (wide * outer(world_mean - center)).sum(0)
    finite = torch.ones_like(wide) if exhaustive or merged else 1 - wide.square().sum(0, keepdim=True)
    finite = torch.where(finite[0] > 1e-12, finite[0], float("nan"))
    aleatoric = (wide * (law + scatter)).sum(0)
    noise = (wide * (1 - wide) * scatter / wide_count.clamp(min=1)).sum(0)
    between = (raw - noise) / finite
    if merged:
        return Split(center, torch.full_like(aleatoric, float("nan")), torch.full_like(between, float("nan")), aleatoric)
    if matrix:
        diagonal = between.diagonal(dim1=-2, dim2=-1) > 0
        shown = torch.where(diagonal[..., :, None] & diagonal[..., None, :], between, 0.0)
    else:
        shown = between.clamp(min=0)
    unsplit = (wide * law).sum(0) + raw / finite  # one particle a world: its scatter is part of the spread between
    single = (mean.shape[0] == 1) and not exhaustive
    total = torch.where(aleatoric.isnan(), unsplit, aleatoric + (0.0 if single else shown))
    if single:
        total = aleatoric
    elif mean.shape[0] == 1 and not resolved:
        total = aleatoric  # one known world, one noisy particle: nothing shows its spread
    return Split(center, aleatoric, between, total)


def solve_quantile(cdf: Callable[[Tensor], Tensor], low: Tensor, high: Tensor, probability: Tensor) -> Tensor:
    """Invert increasing functions element by element: the smallest bracketed x with cdf(x) >= probability.

    Secant steps on a bracket that shrinks, halving where the secant stalls (the Anderson-Bjorck variant of regula
    falsi, with a bisection at every third step so that jumps of the cdf cannot hold it up).

    Parameters
    ----------
    cdf : callable
        Maps a tensor of the shape of ``low`` to cdf values.
    low, high : Tensor
        Brackets, widened where they do not hold the answer.
    probability : Tensor, broadcastable to ``low``
        Between 0 and 1, ends excluded.

    Returns
    -------
    Tensor, shape as ``low``
    """
    low, high = low.clone(), high.clone()
    width = (high - low).clamp(min=1e-12)
    for _ in range(60):
        under, over = cdf(low) >= probability, cdf(high) < probability
        if not bool((under | over).any()):
            break
        low, high = torch.where(under, low - width, low), torch.where(over, high + width, high)
        width = 2 * width
    below, above = cdf(low) - probability, cdf(high) - probability
    for k in range(90):
        middle = 0.5 * (low + high)
        if k % 3 != 2:
            secant = high - above * (high - low) / (above - below)
            inner = (secant > low) & (secant < high)
            middle = torch.where(inner, secant, middle)
        value = cdf(middle) - probability
        upper = value >= 0
        # keep the end that moved; scale the other one's height down when it stays twice, so that it moves too
        shrink = torch.where(upper, 1 - value / above, 1 - value / below)
        shrink = torch.where(shrink > 0, shrink, 0.5)
        below = torch.where(upper, below * shrink, value)
        above = torch.where(upper, value, above * shrink)
        low, high = torch.where(upper, low, middle), torch.where(upper, middle, high)
        above, below = above.clamp(min=1e-300), below.clamp(max=-1e-300)
        resolution = 4 * torch.finfo(low.dtype).eps * torch.maximum(low.abs(), high.abs()).clamp(min=1e-30)
        if k % 3 == 2 and bool(((high - low <= resolution) | (value.abs() < 1e-9)).all()):
            return torch.where(value.abs() < 1e-9, middle, high)
    return high


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
    count = torch.tensor(float(log_kernel.shape[1]), dtype=log_kernel.dtype, device=log_kernel.device)
    if valid is not None:
        log_kernel = torch.where(valid, log_kernel, float("-inf"))
        count = valid.sum(1).clamp(min=1).to(log_kernel)
    log_weight = log_weight.to(log_kernel.dtype)
    by_world = torch.logsumexp(log_kernel, 1) - count.log()
    joint = by_world + log_weight
    value = torch.logsumexp(joint, 0)
    if exhaustive and resolved:
        return LogScore(value, torch.zeros_like(value), torch.full_like(value, float("inf")))
    safe = torch.where(value.isinf(), 0.0, value)
    share = torch.exp(log_kernel + (log_weight - count.log())[:, None] - safe)
    kernels = share.sum((0, 1)).square() / share.square().sum((0, 1)).clamp(min=1e-300)
    ratio = torch.exp(by_world - safe)
    weight = log_weight.exp()
    worlds = log_kernel.shape[0]
    if exhaustive:
        scatter = (torch.exp(log_kernel - safe) - ratio[:, None]).square().sum(1) / (count - 1).clamp(min=1)
        variance = (weight.square() * scatter / count).sum(0)
        known = log_kernel.shape[1] > 1
    else:
        variance = (weight.square() * (ratio - 1).square()).sum(0) * worlds / max(worlds - 1, 1)
        known = worlds > 1
    error = variance.sqrt() if known else torch.full_like(value, float("nan"))
    return LogScore(value, torch.where(value.isinf(), float("nan"), error), kernels)


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
