"""A planning problem: where the system is, which worlds it may be, and what candidate actions would cost there."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from bayeswm.base.errors import DataError, SpecError
from bayeswm.base.laws import Law
from bayeswm.base.predictive import Predictive
from bayeswm.base.random import standard_normal
from bayeswm.base.rollout import check_law, check_memory, divergence_limit, rollout, step_context
from bayeswm.base.shuffle import Shuffle
from bayeswm.base.trajectories import Trajectories
from bayeswm.base.trees import tree_map
from bayeswm.base.worlds import Belief, Noise, Worlds
from bayeswm.planning.imagination.finished import finished
from bayeswm.planning.limits import Limits
from bayeswm.planning.objective import Objective
from bayeswm.planning.risk import Risk
from bayeswm.planning.safety.constraints import Constraint, Imagined

# states that are imagined without a look at how much memory is left, which takes longer than a small search step
_LARGE = 2**22


def broken_from(dtype: torch.dtype) -> float:
    """Return the key from which on a hard constraint is broken; what costs as much cannot be used.

    Examples
    --------
    >>> broken_from(torch.float64)
    1.3407807929942596e+154
    """
    return torch.finfo(dtype).max ** 0.5


class Score(NamedTuple):
    """What candidates are worth, each of shape (candidates, *starts).

    ``cost`` is the risk with the penalties of soft constraints, ``excess`` how far hard constraints are broken and
    ``diverged`` the share of the particles that left the finite numbers.
    """

    cost: Tensor
    excess: Tensor
    diverged: Tensor

    @property
    def key(self) -> Tensor:
        """What to minimise: the cost; where a hard constraint is broken, more than any cost, by its excess.

        Infinite, never NaN, for what cannot be used.
        """
        big = broken_from(self.cost.dtype)
        key = self.cost
        broken = self.excess > 0
        if bool(broken.any()):
            key = torch.where(broken, big * (1 + self.excess), key)
        return torch.where(self.cost.abs() < big, key, float("inf"))


class Problem:
    """Candidate action sequences, tried on the same worlds with the same noise.

    Parameters
    ----------
    objective : Objective
        What the trajectories cost.
    worlds : Worlds
        What the system may be.
    belief : Tensor of shape (*starts, S), Law or Trajectories
        Where it is.
    horizon : int
        Steps to look ahead.
    particles : int
        Draws of the noise in each world.
    risk : Risk
        Makes one number of the costs.
    limits : Limits
        Possible actions.
    constraints : sequence of Constraint
        What must not happen.
    context : Tensor, shape (*starts, C) or (*starts, H, C), optional
        Environment factors.
    previous : Tensor, broadcastable to (*starts, A), optional
        The action before the first.
    generator : torch.Generator, optional
        Draws the noise, where there is any: once, for all candidates and all starts.
    fresh_worlds : bool
        Put each particle into another world at each step, in an order that is the same for all candidates.
    """

    def __init__(
        self,
        objective: Objective,
        worlds: Worlds,
        belief: Belief,
        *,
        horizon: int,
        particles: int,
        risk: Risk,
        limits: Limits,
        constraints: Sequence[Constraint] = (),
        context: Tensor | None = None,
        previous: Tensor | None = None,
        generator: torch.Generator | None = None,
        fresh_worlds: bool = False,
    ) -> None:
        worlds.check_actionable()
        self.objective, self.worlds, self.risk, self.limits = objective, worlds, risk, limits
        self.horizon, self.particles, self.constraints = horizon, particles, tuple(constraints)
        self.belief, self.starts = _belief(worlds, belief)
        # with an axis of candidates in front
        self.context = step_context(worlds, context, self.starts, steps=horizon)[None, ..., :horizon, :]
        self.previous: Tensor | None = None if previous is None else _before(worlds, previous, self.starts)
        self.check_fits(1)
        self.noise = _noise(worlds, self.belief, (particles, len(self.starts), horizon), generator=generator)
        self.fresh_worlds, self.meetings = fresh_worlds, list[Tensor]()
        if fresh_worlds and len(worlds) > 1:
            shuffle = Shuffle(worlds, generator, size=(len(worlds), particles))
            self.meetings = [shuffle.draw() for _ in range(horizon - 1)]
        # one particle tells everything about a world without noise
        if all(v is None for v in self.noise) and not self.meetings:
            self.particles = 1
        self._origin = worlds.start(self.belief, self.context[..., 0, :], Noise(self.noise.initial, self.noise.episode))

    def again(self, *, particles: int, worlds: Worlds | None = None, generator: torch.Generator | None) -> Problem:
        """Return the same problem with new noise, and perhaps in other worlds."""
        return Problem(
            self.objective,
            self.worlds if worlds is None else worlds,
            self.belief,
            horizon=self.horizon,
            particles=particles,
            risk=self.risk,
            limits=self.limits,
            constraints=self.constraints,
            context=self.context.squeeze(0),
            previous=self.previous,
            generator=generator,
            fresh_worlds=self.fresh_worlds,
        )

    @property
    def state(self) -> Tensor:
        """Where the system is, averaged over what is not known of it, shape (*starts, S)."""
        state = self.worlds.state(self._origin).mean(1)
        if len(state) == 1:
            return state[0]
        weight = self.worlds.weight.to(state).view(-1, *(1,) * (state.ndim - 1))
        return (weight * state).sum(0)

    def check_fits(self, candidates: int) -> None:
        """Refuse more candidates than fit into memory.

        Raises
        ------
        SpecError
            With what they would need.
        """
        size, steps = (len(self.worlds), self.particles, candidates, *self.starts), self.horizon + 1
        if steps * math.prod(size) > _LARGE:
            check_memory(size, steps, self.worlds)

    def trajectories(self, actions: Tensor) -> Tensor:
        """Return imagined states, the start included.

        Parameters
        ----------
        actions : Tensor, shape (candidates, *starts, H, A)
            What is tried.

        Returns
        -------
        Tensor, shape (worlds, particles, candidates, *starts, H + 1, S)
            Mapped where the worlds map their forecasts, as recalibrated ones do.
        """
        worlds, noise = self.worlds, self.noise.step
        size = (len(worlds), self.particles, len(actions), *self.starts)
        carry = self._spread(self._origin, len(actions))
        states = [worlds.state(carry)]
        none = states[0].new_empty(1, 1, *(1,) * (states[0].ndim - 3), 0)
        by_step = (none,) * self.horizon if noise is None else noise.unbind(-2)
        laws: list[Law] | None = [] if worlds.maps_forecasts else None
        for t, given in enumerate(zip(actions.unbind(-2), self.context.unbind(-2), strict=True)):
            if t > 0 and self.meetings:
                shuffle = Shuffle(worlds, None, size=size)
                law = shuffle.transition(carry, *given, step=t, meeting=self.meetings[t - 1])
            else:
                law = worlds.transition(carry, *given, step=t)
            if laws is not None:
                laws.append(law)
            carry = law.push(by_step[t])
            states.append(worlds.state(carry))
        # steps lie one behind the other in memory: each is copied as a whole
        paths = torch.stack([x.expand(*size, x.shape[-1]) for x in states]).movedim(0, -2)
        return paths if laws is None else finished(worlds, laws, paths, fresh_worlds=bool(self.meetings))

    def costs(self, actions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the states, the cost of each particle (infinite where it diverged), and which ones diverged."""
        states = self.trajectories(actions)
        limit = divergence_limit(states.dtype)
        costs = self.objective.cost(states, actions, self.context, previous=self.previous)
        # one reduction tells whether anything went wrong; only then look particle by particle
        bad = torch.zeros(costs.shape, dtype=torch.bool, device=costs.device)
        if not bool(states.detach().abs().amax() < limit):
            wrong = ~(states.detach().abs() < limit).all(-1)
            ended = self.objective.ended(states.detach(), self.context)
            if ended is not None:  # what comes after an episode's end is of no concern
                wrong[..., 1:] &= ~ended[..., :-1]
            bad = wrong.any(-1)
        if not bool(costs.detach().isfinite().all()):
            bad = bad | ~costs.detach().isfinite()
        if bool(bad.any()):
            costs = torch.where(bad, float("inf"), costs)
        return states, costs, bad

    def imagined(self, states: Tensor, actions: Tensor) -> Imagined:
        """Return trajectories of :meth:`trajectories` as constraints see them."""
        return Imagined(states, actions, self.context, self.worlds, self.belief, bool(self.meetings))

    def score(self, actions: Tensor) -> Score:
        """Return what candidates are worth.

        Parameters
        ----------
        actions : Tensor, shape (candidates, *starts, H, A)
            What is tried.
        """
        states, costs, bad = self.costs(actions)
        cost = self.risk(costs, self.worlds.log_weight)
        excess = torch.zeros_like(cost)
        imagined = self.imagined(states, actions)
        for constraint in self.constraints:
            over = constraint.excess(imagined)
            over = torch.where(over.isfinite(), over, float("inf"))
            if constraint.penalty is None:
                excess = excess + over
            else:
                cost = cost + constraint.penalty * over
        diverged = bad.to(cost.dtype).mean((0, 1)) if bool(bad.any()) else torch.zeros_like(cost)
        return Score(cost, excess, diverged)

    def predictive(self, actions: Tensor) -> Predictive:
        """Return the forecast under one plan for each start, actions (*starts, H, A), with the same noise."""
        if not self.horizon:
            raise SpecError("expected a horizon >= 1, got 0")
        lead = (len(self.worlds), self.particles, *self.starts)

        def whole(values: Tensor | None, tail: int) -> Tensor | None:
            if values is None:
                return None
            values = values.squeeze(2)
            return values.expand(*lead, *values.shape[-tail:])

        noise = Noise(self.noise.initial, self.noise.episode, whole(self.noise.step, 2))
        with torch.no_grad():
            return rollout(
                self.worlds,
                self.belief,
                actions,
                particles=self.particles,
                context=self.context.squeeze(0).expand(*self.starts, *self.context.shape[-2:]),
                noise=noise,
            )

    def _spread(self, carry: Any, candidates: int) -> Any:
        """Return the carry with an axis of candidates behind the particles."""

        def wider(v: Tensor) -> Tensor:
            v = v.unsqueeze(2)
            return v.expand(*v.shape[:2], candidates, *v.shape[3:])

        return tree_map(wider, carry)


def _belief(worlds: Worlds, belief: Belief) -> tuple[Belief, tuple[int, ...]]:
    if isinstance(belief, Trajectories):
        return belief, (len(belief),)
    columns = worlds.schema.state.columns
    if isinstance(belief, Law):
        check_law(worlds, belief)
        return belief, tuple(belief.mean.shape[2:-1])
    state = torch.as_tensor(belief).to(worlds.device, worlds.dtype)
    if state.ndim < 1 or state.shape[-1] != len(columns):
        raise DataError(f"expected a state of shape (*starts, {len(columns)}) for {columns}, got {tuple(state.shape)}")
    if not bool(state.isfinite().all()):
        raise DataError(f"expected finite states, got NaN or infinity in {int((~state.isfinite()).sum())} value(s)")
    return state, tuple(state.shape[:-1])


def _before(worlds: Worlds, previous: Tensor, starts: tuple[int, ...]) -> Tensor:
    previous = torch.as_tensor(previous).to(worlds.device, worlds.dtype)
    shape = (*starts, worlds.schema.action.size)
    if not bool(previous.isfinite().all()):
        raise DataError("expected a finite action before, got NaN or infinity")
    try:
        return previous.expand(shape)
    except RuntimeError:
        raise DataError(f"expected the action before of shape {shape}, got {tuple(previous.shape)}") from None


def _noise(worlds: Worlds, belief: Belief, sizes: tuple[int, int, int], *, generator: torch.Generator | None) -> Noise:
    """Draw noise for each world and particle, the same for all candidates and starts."""
    particles, starts, horizon = sizes

    def draw(n: int, *axes: int) -> Tensor | None:
        if n == 0:
            return None
        if generator is None:
            raise SpecError("expected generator=torch.Generator, since the system has noise, got none")
        shape = (len(worlds), particles, *axes, n)
        return standard_normal(shape, generator, dtype=worlds.dtype, device=worlds.device)

    alike = (1,) * starts
    return Noise(
        draw(worlds.initial_noise_size(belief), *alike),
        draw(worlds.episode_noise_size, *alike),
        draw(worlds.noise_size, 1, *alike, horizon),
    )
