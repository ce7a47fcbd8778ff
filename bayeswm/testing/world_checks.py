"""Checks of the collection of worlds: weights, indexing, replaced parameters, and the carry."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from bayeswm.base.errors import SpecError, UnknownVariableError
from bayeswm.base.trees import tree_map
from bayeswm.base.worlds import Worlds
from bayeswm.testing.case import PARTICLES, ROWS, WORLDS, Case, identical
from bayeswm.testing.report import Breach, NotApplicable


def weights_are_normalised(case: Case) -> Iterator[Breach]:
    """One log weight a world, summing to 1 as weights."""
    worlds = case.worlds
    weight = worlds.log_weight
    if weight.shape != (len(worlds),) or bool(weight.isnan().any()):
        cause = "log_weight is not one number a world"
        yield Breach("log_weight has shape (worlds,)", f"({len(worlds)},) without NaN", f"{tuple(weight.shape)}", cause)
        return
    total = float(weight.double().exp().sum())
    if not abs(total - 1) < 1e-6:
        cause = "weights are kept as they came; apply torch.log_softmax"
        yield Breach("weights of the worlds sum to 1", "1", f"{total:.6g}", cause)
    for name, values in worlds.parameters.items():
        if values.shape[:1] != (len(worlds),):
            cause = "a parameter that all worlds share; expand it"
            promise = f"parameter {name!r} has one value a world"
            yield Breach(promise, f"a first axis of {len(worlds)}", f"shape {tuple(values.shape)}", cause)
    if worlds.schema != case.model.schema:
        yield Breach(
            "worlds have the model's schema", repr(case.model.schema), repr(worlds.schema), "schemas got mixed up"
        )


def drawn_worlds_differ(case: Case) -> Iterator[Breach]:
    """Worlds that are drawn from a posterior are not copies of one another."""
    worlds = case.worlds
    if worlds.exhaustive:
        raise NotApplicable("the worlds are the posterior")
    law = case.law()
    alike = [law.mean, law.variance, *worlds.parameters.values()]
    if all(identical(v, v[:1].expand_as(v)) for v in alike):
        cause = "all worlds are the same: the epistemic variance is dropped in draw; a known system is exhaustive=True"
        yield Breach("drawn worlds differ", f"{len(worlds)} draws from the posterior", "copies of one world", cause)


def exhaustive_worlds_are_the_posterior(case: Case) -> Iterator[Breach]:
    """An exhaustive posterior gives the same worlds however many are asked for; any other, as many as are asked for."""
    counts = (1, WORLDS + 3)
    first, second = (case.model.draw(n, generator=case.generator(i)) for i, n in enumerate(counts))
    if not case.worlds.exhaustive:
        for n, drawn in zip(counts, (first, second), strict=True):
            if len(drawn) != n or drawn.exhaustive:
                cause = "the number of worlds is ignored, or exhaustive is set on draws"
                yield Breach("draw(n) gives n worlds", f"{n} draws", repr(drawn), cause)
        return
    cause = "exhaustive=True is set on worlds that are drawn at random; set it to False, or return all of them"
    for drawn in (first, second):
        same = (
            len(drawn) == len(case.worlds) and drawn.exhaustive and identical(drawn.log_weight, case.worlds.log_weight)
        )
        if not same or not identical(case.law(drawn).mean, case.law().mean):
            promise = "an exhaustive posterior returns each world once, whatever draw is asked for"
            yield Breach(promise, repr(case.worlds), f"{drawn!r}, with other weights or laws", cause)


def worlds_can_be_indexed(case: Case) -> Iterator[Breach]:
    """Part of the worlds gives their part of the law, with weights that sum to 1 again."""
    worlds, n = case.worlds, len(case.worlds)
    whole = case.law()
    cause = "not every part of the worlds is indexed (parameters, weights, caches)"
    for index in (0, n - 1, slice(0, max(1, n // 2)), list(range(n))[::-1], torch.tensor([0] * 2)):
        chosen = torch.arange(n)[torch.as_tensor(index) if isinstance(index, list) else index].reshape(-1)
        part = worlds[index]
        promise = f"worlds[{index}] are these worlds"
        if len(part) != len(chosen):
            yield Breach(promise, f"{len(chosen)} worlds", f"{len(part)}", cause)
            continue
        if not case.hidden:
            law = case.law(part)
            yield from case.compare(
                law.mean, whole.mean[chosen], f"{promise}: their laws have the same mean", cause=cause
            )
            name = f"{promise}: their laws have the same variance"
            yield from case.compare(law.variance, whole.variance[chosen], name, cause=cause, variance=True)
        expected = torch.log_softmax(worlds.log_weight[chosen], 0).exp()
        if not torch.allclose(part.weight, expected):
            yield Breach(f"{promise}: weights sum to 1", f"{expected.tolist()}", f"{part.weight.tolist()}", cause)
        whole_again = worlds.exhaustive and len(chosen) == n == len(chosen.unique())
        if part.exhaustive != whole_again:
            name = f"{promise}: exhaustive means that no world is missing"
            yield Breach(name, str(whole_again), str(part.exhaustive), "the flag is copied")


def parameters_can_be_replaced(case: Case) -> Iterator[Breach]:
    """``replace`` sets a parameter in a copy, and refuses a name that is none."""
    worlds = case.worlds
    try:
        worlds.replace(no_such_parameter=1.0)
    except UnknownVariableError:
        pass
    else:
        cause = "unknown names are added or ignored"
        yield Breach("replace refuses an unknown parameter", "UnknownVariableError", "worlds", cause)
    if not worlds.parameters:
        raise NotApplicable("the worlds have no named parameters")
    name, values = next(iter(worlds.parameters.items()))
    before = values.clone()
    mean = case.law().mean
    same = worlds.replace(**{name: values})
    cause = "replace rebuilds the worlds without all that they hold"
    yield from case.compare(case.law(same).mean, mean, "replacing a parameter by itself changes nothing", cause=cause)
    other = values.roll(1, 0) if len(worlds) > 1 else 1.01 * values  # values that make sense, whatever they mean
    changed = worlds.replace(**{name: other}).parameters[name]
    if not identical(changed, other):
        yield Breach(f"replace({name}=...) sets the parameter", "the new values", "others", cause)
    if not identical(worlds.parameters[name], before):
        yield Breach(
            "replace leaves the worlds as they are", "unchanged parameters", "changed ones", "it writes in place"
        )


def carry_is_a_tree_of_tensors(case: Case) -> Iterator[Breach]:
    """A carry is nested tensors with leading axes (worlds, particles, *batch); ``state`` reads it."""
    worlds = case.worlds
    size = (len(worlds), PARTICLES, ROWS)
    carry = case.start(particles=PARTICLES if case.hidden else 1)
    law = worlds.transition(carry, case.actions, case.context)
    later = law.push(case.step_noise(PARTICLES))
    cause = "the carry holds axes in another order, or something that is no tensor"
    for name, tree in (("start", carry), ("push", later)):
        leaves: list[Tensor] = []
        try:
            tree_map(lambda v, leaves=leaves: (leaves.append(v), v)[1], tree)
        except SpecError as error:
            yield Breach(
                f"the carry of {name} is nested tensors", "tensors, tuples, lists, dictionaries", str(error), cause
            )
            continue
        for leaf in leaves:
            if any(have not in (1, want) for have, want in zip(leaf.shape, size, strict=False)) or leaf.ndim < len(
                size
            ):
                promise = f"the carry of {name} has leading axes (worlds, particles, *batch)"
                yield Breach(promise, f"axes that expand to {size}", f"shape {tuple(leaf.shape)}", cause)
        state = worlds.state(tree)
        shape = (*size, case.schema.state.size)
        if (
            state.ndim != len(shape)
            or any(h not in (1, w) for h, w in zip(state.shape[:2], size, strict=False))
            or (state.shape[2:] != shape[2:])
        ):
            promise = f"worlds.state(carry) of {name} has axes (worlds, particles, *batch, variable)"
            yield Breach(promise, f"{shape}", f"{tuple(state.shape)}", cause)
    started = worlds.state(case.start())
    if started.shape[2:] == case.states.shape:
        promise = "the state of the carry at the start is the state that was given"
        yield from case.compare(started, case.states.expand_as(started), promise, cause="start changes the state")


def worlds_do_not_mix(case: Case) -> Iterator[Breach]:
    """A world alone moves as it does among others, step after step: worlds are fixed along the horizon."""
    worlds = case.worlds
    noise = case.noise()
    whole = case.rollout(noise=noise).particles
    cause = (
        "another world is used at some step (a fresh world each step is the named option fresh_worlds=True of rollout, "
        "never a default), or worlds share something"
    )
    for i in {0, len(worlds) - 1}:
        alone: Worlds = worlds[i]
        part = noise._replace(**{k: None if v is None else v[i : i + 1] for k, v in noise._asdict().items()})
        path = case.rollout(model=alone, noise=part).particles
        promise = f"world {i} alone follows the same trajectory as among {len(worlds)} worlds"
        yield from case.compare(path, whole[i : i + 1], promise, cause=cause, slack=10)
