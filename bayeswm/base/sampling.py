"""Draws from a predictive: one step pushed forward from new noise, or whole trajectories picked from its particles."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from bayeswm.base.laws import Law
from bayeswm.base.random import standard_normal, systematic, uniform


def draw_step(
    law: Law,
    n: int,
    log_weight: Tensor,
    *,
    batch: tuple[int, ...],
    generator: torch.Generator,
    view: Callable[[Any], Tensor] | None = None,
) -> Tensor:
    """Draw outcomes of one step from new noise, differentiable in what the law was made of.

    Parameters
    ----------
    law : Law
        The law in each world and particle.
    n : int
        How many to draw; worlds and particles are met in proportion to their weights.
    log_weight : Tensor, shape (W,)
        Normalised log weights of the worlds.
    batch : tuple of int
        Shape of the batch axes.
    generator : torch.Generator
        Source of all randomness.
    view : callable, optional
        Maps what the law pushes to the variables' values; by default they are the same.

    Returns
    -------
    Tensor, shape (n, *batch, 1, S)

    Examples
    --------
    >>> from bayeswm.base.laws import Gaussian
    >>> law = Gaussian(torch.tensor([0.0, 2.0]).view(2, 1, 1), torch.zeros(2, 1, 1))
    >>> half = torch.full((2,), 0.5).log()
    >>> draw_step(law, 4, half, batch=(), generator=torch.Generator().manual_seed(0)).flatten().sort().values
    tensor([0., 0., 2., 2.])
    """
    worlds, count = law.mean.shape[:2]
    each = (log_weight[:, None] - math.log(count)).expand(worlds, count)
    index = systematic(each.flatten(), n, generator)
    world, particle = index // count, index % count
    one = law.map(lambda v: v[world % v.shape[0], particle % v.shape[1]][None])
    noise = standard_normal((1, n, *batch, law.noise_size), generator, dtype=law.mean.dtype, device=law.mean.device)
    pushed = one.push(noise)
    return (pushed if view is None else view(pushed))[0][..., None, :]


def draw_paths(
    paths: Tensor, n: int, log_weight: Tensor, *, generator: torch.Generator, diverged: Tensor | None = None
) -> Tensor:
    """Draw whole trajectories from particles, in proportion to the weights of their worlds.

    Parameters
    ----------
    paths : Tensor, shape (W, P, *batch, H, S)
        The particles.
    n : int
        How many to draw; more than there are repeat some.
    log_weight : Tensor, shape (W,)
        Normalised log weights of the worlds.
    generator : torch.Generator
        Source of all randomness.
    diverged : Tensor, shape (W, P, *batch), optional
        Particles never to be drawn.

    Returns
    -------
    Tensor, shape (n, *batch, H, S)
        NaN in rows where every particle diverged.

    Examples
    --------
    >>> paths = torch.tensor([0.0, 2.0]).view(2, 1, 1, 1)
    >>> half = torch.full((2,), 0.5).log()
    >>> draw_paths(paths, 4, half, generator=torch.Generator().manual_seed(0)).flatten().sort().values
    tensor([0., 0., 2., 2.])
    """
    worlds, count = paths.shape[:2]
    flat = paths.flatten(0, 1)
    log_weight = (log_weight - math.log(count))[:, None].expand(worlds, count).flatten()
    if diverged is None:
        return flat[systematic(log_weight, n, generator)]
    alive = ~diverged.flatten(0, 1)
    weight = log_weight.exp().view(-1, *(1,) * (alive.ndim - 1)) * alive
    edges = (weight / weight.sum(0)).cumsum(0).movedim(0, -1).contiguous()
    draw = uniform((*alive.shape[1:], n), generator, dtype=edges.dtype, device=edges.device)
    index = torch.searchsorted(edges, draw, right=True).clamp(max=len(flat) - 1).movedim(-1, 0)
    out = flat.gather(0, index[..., None, None].expand(n, *flat.shape[1:]))
    # a row without a living particle has no outcome to give
    return torch.where(alive.any(0)[..., None, None], out, float("nan"))
