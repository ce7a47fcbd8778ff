"""What is known of noise that recorded episodes do not settle: a normal law, or draws."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from bayeswm.base.errors import SpecError
from bayeswm.base.trajectories import Trajectories
from bayeswm.base.worlds import Noise, Worlds
from bayeswm.causal.counterfactuals.abduction import abducted
from bayeswm.causal.counterfactuals.believed_noise import BelievedNoise
from bayeswm.causal.counterfactuals.drawn_noise import DrawnNoise
from bayeswm.causal.counterfactuals.hidden_path import HiddenPath
from bayeswm.causal.counterfactuals.noise_belief import noise_belief
from bayeswm.causal.counterfactuals.noise_draws import noise_draws
from bayeswm.causal.counterfactuals.partly_seen import PartlySeen


def missing_noise(
    seen: PartlySeen, factual: Trajectories, *, particles: int, generator: torch.Generator | None
) -> tuple[BelievedNoise | DrawnNoise, Tensor, float]:
    """Return what is known of noise behind missing values, the density of the episodes, and how many draws it is."""
    belief = noise_belief(seen)
    if belief is not None:
        source = BelievedNoise(seen, belief, factual, particles=particles, generator=generator)
        return source, belief.log_density.sum(-1), math.inf
    if generator is None:
        raise SpecError("expected generator=torch.Generator, since the noise of missing values is drawn, got none")
    found = noise_draws(seen, particles, generator=generator)
    source = DrawnNoise(Noise(step=found.noise), seen.start, factual, particles=particles, generator=generator)
    return source, found.log_density.sum(-1), found.size


def hidden_noise(
    worlds: Worlds, factual: Trajectories, *, weigh: bool, particles: int, generator: torch.Generator | None
) -> tuple[BelievedNoise | DrawnNoise, Tensor | None]:
    """Return what is known of noise behind sensors, and the density of the episodes, if it is wanted."""
    solved = worlds.state_is_measured and not worlds.episode_noise_size
    path = None if solved else HiddenPath(worlds, factual)
    belief = noise_belief(path) if path is not None and path.may_be_affine() else None
    if path is not None and belief is not None:
        density = abducted(worlds, factual, copies=1, generator=generator)[1] if weigh else None
        return BelievedNoise(path, belief, factual, particles=particles, generator=generator), density
    noise, density = abducted(worlds, factual, copies=1 if solved else particles, generator=generator)
    start = factual.states()[:, 0] if worlds.state_is_measured else worlds.beginning(factual)
    return DrawnNoise(noise, start, factual, particles=particles, generator=generator), density
