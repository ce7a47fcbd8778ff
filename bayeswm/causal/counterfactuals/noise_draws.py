"""Draws of noise that was not recorded, where it has no closed form: a particle smoother along the slices."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from bayeswm.base.errors import FitError, NotInvertible
from bayeswm.base.random import standard_normal, uniform
from bayeswm.causal.counterfactuals.free_noise import slack
from bayeswm.causal.counterfactuals.partly_seen import PartlySeen

# draws of which the returned ones are a part, the effective share below which they are drawn again, and the least
# number of effectively independent ones
_DRAWS, _RESAMPLE, _LEAST = 4096, 0.5, 25.0


class NoiseDraws(NamedTuple):
    """Draws of all noise given what was recorded.

    Attributes
    ----------
    noise : Tensor, shape (worlds, copies, episodes, H, n)
        Equally likely.
    log_density : Tensor, shape (worlds, episodes)
        An unbiased estimate of the density of what was recorded, as a logarithm.
    size : float
        Effectively independent draws behind them, at the worst step of the worst world and episode.
    """

    noise: Tensor
    log_density: Tensor
    size: float


def noise_draws(seen: PartlySeen, copies: int, *, generator: torch.Generator) -> NoiseDraws:
    """Draw noise given what was recorded, by weighing draws from N(0, I) slice by slice.

    The noise of recorded variables is solved from that of missing ones; its density is the weight. Where weights become
    uneven, whole paths are drawn again by them (systematic resampling): the bootstrap particle filter of Gordon,
    Salmond and Smith (1993), its paths kept. What survives of the first draws tells how many of them count.

    Parameters
    ----------
    seen : PartlySeen
        Episodes with missing values.
    copies : int
        Draws in each world and episode.
    generator : torch.Generator
        Source of all randomness.

    Raises
    ------
    FitError
        If fewer than 25 draws count in some world and episode.
    NotInvertible
        If a recorded value has no noise and depends on what is missing: almost no draw leads to it.

    Examples
    --------
    Y = X^2 + N(0, 0.01) = 1 leaves two equally likely values of X:

    >>> from bayeswm import Trajectories
    >>> from bayeswm.causal import Mechanism, StructuralModel
    >>> model = StructuralModel({"X": Mechanism(lambda: 0.0, noise=1.0), "Y": Mechanism(lambda X: X * X, noise=0.1)})
    >>> given = Trajectories(model.schema, state=[[[0.0, 0.0], [float("nan"), 1.0]]], allow_missing=True)
    >>> found = noise_draws(PartlySeen(model.draw(1), given), 1000, generator=torch.Generator().manual_seed(0))
    >>> round(float((found.noise[..., 0] > 0).double().mean()), 1), round(float(found.noise[..., 0].abs().mean()), 1)
    (0.5, 1.0)
    """
    worlds, episodes, count = len(seen.worlds), len(seen.start), max(_DRAWS, 8 * copies)
    shape = (worlds, count, episodes)
    state = seen.start.expand(*shape, -1)
    noise = state.new_zeros(*shape, seen.horizon, seen.worlds.noise_size)
    log_weight, log_density = state.new_zeros(shape), state.new_zeros(worlds, episodes)
    ancestor: Tensor | None = None  # of each path, at the first step that something was missing in
    least = state.new_full((worlds, episodes), float(count))
    known = {t for t, _ in seen.free}
    for t in range(seen.horizon):
        drawn = standard_normal((*shape, seen.worlds.noise_size), generator, dtype=state.dtype, device=state.device)
        found = seen.step(t, state, drawn)
        if bool((found.gap.abs() > slack(state.dtype) * found.state.abs().clamp(min=1.0)).any()):
            raise NotInvertible(
                "expected noise on every recorded variable that depends on missing ones in a way that is not affine, "
                "got one without; give it noise, or record what it depends on"
            )
        state, noise[..., t, :] = found.state, found.noise
        if ancestor is None and t in known:
            ancestor = torch.arange(count, device=state.device).view(1, -1, 1).expand(shape)
        log_weight = log_weight - 0.5 * found.solved.square().sum(-1) - found.log_scale
        weight = torch.softmax(log_weight, 1)
        size = 1 / weight.square().sum(1)
        least = least.minimum(_distinct(weight, ancestor))
        last = t == seen.horizon - 1
        if last or bool((size < _RESAMPLE * count).any()):
            log_density = log_density + log_weight.logsumexp(1) - torch.tensor(float(count)).log().to(log_weight)
            index = _resampled(weight, copies if last else count, generator)
            if ancestor is not None:
                ancestor = ancestor.gather(1, index)
            state = state.gather(1, index[..., None].expand(*index.shape, state.shape[-1]))
            noise = noise.gather(1, index[..., None, None].expand(*index.shape, *noise.shape[3:]))
            log_weight = state.new_zeros(index.shape)
    fewest = float(least.min())
    if not fewest >= _LEAST:
        raise FitError(
            f"expected at least {_LEAST:g} draws of the missing noise that count, got {fewest:.1f} of {count}: what "
            "was recorded says too much for draws to find it; record more variables, or fewer steps at a time"
        )
    return NoiseDraws(noise, log_density, fewest)


def _distinct(weight: Tensor, ancestor: Tensor | None) -> Tensor:
    """Return the effective number of first draws that weights (worlds, draws, episodes) rest on."""
    if ancestor is None:
        return weight.new_full((weight.shape[0], weight.shape[2]), float(weight.shape[1]))
    together = torch.zeros_like(weight).scatter_add(1, ancestor, weight)
    return 1 / together.square().sum(1)


def _resampled(weight: Tensor, n: int, generator: torch.Generator) -> Tensor:
    """Return n indices (worlds, n, episodes) by systematic resampling in each world and episode, in random order."""
    offset = uniform((weight.shape[0], weight.shape[2], 1), generator, dtype=weight.dtype, device=weight.device)
    points = (torch.arange(n, dtype=weight.dtype, device=weight.device) + offset) / n
    edges = weight.movedim(1, -1).cumsum(-1)
    index = torch.searchsorted(edges.contiguous(), points).clamp(max=weight.shape[1] - 1)
    order = uniform(tuple(points.shape), generator, device=weight.device).argsort(-1)
    return index.gather(-1, order).movedim(-1, 1)
