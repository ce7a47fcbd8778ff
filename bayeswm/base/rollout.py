"""Rollouts: imagined futures in fixed worlds, or in a fresh world at each step."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint as recompute

from bayeswm.base.along import Along, Policy, ask
from bayeswm.base.counts import check_counts
from bayeswm.base.errors import DataError, DivergenceWarning, SpecError
from bayeswm.base.laws import Law
from bayeswm.base.magnitudes import all_below
from bayeswm.base.memory import available_memory
from bayeswm.base.predictive import Predictive, checked_generator, warn_caller
from bayeswm.base.random import standard_normal
from bayeswm.base.shapes import common_shape
from bayeswm.base.shuffle import Shuffle
from bayeswm.base.trees import tree_map
from bayeswm.base.worlds import Belief, Noise, Worlds

if TYPE_CHECKING:
    from bayeswm.base.model import DynamicsModel

# values of a step from which on results are put into one block at once; for fewer the calls cost more than the holes
_LARGE = 2**13
# bytes of a result that is not worth the question how much memory is left
_UNASKED = 2**24


def rollout(
    model: DynamicsModel | Worlds,
    state: Belief,
    actions: Tensor | Policy | None = None,
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
    of: str = "state",
) -> Predictive:
    """Imagine what happens under a sequence of actions or a policy.

    Parameters
    ----------
    model : DynamicsModel or Worlds
        A fitted model, or worlds already drawn from one.
    state : Tensor of shape (*batch, S), Law or Trajectories
        Where it starts: a known state, a law of it, or the history that led to it.
    actions : Tensor of shape (*batch, H, A), or callable, optional
        A plan, or a policy that maps states (worlds, particles, *batch, S) and the step's index to actions of shape
        (worlds, particles, *batch, A), or one that broadcasts to it. It sees every particle at every step, also where
        they are still in one place, so that a random policy can act differently in each. An action without the axis of
        particles is the same for all. None for a system without actions.
    horizon : int, optional
        Steps; needed with a policy and without actions, the length of the plan otherwise.
    worlds : int
        How many to draw; a model whose posterior is a few worlds (an ensemble) gives those.
    particles : int
        Sampled trajectories in each world. Whether a policy acts at random is seen in two or more: the split of the
        variance is undefined for a single one whose action has its own axis.
    generator : torch.Generator
        Source of all randomness; not needed where there is none.
    context : Tensor of shape (*batch, C) or (*batch, H, C), optional
        Environment factors.
    noise : Noise, optional
        Use this noise instead of drawing it, for common random numbers and replays; parts that are None are drawn.
    noise_batch : tuple of int, optional
        Shape in which noise is drawn along the batch axes; 1 shares it along that axis (common random numbers).
    fresh_worlds : bool
        Put each particle into a new world at each step. Trajectories are then no sample of any one system.
    checkpoint : bool
        Recompute each step in the backward pass instead of storing it: long horizons with gradients.
    of : {"state", "measurement"}
        The states, or what the sensors will report of them; sensor noise is drawn after all states.

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
    from bayeswm.base.model import check_model

    if of not in ("state", "measurement"):
        raise SpecError(f"expected of='state' or 'measurement', got {of!r}")
    generator = checked_generator(generator)
    check_model(model)
    check_counts(worlds=worlds, particles=particles)
    drawn = model if isinstance(model, Worlds) else model.draw(worlds, generator=generator)
    state, plan, batch, steps = checked_arguments(drawn, state, actions, horizon=horizon)
    context = step_context(drawn, context, batch, steps=steps)
    size = (len(drawn), particles, *batch)
    check_memory(size, steps, drawn)
    source = _NoiseSource(drawn, noise, generator, size=size, noise_batch=noise_batch)

    beginning = source.beginning(state)
    carry = drawn.start(state, context[..., 0, :] if steps else None, beginning)
    origin = carry
    initial = drawn.state(carry)
    sensed = of == "measurement" and not drawn.state_is_measured
    begin = drawn.measurement(carry).mean if sensed else initial
    # all particles of a world are still in one place, and do the same
    alike = beginning.initial is None and beginning.episode is None and initial.shape[1] == 1
    resolved: list[bool] = []

    shuffle = Shuffle(drawn, generator, size=size) if fresh_worlds and steps > 1 else None
    paths: Tensor | None = None
    kept: list[Tensor] = []
    small = math.prod(size) * drawn.schema.state.size < _LARGE
    laws: list[Law] = []
    store = _LawStore(steps)
    planned = plan.unbind(-2) if isinstance(plan, Tensor) else ()
    for t, given in zip(range(steps), context.unbind(-2) if steps else (), strict=False):
        if isinstance(plan, Tensor):
            action = planned[t]
        else:
            action = ask(plan, drawn, drawn.state(carry), step=t, size=size)
            if action.ndim > len(batch) + 1:
                alike = alike and particles > 1 and action.shape[1] == 1
                if action.shape[1] > 1:
                    carry = tree_map(lambda v: v.expand(*size, *v.shape[len(size) :]), carry)
        # the law of a state is that given the one before it; of a measurement, given the state itself
        silent = drawn.noise_size == 0
        resolved.append(alike and ((t == 0 and (silent or not sensed)) or (silent and not fresh_worlds)))
        step_noise = source.step(t)
        # drawn before the step, so that a recomputed step meets the same worlds
        meeting = shuffle.draw() if shuffle is not None and t > 0 else None

        def advance(
            carry: Any,
            action: Tensor,
            step_noise: Tensor,
            *,
            t: int = t,
            given: Tensor = given,
            meeting: Tensor | None = meeting,
        ) -> tuple[Law, Any]:
            if shuffle is not None and meeting is not None:
                law = shuffle.transition(carry, action, given, step=t, meeting=meeting)
            else:
                law = drawn.transition(carry, action, given, step=t)
            return law, law.push(step_noise)

        if checkpoint:
            law, carry = cast("tuple[Law, Any]", recompute(advance, carry, action, step_noise, use_reentrant=False))
        else:
            law, carry = advance(carry, action, step_noise)
        x = drawn.state(carry)
        if sensed:
            law = drawn.measurement(carry)
        laws.append(store.keep(law, t, size=x.numel()))
        x = x if x.shape[:-1] == size else x.expand(*size, -1)
        if small or kept or (torch.is_grad_enabled() and x.requires_grad):
            if paths is not None:  # gradients began after the first steps
                kept, paths = list(paths[:t]), None
            kept.append(x)
        else:
            paths = x.new_empty(steps, *x.shape) if paths is None else paths
            paths[t] = x
    if kept:
        paths = torch.stack(kept)
    elif paths is None:
        paths = initial.new_empty(0, *size, initial.shape[-1])
    diverged = _diverged(paths, divergence_limit(drawn.dtype))
    if diverged is not None:
        share = float(diverged[-1].double().mean())
        warn_caller(f"{share:.1%} of the particles diverged and are left out", DivergenceWarning)

    if sensed:
        paths = _reports(laws, drawn, generator, size=size)
    joint = Along(drawn, origin, plan=plan, context=context, size=size) if drawn.state_is_measured else None
    found = Predictive(
        drawn.schema.measured if sensed else drawn.schema.state,
        laws,
        drawn.log_weight,
        exhaustive=drawn.exhaustive,
        time_step=drawn.schema.time_step,
        particles=paths,
        initial=begin,
        diverged=diverged,
        resolved=resolved,
        fresh_worlds=fresh_worlds,
        joint=joint,
    )
    return drawn.finish(found)


def _diverged(paths: Tensor, limit: float) -> Tensor | None:
    """Return which particles of paths (H, ..., S) left the limit by each step, or None if none did."""
    if all_below(paths, limit):  # one pass tells whether anything went wrong; only then look particle by particle
        return None
    outside = ~(paths.detach().abs() < limit).all(-1)
    return outside.cumsum(0) > 0


def _reports(
    laws: Sequence[Law], worlds: Worlds, generator: torch.Generator | None, *, size: tuple[int, ...]
) -> Tensor:
    """Draw what the sensors report at each step, shape (H, worlds, particles, *batch, M)."""
    if not laws:
        return torch.empty(0, *size, worlds.schema.measured.size, dtype=worlds.dtype, device=worlds.device)
    if generator is None:
        raise SpecError("expected generator=torch.Generator, since sensor noise is drawn, got none")
    reports: list[Tensor] = []
    for law in laws:
        noise = standard_normal((*size, law.noise_size), generator, dtype=worlds.dtype, device=worlds.device)
        reports.append(law.push(noise))
    return torch.stack(reports)


class _NoiseSource:
    """Where a rollout's noise comes from: given, or drawn step by step so that memory does not grow."""

    def __init__(
        self,
        worlds: Worlds,
        noise: Noise | None,
        generator: torch.Generator | None,
        *,
        size: tuple[int, ...],
        noise_batch: tuple[int, ...] | None,
    ) -> None:
        self.worlds, self.noise, self.generator = worlds, Noise() if noise is None else noise, generator
        self.size = size
        self.shape = (*size[:2], *(size[2:] if noise_batch is None else noise_batch))
        self._nothing: Tensor | None = None
        if not _fits(self.shape, size):
            raise SpecError(f"expected noise_batch= that broadcasts to the batch {size[2:]}, got {noise_batch}")

    def beginning(self, belief: Belief) -> Noise:
        initial, episode = self.worlds.initial_noise_size(belief), self.worlds.episode_noise_size
        return Noise(self._start("initial", initial), self._start("episode", episode))

    def step(self, t: int) -> Tensor:
        given = self.noise.step
        if given is None:
            return self._draw(self.worlds.noise_size)
        if given.shape[-2] <= t:
            raise SpecError(f"expected step noise for {t + 1} steps or more, got {given.shape[-2]}")
        return self._checked("step", given[..., t, :], self.worlds.noise_size)

    def _start(self, part: str, size: int) -> Tensor | None:
        if not size:
            return None
        given = getattr(self.noise, part)
        return self._draw(size) if given is None else self._checked(part, given, size)

    def _checked(self, part: str, given: Tensor, size: int) -> Tensor:
        if given.shape[-1] != size or not _fits(given.shape[:-1], self.size):
            raise SpecError(
                f"expected {part} noise that broadcasts to {(*self.size, size)} (worlds, particles, *batch, n), "
                f"got {tuple(given.shape)} a step"
            )
        return given.to(self.worlds.device, self.worlds.dtype)

    def _draw(self, size: int) -> Tensor:
        worlds = self.worlds
        if size == 0:
            if self._nothing is None:
                self._nothing = torch.empty(*self.shape, 0, dtype=worlds.dtype, device=worlds.device)
            return self._nothing
        if self.generator is None:
            raise SpecError("expected generator=torch.Generator, since the system has noise, got none")
        return standard_normal((*self.shape, size), self.generator, dtype=worlds.dtype, device=worlds.device)


class _LawStore:
    """Puts the tensors of a rollout's laws into one block each.

    Kept one by one, they lie between the working memory of their steps and leave it in holes, which add up with the
    horizon to a third of the result.
    """

    def __init__(self, steps: int) -> None:
        self.steps = steps
        self.blocks: dict[tuple[int, torch.Size], tuple[int, Tensor]] = {}

    def keep(self, law: Law, t: int, *, size: int) -> Law:
        """Return the law of step t with its large tensors in the blocks; those with a gradient stay where they are.

        ``size`` is the number of values of the state there; the law is not asked, since its moments may be costly.
        """
        # the first law has no particle axis yet
        if t == 0 or size < _LARGE:
            return law
        places = itertools.count()

        def put(values: Tensor) -> Tensor:
            key = (next(places), values.shape)
            if values.requires_grad or 0 in values.stride():  # a broadcast one is small
                return values
            if key not in self.blocks:
                self.blocks[key] = (t, values.new_empty(self.steps - t, *values.shape))
            begin, block = self.blocks[key]
            return block[t - begin].copy_(values)

        return law.map(put)


def _fits(shape: Sequence[int], size: tuple[int, ...]) -> bool:
    """Whether a shape broadcasts to the leading axes without changing them."""
    return len(shape) == len(size) and all(n in (1, full) for n, full in zip(shape, size, strict=True))


def checked_arguments(
    worlds: Worlds, state: Belief, actions: Tensor | Policy | None, *, horizon: int | None
) -> tuple[Belief, Tensor | Policy, tuple[int, ...], int]:
    """Return belief, plan (*batch, H, A) or policy, batch shape and number of steps, as :func:`rollout` takes them."""
    from bayeswm.base.trajectories import Trajectories

    schema = worlds.schema
    if horizon is not None and horizon < 0:
        raise SpecError(f"expected horizon >= 0, got {horizon}")
    if isinstance(state, Trajectories):
        batch: tuple[int, ...] = (len(state),)
    elif isinstance(state, Law):
        check_law(worlds, state)
        batch = tuple(state.mean.shape[2:-1])
    else:
        state = torch.as_tensor(state).to(worlds.device, worlds.dtype)
        if state.ndim < 1 or state.shape[-1] != schema.state.size:
            raise DataError(
                f"expected states of shape (*batch, {schema.state.size}) for {schema.state.columns}, "
                f"got {tuple(state.shape)}"
            )
        if not all_below(state):
            raise DataError(f"expected finite states, got NaN or infinity in {int((~state.isfinite()).sum())} value(s)")
        batch = tuple(state.shape[:-1])
    if callable(actions) and not isinstance(actions, Tensor):
        if horizon is None:
            raise SpecError("expected horizon= with a policy, got none")
        return state, actions, batch, horizon
    if actions is None:
        if schema.action.size:
            raise DataError(
                f"expected actions of shape (*batch, horizon, {schema.action.size}) for {schema.action.columns}, or a "
                "policy, got none"
            )
        if horizon is None:
            raise SpecError("expected horizon= where there are no actions, got none")
        actions = torch.empty(horizon, 0)
    try:
        plan = torch.as_tensor(actions).to(worlds.device, worlds.dtype)
    except (RuntimeError, TypeError, ValueError):
        raise SpecError(
            f"expected actions, or a policy policy(state, step), got a {type(actions).__name__}; "
            "bayeswm.planning.PlannedPolicy makes a policy of a planner"
        ) from None
    if plan.ndim < 2 or plan.shape[-1] != schema.action.size:
        raise DataError(
            f"expected actions of shape (*batch, horizon, {schema.action.size}) for {schema.action.columns}, "
            f"got {tuple(plan.shape)}"
        )
    if not all_below(plan):
        raise DataError(f"expected finite actions, got NaN or infinity in {int((~plan.isfinite()).sum())} value(s)")
    steps = plan.shape[-2] if horizon is None else horizon
    if steps > plan.shape[-2]:
        raise SpecError(f"expected actions for {steps} steps, got {plan.shape[-2]}")
    try:
        full = common_shape(batch, plan.shape[:-2])
    except RuntimeError:
        raise DataError(
            f"expected batch shapes of states and actions that fit, got {batch} and {tuple(plan.shape[:-2])}"
        ) from None
    if isinstance(state, Tensor):
        state = state.expand(*full, state.shape[-1])
    elif isinstance(state, Law) and full != batch:
        more, old = len(full) - len(batch), 2 + len(batch)

        def widen(values: Tensor) -> Tensor:
            lead, tail = values.shape[:2], values.shape[old:]
            return values.reshape(*lead, *(1,) * more, *values.shape[2:]).expand(*lead, *full, *tail)

        state = state.map(widen)
    elif full != batch:
        raise DataError(f"expected actions of batch shape {batch}, as the belief has, got {tuple(plan.shape[:-2])}")
    return state, plan.expand(*full, *plan.shape[-2:]), tuple(full), steps


def check_law(worlds: Worlds, law: Law) -> None:
    """Refuse a law that is none of the worlds' state, or is NaN in all of them.

    Raises
    ------
    SpecError, DataError
        With its shape.
    """
    columns, mean, count = worlds.schema.state.columns, law.mean, len(worlds)
    if mean.ndim < 3 or mean.shape[-1] != len(columns) or mean.shape[0] not in (1, count):
        raise SpecError(
            f"expected a law of the state with means of shape ({1 if count == 1 else f'1 or {count}'}, 1, *batch, "
            f"{len(columns)}) for {columns}, got {tuple(mean.shape)}"
        )
    if not bool(mean.isfinite().all(-1).flatten(0, 1).any(0).all()):
        raise DataError("expected a finite belief, got NaN or infinity in every world")


def step_context(worlds: Worlds, context: Tensor | None, batch: tuple[int, ...], *, steps: int) -> Tensor:
    """Return the context of each step, shape (*batch, H, C)."""
    size = worlds.schema.context.size
    if context is None:
        if size:
            names = ", ".join(worlds.schema.context.columns)
            raise DataError(f"expected context= of {size} value(s) ({names}), got none")
        return torch.empty(*batch, max(steps, 1), 0, dtype=worlds.dtype, device=worlds.device)
    context = torch.as_tensor(context).to(worlds.device, worlds.dtype)
    if context.ndim < 1 or context.shape[-1] != size or not all_below(context):
        raise DataError(f"expected finite context of shape (*batch, {size}), got {tuple(context.shape)}")
    given = tuple(context.shape)
    if context.ndim != len(batch) + 2:
        context = context[..., None, :]
    elif context.shape[-2] < steps:
        raise DataError(f"expected context for {steps} steps, got {context.shape[-2]}")
    length = context.shape[-2] if context.shape[-2] > 1 else max(steps, 1)
    try:
        return context.expand(*batch, length, size)
    except RuntimeError:
        raise DataError(
            f"expected context of shape {(*batch, size)}, or {(*batch, steps, size)} for one a step, got {given}"
        ) from None


def divergence_limit(dtype: torch.dtype) -> float:
    """Return the magnitude from which on a state has diverged: the square of what is below it is still finite.

    Examples
    --------
    >>> divergence_limit(torch.float32)
    1.844674352395373e+18
    """
    return 0.1 * float(torch.finfo(dtype).max) ** 0.5


def check_memory(size: tuple[int, ...], steps: int, worlds: Worlds) -> None:
    """Refuse a result that cannot fit: particles, and the mean and scale of each one's law."""
    count = steps * worlds.schema.state.size
    for n in size:
        count *= n
    need = 3 * count * torch.finfo(worlds.dtype).bits // 8
    if need < _UNASKED:
        return
    free = available_memory(worlds.device)
    if free is not None and need > 0.8 * free:
        raise SpecError(
            f"expected a rollout that fits into memory, this one needs {need / 1e9:.1f} GB of "
            f"{free / 1e9:.1f} GB left; use fewer particles or worlds, a shorter horizon, or several calls "
            "over the batch"
        )
