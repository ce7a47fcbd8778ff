"""Checks of good conduct: bad input is refused, and nothing of the caller's is touched."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from bayeswm.base.errors import DataError, SpecError
from bayeswm.base.rollout import rollout
from bayeswm.testing.case import HORIZON, PARTICLES, WORLDS, Case, identical
from bayeswm.testing.report import Breach
from bayeswm.testing.surroundings import kept_surroundings, reseed, surroundings


def bad_numbers_are_refused(case: Case) -> Iterator[Breach]:
    """NaN and infinity in states, actions or contexts end in a DataError."""
    inputs = {"state": case.states, "action": case.actions, "context": case.context, "plan": case.plan}
    for name, values in inputs.items():
        if values.shape[-1] == 0:
            continue
        for word, number in (("NaN", float("nan")), ("infinity", float("inf"))):
            spoilt = values.clone()
            spoilt[1, ..., 0] = number
            given = {**inputs, name: spoilt}
            for kind, ask in _questions(case, given).items():
                if (name == "plan" and kind == "predictive") or (name == "action" and kind == "rollout"):
                    continue
                cause = (
                    "NaN is swallowed (nan_to_num, a comparison that it loses) or passed on; check the inputs and raise"
                )
                promise = f"{kind} refuses {word} in the {'action' if name == 'plan' else name}"
                yield from _must_raise(ask, (DataError,), promise, cause=cause)


def wrong_sizes_are_refused(case: Case) -> Iterator[Breach]:
    """States, actions and contexts with a column too many, and arguments that make no sense, end in a named error."""
    inputs = {"state": case.states, "action": case.actions, "context": case.context, "plan": case.plan}
    for name, values in inputs.items():
        wide = torch.cat((values, values.new_zeros(*values.shape[:-1], 1)), -1)
        for kind, ask in _questions(case, {**inputs, name: wide}).items():
            if (name == "plan" and kind == "predictive") or (name == "action" and kind == "rollout"):
                continue
            if name == "context" and not case.schema.context.size:
                continue
            cause = "sizes are not checked against the schema, or columns are cut off"
            yield from _must_raise(
                ask, (DataError, SpecError), f"{kind} refuses a {name} with a column too many", cause=cause
            )
    cause = "the argument is not checked"
    yield from _must_raise(
        lambda: case.predictive(of="nonsense"), (SpecError,), "predictive refuses an unknown of=", cause=cause
    )
    yield from _must_raise(
        lambda: case.model.predictive(None, case.actions),
        (SpecError, DataError),
        "predictive needs a state or a history",
        cause=cause,
    )


def inputs_are_not_changed(case: Case) -> Iterator[Breach]:
    """States, actions, contexts, noise and the model's own parameters are read, never written."""
    noise = case.noise()
    given: dict[str, Tensor] = {
        "state": case.states,
        "action": case.actions,
        "context": case.context,
        "plan": case.plan,
    }
    given |= {f"{k} noise": v for k, v in noise._asdict().items() if v is not None}
    given |= {f"parameter {k!r} of the worlds": v for k, v in case.worlds.parameters.items()}
    given["log_weight of the worlds"] = case.worlds.log_weight
    kept = {k: v.detach().clone() for k, v in given.items()}
    carry = case.start()
    state = case.worlds.state(carry).detach().clone()
    law = case.worlds.transition(carry, case.actions, case.context)
    mean = law.mean.detach().clone()
    law.push(case.step_noise(PARTICLES))
    case.predictive()
    case.rollout(noise=noise)
    found = {
        **given,
        "state of a carry that was stepped": case.worlds.state(carry),
        "mean of a law that was pushed": law.mean,
    }
    kept |= {"state of a carry that was stepped": state, "mean of a law that was pushed": mean}
    for name, values in found.items():
        if not identical(values.detach(), kept[name]):
            cause = "an operation in place (+=, .copy_, .clamp_) on something that belongs to the caller"
            yield Breach(f"the {name} is left as it was", "equal values", "changed ones", cause)
            values.detach().copy_(kept[name])  # the other checks go on with what was given


def surroundings_are_not_changed(case: Case) -> Iterator[Breach]:
    """The global random state, the default dtype, the thread count and the gradient mode stay as they were."""
    actions: dict[str, Callable[[], Any]] = {
        "draw": lambda: case.model.draw(WORLDS, generator=case.generator(3)),
        "predictive": lambda: case.predictive().variance,
        "sample": lambda: case.predictive().sample(5, generator=case.generator(4)),
        "rollout": lambda: case.rollout(model=case.model).variance,
    }
    for name, act in actions.items():
        with kept_surroundings():
            reseed(12345)  # somewhere where no model has put it before
            before = surroundings()
            act()
            after = surroundings()
        for what, values in before.items():
            if values != after[what]:
                cause = (
                    "random numbers come from the global state, or it is seeded; draw with the generator"
                    if "random" in what
                    else "a global setting is changed and not restored"
                )
                yield Breach(f"{name} leaves {what} as it was", "no change", "a change", cause)


def _questions(case: Case, given: Mapping[str, Tensor]) -> dict[str, Callable[[], Any]]:
    context = case.given_context(given["context"])
    return {
        "predictive": lambda: (
            case.model.predictive(
                given["state"], given["action"], context=context, worlds=WORLDS, generator=case.generator(3)
            ).mean
        ),
        "rollout": lambda: (
            rollout(
                case.model,
                given["state"],
                given["plan"],
                worlds=WORLDS,
                particles=PARTICLES,
                context=context,
                generator=case.generator(3),
                horizon=HORIZON,
            ).mean
        ),
    }


def _must_raise(
    act: Callable[[], Any], errors: tuple[type[Exception], ...], promise: str, *, cause: str
) -> Iterator[Breach]:
    expected = " or ".join(e.__name__ for e in errors)
    try:
        act()
    except errors:
        return
    except Exception as error:
        yield Breach(promise, expected, f"{type(error).__name__}: {error}", cause)
    else:
        yield Breach(promise, expected, "an answer", cause)
