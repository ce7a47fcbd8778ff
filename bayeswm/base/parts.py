"""Which noise the aleatoric variance comes from: the start, the episode, or the steps."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from bayeswm.base.errors import DataError, SpecError
from bayeswm.base.predictive import Predictive
from bayeswm.base.random import standard_normal
from bayeswm.base.rollout import Policy, rollout
from bayeswm.base.worlds import Belief, Noise, Worlds

if TYPE_CHECKING:
    from bayeswm.base.model import DynamicsModel


class AleatoricParts(NamedTuple):
    """Parts of the variance within worlds, each of shape (*batch, H, S); they add up to the aleatoric variance.

    ``initial`` is due to what is not known of the start, ``episode`` to what is drawn once a trajectory, ``step`` to
    everything else: the noise of each step and what it does together with the other two. Estimates are unbiased, so
    that Monte Carlo error can make a small part negative.
    """

    initial: Tensor
    episode: Tensor
    step: Tensor


def aleatoric_parts(
    model: DynamicsModel | Worlds,
    state: Belief,
    actions: Tensor | Policy,
    *,
    horizon: int | None = None,
    worlds: int = 64,
    particles: int = 100,
    generator: torch.Generator,
    context: Tensor | None = None,
) -> AleatoricParts:
    """Split the aleatoric variance of a rollout by when its noise was drawn.

    Pick and freeze (Sobol' 1993): two rollouts share one part of the noise only; their covariance within a world is the
    variance that this part causes alone.

    Parameters
    ----------
    model : DynamicsModel or Worlds
        A fitted model, or worlds already drawn from one.
    state : Tensor of shape (*batch, S), Law or Trajectories
        Where it starts.
    actions : Tensor of shape (*batch, H, A), or callable
        A plan or a policy, as in :func:`bayeswm.rollout`.
    horizon : int, optional
        Steps; needed with a policy.
    worlds, particles : int
        How many to draw; at least 2 particles.
    generator : torch.Generator
        Source of all randomness.
    context : Tensor, optional
        Environment factors.

    Returns
    -------
    AleatoricParts

    Raises
    ------
    SpecError
        With fewer than 2 particles.
    DataError
        If particles diverge.

    Examples
    --------
    A pendulum whose start is known to 0.1 rad, without noise of its own:

    >>> import bayeswm as bwm
    >>> model = bwm.KnownDynamics(structure=bwm.structures.Pendulum.gymnasium())
    >>> start = bwm.Gaussian(torch.tensor([[[3.1, 0.0]]]).double(), torch.tensor([0.1, 0.0]).double(), noisy=(0,))
    >>> parts = aleatoric_parts(model, start, torch.zeros(5, 1), generator=torch.Generator().manual_seed(0))
    >>> float(parts.initial[0, 0]) > 0.005, float(parts.step.abs().max()) < 1e-12
    (True, True)
    """
    if particles < 2:
        raise SpecError(f"expected particles >= 2 for a variance within worlds, got {particles}")
    drawn = model if isinstance(model, Worlds) else model.draw(worlds, generator=generator)

    def imagine(noise: Noise | None) -> Predictive:
        r = rollout(
            drawn,
            state,
            actions,
            horizon=horizon,
            particles=particles,
            generator=generator,
            context=context,
            noise=noise,
        )
        if bool(r.diverged.any()):
            raise DataError("expected finite particles, some diverged; shorten the horizon")
        return r

    # a first short look tells the batch's shape, which the shared noise needs
    batch = rollout(drawn, state, actions, horizon=0, particles=1, generator=generator, context=context).batch_shape
    sizes = drawn.initial_noise_size(state), drawn.episode_noise_size
    initial, episode = (
        standard_normal((len(drawn), particles, *batch, n), generator, dtype=drawn.dtype, device=drawn.device)
        if n
        else None
        for n in sizes
    )
    full = imagine(Noise(initial, episode))
    total = full.aleatoric_variance
    nothing = torch.zeros_like(total)
    first = nothing if initial is None else _shared(full, imagine(Noise(initial=initial)))
    second = nothing if episode is None else _shared(full, imagine(Noise(episode=episode)))
    return AleatoricParts(initial=first, episode=second, step=total - first - second)


def _shared(one: Predictive, other: Predictive) -> Tensor:
    """Covariance within worlds of the means of the one-step laws, averaged over worlds, shape (*batch, H, S)."""
    steps: list[Tensor] = []
    for a, b in zip(one.laws, other.laws, strict=True):
        x, y = (law.mean - law.mean.mean(1, keepdim=True) for law in (a, b))
        weight = one.weight.to(x).view(-1, *(1,) * (x.ndim - 2))
        steps.append((weight * (x * y).sum(1) / (x.shape[1] - 1)).sum(0))
    return torch.stack(steps, -2) if steps else one.mean
