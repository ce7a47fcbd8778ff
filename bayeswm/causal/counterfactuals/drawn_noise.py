"""Counterfactual branches of noise that was drawn from its posterior."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from bayeswm.base.predictive import Predictive
from bayeswm.base.trajectories import Trajectories
from bayeswm.base.worlds import Belief, Noise, Worlds
from bayeswm.causal.counterfactuals.abduction import completed
from bayeswm.causal.counterfactuals.replaying import replay
from bayeswm.causal.interventions.intervened import IntervenedWorlds
from bayeswm.causal.interventions.intervention import Intervention


class DrawnNoise:
    """Draws of the noise of recorded episodes, and the branches that they lead to.

    Parameters
    ----------
    noise : Noise
        Its axis of particles holds the draws; one where the noise is known.
    start : Tensor, Law or Trajectories
        Where the episodes begin.
    factual : Trajectories
        What was recorded.
    particles : int
        Sampled trajectories in each world, where something is drawn.
    generator : torch.Generator, optional
        Needed where interventions are drawn.
    """

    def __init__(
        self,
        noise: Noise,
        start: Belief,
        factual: Trajectories,
        *,
        particles: int,
        generator: torch.Generator | None,
    ) -> None:
        self.noise, self.start, self.factual = noise, start, factual
        self.particles, self.generator = particles, generator

    def branch(self, worlds: Worlds, interventions: Sequence[Intervention]) -> tuple[IntervenedWorlds, Predictive]:
        """Return worlds that replay the noise under interventions, and what they lead to."""
        noise = self.noise
        done = IntervenedWorlds(worlds, interventions, replay=noise.step)
        several = noise.step is not None and noise.step.shape[1] > 1
        random = several or done.noise_size or done.episode_noise_size
        found = replay(
            done,
            self.start,
            self.factual,
            particles=self.particles if random else 1,
            generator=self.generator,
            noise=completed(noise, done, self.generator),
        )
        return done, found
