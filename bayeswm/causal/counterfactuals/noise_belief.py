"""The exact law of noise that was not recorded, where what was recorded is affine in it."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from bayeswm.base.errors import NotInvertible, SpecError
from bayeswm.base.random import make_generator, standard_normal
from bayeswm.causal.counterfactuals.free_noise import FreeNoise, slack

# random points at which a map is compared with the straight line through its values at unit vectors
_CHECKS = 4
# numbers in the design matrices of all worlds and episodes
_MOST = 2**25


class NoiseBelief(NamedTuple):
    """A normal law of free noise: ``mean + root @ z`` with z ~ N(0, I).

    Attributes
    ----------
    mean : Tensor, shape (worlds, episodes, K)
        Given what was recorded.
    root : Tensor, shape (worlds, episodes, K, K)
        Of its covariance.
    log_density : Tensor, shape (worlds, episodes)
        Of what was recorded.
    """

    mean: Tensor
    root: Tensor
    log_density: Tensor

    def at(self, z: Tensor) -> Tensor:
        """Return noise (worlds, particles, episodes, K) at standard normal z of that shape."""
        return self.mean[:, None] + torch.einsum("wnij,wpnj->wpni", self.root, z.expand(*z.shape[:2], *self._tail))

    @property
    def _tail(self) -> tuple[int, ...]:
        return tuple(self.mean.shape[1:])


def probes(size: int, *, like: Tensor) -> Tensor:
    """Return 0, the unit vectors and some random vectors, shape (1 + size + 4, size)."""
    checks = standard_normal((_CHECKS, size), make_generator(0), dtype=torch.float64).to(like)
    checks[_CHECKS // 2 :] *= 3.0
    eye = torch.eye(size, dtype=like.dtype, device=like.device)
    return torch.cat((torch.zeros_like(eye[:1]) if size else eye.new_zeros(1, 0), eye, checks))


def straight(values: Tensor, size: int, *, least: Tensor | float = 1.0) -> tuple[Tensor, Tensor] | None:
    """Return offset (worlds, ..., R) and slope (worlds, ..., R, size) of a map, or None where it is not affine.

    Parameters
    ----------
    values : Tensor, shape (worlds, 1 + size + 4, ..., R)
        The map at :func:`probes`.
    size : int
        Of the vectors.
    least : Tensor, broadcastable to (worlds, ..., R), or float
        Size below which numbers are taken for rounding of one of that size.
    """
    points = probes(size, like=values)
    offset = values[:, 0]
    slope = (values[:, 1 : 1 + size] - offset[:, None]).movedim(1, -1)
    line = offset[:, None] + torch.einsum("w...rk,pk->wp...r", slope, points[1 + size :])
    allowed = slack(values.dtype) * values.detach().abs().amax(1, keepdim=True).clamp(min=least)
    off = (values[:, 1 + size :] - line).detach().abs()
    return (offset, slope) if bool((off <= allowed).all()) else None


def noise_belief(seen: FreeNoise) -> NoiseBelief | None:
    """Return the exact law of the free noise, or None where the noise of recorded variables is not affine in it.

    With the recorded values put in, the noise of recorded variables is a + A u in the free noise u ~ N(0, I), so that u
    is normal with precision I + A' A. What a mechanism without noise says of a recorded value holds exactly.

    Parameters
    ----------
    seen : FreeNoise
        Recorded episodes.

    Raises
    ------
    NotInvertible
        If no noise leads to what was recorded.
    SpecError
        If there is so much free noise that the algebra would not fit into memory; see :func:`fits`.

    Examples
    --------
    X ~ N(0, 1) and Y = 2 X + N(0, 0.25) = 3: X has precision 1 + 16 and mean 24 / 17.

    >>> from bayeswm import Trajectories
    >>> from bayeswm.causal import Mechanism, StructuralModel
    >>> from bayeswm.causal.counterfactuals.partly_seen import PartlySeen
    >>> model = StructuralModel({"X": Mechanism(lambda: 0.0, noise=1.0), "Y": Mechanism(lambda X: 2 * X, noise=0.5)})
    >>> given = Trajectories(model.schema, state=[[[0.0, 0.0], [float("nan"), 3.0]]], allow_missing=True)
    >>> found = noise_belief(PartlySeen(model.draw(1), given))
    >>> (17 * found.mean).flatten().round().tolist(), found.root.square().mul(17).flatten().round().tolist()
    ([24.0], [1.0])
    """
    size, worlds, episodes = seen.size, len(seen.worlds), seen.episodes
    if not fits(seen):
        raise SpecError(
            f"expected at most {_MOST:g} numbers in the algebra of missing values, got more: {size} values of noise in "
            f"{episodes} episode(s) and {worlds} world(s); pass fewer episodes at a time"
        )
    points = probes(size, like=seen.worlds.log_weight.to(seen.worlds.dtype))
    _, solved, log_scale, gap = seen.fit(points[None, :, None].expand(worlds, len(points), episodes, size))
    if bool(((log_scale - log_scale[:, :1]).detach().abs() > slack(log_scale.dtype)).any()):
        return None
    soft, hard = straight(solved, size), straight(gap, size)
    if soft is None or hard is None:
        return None
    (a, slope), log_density = soft, -log_scale[:, 0]
    eye = torch.eye(size, dtype=a.dtype, device=a.device)
    origin, kept = a.new_zeros(worlds, episodes, size), eye.expand(worlds, episodes, size, size)
    if bool((hard[0] != 0).any()) or bool((hard[1] != 0).any()):
        origin, kept, extra = _constrained(*hard)
        log_density = log_density + extra
    a = a + torch.einsum("wnrk,wnk->wnr", slope, origin)
    slope = slope @ kept
    factor = torch.linalg.cholesky(eye + slope.mT @ slope)
    pull = torch.einsum("wnrk,wnr->wnk", slope, a)[..., None]
    mean = -torch.cholesky_solve(pull, factor)
    log_density = log_density - factor.diagonal(dim1=-2, dim2=-1).log().sum(-1)
    log_density = log_density - 0.5 * (a.square().sum(-1) + (pull * mean).sum((-2, -1)))
    root = kept @ torch.linalg.solve_triangular(factor.mT, eye.expand_as(factor), upper=True)
    return NoiseBelief(origin + (kept @ mean)[..., 0], root, log_density)


def fits(seen: FreeNoise) -> bool:
    """Whether the algebra of the free noise is small enough."""
    return len(seen.worlds) * seen.episodes * (seen.size + 1 + _CHECKS) * seen.records <= _MOST


def _constrained(offset: Tensor, slope: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the smallest u with offset + slope u = 0, the projection onto what is left, and the log density of it."""
    u, size, v = torch.linalg.svd(slope, full_matrices=False)
    rank = size > 1e-10 * size.square().sum(-1, keepdim=True).sqrt().clamp(min=1.0)
    inverse = torch.where(rank, 1 / torch.where(rank, size, 1.0), 0.0)
    origin = -torch.einsum("wnki,wnk,wnrk,wnr->wni", v, inverse, u, offset)
    left = offset + torch.einsum("wnrk,wnk->wnr", slope, origin)
    if bool((left.abs() > slack(left.dtype) * offset.abs().clamp(min=1.0)).any()):
        raise NotInvertible(
            "expected recorded values that mechanisms without noise can lead to, got a deviation of "
            f"{float(left.abs().max()):.3g}; give the variable noise"
        )
    eye = torch.eye(slope.shape[-1], dtype=slope.dtype, device=slope.device)
    kept = eye - v.mT @ (rank[..., None] * v)
    each = torch.where(rank, torch.where(rank, size, 1.0).log() + 0.5 * math.log(2 * math.pi), 0.0)
    return origin, kept, -each.sum(-1) - 0.5 * origin.square().sum(-1)
