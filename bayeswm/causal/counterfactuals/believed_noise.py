"""Counterfactual branches of noise that is only believed: exact where they are affine in it, else by draws."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from bayeswm.base.errors import SpecError
from bayeswm.base.laws import Gaussian, Law, MultivariateGaussian
from bayeswm.base.predictive import Predictive
from bayeswm.base.random import standard_normal
from bayeswm.base.roots import covariance_root
from bayeswm.base.trajectories import Trajectories
from bayeswm.base.worlds import Noise, Worlds
from bayeswm.causal.counterfactuals.abduction import is_even
from bayeswm.causal.counterfactuals.drawn_noise import DrawnNoise
from bayeswm.causal.counterfactuals.free_noise import FreeNoise
from bayeswm.causal.counterfactuals.noise_belief import NoiseBelief, probes, straight
from bayeswm.causal.counterfactuals.replaying import replay, until_the_end
from bayeswm.causal.interventions.intervened import IntervenedWorlds
from bayeswm.causal.interventions.intervention import Intervention

# slopes below this many units of rounding of the numbers involved are rounding
_ROUNDING = 500


class BelievedNoise:
    """A normal law of the noise of recorded episodes, and the branches that it leads to.

    Parameters
    ----------
    seen : FreeNoise
        The episodes, and the noise that they do not settle.
    belief : NoiseBelief
        About that noise.
    factual : Trajectories
        What was recorded.
    particles : int
        Sampled trajectories in each world.
    generator : torch.Generator, optional
        Needed for branches that are not affine in the noise, and for interventions that are drawn. The particles of
        other branches are there only with it.
    """

    def __init__(
        self,
        seen: FreeNoise,
        belief: NoiseBelief,
        factual: Trajectories,
        *,
        particles: int,
        generator: torch.Generator | None,
    ) -> None:
        self.seen, self.belief, self.factual = seen, belief, factual
        self.particles, self.generator = particles, generator
        self._z: Tensor | None = None

    def branch(self, worlds: Worlds, interventions: Sequence[Intervention]) -> tuple[IntervenedWorlds, Predictive]:
        """Return worlds that replay the noise under interventions, and what they lead to.

        Branches share the draws of their particles. Without a generator the worlds replay the mean of the noise.

        Raises
        ------
        SpecError
            If draws are needed and there is no generator.
        """
        points = probes(self.seen.size, like=self.belief.mean)[None, :, None]
        noise = self._noise(points)
        done = IntervenedWorlds(worlds, interventions, replay=noise.step)
        if not done.noise_size and done.episode_noise_size == worlds.episode_noise_size:
            found = replay(
                done, self.seen.start, self.factual, particles=points.shape[1], generator=None, noise=_apart(noise)
            )
            exact = self._affine(found)
            if exact is not None:
                kept = self._noise(self._drawn() if self.generator is not None else points[:, :1])
                again = IntervenedWorlds(worlds, interventions, replay=kept.step)
                again.played = done.played
                return again, exact
        drawn = DrawnNoise(
            self._noise(self._drawn()),
            self.seen.start,
            self.factual,
            particles=self.particles,
            generator=self.generator,
        )
        return drawn.branch(worlds, interventions)

    def _noise(self, z: Tensor) -> Noise:
        return self.seen.fit(self.belief.at(z)).noise

    def _drawn(self) -> Tensor:
        """Return standard normal draws (worlds, particles, episodes, K), the same in all branches."""
        if self.generator is None:
            raise SpecError("expected generator=torch.Generator, since noise is drawn from its posterior, got none")
        if self._z is None:
            mean = self.belief.mean
            shape = (len(mean), self.particles, *mean.shape[1:])
            self._z = standard_normal(shape, self.generator, dtype=mean.dtype, device=mean.device)
        return self._z

    def _affine(self, found: Predictive) -> Predictive | None:
        """Return the normal law of a branch at the probes, or None where it is not affine in the noise."""
        size, paths = self.seen.size, found.particles
        if found.initial is None or bool(found.diverged.any()):
            return None
        begin = found.initial.expand(*paths.shape[:3], -1)[..., None, :]
        # NaN beyond the end of an episode comes back below
        paths = torch.cat((begin, paths.nan_to_num(0.0)), -2)
        # variables may have any units: each is held against its own size
        line = straight(paths, size, least=paths.detach().abs().flatten(0, -2).amax(0))
        if line is None:
            return None
        mean, slope = line
        largest = paths.abs().amax(1).clamp(min=torch.finfo(paths.dtype).tiny)[..., None]
        slope = torch.where(slope.abs() <= _ROUNDING * torch.finfo(paths.dtype).eps * largest, 0.0, slope)
        laws: list[Law] = []
        for h in range(1, found.horizon + 1):
            root = slope[..., h, :, :]
            centre, covariance = mean[:, None, ..., h, :], (root @ root.mT)[:, None]
            if bool((covariance != 0).any()):
                laws.append(MultivariateGaussian(centre, covariance_root(covariance)))
            else:
                laws.append(Gaussian(centre))
        drawn, initial = None, mean[:, None, ..., 0, :]
        if self.generator is not None:
            drawn = mean[:, None] + torch.einsum("wnhsk,wpnk->wpnhs", slope, self._drawn())
            initial, drawn = drawn[..., 0, :], drawn[..., 1:, :].movedim(-2, 0)
        exact = Predictive(
            found.variables,
            laws,
            found.log_weight,
            exhaustive=found.exhaustive,
            time_step=found.time_step,
            particles=drawn,
            initial=initial,
            resolved=[True] * found.horizon,
        )
        return exact if is_even(self.factual) else until_the_end(exact, self.factual.step_mask)


def _apart(noise: Noise) -> Noise:
    """Return the noise of the start and of the episode alone."""
    return Noise(noise.initial, noise.episode)
