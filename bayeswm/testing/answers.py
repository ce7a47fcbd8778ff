"""Checks of the shape of answers, and that an answer does not depend on what else is asked."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from bayeswm.base.predictive import Predictive
from bayeswm.base.rollout import rollout
from bayeswm.base.worlds import Noise
from bayeswm.testing.case import HORIZON, PARTICLES, ROWS, WORLDS, Case
from bayeswm.testing.report import Breach

AXES = "an axis is lost, added or in another place; the axes are (sample, worlds, particles, *batch, horizon, variable)"
BATCHES = ((), (3,), (2, 3))


def predictive_shapes(case: Case) -> Iterator[Breach]:
    """Every answer of a one-step predictive has its documented shape and is finite, for any batch."""
    for batch in BATCHES:
        count = int(torch.tensor(batch).prod()) if batch else 1
        state, action, context = (v[:count].reshape(*batch, -1) for v in (case.states, case.actions, case.context))
        for of, size in (("state", case.schema.state.size), ("measurement", case.schema.measured.size)):
            p = case.predictive(state, action, context=context, of=of)
            yield from _shapes(f"predictive(of={of!r}) of batch {batch}", p, (*batch, 1, size), case=case)
        function = case.predictive(state, action, context=context, of="function")
        shape = (*batch, 1, case.schema.state.size)
        yield from _expect(f"predictive(of='function').mean of batch {batch}", function.mean, shape)


def predictive_broadcasts(case: Case) -> Iterator[Breach]:
    """One action for many states, and one state for many actions, are as good as copies of them."""
    case.need_nothing_hidden()
    one = (case.states[0], case.actions[0])
    wide = tuple(v.expand(ROWS, -1) for v in one)
    context = case.context[0]
    for name, given, full in (
        ("one action for many states", (case.states, one[1]), (case.states, wide[1])),
        ("one state for many actions", (one[0], case.actions), (wide[0], case.actions)),
    ):
        got = case.predictive(*given, context=context).mean
        expected = case.predictive(*full, context=context.expand(ROWS, -1)).mean
        yield from case.compare(
            got, expected, f"{name} broadcasts", cause="state and action are not broadcast together"
        )


def rollout_shapes(case: Case) -> Iterator[Breach]:
    """Every answer of a rollout has its documented shape, for any batch, an empty horizon and a policy."""
    size = case.schema.state.size
    for batch in BATCHES:
        count = int(torch.tensor(batch).prod()) if batch else 1
        state, context = (v[:count].reshape(*batch, -1) for v in (case.states, case.context))
        plan = case.plan[:count].reshape(*batch, HORIZON, -1)
        for steps in (HORIZON, 0):
            r = rollout(
                case.model,
                state,
                plan[..., :steps, :],
                worlds=WORLDS,
                particles=PARTICLES,
                generator=case.generator(3),
                context=case.given_context(context),
            )
            name = f"a rollout of batch {batch} over {steps} steps"
            shape = (len(case.worlds), PARTICLES, *batch, steps, size)
            yield from _expect(f"particles of {name}", r.particles, shape)
            for h, law in enumerate(r.laws):
                wide = (len(case.worlds), PARTICLES, *batch, size)
                narrow = (len(case.worlds), 1, *batch, size)
                if tuple(law.mean.shape) not in (wide, narrow):
                    yield from _expect(f"the law's mean at step {h} of {name}", law.mean, wide)
            yield from _shapes(name, r, (*batch, steps, size), case=case, density=False)
    first = case.plan[0, 0]
    r = rollout(
        case.model,
        case.states,
        lambda x, _: first.expand(*x.shape[:-1], -1),
        horizon=HORIZON,
        worlds=WORLDS,
        particles=PARTICLES,
        generator=case.generator(3),
        context=case.given_context(),
    )
    yield from _expect("particles under a policy", r.particles, (len(case.worlds), PARTICLES, ROWS, HORIZON, size))


def rows_are_independent(case: Case) -> Iterator[Breach]:
    """A row's answer does not depend on the other rows: one batch, its parts and single rows agree."""
    cause = "something is computed over the batch axis (a batch normalisation, a mean over rows) or rows are mixed up"
    whole = case.law()
    parts = [slice(0, 2), slice(2, ROWS), slice(4, 5)]
    hidden = case.hidden_noise(1)
    for part in parts:
        noise = Noise(*(None if v is None else v[:, :, part] for v in hidden))
        carry = case.worlds.start(case.states[part], case.context[part], noise)
        law = case.worlds.transition(carry, case.actions[part], case.context[part])
        promise = "predictions of a row do not depend on the rest of the batch"
        yield from case.compare(law.mean, whole.mean[:, :, part], promise, cause=cause)
        yield from case.compare(law.variance, whole.variance[:, :, part], promise, cause=cause, variance=True)
    if not case.hidden:
        full = case.predictive()
        for i in (0, ROWS - 1):
            one = case.predictive(case.states[i], case.actions[i], context=case.context[i])
            promise = "the predictive of one row equals its row in a batch"
            yield from case.compare(one.mean, full.mean[i], promise, cause=cause)
            yield from case.compare(one.variance, full.variance[i], promise, cause=cause, variance=True)
        grid = (case.states.view(2, 3, -1), case.actions.view(2, 3, -1), case.context.view(2, 3, -1))
        shaped = case.predictive(grid[0], grid[1], context=grid[2])
        promise = "a batch of shape (2, 3) equals the same rows in a batch of shape (6,)"
        yield from case.compare(shaped.mean, full.mean.view(2, 3, 1, -1), promise, cause=cause)


def chunks_are_independent(case: Case) -> Iterator[Breach]:
    """A rollout in one call equals the same noise rolled out in parts, over rows and over particles."""
    noise = case.noise()
    whole = case.rollout(noise=noise).particles
    cause = "something is computed over the {} axis, or they are mixed up on the way"
    for rows in (slice(0, 2), slice(2, ROWS)):
        r = rollout(
            case.worlds,
            case.states[rows],
            case.plan[rows],
            particles=PARTICLES,
            context=None if case.given_context() is None else case.context[rows],
            noise=Noise(*(None if v is None else v[:, :, rows] for v in noise)),
        )
        promise = "a rollout of many rows equals rollouts of parts of them"
        yield from case.compare(r.particles, whole[:, :, rows], promise, cause=cause.format("batch"), slack=10)
    for chosen in (slice(0, 1), slice(1, PARTICLES)):
        part = Noise(*(None if v is None else v[:, chosen] for v in noise))
        r = case.rollout(particles=len(range(PARTICLES)[chosen]), noise=part)
        promise = "a rollout of many particles equals rollouts of parts of them"
        yield from case.compare(r.particles, whole[:, chosen], promise, cause=cause.format("particle"), slack=10)


def _shapes(name: str, p: Predictive, shape: tuple[int, ...], *, case: Case, density: bool = True) -> Iterator[Breach]:
    answers: dict[str, Tensor] = {"mean": p.mean, "variance": p.variance, "stddev": p.stddev}
    answers["aleatoric_variance"], answers["epistemic_variance"] = p.aleatoric_variance, p.epistemic_variance
    answers["quantile(0.3)"], answers["interval(0.9)[1]"] = p.quantile(0.3), p.interval(0.9)[1]
    answers["cdf(mean)"] = p.cdf(p.mean)
    wrong = False
    for what, values in answers.items():
        for breach in _expect(f"{what} of {name}", values, shape):
            wrong = True
            yield breach
    if wrong:
        return
    yield from _expect(f"covariance of {name}", p.covariance, (*shape, shape[-1]))
    yield from _expect(f"sample(5) of {name}", p.sample(5, generator=case.generator(4)), (5, *shape))
    levels = torch.tensor([0.1, 0.5])
    yield from _expect(f"quantile of 2 levels of {name}", p.quantile(levels), (2, *shape))
    if density and p.has_density:
        outcome = p.mean
        yield from _expect(f"log_prob of {name}", p.log_prob(outcome), shape[:-2], finite=False)
        yield from _expect(f"marginal log_prob of {name}", p.log_prob(outcome, marginal=True), shape, finite=False)


def _expect(name: str, values: Tensor, shape: tuple[int, ...], *, finite: bool = True) -> Iterator[Breach]:
    if tuple(values.shape) != tuple(shape):
        yield Breach(f"{name} has its documented axes", f"shape {tuple(shape)}", f"shape {tuple(values.shape)}", AXES)
    elif bool(values.isnan().any()) or (finite and bool(values.isinf().any())):
        bad = int((~values.isfinite()).sum())
        cause = "NaN or infinity arises inside and is passed on"
        yield Breach(f"{name} is finite", "finite numbers", f"{bad} of {values.numel()} that are not", cause)
