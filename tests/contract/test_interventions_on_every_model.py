"""What holds of interventions and counterfactuals whatever the family of the model is."""

import functools
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import bayeswm as bwm
from bayeswm.base.random import make_generator, standard_normal
from bayeswm.causal import Intervention, counterfactual, intervene, shift
from tests.contract.test_every_model import EXPORTED, FITTED, recordings

STEPS, WORLDS, PARTICLES = 4, 3, 2
NAMES = st.sampled_from(["angle", "velocity", "torque"])
VALUES = st.floats(-1.5, 1.5)
WHEN = st.one_of(st.none(), st.integers(0, STEPS - 1), st.integers(0, STEPS - 1).map(lambda a: slice(a, STEPS)))
FEW = settings(max_examples=15)


@functools.cache
def drawn(name: str) -> bwm.Worlds:
    """A few worlds of a fitted model."""
    return FITTED[name](recordings(episodes=5, steps=30)).draw(WORLDS, generator=make_generator(0))


@functools.cache
def episode() -> bwm.Trajectories:
    return recordings(episodes=2, steps=STEPS)


def paths(worlds: bwm.Worlds, *interventions: Intervention) -> Tensor:
    """States x[0..H] in worlds and particles with the same noise, shape (worlds, particles, H + 1, S)."""
    noise = standard_normal((len(worlds), PARTICLES, STEPS, worlds.noise_size), make_generator(1), dtype=worlds.dtype)
    done = intervene(worlds, *interventions)
    start = torch.tensor([0.3, -0.5], dtype=worlds.dtype)
    plan = torch.tensor([[0.5], [-1.0], [0.0], [1.0]], dtype=worlds.dtype)
    r = bwm.rollout(done, start, plan, particles=PARTICLES, noise=bwm.Noise(step=noise))
    assert r.initial is not None
    begin = r.initial.expand(len(worlds), PARTICLES, 2)
    return torch.cat((begin[:, :, None], r.particles), 2)


def same(a: Tensor, b: Tensor) -> None:
    size = 1e-9 if a.dtype == torch.float64 else 1e-4
    torch.testing.assert_close(a, b, rtol=size, atol=size)


@pytest.mark.parametrize("family", EXPORTED)
@FEW
@given(NAMES, VALUES, WHEN)
def test_doing_a_thing_twice_is_doing_it_once(family: str, name: str, value: float, steps: Any) -> None:
    one = bwm.do({name: value}, steps=steps)
    same(paths(drawn(family), one, one), paths(drawn(family), one))


@pytest.mark.parametrize("family", EXPORTED)
@FEW
@given(st.permutations(["angle", "velocity", "torque"]), VALUES, VALUES, WHEN)
def test_disjoint_interventions_commute(family: str, names: list[str], a: float, b: float, steps: Any) -> None:
    first, second = bwm.do({names[0]: a}, steps=steps), bwm.do({names[1]: shift(b)})
    same(paths(drawn(family), first, second), paths(drawn(family), second, first))


@pytest.mark.parametrize("family", EXPORTED)
@FEW
@given(NAMES, WHEN)
def test_a_shift_by_nothing_is_the_identity(family: str, name: str, steps: Any) -> None:
    same(paths(drawn(family), bwm.do({name: shift(0.0)}, steps=steps)), paths(drawn(family)))


@pytest.mark.parametrize("family", EXPORTED)
@FEW
@given(NAMES, st.integers(0, STEPS - 1), VALUES)
def test_what_came_before_stays_and_what_follows_sees_the_value(
    family: str, name: str, step: int, value: float
) -> None:
    worlds = drawn(family)
    new, old = paths(worlds, bwm.do({name: value}, steps=step)), paths(worlds)
    same(new[:, :, : step + int(name == "torque")], old[:, :, : step + int(name == "torque")])
    if name == "torque":
        return
    column = ["angle", "velocity"].index(name)
    same(new[:, :, step, column], torch.full((len(worlds), PARTICLES), value, dtype=new.dtype))
    # the other column of the slice does not see it, the next step does
    same(new[:, :, step, 1 - column], old[:, :, step, 1 - column])
    set_to = old[:, :, step].clone()
    set_to[..., column] = value
    plan = torch.tensor([0.5, -1.0, 0.0, 1.0], dtype=new.dtype)
    noise = standard_normal((len(worlds), PARTICLES, STEPS, worlds.noise_size), make_generator(1), dtype=worlds.dtype)
    action = plan[step].expand(len(worlds), PARTICLES, 1)
    same(new[:, :, step + 1], worlds.transition(set_to, action, step=step).push(noise[:, :, step]))


@pytest.mark.parametrize("family", EXPORTED)
@FEW
@given(NAMES, st.integers(0, STEPS - 1))
def test_doing_what_was_done_returns_what_happened(family: str, name: str, step: int) -> None:
    worlds, seen = drawn(family), episode()
    column = {"angle": 0, "velocity": 1, "torque": 0}[name]
    values = (seen.action if name == "torque" else seen.states())[:, step, column]
    found = counterfactual(worlds, seen, bwm.do({name: values[:, None]}, steps=step), in_training=True)
    happened = seen.states()[:, 1:].to(found.mean)
    size = 1e-6 if found.mean.dtype == torch.float64 else 1e-3
    torch.testing.assert_close(found.mean, happened, rtol=size, atol=size)
    assert float(found.variance.max()) < size**2


@pytest.mark.parametrize("family", EXPORTED)
def test_the_noise_that_is_found_is_replayed(family: str) -> None:
    """The branch is the rollout of the intervened worlds with the noise that was found."""
    worlds, seen, push = drawn(family), episode(), bwm.do(torque=0.5)
    found = counterfactual(worlds, seen, push, in_training=True)
    noise, _ = worlds.smooth(seen)
    start = seen.states()[:, 0].to(worlds.dtype)
    again = bwm.rollout(intervene(worlds, push), start, seen.action.to(worlds.dtype), particles=1, noise=noise)
    same(found.predictive.particles, again.particles)
    # rollouts in worlds that differ spread, factual and other branch in each of them with the same noise
    assert found.predictive.particles.shape[:2] == (len(worlds), 1)
