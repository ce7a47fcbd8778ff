"""Where a Lyapunov function falls, by sampled points: no sums of squares, no grids."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from bayeswm.base.along import Policy
from bayeswm.base.errors import SpecError
from bayeswm.base.random import standard_normal, uniform
from bayeswm.base.worlds import Worlds
from bayeswm.planning.stability.certified import mean_after


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
