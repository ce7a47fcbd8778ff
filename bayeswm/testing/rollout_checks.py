"""Checks of what happens along a horizon: stepping, replayed noise, filtering and smoothing."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from bayeswm.base.errors import NotInvertible
from bayeswm.base.rollout import rollout
from bayeswm.base.trajectories import Trajectories
from bayeswm.base.worlds import MarkovWorlds, Noise
from bayeswm.testing.case import HORIZON, PARTICLES, ROWS, Case, identical
from bayeswm.testing.report import Breach, NotApplicable


def rollout_starts_with_predictive(case: Case) -> Iterator[Breach]:
    """The first step of a rollout has the moments of the one-step predictive."""
    case.need_nothing_hidden()
    p, r = case.predictive(), case.rollout(model=case.model)
    if not case.worlds.exhaustive and (p.worlds != r.worlds or p.laws[0].mean.shape != r.laws[0].mean.shape):
        raise NotApplicable("the predictive is no mixture of as many drawn worlds")
    cause = "predictive and rollout use different laws: noise counted twice in one, or dropped"
    yield from case.compare(
        r.mean[..., :1, :], p.mean, "a rollout's first step has the predictive's mean", cause=cause, slack=10
    )
    for name in ("variance", "aleatoric_variance", "epistemic_variance"):
        promise = f"a rollout's first step has the predictive's {name.replace('_', ' ')}"
        got, expected = getattr(r, name)[..., :1, :], getattr(p, name)
        yield from case.compare(got, expected, promise, cause=cause, variance=True, slack=10)


def stepping_is_rolling_out(case: Case) -> Iterator[Breach]:
    """Passing the carry on by hand gives the rollout's trajectory and laws, and twice the same."""
    worlds, noise = case.worlds, case.noise()
    whole = case.rollout(noise=noise)
    drawn = case.states.new_empty(0) if noise.step is None else noise.step
    cause = (
        "the worlds keep a state of their own instead of the carry, or step differs from transition(...).push(noise)"
    )
    for attempt in range(2):
        carry = worlds.start(case.states, case.context, noise)
        for t in range(HORIZON):
            law = worlds.transition(carry, case.plan[:, t], case.context, step=t)
            stepped = worlds.step(carry, case.plan[:, t], case.context, noise=drawn[..., t, :], step=t)
            carry = law.push(drawn[..., t, :])
            state = worlds.state(carry)
            if not identical(worlds.state(stepped), state):
                yield Breach("step is the transition's law, pushed", "the same state", "another", cause)
            promise = f"replaying the same noise gives the same trajectory (step {t}, time {attempt + 1})"
            wide = state.expand(len(worlds), PARTICLES, ROWS, -1)
            yield from case.compare(wide, whole.particles[..., t, :], promise, cause=cause, slack=10)


def same_function_at_every_step(case: Case) -> Iterator[Breach]:
    """A world is the same function at every step; skip this for a system that changes with time on purpose."""
    first = case.law(step=0).mean
    again = case.law(step=0).mean
    if not identical(first, again):
        cause = "the world draws something at each call; draw it once, in draw"
        yield Breach("a world is a fixed function", "the same law for the same input", "another one", cause)
    for t in (1, HORIZON):
        cause = (
            "a fresh world at each step, which is the named option fresh_worlds=True of rollout and never a default; "
            "if the system changes with time on purpose, pass skip=('same_function_at_every_step',)"
        )
        promise = f"a world is the same function at step {t} as at step 0"
        yield from case.compare(case.law(step=t).mean, first, promise, cause=cause)


def fresh_worlds_are_an_option(case: Case) -> Iterator[Breach]:
    """``fresh_worlds=True`` runs, and starts like the rollout in fixed worlds."""
    fixed, fresh = case.rollout(), case.rollout(fresh_worlds=True)
    cause = "the carry or the law cannot be reordered; give them leading axes (worlds, particles, *batch), and map"
    promise = "a rollout with fresh worlds has the first step of one with fixed worlds"
    yield from case.compare(fresh.particles[..., 0, :], fixed.particles[..., 0, :], promise, cause=cause)
    if not bool(fresh.particles.isfinite().all()) and bool(fixed.particles.isfinite().all()):
        yield Breach("a rollout with fresh worlds is finite", "finite particles", "NaN or infinity", cause)


def filter_follows_measurements(case: Case) -> Iterator[Breach]:
    """``filter`` returns a carry and a log density; in an exactly observed Markov system the state and the law's."""
    worlds, law = case.worlds, case.law()
    carry = case.start()
    moved = law.push(case.step_noise(1))
    seen = worlds.measurement(moved).mean.detach()[0, 0]
    if seen.shape != (ROWS, case.schema.measured.size):
        cause = "measurement is not over the observation's columns"
        shape = (ROWS, case.schema.measured.size)
        yield Breach("a measurement has the observation's variables", f"{shape}", f"{tuple(seen.shape)}", cause)
        return
    filtered, log_prob = worlds.filter(carry, case.actions, case.context, seen)
    cause = "filter does not predict with the transition's law before it updates"
    if log_prob.shape != (len(worlds), 1, ROWS):
        yield Breach(
            "filter's log density has axes (worlds, particles, *batch)",
            f"{(len(worlds), 1, ROWS)}",
            f"{tuple(log_prob.shape)}",
            cause,
        )
    state = worlds.state(filtered)
    if state.shape[2:] != case.states.shape:
        yield Breach("filter returns a carry", f"states {tuple(case.states.shape)}", f"{tuple(state.shape)}", cause)
    elif worlds.state_is_measured:
        promise = "filtering on an exact measurement of the state returns that state"
        yield from case.compare(state, seen.expand_as(state), promise, cause=cause)
        expected = law.log_prob(seen).detach()
        close = (log_prob == expected) | ((log_prob - expected).abs() <= 1e3 * case.rounding * (1 + expected.abs()))
        if not bool(close.all()):
            promise = "filtering on an exact measurement returns the law's log density"
            gap = (log_prob - expected).abs().nan_to_num(nan=torch.inf).max()
            yield Breach(promise, "law.log_prob(measurement)", f"a gap of {float(gap):.4g}", cause)


def smoothed_noise_replays(case: Case) -> Iterator[Breach]:
    """Noise that ``smooth`` finds in a simulated trajectory reproduces it when rolled out."""
    if not case.worlds.state_is_measured:
        raise NotApplicable(
            "the state is not observed exactly: a draw of the noise need not give the measurements back"
        )
    world = case.worlds[0]
    noise = Noise(*(None if v is None else v[:1] for v in case.noise(1)))
    path = case.rollout(model=world, particles=1, noise=noise).particles[0, 0].detach()
    reward = torch.zeros(ROWS, HORIZON) if case.schema.reward else None
    trajectory = Trajectories(
        case.schema,
        state=torch.cat((case.states[:, None], path), 1),
        action=case.plan,
        context=case.given_context(),
        observation=None if case.schema.observation is None else torch.cat((case.states[:, None], path), 1),
        reward=reward,
    )
    try:
        found, log_prob = world.smooth(trajectory, generator=case.generator(10))
    except NotInvertible as error:
        if case.worlds[0].noise_size == case.schema.state.size or not world.noise_size:
            cause = "abduct is not the inverse of push, or the worlds are not fixed"
            yield Breach(
                "smooth finds the noise of a trajectory of this very world", "noise", f"NotInvertible: {error}", cause
            )
            return
        raise NotApplicable(f"the law says that it is no bijection in its noise: {error}") from None
    cause = "abduct is not the exact inverse of push, or smooth forgets actions, contexts or steps"
    if log_prob.shape != (1, 1, ROWS):
        promise = "smooth's log density has axes (worlds, particles, episodes)"
        yield Breach(promise, f"{(1, 1, ROWS)}", f"{tuple(log_prob.shape)}", cause)
    alone = world.abduct(trajectory, generator=case.generator(10))
    for part, one, other in zip(Noise._fields, found, alone, strict=True):
        close = {"rtol": 1e3 * case.rounding, "atol": 1e3 * case.rounding, "equal_nan": True}
        if one is not None and (other is None or not torch.allclose(other, one, **close)):
            yield Breach(f"abduct finds the {part} noise that smooth does", "equal noise", "another", cause)
    states = trajectory.states().to(case.states)
    replayed = rollout(
        world, states[:, 0], case.plan, particles=1, context=case.given_context(), noise=found
    ).particles[0, 0]
    promise = "noise found by smooth, replayed, gives the trajectory back"
    yield from case.compare(replayed, states[:, 1:], promise, cause=cause, slack=100)


def history_leads_to_state(case: Case) -> Iterator[Breach]:
    """``history=`` of an exactly observed Markov system is its last state; of a hidden state, what ``filter`` says."""
    if not isinstance(case.worlds, MarkovWorlds):
        yield from _history_is_filtered(case)
        return
    if case.trajectories.state is None:
        raise NotApplicable("the state was not recorded")
    case.need_nothing_hidden()
    rows = torch.arange(len(case.trajectories))
    known = ~case.trajectories.states()[rows, case.trajectories.lengths].isnan().any(-1)
    if not bool(known.any()):
        raise NotApplicable("no recorded episode ends with a fully recorded state")
    history = case.trajectories[known.nonzero().flatten()[:ROWS]]
    last = history.states()[torch.arange(len(history)), history.lengths].to(case.states)
    n = len(history)
    context = case.given_context(case.context[:n])

    def ask(state: Tensor | None, past: Trajectories | None) -> Tensor:
        return case.model.predictive(
            state, case.actions[:n], context=context, history=past, worlds=PARTICLES, generator=case.generator(3)
        ).mean

    by_history, by_state = ask(None, history), ask(last, None)
    promise = "predictive(history=...) equals predictive(last state of it)"
    yield from case.compare(by_history, by_state, promise, cause="the history is cut or read in another order")


def _history_is_filtered(case: Case) -> Iterator[Breach]:
    """The start from a history is that from a shorter one, filtered on what came next."""
    worlds = case.worlds
    every = case.trajectories.histories(1, stride=1)
    measured = every.measured_as(worlds.schema)
    # all of one length, so that whatever a filter draws is drawn alike
    at = (every.lengths == 2).nonzero().flatten()
    at = at[~measured[at, :3].isnan().flatten(1).any(-1)][:ROWS] if every.horizon > 1 else at
    if not len(at):
        raise NotApplicable("no episode was recorded without gaps for two steps and more")
    before, after, seen = every[at - 1], every[at], measured[at, 2].to(worlds.device, worlds.dtype)
    action, context = (v[:, 1].to(worlds.device, worlds.dtype) for v in (after.action, after.step_context()))
    carry, log_prob = worlds.filter(worlds.start(before), action, context, seen, step=1)
    expected, got = worlds.state(carry), worlds.state(worlds.start(after))
    cause = "the history is cut or read in another order, or start and filter update differently"
    if not bool(log_prob.isfinite().all()):
        promise = "filter finds a density for what was recorded"
        yield Breach(promise, "finite log densities", f"{float(log_prob.min()):.4g}", cause)
    promise = "the start from a history equals filtering on from a shorter one"
    yield from case.compare(got.expand_as(expected), expected, promise, cause=cause, slack=100)
