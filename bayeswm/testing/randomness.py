"""Checks that all randomness comes from the generator that is passed in, and that it is used."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from torch import Tensor

from bayeswm.base.errors import SpecError
from bayeswm.testing.case import WORLDS, Case, identical
from bayeswm.testing.report import Breach
from bayeswm.testing.surroundings import kept_surroundings, reseed

IGNORED = "the generator is accepted and ignored; draw all noise with it (torch.randn(..., generator=generator))"
GLOBAL = "torch's or NumPy's global random state is used instead of the generator"


def same_seed_same_answer(case: Case) -> Iterator[Breach]:
    """Everything drawn with equal generators is equal bit for bit, whatever the global random state is."""
    with kept_surroundings():
        reseed(1)
        first = _answers(case, stream=3)
        again = _answers(case, stream=3)
        reseed(1)
        repeated = _answers(case, stream=3)
    for name, values in first.items():
        if identical(again[name], values):
            continue
        # equal once the global state is equal too: that is where the numbers come from
        cause = GLOBAL + "; " + IGNORED if identical(repeated[name], values) else "the model keeps a state that changes"
        yield Breach(
            f"{name}: the same generator gives the same answer", "equal numbers, bit for bit", "different ones", cause
        )


def generator_is_used(case: Case) -> Iterator[Breach]:
    """Other seeds give other worlds, where worlds are drawn, and other noise, where there is noise."""
    first, second = _answers(case, stream=3), _answers(case, stream=5)
    if not case.worlds.exhaustive:
        promise = "drawn worlds depend on the generator"
        if identical(first["law of drawn worlds"], second["law of drawn worlds"]):
            yield Breach(promise, "other worlds for another seed", "the same worlds", IGNORED)
        try:
            case.model.draw(WORLDS)
        except SpecError:
            pass
        else:
            cause = "randomness is taken from somewhere else when no generator is given; raise SpecError"
            yield Breach("drawing worlds needs a generator", "SpecError without one", "worlds", cause)
    if case.worlds.noise_size and bool((case.law().variance > 0).any()):
        same = case.rollout(stream=3).particles, case.rollout(stream=5).particles
        if identical(*same):
            promise = "the noise of a rollout depends on the generator"
            yield Breach(promise, "other particles for another seed", "the same particles", IGNORED)


def _answers(case: Case, *, stream: int) -> Mapping[str, Tensor]:
    drawn = case.model.draw(WORLDS, generator=case.generator(stream))
    p = case.predictive(stream=stream)
    r = case.rollout(model=case.model, stream=stream)
    answers = {f"parameter {k!r} of drawn worlds": v for k, v in drawn.parameters.items()}
    answers["law of drawn worlds"] = case.law(drawn).mean
    answers["mean of the predictive"], answers["variance of the predictive"] = p.mean, p.variance
    answers["samples of the predictive"] = p.sample(5, generator=case.generator(stream))
    answers["particles of a rollout"] = r.particles
    return {k: v.detach() for k, v in answers.items()}
