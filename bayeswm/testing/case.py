"""What the checks work with: a model, its worlds, and inputs taken from recorded trajectories."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from bayeswm.base.errors import SpecError
from bayeswm.base.laws import Law
from bayeswm.base.model import DynamicsModel
from bayeswm.base.predictive import Predictive
from bayeswm.base.random import make_generator, permutation, standard_normal
from bayeswm.base.rollout import rollout
from bayeswm.base.trajectories import Trajectories
from bayeswm.base.worlds import Noise, Worlds
from bayeswm.testing.comparisons import worst
from bayeswm.testing.report import Breach, NotApplicable
from bayeswm.testing.surroundings import kept_surroundings

# different from each other and from usual numbers of variables, so that axes in a wrong order are seen
ROWS, HORIZON, PARTICLES, WORLDS = 6, 4, 5, 7

# statistical comparisons that share the p-value of a run; an upper bound, counted in `Case.refuted`
STATISTICAL_CHECKS = 24


class Case:
    """One model under test.

    Attributes
    ----------
    worlds : Worlds
        Some of the model's.
    states : Tensor, shape (6, S)
        Recorded states.
    actions, context : Tensor, shape (6, A) and (6, C)
        What belongs to them.
    plan : Tensor, shape (6, 4, A)
        Recorded actions for a horizon.
    scale : Tensor, shape (S,)
        Size of each state variable in the recordings.
    rounding : float
        Relative error that the model's number format excuses.
    """

    def __init__(self, model: DynamicsModel, trajectories: Trajectories, *, seed: int, p_value: float) -> None:
        self.model, self.trajectories, self.seed, self.p_value = model, trajectories, seed, p_value
        self.schema = model.schema
        with kept_surroundings():  # what the draw does to them is found by the check of just that
            self.worlds = model.draw(WORLDS, generator=self.generator())
        self.rounding = 1e-9 if self.worlds.dtype == torch.float64 else 1e-4
        self._take_inputs()
        self.scale = self.worlds.state(self.start()).detach().abs().amax((0, 1, 2))
        self.scale = torch.where(self.scale > 0, self.scale, 1.0)

    def _take_inputs(self) -> None:
        worlds, g = self.worlds, self.generator(1)
        if worlds.state_is_measured or self._has_complete_step():
            found = self.trajectories.transitions()
            rows = permutation(len(found.state), g, device="cpu")
            rows = rows[torch.arange(ROWS) % len(rows)].to(found.state.device)
            states, actions, context = found.state[rows], found.action, found.context[rows]
        else:
            history = self.trajectories[torch.arange(ROWS) % len(self.trajectories)]
            noise = Noise(
                self.normal(worlds.initial_noise_size(history), 1, (ROWS,)),
                self.normal(worlds.episode_noise_size, 1, (ROWS,)),
            )
            context = history.step_context()[:, 0].to(worlds.device, worlds.dtype)
            states = worlds.state(worlds.start(history, context, noise)).detach().mean((0, 1))
            actions = self.trajectories.action[self.trajectories.step_mask]
        rows = permutation(len(actions), g, device="cpu")
        rows = rows[torch.arange(ROWS * HORIZON) % len(rows)].to(actions.device)
        self.states, self.context = (v.to(worlds.device, worlds.dtype) for v in (states, context))
        self.plan = actions[rows].to(worlds.device, worlds.dtype).view(ROWS, HORIZON, -1)
        self.actions = self.plan[:, 0]

    def _has_complete_step(self) -> bool:
        """Whether the states of some step were recorded in full: sensors may have reported some columns only."""
        if self.trajectories.state is None:
            return False
        known = self.trajectories.state_mask.all(-1)
        return bool((known[:, :-1] & known[:, 1:] & self.trajectories.step_mask).any())

    @property
    def draws(self) -> int:
        """Samples of each world for comparisons by p-value: fewer where there are many worlds, to bound the memory."""
        return min(4096, max(512, 2**16 // len(self.worlds)))

    # --- randomness -----------------------------------------------------------------------------------------------

    def generator(self, stream: int = 0) -> torch.Generator:
        """Return a new generator; the same stream gives the same numbers."""
        return make_generator(1000 * self.seed + stream)

    def normal(
        self, size: int, particles: int, batch: tuple[int, ...], *, stream: int = 2, worlds: int | None = None
    ) -> Tensor | None:
        """Return noise (worlds, particles, *batch, size), or None for none."""
        shape = (len(self.worlds) if worlds is None else worlds, particles, *batch, size)
        drawn = standard_normal(shape, self.generator(stream), dtype=self.worlds.dtype, device=self.worlds.device)
        return drawn if size else None

    def step_noise(self, particles: int, *, stream: int = 2) -> Tensor:
        """Return the noise of one step of all rows, with a last axis of size 0 where the system has none."""
        shape = (len(self.worlds), particles, ROWS, self.worlds.noise_size)
        return standard_normal(shape, self.generator(stream), dtype=self.worlds.dtype, device=self.worlds.device)

    def noise(self, particles: int = PARTICLES, *, stream: int = 2) -> Noise:
        """Return the noise of a rollout of all rows over the horizon."""
        w = self.worlds
        shape = (len(w), particles, ROWS, HORIZON, w.noise_size)
        step = standard_normal(shape, self.generator(stream), dtype=w.dtype, device=w.device)
        return self.hidden_noise(particles, stream=stream + 1)._replace(step=step)

    def hidden_noise(self, particles: int, *, stream: int = 12, worlds: int | None = None) -> Noise:
        """Return what settles the start from known states: a hidden mode, a payload; nothing in most systems."""
        sizes = self.worlds.initial_noise_size(self.states), self.worlds.episode_noise_size
        drawn = (self.normal(n, particles, (ROWS,), stream=stream + i, worlds=worlds) for i, n in enumerate(sizes))
        return Noise(*drawn)

    # --- questions ------------------------------------------------------------------------------------------------

    def given_context(self, context: Tensor | None = None) -> Tensor | None:
        """Return the context argument: None where the system has none."""
        context = self.context if context is None else context
        return context if self.schema.context.size else None

    def start(self, worlds: Worlds | None = None, particles: int = 1) -> Any:
        """Return the carry at the recorded states."""
        worlds = self.worlds if worlds is None else worlds
        return worlds.start(self.states, self.context, self.hidden_noise(particles, worlds=len(worlds)))

    def law(self, worlds: Worlds | None = None, *, step: int = 0) -> Law:
        """Return the law of the next carry from the recorded states."""
        worlds = self.worlds if worlds is None else worlds
        return worlds.transition(self.start(worlds), self.actions, self.context, step=step)

    def predictive(
        self,
        state: Tensor | None = None,
        action: Tensor | None = None,
        *,
        context: Tensor | None = None,
        of: str = "state",
        worlds: int = WORLDS,
        model: DynamicsModel | None = None,
        stream: int = 3,
    ) -> Predictive:
        """Return the model's answer over one step."""
        return (self.model if model is None else model).predictive(
            self.states if state is None else state,
            self.actions if action is None else action,
            context=self.given_context(context),
            of=of,
            worlds=worlds,
            generator=self.generator(stream),
        )

    def rollout(
        self,
        *,
        model: DynamicsModel | Worlds | None = None,
        particles: int = PARTICLES,
        noise: Noise | None = None,
        stream: int = 3,
        fresh_worlds: bool = False,
    ) -> Predictive:
        """Return a rollout of all rows: of the worlds, or of a model that draws its own."""
        return rollout(
            self.worlds if model is None else model,
            self.states,
            self.plan,
            worlds=WORLDS,
            particles=particles,
            generator=self.generator(stream),
            context=self.given_context(),
            noise=noise,
            fresh_worlds=fresh_worlds,
        )

    @property
    def hidden(self) -> bool:
        """Whether a known state does not settle the start."""
        return bool(self.worlds.initial_noise_size(self.states) or self.worlds.episode_noise_size)

    def need_nothing_hidden(self) -> None:
        """Leave a check that compares answers for which hidden parts of the start are drawn inside.

        Raises
        ------
        NotApplicable
            If the start has such parts.
        """
        if self.hidden:
            raise NotApplicable("the start has hidden parts, which are drawn anew for each answer")

    # --- verdicts -------------------------------------------------------------------------------------------------

    def compare(
        self,
        got: Tensor,
        expected: Tensor,
        promise: str,
        *,
        cause: str,
        variance: bool = False,
        slack: float = 1.0,
    ) -> Iterator[Breach]:
        """Yield a breach if tensors (..., S) differ in shape or by more than rounding."""
        if got.shape != expected.shape:
            yield Breach(promise, f"shape {tuple(expected.shape)}", f"shape {tuple(got.shape)}", cause)
            return
        size = expected.detach().abs()
        tiny = slack * self.rounding * (self.scale if variance else torch.maximum(self.scale, size))
        # a variance is a square: an error of `tiny` in what is squared moves it by this much
        limit = tiny.square() + 2 * tiny * size.sqrt() + slack * self.rounding * size if variance else tiny
        ratio, where = worst(got - expected, limit)
        if ratio > 1:
            yield Breach(
                promise,
                f"{float(expected[where]):.6g} at {where} of shape {tuple(expected.shape)}",
                f"{float(got[where]):.6g}",
                cause,
            )

    def refuted(self, p_values: Tensor) -> bool:
        """Whether p-values (any shape) are too small for chance, all comparisons of the run together."""
        if p_values.numel() == 0:
            return False
        return float(p_values.nan_to_num(nan=0.0).min()) * p_values.numel() * STATISTICAL_CHECKS < self.p_value


def require_fit(model: DynamicsModel, trajectories: Trajectories) -> None:
    """Refuse trajectories of another system than the model's.

    Raises
    ------
    SpecError
        If numbers of columns differ.
    """
    for group in ("state", "action", "context"):
        own, given = getattr(model.schema, group), getattr(trajectories.schema, group)
        if own.size != given.size:
            raise SpecError(
                f"expected trajectories with {group} ({', '.join(own.columns)}), as the model has, "
                f"got ({', '.join(given.columns)})"
            )


def identical(got: Tensor, expected: Tensor) -> bool:
    """Whether two tensors agree bit for bit, NaN included."""
    return got.shape == expected.shape and bool(((got == expected) | (got.isnan() & expected.isnan())).all())
