"""Which starts a policy brings to its goal, by simulation in many worlds."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from bayeswm.base.along import Policy, ask
from bayeswm.base.errors import SpecError
from bayeswm.base.random import standard_normal, uniform
from bayeswm.base.trees import tree_map
from bayeswm.base.worlds import Worlds
from bayeswm.planning.stability.certified import share_of_worlds
from bayeswm.planning.stability.confidence import clopper_pearson


@dataclass(frozen=True, eq=False)
class Attraction:
    """Which sampled starts end at the goal, in each world.

    Attributes
    ----------
    starts : Tensor, shape (samples, S)
        Uniform over the box.
    reached : Tensor of bool, shape (worlds, samples)
        Whether all particles of a world stay at the goal from there.
    volume : Tensor, shape (worlds,)
        Share of the box that each world's basin takes.
    volume_interval : tuple of Tensor, shape (worlds,)
        Confidence interval of each, over the starts.
    probability : Tensor, shape (samples,)
        For each start, the weight of the worlds where it reaches the goal.
    probability_interval : tuple of Tensor, shape (samples,)
        Confidence interval of each, over the worlds; the weight itself where the worlds are the posterior.
    """

    starts: Tensor
    reached: Tensor
    volume: Tensor
    volume_interval: tuple[Tensor, Tensor]
    probability: Tensor
    probability_interval: tuple[Tensor, Tensor]


def region_of_attraction(
    worlds: Worlds,
    policy: Policy,
    goal: Tensor,
    *,
    box: tuple[Tensor, Tensor],
    tolerance: float | Tensor,
    steps: int,
    settled: int = 1,
    samples: int = 1000,
    particles: int = 1,
    context: Tensor | None = None,
    level: float = 0.95,
    generator: torch.Generator,
) -> Attraction:
    """Return which starts in a box a policy brings to the goal, by simulation.

    Every start is tried in every world, with the same noise. The intervals hold one start or one world at a time, not
    for all at once.

    Parameters
    ----------
    worlds : Worlds
        Draws from a posterior, or all of it.
    policy : callable
        As of :func:`bayeswm.rollout`.
    goal : Tensor, shape (S,)
        Where trajectories are to end. Angles count modulo a turn.
    box : tuple of Tensor, shape (S,)
        Lowest and highest start.
    tolerance : float or Tensor of shape (S,)
        How far off the goal still counts, in the variables' units.
    steps : int
        Length of the trajectories.
    settled : int
        The last so many states must be at the goal.
    samples, particles : int
        Starts, and noise draws in each world.
    context : Tensor, shape (C,), optional
        Context.
    level : float
        Of the confidence intervals.
    generator : torch.Generator
        Draws starts and noise.

    Examples
    --------
    >>> import bayeswm as bwm
    >>> worlds = bwm.KnownDynamics(structure=bwm.structures.Pendulum.gymnasium()).draw(1)
    >>> found = region_of_attraction(
    ...     worlds,
    ...     lambda x, t: (-20.0 * x[..., :1] - 5.0 * x[..., 1:]).clamp(-2.0, 2.0),
    ...     torch.zeros(2),
    ...     box=(torch.tensor([-0.5, -1.0]), torch.tensor([0.5, 1.0])),
    ...     tolerance=0.01,
    ...     steps=60,
    ...     generator=torch.Generator().manual_seed(0),
    ... )
    >>> found.volume
    tensor([0.7700], dtype=torch.float64)
    """
    if not 1 <= settled <= steps or samples < 1 or particles < 1:
        raise SpecError(
            f"expected 1 <= settled <= steps, samples and particles >= 1, got {settled}, {steps}, {samples}"
        )
    low, high = (v.to(worlds.device, worlds.dtype) for v in box)
    if low.shape != goal.shape or high.shape != goal.shape or not bool((low <= high).all()):
        raise SpecError(f"expected a box of two ends of shape {tuple(goal.shape)} in order, got {low} and {high}")
    kind = {"dtype": worlds.dtype, "device": worlds.device}
    goal = goal.to(**kind)
    starts = low + (high - low) * uniform((samples, len(goal)), generator, **kind)
    seen = None if context is None else context.to(**kind).expand(samples, -1)
    carry = worlds.start(starts, seen)
    size = (len(worlds), particles, samples)
    reached = torch.ones(size, dtype=torch.bool, device=worlds.device)
    for t in range(steps):
        state = worlds.state(carry).expand(*size, -1)
        action = ask(policy, worlds, state, step=t, size=size)
        carry = tree_map(lambda v: v.expand(len(worlds), particles, *v.shape[2:]), carry)
        noise = standard_normal((len(worlds), particles, 1, worlds.noise_size), generator, **kind)
        carry = worlds.transition(carry, action, seen, step=t).push(noise)
        if t >= steps - settled:
            away = worlds.schema.state.difference(worlds.state(carry), goal.expand(*size, -1))
            # what is NaN has not arrived
            reached = reached & (away.abs() <= tolerance).all(-1)
    by_world = reached.all(1)
    count = by_world.sum(-1)
    probability, interval = share_of_worlds(worlds, by_world, level=level)
    return Attraction(
        starts, by_world, count.double() / samples, clopper_pearson(count, samples, level), probability, interval
    )
