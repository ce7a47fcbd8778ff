"""Counterfactual branches of episodes with missing values: the noise is a belief, or draws from it."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from bayeswm.base.errors import SpecError
from bayeswm.base.laws import Gaussian, Law, MultivariateGaussian
from bayeswm.base.predictive import Predictive
from bayeswm.base.random import standard_normal
from bayeswm.base.roots import covariance_root
from bayeswm.base.trajectories import Trajectories
from bayeswm.causal.intervened import IntervenedWorlds
from bayeswm.causal.intervention import Intervention
from bayeswm.causal.noise_belief import noise_belief, probes, straight
from bayeswm.causal.noise_draws import noise_draws
from bayeswm.causal.partly_seen import PartlySeen
from bayeswm.causal.replaying import replay
from bayeswm.causal.structural import StructuralWorlds

# slopes below this share of the numbers involved are rounding
_ROUNDING = 1e-13


class MissingNoise:
    """What is believed of the noise of episodes with missing values.

    Parameters
    ----------
    worlds : StructuralWorlds
        The system.
    factual : Trajectories
        What was recorded.
    particles : int
        Draws in each world, where there is no closed form.
    generator : torch.Generator, optional
        Needed where noise is drawn.

    Attributes
    ----------
    log_density : Tensor, shape (worlds,)
        Of all episodes.
    size : float
        Effectively independent draws behind the noise; infinite where it is known exactly.

    Raises
    ------
    SpecError
        If noise is drawn without a generator.
    """

    def __init__(
        self, worlds: StructuralWorlds, factual: Trajectories, *, particles: int, generator: torch.Generator | None
    ) -> None:
        self.factual, self.particles, self.generator = factual, particles, generator
        self.seen = PartlySeen(worlds, factual)
        self.belief, self.size = noise_belief(self.seen), math.inf
        self._drawn: Tensor | None = None
        if self.belief is not None:
            self.log_density = self.belief.log_density.sum(-1)
        else:
            found = noise_draws(self.seen, particles, generator=self._source())
            self._drawn, self.size, self.log_density = found.noise, found.size, found.log_density.sum(-1)

    def branch(
        self, worlds: StructuralWorlds, interventions: Sequence[Intervention]
    ) -> tuple[IntervenedWorlds, Predictive]:
        """Return worlds that replay the noise under interventions, and what they lead to.

        With normal noise and a branch that is affine in it, the laws of the branch are exact, and particles are only
        there if there is a generator; otherwise they are draws.
        """
        if self.belief is not None:
            size = self.belief.mean.shape[-1]
            z = probes(size, like=self.belief.mean)[None, :, None]
            done = IntervenedWorlds(worlds, interventions, replay=self._noise(z))
            if not done.noise_size and not done.episode_noise_size:
                found = self._run(done, particles=z.shape[1], generator=None)
                exact = self._affine(found, size)
                if exact is not None:
                    return done, exact
        noise = self._draws()
        done = IntervenedWorlds(worlds, interventions, replay=noise)
        return done, self._run(done, particles=self.particles, generator=self._source())

    def _noise(self, z: Tensor) -> Tensor:
        if self.belief is None:
            raise SpecError("expected a belief about the noise, got draws")
        slices = self.seen.along(self.belief.at(z))
        return torch.stack([one.noise for one in slices], -2)

    def _draws(self) -> Tensor:
        """Return draws of the noise: the same in all branches."""
        if self._drawn is None and self.belief is not None:
            _, episodes, size = self.belief.mean.shape
            shape = (len(self.belief.mean), self.particles, episodes, size)
            z = standard_normal(shape, self._source(), dtype=self.belief.mean.dtype, device=self.belief.mean.device)
            self._drawn = self._noise(z)
        if self._drawn is None:
            raise SpecError("expected draws of the noise, got none")
        return self._drawn

    def _run(self, done: IntervenedWorlds, *, particles: int, generator: torch.Generator | None) -> Predictive:
        return replay(done, self.seen.start, self.factual, particles=particles, generator=generator)

    def _source(self) -> torch.Generator:
        if self.generator is None:
            raise SpecError("expected generator=torch.Generator, since the noise of missing values is drawn, got none")
        return self.generator

    def _affine(self, found: Predictive, size: int) -> Predictive | None:
        """Return the normal law of the branch, or None where it is not affine in the noise."""
        paths = found.particles
        map_ = straight(paths, size)
        if map_ is None:
            return None
        mean, slope = map_
        largest = paths.abs().amax(1).clamp(min=torch.finfo(paths.dtype).tiny)[..., None]
        slope = torch.where(slope.abs() <= _ROUNDING * largest, 0.0, slope)
        laws: list[Law] = []
        for h in range(found.horizon):
            root = slope[..., h, :, :]
            centre, covariance = mean[:, None, ..., h, :], (root @ root.mT)[:, None]
            if bool((covariance != 0).any()):
                laws.append(MultivariateGaussian(centre, covariance_root(covariance)))
            else:
                laws.append(Gaussian(centre))
        drawn: Tensor | None = None
        if self.generator is not None:
            shape = (mean.shape[0], self.particles, *mean.shape[1:-2], size)
            z = standard_normal(shape, self.generator, dtype=mean.dtype, device=mean.device)
            drawn = (mean[:, None] + torch.einsum("w...hsk,wp...k->wp...hs", slope, z)).movedim(-2, 0)
        return Predictive(
            found.variables,
            laws,
            found.log_weight,
            exhaustive=found.exhaustive,
            time_step=found.time_step,
            particles=drawn,
            initial=found.initial,
            resolved=[True] * found.horizon,
        )
