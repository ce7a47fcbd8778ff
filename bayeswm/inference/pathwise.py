"""Whole functions drawn from the posterior of a Gaussian process: random features and Matheron's update."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from bayeswm.base.random import standard_normal, uniform
from bayeswm.inference.gp_exact import ExactPosterior

# doubles in the largest temporary of a loop over points
_CHUNK = 2**20


def draw_paths(
    posterior: ExactPosterior, count: int, *, features: int, generator: torch.Generator
) -> dict[str, Tensor]:
    r"""Draw functions from the posterior.

    A draw from the prior is a sum of waves, :math:`\sum_k a_k \cos(\omega_k x + \phi_k)`, with frequencies from the
    spectral density (Rahimi & Recht 2007) and, so that each value is exactly Gaussian, Rayleigh amplitudes and uniform
    phases. Matheron's rule makes it a draw from the posterior: add :math:`k(x, X) K^{-1} (y - f(X) - \epsilon)`
    (Wilson et al. 2020). Every function has frequencies of its own, so that mean and covariance over functions are the
    exact posterior's for any number of features; more features make their joint law more Gaussian.

    Parameters
    ----------
    posterior : ExactPosterior
        Given data.
    count : int
        Functions, each with S outputs.
    features : int
        Waves of each.
    generator : torch.Generator
        Source of all randomness.

    Returns
    -------
    dict of str to Tensor
        ``frequency`` (count, S, D, features), ``phase`` and ``amplitude`` (count, S, features), and ``update``, the
        weights of the kernel at the n data, (count, S, n).

    Examples
    --------
    >>> from bayeswm.inference import RBF, Hyper
    >>> one = torch.ones(1, dtype=torch.float64)
    >>> known = ExactPosterior(RBF(), one.view(1, 1), one.view(1, 1), Hyper(one.view(1, 1), 0.01 * one))
    >>> paths = draw_paths(known, 5, features=64, generator=torch.Generator().manual_seed(0))
    >>> values = evaluate_paths(known, paths, one.view(1, 1, 1))  # five functions through (1, 1)
    >>> values.shape, bool(((values - 1).abs() < 0.05).all())
    (torch.Size([5, 1, 1]), True)
    """
    x, y, hyper = posterior.x, posterior.y, posterior.hyper
    (outputs, n), device = y.shape, x.device
    shape = (count, outputs, features)
    kernel, inputs = posterior.kernel, x.shape[1]
    frequency = torch.stack([kernel.frequencies((count, inputs, features), v, generator) for v in hyper.values], 1)
    variance = torch.stack([kernel.variance(v, inputs) for v in hyper.values])
    phase = 2 * math.pi * uniform(shape, generator, dtype=torch.float64, device=device)
    # log1p: uniform draws may be 0, never 1
    rayleigh = (-2 * torch.log1p(-uniform(shape, generator, dtype=torch.float64, device=device))).sqrt()
    amplitude = rayleigh * (variance / features).sqrt()[:, None]
    noise = standard_normal((count, outputs, n), generator, dtype=torch.float64, device=device)
    paths = {"frequency": frequency, "phase": phase, "amplitude": amplitude}
    prior = torch.cat(
        [
            torch.stack([_waves(paths, x[None, part], s) for s in range(outputs)], 1)
            for part in torch.arange(n, device=device).split(max(_CHUNK // (count * features), 1))
        ],
        -1,
    )
    residual = y - prior - posterior.nugget.sqrt()[:, None] * noise
    update = posterior.solve(residual.movedim(0, -1)).movedim(-1, 0).contiguous()
    return {**paths, "update": update}


def evaluate_paths(posterior: ExactPosterior, paths: Mapping[str, Tensor], points: Tensor) -> Tensor:
    """Return the values of drawn functions.

    Parameters
    ----------
    posterior : ExactPosterior
        What they were drawn from.
    paths : mapping of str to Tensor
        What :func:`draw_paths` returned.
    points : Tensor, shape (count, m, D), or (1, m, D)
        Inputs of each function, or the same for all, for which the kernel is computed once.

    Returns
    -------
    Tensor, shape (count, m, S)

    Examples
    --------
    See :func:`draw_paths`.
    """
    count, outputs, features = paths["phase"].shape
    size = max(_CHUNK // (count * max(features, len(posterior.x))), 1)
    parts: list[Tensor] = []
    for part in points.split(size, 1):
        values = [_waves(paths, part, s) + _data(posterior, paths, part, s) for s in range(outputs)]
        parts.append(torch.stack(values, -1))
    return torch.cat(parts, 1) if parts else points.new_empty(count, 0, outputs)


def _waves(paths: Mapping[str, Tensor], points: Tensor, output: int) -> Tensor:
    """Return one output of the draws from the prior at points (count or 1, m, D), shape (count, m)."""
    frequency, phase = paths["frequency"][:, output], paths["phase"][:, output, None]
    wave = torch.baddbmm(phase, points.expand(len(phase), -1, -1), frequency).cos_()
    return (wave @ paths["amplitude"][:, output, :, None])[..., 0]


def _data(posterior: ExactPosterior, paths: Mapping[str, Tensor], points: Tensor, output: int) -> Tensor:  # noqa: PLR0917 (hot path)
    """Return what the data add to one output at points (count or 1, m, D), shape (count, m)."""
    update, data = paths["update"][:, output], posterior.x
    cross = posterior.kernel.covariance(points.reshape(-1, points.shape[-1]), data, posterior.hyper.values[output])
    if len(points) == 1:
        return (cross @ update.mT).mT
    return (cross.view(len(points), -1, len(data)) @ update[..., None])[..., 0]
