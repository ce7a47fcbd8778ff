"""Rollouts: imagined futures in fixed worlds, or in a fresh world at each step."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint as recompute

from bayeswm.base.errors import DataError, DivergenceWarning, SpecError
from bayeswm.base.laws import Law
from bayeswm.base.predictive import Predictive
from bayeswm.base.random import permutation, standard_normal, systematic
from bayeswm.base.trees import tree_map
from bayeswm.base.worlds import Belief, MarkovWorlds, Noise, Worlds

if TYPE_CHECKING:
    from bayeswm.base.model import DynamicsModel

Policy = Callable[[Tensor, int], Tensor]


def rollout(
    model: DynamicsModel | Worlds,
    state: Belief,
    actions: Tensor | Policy,
    *,
    horizon: int | None = None,
    worlds: int = 64,
    particles: int = 20,
    generator: torch.Generator | None = None,
    context: Tensor | None = None,
    noise: Noise | None = None,
    noise_batch: tuple[int, ...] | None = None,
    fresh_worlds: bool = False,
    checkpoint: bool = False,
) -> Predictive:
    """Imagine what happens under a sequence of actions or a policy.

    Parameters
    ----------
    model : DynamicsModel or Worlds
        A fitted model, or worlds already drawn from one.
    state : Tensor of shape (*batch, S), Law or Trajectories
        Where it starts: a known state, a law of it, or the history that led to it.
    actions : Tensor of shape (*batch, H, A), or callable
        A plan, or a policy that maps states (worlds, particles, *batch, S) and the step's index to actions.
    horizon : int, optional
        Steps; needed with a policy, the length of the plan otherwise.
    worlds : int
        How many to draw; a model whose posterior is a few worlds (an ensemble) gives those.
    particles : int
        Sampled trajectories in each world.
    generator : torch.Generator
        Source of all randomness; not needed where there is none.
    context : Tensor of shape (*batch, C) or (*batch, H, C), optional
        Environment factors.
    noise : Noise, optional
        Use this noise instead of drawing it: for common random numbers and replays.
    noise_batch : tuple of int, optional
        Shape in which noise is drawn along the batch axes; 1 shares it along that axis (common random numbers).
    fresh_worlds : bool
        Put each particle into a new world at each step. Trajectories are then no sample of any one system.
    checkpoint : bool
        Recompute each step in the backward pass instead of storing it: long horizons with gradients.

    Returns
    -------
    Predictive
        Over the horizon; ``.particles`` has shape (worlds, particles, *batch, H, S).

    Raises
    ------
    SpecError, DataError
        For arguments that do not fit together, NaN, or a result that cannot fit into memory.

    Warns
    -----
    DivergenceWarning
        If particles leave the finite numbers, with their share.

    Examples
    --------
    >>> import bayeswm as bwm
    >>> model = bwm.KnownDynamics(structure=bwm.structures.Pendulum.gymnasium(), noise=0.01)
    >>> r = bwm.rollout(model, torch.tensor([0.1, 0.0]), torch.zeros(25, 1), generator=torch.Generator().manual_seed(0))
    >>> r.particles.shape, r.mean.shape
    (torch.Size([1, 20, 25, 2]), torch.Size([25, 2]))
    """
    drawn = model if isinstance(model, Worlds) else model.draw(worlds, generator=generator)
    if particles < 1:
        raise SpecError(f"expected particles >= 1, got {particles}")
    state, plan, batch, steps = _arguments(drawn, state, actions, horizon)
    context = _context(drawn, context, batch, steps)
    size = (len(drawn), particles, *batch)
    _check_memory(size, steps, drawn)
    source = _NoiseSource(drawn, noise, generator, particles, batch if noise_batch is None else noise_batch)

    beginning = source.beginning(state)
    carry = drawn.start(state, context[..., 0, :] if steps else None, beginning)
    origin = carry
    point = beginning.initial is None and beginning.episode is None
    initial = drawn.state(carry)

    shuffle = _Shuffle(drawn, particles, generator) if fresh_worlds and steps > 1 else None
    paths: Tensor | None = None
    kept: list[Tensor] = []
    laws: list[Law] = []
    bad = torch.zeros(size, dtype=torch.bool, device=drawn.device)
    diverged: list[Tensor] = []
    limit = 0.1 * float(torch.finfo(drawn.dtype).max) ** 0.5
    for t in range(steps):
        action = plan[..., t, :] if isinstance(plan, Tensor) else plan(drawn.state(carry), t)
        step_noise = source.step(t)

        def advance(carry: Any, action: Tensor, step_noise: Tensor, t: int = t) -> tuple[Law, Any]:
            if shuffle is not None and t > 0:
                return shuffle.advance(carry, action, context[..., t, :], step_noise, t, size)
            law = drawn.transition(carry, action, context[..., t, :], step=t)
            return law, law.push(step_noise)

        if checkpoint:
            law, carry = recompute(advance, carry, action, step_noise, use_reentrant=False)  # pyright: ignore
        else:
            law, carry = advance(carry, action, step_noise)
        x = drawn.state(carry).expand(*size, -1)
        laws.append(law)
        # one reduction tells whether anything went wrong; only then look particle by particle
        if not bool(x.detach().abs().amax() < limit):
            bad = bad | ~(x.detach().abs() < limit).all(-1)
        diverged.append(bad)
        if torch.is_grad_enabled() and x.requires_grad:
            kept.append(x)
        else:
            paths = x.new_empty(steps, *x.shape) if paths is None else paths
            paths[t] = x
    if kept:
        paths = torch.stack(kept)
    elif paths is None:
        paths = initial.new_empty(0, *size, initial.shape[-1])
    if bool(bad.any()):
        share = float(bad.double().mean())
        warnings.warn(f"{share:.1%} of the particles diverged and are left out", DivergenceWarning, stacklevel=2)

    def joint(x: Tensor) -> Tensor:
        return _log_along(drawn, origin, x, plan, context)

    return Predictive(
        drawn.schema.state,
        laws,
        drawn.log_weight,
        exhaustive=drawn.exhaustive,
        time_step=drawn.schema.time_step,
        particles=paths,
        initial=initial,
        diverged=torch.stack(diverged) if bool(bad.any()) else None,
        resolved=[point and (h == 0 or drawn.noise_size == 0) for h in range(steps)],
        fresh_worlds=fresh_worlds,
        joint=joint if isinstance(drawn, MarkovWorlds) else None,
    )


class _NoiseSource:
    """Where a rollout's noise comes from: given, or drawn step by step so that memory does not grow."""

    def __init__(
        self,
        worlds: Worlds,
        noise: Noise | None,
        generator: torch.Generator | None,
        particles: int,
        batch: tuple[int, ...],
    ) -> None:
        self.worlds, self.noise, self.generator = worlds, noise, generator
        self.shape = (len(worlds), particles, *batch)

    def beginning(self, belief: Belief) -> Noise:
        if self.noise is not None:
            return self.noise
        initial, episode = self.worlds.initial_noise_size(belief), self.worlds.episode_noise_size
        return Noise(self._draw(initial) if initial else None, self._draw(episode) if episode else None)

    def step(self, t: int) -> Tensor:
        if self.noise is not None and self.noise.step is not None:
            if self.noise.step.shape[-2] <= t:
                raise SpecError(f"expected step noise for {t + 1} steps or more, got {self.noise.step.shape[-2]}")
            return self.noise.step[..., t, :]
        return self._draw(self.worlds.noise_size)

    def _draw(self, size: int) -> Tensor:
        worlds = self.worlds
        if size == 0:
            return torch.empty(*self.shape, 0, dtype=worlds.dtype, device=worlds.device)
        if self.generator is None:
            raise SpecError("expected generator=torch.Generator, since the system has noise, got none")
        return standard_normal((*self.shape, size), self.generator, dtype=worlds.dtype, device=worlds.device)


class _Shuffle:
    """A fresh world for each particle at each step, all particles of all batch rows in one call.

    Equal weights: a random order of the particles, dealt out to the worlds evenly. Otherwise one world is drawn for
    each particle, by systematic resampling.
    """

    def __init__(self, worlds: Worlds, particles: int, generator: torch.Generator | None) -> None:
        if generator is None:
            raise SpecError("expected generator=torch.Generator for fresh worlds, got none")
        self.worlds, self.generator, self.count = worlds, generator, len(worlds) * particles
        self.equal = bool((worlds.log_weight - worlds.log_weight[0]).abs().max() < 1e-9)

    def advance(
        self, carry: Any, action: Tensor, context: Tensor, noise: Tensor, t: int, size: tuple[int, ...]
    ) -> tuple[Law, Any]:
        mapped = action.ndim == len(size) + 1  # a policy's actions belong to their particles
        if self.equal:
            order = permutation(self.count, self.generator, device=self.worlds.device)
            carry = tree_map(lambda v: _reorder(v, order, size), carry)
            action = _reorder(action, order, size) if mapped else action
            law = self.worlds.transition(carry, action, context, step=t)
            back = torch.argsort(order)
            law = law.map(lambda v: _reorder(v, back, size))
        else:
            index = systematic(self.worlds.log_weight, self.count, self.generator)
            single = (self.count, 1, *size[2:])
            carry = tree_map(lambda v: v.expand(*size, *v.shape[len(size) :]).reshape(*single, *v.shape[len(size) :]), carry)
            action = action.expand(*size, -1).reshape(*single, -1) if mapped else action
            law = self.worlds[index].transition(carry, action, context, step=t)
            law = law.map(lambda v: v.expand(*single, *v.shape[len(size) :]).reshape(*size, *v.shape[len(size) :]))
        return law, law.push(noise)


def _reorder(values: Tensor, order: Tensor, size: tuple[int, ...]) -> Tensor:
    tail = values.shape[len(size) :]
    flat = values.expand(*size, *tail).reshape(-1, *size[2:], *tail)
    return flat.index_select(0, order).view(*size, *tail)


def _arguments(
    worlds: Worlds, state: Belief, actions: Tensor | Policy, horizon: int | None
) -> tuple[Belief, Tensor | Policy, tuple[int, ...], int]:
    from bayeswm.base.trajectories import Trajectories

    schema = worlds.schema
    if horizon is not None and horizon < 0:
        raise SpecError(f"expected horizon >= 0, got {horizon}")
    if isinstance(state, Trajectories):
        batch: tuple[int, ...] = (len(state),)
    elif isinstance(state, Law):
        batch = tuple(state.mean.shape[2:-1])
    else:
        state = torch.as_tensor(state).to(worlds.device, worlds.dtype)
        if state.ndim < 1 or state.shape[-1] != schema.state.size:
            raise DataError(
                f"expected states of shape (*batch, {schema.state.size}) for {schema.state.columns}, "
                f"got {tuple(state.shape)}"
            )
        if not bool(state.isfinite().all()):
            raise DataError(f"expected finite states, got NaN or infinity in {int((~state.isfinite()).sum())} value(s)")
        batch = tuple(state.shape[:-1])
    if callable(actions) and not isinstance(actions, Tensor):
        if horizon is None:
            raise SpecError("expected horizon= with a policy, got none")
        return state, actions, batch, horizon
    plan = torch.as_tensor(actions).to(worlds.device, worlds.dtype)
    if plan.ndim < 2 or plan.shape[-1] != schema.action.size:
        raise DataError(
            f"expected actions of shape (*batch, horizon, {schema.action.size}) for {schema.action.columns}, "
            f"got {tuple(plan.shape)}"
        )
    if not bool(plan.isfinite().all()):
        raise DataError(f"expected finite actions, got NaN or infinity in {int((~plan.isfinite()).sum())} value(s)")
    steps = plan.shape[-2] if horizon is None else horizon
    if steps > plan.shape[-2]:
        raise SpecError(f"expected actions for {steps} steps, got {plan.shape[-2]}")
    try:
        full = torch.broadcast_shapes(batch, plan.shape[:-2])
    except RuntimeError:
        raise DataError(
            f"expected batch shapes of states and actions that fit, got {batch} and {tuple(plan.shape[:-2])}"
        ) from None
    if isinstance(state, Tensor):
        state = state.expand(*full, state.shape[-1])
    elif full != batch:
        raise DataError(f"expected actions of batch shape {batch}, as the belief has, got {tuple(plan.shape[:-2])}")
    return state, plan.expand(*full, *plan.shape[-2:]), tuple(full), steps


def _context(worlds: Worlds, context: Tensor | None, batch: tuple[int, ...], steps: int) -> Tensor:
    size = worlds.schema.context.size
    if context is None:
        if size:
            names = ", ".join(worlds.schema.context.columns)
            raise DataError(f"expected context= of {size} value(s) ({names}), got none")
        return torch.empty(*batch, max(steps, 1), 0, dtype=worlds.dtype, device=worlds.device)
    context = torch.as_tensor(context).to(worlds.device, worlds.dtype)
    if context.shape[-1:] != (size,) or not bool(context.isfinite().all()):
        raise DataError(f"expected finite context of shape (*batch, {size}), got {tuple(context.shape)}")
    if context.ndim != len(batch) + 2:
        context = context[..., None, :]
        return context.expand(*batch, max(steps, 1), size)
    if context.shape[-2] < steps:
        raise DataError(f"expected context for {steps} steps, got {context.shape[-2]}")
    return context.expand(*batch, context.shape[-2], size)


def _log_along(worlds: Worlds, origin: Any, x: Tensor, plan: Tensor | Policy, context: Tensor) -> Tensor:
    x = x.to(worlds.device, worlds.dtype)
    steps = x.shape[-2]
    if isinstance(plan, Tensor):
        actions = plan[..., :steps, :]
    else:
        before = torch.cat((worlds.state(origin)[0, 0][..., None, :], x[..., :-1, :]), -2)
        actions = torch.stack([plan(before[None, None, ..., t, :], t)[0, 0] for t in range(steps)], -2)
    return worlds.log_likelihood(origin, x, actions, context[..., :steps, :])


def _check_memory(size: tuple[int, ...], steps: int, worlds: Worlds) -> None:
    """Refuse a result that cannot fit: particles, and the mean and scale of each one's law."""
    count = steps * worlds.schema.state.size
    for n in size:
        count *= n
    need = 3 * count * torch.finfo(worlds.dtype).bits // 8
    if worlds.device.type == "cuda":
        free = torch.cuda.mem_get_info(worlds.device)[0]
    elif "SC_AVPHYS_PAGES" in getattr(os, "sysconf_names", {}):
        free = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    else:
        return
    if need > 0.8 * free:
        raise SpecError(
            f"expected a rollout that fits into memory, this one needs {need / 1e9:.1f} GB of {free / 1e9:.1f} GB; "
            "use fewer particles or worlds, a shorter horizon, or several calls over the batch"
        )
