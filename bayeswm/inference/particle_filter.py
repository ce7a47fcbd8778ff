"""A particle filter for what is too nonlinear for a Gaussian belief."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from bayeswm.base.errors import SpecError
from bayeswm.base.laws import Gaussian
from bayeswm.base.random import make_generator, standard_normal, uniform
from bayeswm.inference.cloud import Cloud
from bayeswm.inference.gaussian_filter import Move


class CloudPassage(NamedTuple):
    """A cloud on its way through a transition: which states were drawn from it, and where they go.

    ``drawn`` and ``mean`` have shape (W, P, *batch, N, S), as ``scale`` has, 0 where there is no noise.
    """

    drawn: Tensor
    mean: Tensor
    scale: Tensor
    age: int

    def settled(self) -> Cloud:
        """Return the belief about the next state without the noise."""
        return self._cloud(torch.zeros_like(self.mean))

    def predicted(self) -> Cloud:
        """Return the belief about the next state."""
        return self._cloud(self.scale)

    def draw_before(self, state: Tensor, generator: torch.Generator) -> Tensor:
        """Draw the state before among the particles, given the state after the step, shape (W, P, *batch, S).

        References
        ----------
        Godsill, Doucet and West (2004), Monte Carlo smoothing for nonlinear time series.
        """
        log_weight = Gaussian(self.mean, self.scale).log_prob(state[..., None, :])
        edges = torch.softmax(log_weight.nan_to_num(nan=float("-inf")), -1).nan_to_num(nan=1.0).cumsum(-1)
        at = uniform((*edges.shape[:-1], 1), generator, dtype=edges.dtype, device=edges.device) * edges[..., -1:]
        index = torch.searchsorted(edges, at, right=True).clamp(max=edges.shape[-1] - 1)
        return self.drawn.gather(-2, index[..., None].expand(*index.shape, state.shape[-1]))[..., 0, :]

    def _cloud(self, spread: Tensor) -> Cloud:
        count = self.mean.shape[-2]
        even = self.mean.new_full(self.mean.shape[:-1], 1 / count).log()
        return Cloud(self.mean, spread, even, self.age)


class ParticleFilter:
    """Sequential Monte Carlo, for transitions with additive Gaussian noise and linear sensors.

    Each step resamples systematically, moves the particles, weighs them by the density of the measurement before any
    noise is drawn, and draws the noise given the measurement (the optimal proposal, exact for such systems). The
    likelihood is an unbiased estimate. It has no useful gradient.

    Parameters
    ----------
    particles : int
        Particles in each world and episode.
    seed : int
        Decides all random numbers: the same question has the same answer.

    Raises
    ------
    SpecError
        If there are fewer than 2 particles.

    References
    ----------
    Doucet, Godsill and Andrieu (2000), On sequential Monte Carlo sampling methods for Bayesian filtering.

    Examples
    --------
    >>> method = ParticleFilter(particles=2000)
    >>> cloud = method.begin(torch.zeros(1, 1, 1, dtype=torch.float64), torch.ones(1, 1, 1, 1, dtype=torch.float64))
    >>> later = method.passage(cloud, lambda x: (x.square(), None)).predicted()
    >>> bool((later.mean - 1).abs() < 4 * (2 / 2000) ** 0.5)
    True
    """

    exact = False

    def __init__(self, *, particles: int = 1000, seed: int = 0) -> None:
        if particles < 2:
            raise SpecError(f"expected particles >= 2, got {particles}")
        self.particles, self.seed = int(particles), int(seed)

    def __repr__(self) -> str:
        return f"ParticleFilter(particles={self.particles}, seed={self.seed})"

    def begin(self, mean: Tensor, root: Tensor) -> Cloud:
        """Return the belief N(mean, root @ root.mT) as a cloud, mean of shape (W, P, *batch, S)."""
        shape = (*mean.shape[:-1], self.particles)
        own = root.diagonal(dim1=-2, dim2=-1)
        center, spread = (v[..., None, :].expand(*shape, -1) for v in (mean, own.expand_as(mean)))
        if bool((root - torch.diag_embed(own)).any()):
            noise = self._normal((*shape, mean.shape[-1]), like=mean, age=0)
            center, spread = center + noise @ root.mT, torch.zeros_like(spread)
        return Cloud(center, spread, mean.new_full(shape, 1 / self.particles).log(), 0)

    def passage(self, belief: Cloud, move: Move) -> CloudPassage:
        """Send a cloud through a transition; ``move`` as of :meth:`Unscented.passage`, its points are particles."""
        age = belief.age + 1
        generator = self._generator(age)
        offset = uniform((*belief.log_weight.shape[:-1], 1), generator, dtype=torch.float64).to(belief.log_weight)
        index = _systematic(belief.log_weight, offset)[..., None].expand(belief.center.shape)
        center, spread = (v.gather(-2, index) for v in (belief.center, belief.spread))
        noise = standard_normal(tuple(center.shape), generator, dtype=center.dtype, device=center.device)
        drawn = center + spread * noise
        mean, scale = move(drawn.movedim(-2, 2))
        mean = mean.movedim(2, -2)
        drawn = drawn.expand(mean.shape)
        scale = torch.zeros_like(mean) if scale is None else scale.expand(mean.movedim(-2, 2).shape).movedim(2, -2)
        return CloudPassage(drawn, mean, scale, age)

    def _generator(self, age: int) -> torch.Generator:
        return make_generator(self.seed * 1_000_003 + age)

    def _normal(self, shape: tuple[int, ...], *, like: Tensor, age: int) -> Tensor:
        return standard_normal(shape, self._generator(age), dtype=like.dtype, device=like.device)


def _systematic(log_weight: Tensor, offset: Tensor) -> Tensor:
    """Systematic resampling along the last axis, one offset in [0, 1) for each row; indices in rising order."""
    count = log_weight.shape[-1]
    edges = torch.softmax(log_weight, -1).cumsum(-1)
    points = (torch.arange(count, dtype=edges.dtype, device=edges.device) + offset) / count
    return torch.searchsorted(edges, points).clamp(max=count - 1)
