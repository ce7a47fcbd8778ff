"""Systems side by side, each in a world of its own for an episode: the core of environments made of models."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from bayeswm.base.counts import check_counts
from bayeswm.base.errors import SpecError
from bayeswm.base.laws import Gaussian
from bayeswm.base.model import DynamicsModel
from bayeswm.base.random import standard_normal, systematic
from bayeswm.base.trees import tree_map
from bayeswm.base.worlds import Noise, Worlds
from bayeswm.planning.limits import Limits
from bayeswm.planning.loop.rewards import ended, step_reward
from bayeswm.planning.loop.starts import Start, draw_starts
from bayeswm.planning.objective import Objective


class Outcome(NamedTuple):
    """What a step led to, by row: ``measured`` (rows, M), the rest (rows,)."""

    measured: Tensor
    reward: Tensor
    terminated: Tensor
    truncated: Tensor
    diverged: Tensor


class Inhabited:
    """Rows that live in worlds of their own.

    Parameters
    ----------
    model : DynamicsModel or Worlds
        Where worlds come from.
    objective : Objective
        Costs, whose negatives are the rewards, and termination.
    start : Tensor, Law or callable
        Where episodes start; see :func:`bayeswm.planning.loop.starts.draw_starts`.
    horizon : int
        Steps until an episode is truncated.
    rows : int
        How many.
    worlds : int
        Drawn from the model at a time; each episode lives in one of them, chosen by weight.
    context : Tensor, shape (C,), optional
        Environment factors.
    """

    def __init__(
        self,
        model: DynamicsModel | Worlds,
        objective: Objective,
        *,
        start: Start,
        horizon: int,
        rows: int,
        worlds: int,
        context: Tensor | None,
    ) -> None:
        check_counts(horizon=horizon, worlds=worlds, num_envs=rows)
        self.model, self.objective, self.start = model, objective, start
        self.horizon, self.rows, self.pool_size = horizon, rows, worlds
        self.schema = model.schema
        if bool(self.schema.context) != (context is not None):
            need = "the model has a context" if self.schema.context else "the model has none"
            raise SpecError(f"expected context= where, and only where, there is one; {need}")
        self._given = torch.empty(0) if context is None else torch.as_tensor(context)
        self.limits = Limits.of(self.schema, like=torch.empty(self.schema.action.size, dtype=torch.float64))
        self.step_count = torch.zeros(rows, dtype=torch.int64)
        self._index = torch.zeros(rows, dtype=torch.int64)
        self._generator = torch.Generator()
        self._pool: Worlds | None = None
        self._worlds: Worlds | None = None
        self._carry: Any = None
        self._last = self._previous = torch.empty(0)

    def seed(self, generator: torch.Generator) -> None:
        """Draw worlds anew; all that follows comes from this generator."""
        self._generator = generator
        model = self.model
        self._pool = model if isinstance(model, Worlds) else model.draw(self.pool_size, generator=generator)
        self._pool.check_actionable()

    def reset(self, which: Tensor) -> Tensor:
        """Begin new episodes in some rows, a mask (rows,); return what all of them show, (rows, M)."""
        pool = self._pool
        if pool is None:
            raise SpecError("expected reset() before step()")
        count = int(which.sum())
        if len(pool) > 1 or self._worlds is None:
            self._index[which] = systematic(pool.log_weight, count, self._generator).cpu()
            self._worlds = pool[self._index]
        worlds = self._worlds
        like = torch.empty(self.schema.state.size, dtype=worlds.dtype, device=worlds.device)
        drawn = draw_starts(self.start, count, generator=self._generator, like=like)
        states = like.new_zeros(self.rows, len(like))
        states[which] = drawn
        belief = Gaussian(states[:, None])
        noise = Noise(self._drawn(worlds.initial_noise_size(belief)), self._drawn(worlds.episode_noise_size))
        fresh = worlds.start(belief, self._context(like), noise)
        self._carry = fresh if self._carry is None else _chosen(which, fresh, self._carry)
        self.step_count[which] = 0
        seen = self._seen()
        self._last = torch.where(which[:, None].to(seen.device), seen, self._last) if len(self._last) else seen
        idle = self.limits.apply(torch.zeros_like(self.limits.low)[None])[0].to(like).expand(self.rows, -1)
        changed = which[:, None].to(idle.device)
        self._previous = torch.where(changed, idle, self._previous) if len(self._previous) else idle
        return self._last

    def step(self, action: Tensor, frozen: Tensor) -> Outcome:
        """Act in all rows but those that are frozen; a row that diverges shows its last measurement."""
        worlds = self._worlds
        if worlds is None:
            raise SpecError("expected reset() before step()")
        before = worlds.state(self._carry)[:, 0]
        action = self.limits.apply(action.to(self.limits.low)[:, None])[:, 0].to(before)
        context = self._context(before)
        law = worlds.transition(self._carry, action[:, None], context)
        noise = self._drawn(worlds.noise_size)
        moved = law.push(before.new_empty(self.rows, 1, 0) if noise is None else noise)
        after = worlds.state(moved)[:, 0]
        last = self.step_count + 1 >= self.horizon
        factors = before.new_empty(0) if context is None else context
        steps = self.step_count.to(before.device)
        rewards = [
            step_reward(
                self.objective,
                before,
                action,
                context=factors,
                after=after,
                step=steps,
                previous=self._previous,
                last=flag,
            )
            for flag in (False, True)
        ]
        reward = torch.where(last.to(before.device), rewards[1], rewards[0])
        terminated = ended(self.objective, after, factors)
        diverged = ~(after.isfinite().all(-1) & reward.isfinite())
        kept = frozen.to(before.device) | diverged
        self._carry = _chosen(~kept, moved, self._carry)
        self._last = torch.where(kept[:, None], self._last, self._seen())
        self._previous = torch.where(kept[:, None], self._previous, action)
        self.step_count = torch.where(frozen, self.step_count, self.step_count + 1)
        truncated = (last.to(before.device) & ~terminated) | diverged
        reward = torch.where(diverged, 0.0, reward)
        return Outcome(self._last, reward, terminated & ~diverged, truncated, diverged)

    def _context(self, like: Tensor) -> Tensor | None:
        return self._given.to(like) if self.schema.context else None

    def _drawn(self, size: int) -> Tensor | None:
        worlds = self._worlds
        if worlds is None or not size:
            return None
        return standard_normal((self.rows, 1, size), self._generator, dtype=worlds.dtype, device=worlds.device)

    def _seen(self) -> Tensor:
        worlds = self._worlds
        if worlds is None:
            raise SpecError("expected reset() before step()")
        if worlds.state_is_measured:
            return worlds.state(self._carry)[:, 0]
        law = worlds.measurement(self._carry)
        noise = self._drawn(law.noise_size)
        return law.mean[:, 0] if noise is None else law.push(noise)[:, 0]


def _chosen(which: Tensor, new: Any, old: Any) -> Any:
    """Return a carry (rows, 1, ...) of the new rows where the mask says so."""
    found = list[Tensor]()
    tree_map(lambda v: found.append(v) or v, old)
    rest = iter(found)

    def pick(v: Tensor) -> Tensor:
        kept = next(rest)
        mask = which.to(v.device).view(-1, *(1,) * (max(v.ndim, kept.ndim) - 1))
        return torch.where(mask, v, kept)

    return tree_map(pick, new)
