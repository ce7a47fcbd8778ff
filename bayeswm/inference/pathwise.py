"""Whole functions drawn from the posterior of a Gaussian process: random features and Matheron's update."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from bayeswm.base.random import uniform
from bayeswm.inference.gp_algebra import Kernel
from bayeswm.inference.gp_exact import ExactPosterior, Hyper
from bayeswm.inference.gp_sparse import SparsePosterior

type Posterior = ExactPosterior | SparsePosterior


class Support(NamedTuple):
    """What drawn functions need of the posterior that they came from, to be evaluated in any number format.

    ``centers`` has shape (S, n, D); :class:`ExactPosterior` describes the rest.

    Examples
    --------
    >>> from bayeswm.inference import RBF
    >>> one = torch.ones(1, dtype=torch.float64)
    >>> support = Support(RBF(), one.view(1, 1, 1), Hyper(one.view(1, 1), 0.1 * one))
    >>> support.to(torch.float32).centers.dtype
    torch.float32
    """

    kernel: Kernel
    centers: Tensor
    hyper: Hyper

    @classmethod
    def of(cls, posterior: Posterior | Support) -> Support:
        """Return the part of a posterior that evaluation needs."""
        return cls(posterior.kernel, posterior.centers, posterior.hyper)

    def to(self, target: torch.device | str | torch.dtype) -> Support:
        """Return this on another device or in another number format."""
        return Support(self.kernel, self.centers.to(target), Hyper(*(v.to(target) for v in self.hyper)))


# doubles in the largest temporary of a loop over points: what a core keeps close to it
_CHUNK = 2**17


def draw_paths(posterior: Posterior, count: int, *, features: int, generator: torch.Generator) -> dict[str, Tensor]:
    r"""Draw functions from the posterior.

    A draw from the prior is a sum of waves, :math:`\sum_k a_k \cos(\omega_k x + \phi_k)`, with frequencies from the
    spectral density (Rahimi & Recht 2007) and, so that each value is exactly Gaussian, Rayleigh amplitudes and uniform
    phases. Matheron's rule makes it a draw from the posterior: add :math:`k(x, X) K^{-1} (y - f(X) - \epsilon)`
    (Wilson et al. 2020). Every function has frequencies of its own, so that mean and covariance over functions are the
    exact posterior's for any number of features; more features make their joint law more Gaussian.

    Parameters
    ----------
    posterior : ExactPosterior or SparsePosterior
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
        weights of the kernel at the posterior's centers, (count, S, n).

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
    kernel, centers, hyper = posterior.kernel, posterior.centers, posterior.hyper
    (outputs, _, inputs), device = centers.shape, centers.device
    shape = (count, outputs, features)
    frequency = torch.stack([kernel.frequencies((count, inputs, features), v, generator) for v in hyper.values], 1)
    variance = torch.stack([kernel.variance(v, inputs) for v in hyper.values])
    phase = 2 * math.pi * uniform(shape, generator, dtype=torch.float64, device=device)
    # log1p: uniform draws may be 0, never 1
    rayleigh = (-2 * torch.log1p(-uniform(shape, generator, dtype=torch.float64, device=device))).sqrt()
    amplitude = rayleigh * (variance / features).sqrt()[:, None]
    paths = {"frequency": frequency, "phase": phase, "amplitude": amplitude}
    return {**paths, "update": posterior.update(_waves(paths, centers.expand(count, -1, -1, -1)), generator)}


def evaluate_paths(posterior: Posterior | Support, paths: Mapping[str, Tensor], points: Tensor) -> Tensor:
    """Return the values of drawn functions.

    Parameters
    ----------
    posterior : ExactPosterior, SparsePosterior or Support
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
    count, outputs, _ = paths["phase"].shape
    data = [_data(posterior, paths, points, s) for s in range(outputs)]
    everywhere = points[:, None].expand(count, outputs, -1, -1)
    return torch.stack(data, -1).add_(_waves(paths, everywhere).mT)


def _waves(paths: Mapping[str, Tensor], points: Tensor) -> Tensor:
    """Return the draws from the prior at points (count, S, m, D), shape (count, S, m)."""
    frequency, phase, amplitude = (paths[k].flatten(0, 1) for k in ("frequency", "phase", "amplitude"))
    many, features = phase.shape
    points = points.reshape(many, *points.shape[2:])
    size = max(_CHUNK // features, 1)
    together = max(_CHUNK // (features * min(size, max(points.shape[1], 1))), 1)
    values: list[Tensor] = []
    for i in range(0, many, together):
        some = slice(i, i + together)
        parts: list[Tensor] = []
        for part in points[some].split(size, 1):
            wave = torch.bmm(part, frequency[some]).add_(phase[some, None]).cos_()
            # a matrix times a column takes three times as long, and rounds a row as its neighbours would have it
            parts.append((wave * amplitude[some, None]).sum(-1))
        values.append(torch.cat(parts, -1))
    return torch.cat(values).view(*paths["phase"].shape[:2], -1)


def _data(posterior: Posterior | Support, paths: Mapping[str, Tensor], points: Tensor, output: int) -> Tensor:  # noqa: PLR0917 (hot path)
    """Return what the data add to one output at points (count or 1, m, D), shape (count, m)."""
    update, centers = paths["update"][:, output], posterior.centers[output]
    values = posterior.hyper.values[output]
    parts: list[Tensor] = []
    for part in points.split(max(_CHUNK // (len(points) * len(centers)), 1), 1):
        cross = posterior.kernel.covariance(part.reshape(-1, part.shape[-1]), centers, values)
        if len(points) == 1:
            parts.append((cross @ update.mT).mT)
        else:
            parts.append((cross.view(len(points), -1, len(centers)) * update[:, None]).sum(-1))
    return torch.cat(parts, 1)
