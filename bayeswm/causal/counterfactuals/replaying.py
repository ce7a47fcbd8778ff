"""Recorded episodes run again in worlds whose noise is known, each up to its end."""

from __future__ import annotations

from collections.abc import Callable
from typing import override

import torch
from torch import Tensor

from bayeswm.base.laws import Law
from bayeswm.base.predictive import Predictive
from bayeswm.base.rollout import rollout
from bayeswm.base.trajectories import Trajectories
from bayeswm.base.worlds import Belief, Noise
from bayeswm.causal.confounding.log import with_context
from bayeswm.causal.counterfactuals.abduction import is_even
from bayeswm.causal.interventions.intervened import IntervenedWorlds


def replay(
    worlds: IntervenedWorlds,
    start: Belief,
    factual: Trajectories,
    *,
    particles: int,
    generator: torch.Generator | None,
    noise: Noise | None = None,
) -> Predictive:
    """Return a branch of recorded episodes: the same start, actions, context and noise, under interventions.

    Parameters
    ----------
    worlds : IntervenedWorlds
        With the noise that they replay.
    start : Tensor, Law or Trajectories
        Where the episodes begin.
    factual : Trajectories
        The episodes. Those that end earlier than others are run to the end of these with what is known of the noise
        there, none, and NaN takes the place of it.
    particles : int
        Sampled trajectories in each world.
    generator : torch.Generator, optional
        Needed where interventions are drawn.
    noise : Noise, optional
        Of the start and the episode.

    Returns
    -------
    Predictive
        Over (episodes, H, S).
    """
    action = factual.action
    # what was recorded beyond the worlds' own context told the noise, and is not asked for again
    context = with_context(factual, worlds.schema).step_context() if worlds.schema.context.size else None
    even = is_even(factual)
    if not even:
        inside = factual.step_mask
        action = torch.where(inside[..., None], action, 0.0)
        context = None if context is None else torch.where(inside[..., None], context, 0.0)
    found = rollout(
        worlds,
        start,
        action,
        horizon=factual.horizon,
        context=context,
        particles=particles,
        generator=generator,
        noise=noise,
    )
    return found if even else until_the_end(found, factual.step_mask)


def until_the_end(predictive: Predictive, inside: Tensor) -> Predictive:
    """Return a predictive over (episodes, H, S) with NaN beyond each episode's end.

    Parameters
    ----------
    predictive : Predictive
        Of episodes that were padded to one length.
    inside : Tensor of bool, shape (episodes, H)
        Which steps belong to an episode.
    """
    inside = inside.to(predictive.log_weight.device)
    laws = [EndedLaw(law, inside[None, None, :, h]) for h, law in enumerate(predictive.laws)]
    particles = None
    if predictive.sampled:
        particles = torch.where(inside[None, None, ..., None], predictive.particles, float("nan"))
    return predictive.mapped(laws, particles=particles)


class EndedLaw(Law):
    """A law of which some rows of the batch have ended: NaN there.

    Parameters
    ----------
    law : Law
        Of all rows.
    inside : Tensor of bool, broadcastable to (worlds, particles, *batch)
        Rows that have not ended.
    """

    def __init__(self, law: Law, inside: Tensor) -> None:
        self.law, self.inside, self.noise_size, self.exact = law, inside, law.noise_size, law.exact

    def _kept(self, values: Tensor, axes: int = 1) -> Tensor:
        return torch.where(self.inside[(..., *(None,) * axes)], values, float("nan"))

    @property
    @override
    def mean(self) -> Tensor:
        return self._kept(self.law.mean)

    @property
    @override
    def variance(self) -> Tensor:
        return self._kept(self.law.variance)

    @property
    @override
    def covariance(self) -> Tensor:
        return self._kept(self.law.covariance, 2)

    @override
    def push(self, noise: Tensor) -> Tensor:
        return self._kept(self.law.push(noise))

    @override
    def abduct(self, next_state: Tensor, *, tolerance: float | None = None) -> Tensor:
        return self._kept(self.law.abduct(next_state, tolerance=tolerance))

    @override
    def log_prob(self, state: Tensor, *, marginal: bool = False, tolerance: float | None = None) -> Tensor:
        return self._kept(self.law.log_prob(state, marginal=marginal, tolerance=tolerance), int(marginal))

    @override
    def cdf(self, state: Tensor) -> Tensor:
        return self._kept(self.law.cdf(state))

    @override
    def map(self, change: Callable[[Tensor], Tensor]) -> Law:
        inside = self.inside.expand(self.law.mean.shape[:-1])
        return EndedLaw(self.law.map(change), change(inside[..., None])[..., 0])
