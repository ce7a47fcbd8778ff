"""Abduction: the noise that led to recorded episodes, and which worlds can have produced them."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from bayeswm.base.errors import FitError, SpecError
from bayeswm.base.random import standard_normal
from bayeswm.base.trajectories import Trajectories
from bayeswm.base.worlds import Noise, Worlds
from bayeswm.causal.interventions.intervened import IntervenedWorlds

_LEAST_SHARE = 0.1


def solved_noise(worlds: Worlds, factual: Trajectories, *, generator: torch.Generator | None) -> Noise:
    """Return the noise that led to episodes, with an axis of one particle, where their density is of no interest."""
    return _spread(worlds.abduct(factual, generator=generator), copies=1, even=is_even(factual))


def abducted(
    worlds: Worlds, factual: Trajectories, *, copies: int, generator: torch.Generator | None
) -> tuple[Noise, Tensor]:
    """Return noise that led to episodes, and the log density of all of them in each world.

    Parameters
    ----------
    worlds : Worlds
        The system.
    factual : Trajectories
        What happened.
    copies : int
        Draws of the noise in each world; they take the axis of particles.
    generator : torch.Generator, optional
        Needed where noise is drawn.

    Returns
    -------
    tuple of Noise and Tensor, shape (worlds,)
    """
    episodes = len(factual)
    many = factual if copies == 1 else factual[torch.arange(episodes, device=factual.device).repeat(copies)]
    noise, log_density = worlds.smooth(many, generator=generator)
    # a smoother's own estimates differ
    log_density = log_density[:, 0].unflatten(1, (copies, episodes)).logsumexp(1) - math.log(copies)
    return _spread(noise, copies=copies, even=is_even(factual)), log_density.sum(-1)


def is_even(factual: Trajectories) -> bool:
    """Whether all episodes are of one length."""
    return bool((factual.lengths == factual.horizon).all())


def _spread(noise: Noise, *, copies: int, even: bool) -> Noise:
    """Return noise of (worlds, 1, copies * episodes, ...) as that of (worlds, copies, episodes, ...)."""
    if noise.step is not None and not even:
        noise = noise._replace(step=noise.step.nan_to_num(nan=0.0))  # there is none beyond the end
    return Noise(*(None if v is None else v[:, 0].unflatten(1, (copies, -1)) for v in noise))


def completed(noise: Noise, worlds: IntervenedWorlds, generator: torch.Generator | None) -> Noise | None:
    """Return the noise of the start and of the episode, with draws for stochastic interventions behind it."""
    episode, more = noise.episode, worlds.episode_noise_size - worlds.inner.episode_noise_size
    if episode is not None and more:
        if generator is None:
            raise SpecError("expected generator=torch.Generator, since interventions are drawn, got none")
        extra = standard_normal((*episode.shape[:-1], more), generator, dtype=episode.dtype, device=episode.device)
        episode = torch.cat((episode, extra), -1)
    return Noise(initial=noise.initial, episode=episode)


def weighed[W: Worlds](worlds: W, log_density: Tensor) -> tuple[W, float]:
    """Return worlds weighed by a log density (worlds,), and the effective share of them that is left.

    Raises
    ------
    FitError
        If it is below a tenth, or no world has a density above 0.
    """
    if not bool((log_density > float("-inf")).any()):
        raise FitError("expected episodes that at least one world can produce, got density 0 in all of them")
    new = worlds.reweight(worlds.log_weight + log_density.to(worlds.log_weight))
    before, after = (float(w.weight.square().sum().reciprocal()) for w in (worlds, new))
    share = min(1.0, after / before)
    if share < _LEAST_SHARE:
        raise FitError(
            f"expected an effective share of the worlds above {_LEAST_SHARE:.0%} given the episodes, got {share:.2g} "
            f"({after:.1f} worlds of {len(worlds)}); condition the model itself, or draw more worlds near the posterior"
        )
    return new, share
