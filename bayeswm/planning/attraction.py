"""Which starts a policy brings to its goal: by simulation, and by a Lyapunov function at sampled points."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from bayeswm.base.along import Policy, ask
from bayeswm.base.errors import SpecError
from bayeswm.base.random import standard_normal, uniform
from bayeswm.base.trees import tree_map
from bayeswm.base.worlds import Worlds
from bayeswm.planning.confidence import clopper_pearson
from bayeswm.planning.lyapunov import mean_after, share_of_worlds


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


class LevelSet(NamedTuple):
    """The largest set ``V(x) <= value`` in which no sampled point contradicts that V falls in every world.

    Attributes
    ----------
    value : float
        The level.
    inside : int
        Sampled points in the set.
    violating : float
        With the stated confidence, points where V does not fall take at most this share of the set's volume.
    confidence : float
        Of that statement.
    """

    value: float
    inside: int
    violating: float
    confidence: float


def sampled_level_set(
    worlds: Worlds,
    policy: Policy,
    goal: Tensor,
    *,
    P: Tensor,
    largest: float,
    least: float = 0.0,
    samples: int = 10_000,
    confidence: float = 0.95,
    context: Tensor | None = None,
    generator: torch.Generator,
) -> LevelSet:
    """Return the largest level set of ``V(x) = (x - goal)'P(x - goal)`` in which V falls at every sampled point.

    Points are uniform over ``V(x) <= largest``, and V after the mean step of every world is compared with V before.
    The level is that of the lowest point where it does not fall. With N points, the probability that violating points
    below this level have more than a share e of the sampled volume is at most (1 - e)^N (one-sided support as in
    scenario optimisation, Campi & Garatti 2008), so that e = 1 - (1 - confidence)^(1/N); the share within the set
    follows from the volumes. It is a statement on volumes, no proof that there are no violations, and on mean steps:
    noise is not looked at. Where little is violated the set is invariant and lies in the region of attraction. If
    ``inside`` is small against the samples, call again with a smaller ``largest``.

    Parameters
    ----------
    worlds : Worlds
        All of them must agree.
    policy : callable
        As of :func:`bayeswm.rollout`, the same at every step.
    goal : Tensor, shape (S,)
        Where V is 0. Angles count on their lift.
    P : Tensor, shape (S, S)
        Positive definite, such as of :func:`lyapunov`.
    largest : float
        Highest level that is looked at.
    least : float
        Points below this level are not looked at: where the goal is a fixed point only nearly, V cannot fall there.
    samples : int
        Points.
    confidence : float
        Of the statement on what is violated.
    context : Tensor, shape (C,), optional
        Context.
    generator : torch.Generator
        Draws the points.

    Examples
    --------
    ``x[t+1] = x[t] / 2 + x[t]^3`` falls to 0 where x^2 < 1/2:

    >>> import bayeswm as bwm
    >>> schema = bwm.Schema(state=[bwm.Variable("x")], action=[bwm.Variable("u")], time_step=1.0)
    >>> cubic = bwm.structures.FromFunction(lambda x, u: x + x**3 + u, schema=schema)
    >>> found = sampled_level_set(
    ...     bwm.KnownDynamics(structure=cubic).draw(1),
    ...     lambda x, t: -0.5 * x,
    ...     torch.zeros(1),
    ...     P=torch.eye(1),
    ...     largest=1.0,
    ...     generator=torch.Generator().manual_seed(0),
    ... )
    >>> round(found.value, 3), round(found.violating, 5)
    (0.5, 0.00042)
    """
    if not 0 <= least < largest or samples < 1 or not 0 < confidence < 1:
        raise SpecError(f"expected 0 <= least < largest and samples >= 1, got {least}, {largest} and {samples}")
    factor, failed = torch.linalg.cholesky_ex(P.double())
    if bool(failed.any()):
        raise SpecError("expected a positive definite P, got one that is not")
    size = len(goal)
    drawn = standard_normal((samples, size), generator, dtype=torch.float64, device=P.device)
    radius = uniform((samples, 1), generator, dtype=torch.float64, device=P.device) ** (1 / size)
    ball = math.sqrt(largest) * radius * drawn / drawn.norm(dim=-1, keepdim=True)
    away = torch.linalg.solve_triangular(factor.mT, ball.mT, upper=True).mT
    before = ball.square().sum(-1)
    state = (goal.double() + away).to(worlds.device, worlds.dtype).expand(len(worlds), 1, samples, size)
    seen = None if context is None else context.to(worlds.device, worlds.dtype).expand(samples, -1)
    after = mean_after(worlds, policy, state, context=seen)[:, 0].to(before.device).double() - goal.double()
    falls = ((after @ factor).square().sum(-1) < before).all(0)
    violating = before[~falls & (before >= least)]
    value = float(violating.min()) if len(violating) else largest
    share = 1 - (1 - confidence) ** (1 / samples)
    volume = (value / largest) ** (size / 2)
    bound = min(1.0, share / volume) if volume > 0 else 1.0
    return LevelSet(value, int((before < value).sum()) if len(violating) else samples, bound, confidence)
