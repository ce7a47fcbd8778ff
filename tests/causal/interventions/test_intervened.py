from typing import Any, override

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.distributions import Normal, Uniform

import bayeswm as bwm
from bayeswm.causal import Intervention, Mechanism, StructuralModel, clamp, counterfactual, intervene, shift
from bayeswm.testing import check_model
from tests.causal.reference_models import c1, c3, cart, observed

WIND = torch.tensor([0.5], dtype=torch.float64)
START = torch.tensor([1.0, 0.5, -1.0], dtype=torch.float64)
FORCE = torch.tensor([[0.3], [-1.0], [2.0], [0.0], [1.0]], dtype=torch.float64)
STEP_NOISE = torch.randn(1, 4, 5, 3, generator=torch.Generator().manual_seed(3), dtype=torch.float64)


def paths(model: bwm.DynamicsModel, *interventions: Intervention, actions: Any = FORCE) -> Tensor:
    """States x[0..5] of the cart in four particles with the same noise, shape (4, 6, 3)."""
    done = intervene(model, *interventions)
    noise = bwm.Noise(step=STEP_NOISE)
    r = bwm.rollout(done, START, actions, horizon=5, context=WIND, particles=4, noise=noise)
    assert r.initial is not None
    return torch.cat((r.initial.expand(1, 4, 3)[0, :, None], r.particles[0]), 1)


def equal(a: Tensor, b: Tensor) -> None:
    torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


NAMES = st.sampled_from(["x", "v", "drift", "force", "wind", "noise.v"])
VALUES = st.floats(-3, 3)
STEPS = st.one_of(st.none(), st.integers(0, 4), st.integers(0, 4).flatmap(lambda a: st.just(slice(a, 5))))


@given(NAMES, VALUES, STEPS)
def test_doing_a_thing_twice_is_doing_it_once(name: str, value: float, steps: Any) -> None:
    one = bwm.do({name: value}, steps=steps)
    equal(paths(cart(), one, one), paths(cart(), one))
    equal(paths(intervene(cart(), one), one), paths(cart(), one))


@given(st.permutations(["x", "v", "drift", "force", "wind", "noise.v"]), VALUES, VALUES, STEPS)
def test_disjoint_interventions_commute(names: list[str], a: float, b: float, steps: Any) -> None:
    first = bwm.do({names[0]: a}, steps=steps)
    second = bwm.do({names[1]: shift(b)})
    equal(paths(cart(), first, second), paths(cart(), second, first))


@given(NAMES, STEPS)
def test_a_shift_by_nothing_is_the_identity(name: str, steps: Any) -> None:
    equal(paths(cart(), bwm.do({name: shift(0.0)}, steps=steps)), paths(cart()))


@given(st.sampled_from(["x", "v", "drift", "force", "wind", "noise.x"]), st.integers(0, 4), VALUES)
def test_what_came_before_stays(name: str, step: int, value: float) -> None:
    new, old = paths(cart(), bwm.do({name: value}, steps=step)), paths(cart())
    before = step if name in ("x", "v", "drift") else step + 1
    equal(new[:, :before], old[:, :before])


@given(st.integers(0, 5), VALUES)
def test_the_value_is_what_the_next_step_sees(step: int, value: float) -> None:
    new, old = paths(cart(), bwm.do({"v": value}, steps=step)), paths(cart())
    equal(new[:, step, 1], torch.full((4,), value, dtype=torch.float64))
    equal(new[:, step, 0], old[:, step, 0])
    if step < 5:
        equal(new[:, step + 1, 0] - new[:, step, 0] - 0.1 * STEP_NOISE[0, :, step, 0], new[:, step, 1])
        equal(new[:, :, 2], old[:, :, 2])  # not a descendant


@given(st.lists(st.floats(-2, 2), min_size=3, max_size=3), st.sampled_from(["X", "Z", "Y"]))
def test_the_factual_value_returns_the_factual(values: list[float], name: str) -> None:
    factual = observed(c1(), [values])
    value = values[["Y", "X", "Z"].index(name)]
    found = counterfactual(c1(), factual, bwm.do({name: value}))
    torch.testing.assert_close(found.mean[0, 0], torch.tensor(values, dtype=torch.float64), rtol=0, atol=1e-9)
    assert float(found.variance.max()) == 0


@given(st.floats(-3, 3), st.sampled_from(["X", "Z", "Y"]))
def test_causes_do_not_see_their_effects(value: float, name: str) -> None:
    noise = torch.randn(1, 20, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    start, none = torch.zeros(1, 1, 3, dtype=torch.float64), torch.zeros(0, dtype=torch.float64)
    old = c1().draw(1).transition(start, none).push(noise)
    new = intervene(c1(), bwm.do({name: value})).draw(1).transition(start, none).push(noise)
    ancestors = {"Z": [], "X": [2], "Y": [1, 2]}[name]
    equal(new[..., ancestors], old[..., ancestors])


def test_an_action_is_set_after_the_policy_proposed_it() -> None:
    def policy(state: Tensor, step: int) -> Tensor:
        return -state[..., 1:2]

    new = paths(cart(), bwm.do({"force": shift(1.0)}, steps=2), actions=policy)
    old = paths(cart(), actions=policy)
    equal(new[:, 3, 1] - old[:, 3, 1], torch.full((4,), 0.5, dtype=torch.float64))
    braked = paths(cart(), bwm.do(force=lambda state, step: -2 * 0.9 * state[..., 1] - 0.5))
    equal(braked[:, 1:, 1], 0.1 * STEP_NOISE[0, :, :, 1])
    # a policy sees a state that was set in the same step
    both = paths(cart(), bwm.do({"v": 1.0}, steps=2), bwm.do(force=lambda state, step: state[..., 1]))
    equal(both[:, 3, 1], 0.9 + 0.75 + 0.1 * STEP_NOISE[0, :, 2, 1])


def test_sequences_rows_parameters_and_clamps() -> None:
    equal(paths(cart(), bwm.do(force=[0.0] * 5)), paths(cart(), actions=torch.zeros(5, 1)))
    heavy, old = paths(cart(), bwm.do({"mass": 4.0}, steps=slice(2, 5))), paths(cart())
    equal(heavy[:, :3], old[:, :3])
    equal(heavy[:, 3, 1] - old[:, 3, 1], (-0.25 * (FORCE[2, 0] + 0.5)).expand(4))
    held = paths(cart(), bwm.do(v=clamp(-0.1, 0.1)))
    assert bool((held[..., 1].abs() <= 0.1 + 1e-12).all())
    rows = torch.tensor([[1.0, 2.0], [3.0, 4.0]], dtype=torch.float64)
    done = intervene(cart(noise=0.0), bwm.do({"v": rows}, steps=slice(1, 3)))
    r = bwm.rollout(done, START.expand(2, 3), FORCE, context=WIND)
    equal(r.mean[:, :2, 1], rows)


def test_the_law_of_a_state_that_was_set() -> None:
    law = intervene(cart(), bwm.do({"v": 2.0}, steps=1)).predictive(START, FORCE[0], context=WIND)
    assert law.mean[0, 1].item() == 2.0
    assert law.variance[0].tolist() == pytest.approx([0.01, 0.0, 0.01])
    p = bwm.propagate(intervene(c3(), bwm.do({"s": 2.0}, steps=1)), torch.ones(1), torch.zeros(2, 1))
    assert p.mean.flatten().tolist() == pytest.approx([2.0, 1.6])
    assert p.variance.flatten().tolist() == pytest.approx([0.0, 1.0], abs=1e-9)
    halved = intervene(c3(), bwm.do({"s": lambda state, step: 0.5 * state[..., 0]}, steps=1)).draw(1)
    law = halved.transition(torch.ones(1, 1, 1, dtype=torch.float64), torch.zeros(1, dtype=torch.float64))
    assert (law.mean.item(), law.variance.item()) == pytest.approx((0.4, 0.25))


def test_the_law_of_a_clamped_state_is_exact() -> None:
    grid = torch.linspace(-8, 8, 200_001, dtype=torch.float64)
    density = Normal(0.0, 1.0).log_prob(grid).exp() * (grid[1] - grid[0])
    for low, high in ((None, 1.0), (0.5, None), (-0.2, 1.3)):
        done = intervene(c3(), bwm.do(s=clamp(low, high))).draw(1)
        law = done.transition(torch.ones(1, 1, 1, dtype=torch.float64), torch.zeros(1, dtype=torch.float64))
        x = (0.8 + grid).clamp(low, high)
        mean = (density * x).sum()
        assert law.mean.item() == pytest.approx(float(mean), abs=1e-8)
        assert law.variance.item() == pytest.approx(float((density * (x - mean).square()).sum()), abs=1e-8)
        for point in (-0.3, 0.7, 1.3):
            at = torch.tensor([point], dtype=torch.float64)
            expected = float((density * (x <= point)).sum())
            assert law.cdf(at).item() == pytest.approx(expected, abs=1e-4)


def test_a_block_says_where_it_is_cut() -> None:
    assert intervene(cart(), bwm.do(v=0.0, force=0.0)).draw(1).at_boundary == ("v",)
    assert intervene(c1(), bwm.do(X=0.0)).draw(1).at_boundary == ()


def test_stochastic_interventions_on_a_block(generator: torch.Generator) -> None:
    done = intervene(c3(), bwm.do({"a": Normal(1.0, 2.0), "s": Normal(3.0, 0.5)}, steps=0))
    r = bwm.rollout(done, torch.zeros(1), torch.zeros(2, 1), particles=40_000, generator=generator)
    assert r.initial is not None
    for values, mean, variance in (
        (r.initial[0, :, 0], 3.0, 0.25),
        (r.particles[0, :, 0, 0], 2.9, 0.64 * 0.25 + 1 + 1),
        (r.particles[0, :, 1, 0], 2.32, 0.64 * 2.16 + 1),
    ):
        assert abs(float(values.mean() - mean)) / (variance / 40_000) ** 0.5 < 4.5
        assert abs(float(values.var() / variance - 1)) / (2 / 40_000) ** 0.5 < 4.5
    torch.testing.assert_close(r.variance[0, 0].item(), 2.16, rtol=0.05, atol=0)


def test_a_planner_takes_intervened_worlds(generator: torch.Generator) -> None:
    pushed = intervene(c3(noise=0.0), bwm.do(s=shift(0.5)))
    objective = bwm.planning.Objective(terminal=lambda state, context: (state[..., 0] - 1).square())
    plan = bwm.planning.CEM(objective, horizon=1, bounds=(-2, 2)).plan(pushed, torch.zeros(1), generator=generator)
    # the start is shifted too: 0.8 0.5 + 0.5 a + 0.5 = 1
    assert plan.actions[0, 0].item() == pytest.approx(0.2, abs=0.01)


def test_noise_found_under_hard_interventions() -> None:
    done = intervene(cart(), bwm.do({"force": 1.0, "noise.x": 2.0}))
    r = bwm.rollout(done, START, FORCE, context=WIND, particles=1, noise=bwm.Noise(step=STEP_NOISE[:, :1]))
    factual = bwm.Trajectories(
        cart().schema, state=torch.cat((START[None], r.particles[0, 0]))[None], action=FORCE[None], context=WIND[None]
    )
    noise, log_density = done.draw(1).smooth(factual)
    assert noise.step is not None
    torch.testing.assert_close(noise.step[0, 0, 0, :, 1:], STEP_NOISE[0, 0, :, 1:])
    torch.testing.assert_close(log_density.sum(), r.log_prob(r.particles[0, 0]), check_dtype=False)


LAWS = [(Normal(0.5, 2.0), 0.5, 4.0), (Uniform(0.0, 3.0), 1.5, 0.75)]


@pytest.mark.statistical
@pytest.mark.parametrize(("law", "mean", "variance"), LAWS)
def test_a_law_of_the_noise_of_a_block(law: Any, mean: float, variance: float, generator: torch.Generator) -> None:
    done = intervene(c3(noise=0.5), bwm.do({"noise.s": law}, steps=slice(1, 3)))
    r = bwm.rollout(done, torch.zeros(1), torch.zeros(3, 1), particles=40_000, generator=generator)
    first, second, third = r.particles[0, :, :, 0].unbind(-1)
    for values, centre, spread in (
        (first, 0.0, 0.25),
        (second - 0.8 * first, 0.5 * mean, 0.25 * variance),
        (third - 0.8 * second, 0.5 * mean, 0.25 * variance),
    ):
        assert abs(float(values.mean() - centre)) / (spread / 40_000) ** 0.5 < 4.5
        # the kurtosis of a normal number is the largest here
        assert abs(float(values.var() / spread - 1)) / (2 / 40_000) ** 0.5 < 4.5


def test_a_normal_law_of_the_noise_of_a_block_is_exact() -> None:
    done = intervene(c3(noise=0.5), bwm.do({"noise.s": Normal(0.5, 2.0)}))
    p = done.predictive(torch.ones(1), torch.zeros(1))
    assert (p.mean.item(), p.variance.item()) == pytest.approx((0.8 + 0.25, 1.0))
    expected = Normal(1.05, 1.0).log_prob(torch.tensor(2.0)).item()
    assert p.log_prob(torch.full((1, 1), 2.0)).item() == pytest.approx(expected, abs=1e-6)
    law = done.draw(1).transition(torch.ones(1, 1, 1).double(), torch.zeros(1, 1, 1).double())
    noise = torch.tensor([[[0.7]]]).double()
    torch.testing.assert_close(law.abduct(law.push(noise)), noise)


def test_noise_as_a_function_of_the_state() -> None:
    new = paths(cart(), bwm.do({"noise.v": lambda state, step: state[..., 0] - step}, steps=slice(1, 4)))
    x, v = START[0].expand(4), START[1].expand(4)
    for t in range(5):
        w = STEP_NOISE[0, :, t]
        z = x - t if 1 <= t < 4 else w[:, 1]
        x, v = x + v + 0.1 * w[:, 0], 0.9 * v + (FORCE[t, 0] + 0.5) / 2 + 0.1 * z
        equal(new[:, t + 1, :2], torch.stack((x, v), -1))


def test_a_law_of_noise_from_an_event_on() -> None:
    done = bwm.do({"noise.v": Normal(1.0, 3.0)}, when=passed)
    new = paths(cart(noise=1.0), done)
    x, v, on = START[0].expand(4), START[1].expand(4), torch.zeros(4, dtype=torch.bool)
    for t in range(5):
        on = on | (x > 2)
        w = STEP_NOISE[0, :, t]
        x, v = x + v + w[:, 0], 0.9 * v + (FORCE[t, 0] + 0.5) / 2 + torch.where(on, 1 + 3 * w[:, 1], w[:, 1])
        equal(new[:, t + 1, :2], torch.stack((x, v), -1))
    assert int(on.sum()) > 0


@pytest.mark.statistical
@pytest.mark.parametrize(("law", "mean", "variance"), LAWS)
def test_a_law_of_noise_is_drawn_anew_in_a_counterfactual(
    law: Any, mean: float, variance: float, generator: torch.Generator
) -> None:
    done = bwm.do({"noise.X": law})
    found = counterfactual(
        c1(), observed(c1(), [[1.0, 2.0, 0.5]]), done, particles=40_000, generator=generator
    ).predictive.particles[0, :, 0, 0]
    # Z = 0.5 and the noise of Y, 1 - 2 2 + 3 0.5 = -1.5, are kept
    y, x, z = found.unbind(-1)
    equal(z, torch.full_like(z, 0.5))
    torch.testing.assert_close(y, 2 * x - 3.0)
    assert abs(float(x.mean() - 0.5 - mean)) / (variance / 40_000) ** 0.5 < 4.5
    assert abs(float(x.var() / variance - 1)) / (2 / 40_000) ** 0.5 < 4.5
    seen = bwm.Trajectories(c3().schema, state=[[[0.0], [1.0]]], action=[[[0.0]]])
    block = counterfactual(c3(), seen, bwm.do({"noise.s": law}), particles=40_000, generator=generator)
    s = block.predictive.particles[0, :, 0, 0, 0]
    assert abs(float(s.mean() - mean)) / (variance / 40_000) ** 0.5 < 4.5
    assert abs(float(s.var() / variance - 1)) / (2 / 40_000) ** 0.5 < 4.5


def test_the_collection_keeps_its_interventions() -> None:
    structure = bwm.structures.Pendulum(mass=torch.distributions.LogNormal(0.0, 0.2))
    model = intervene(bwm.KnownDynamics(structure=structure), bwm.do(torque=1.0))
    drawn = model.draw(4, generator=torch.Generator().manual_seed(0))
    start, none = torch.zeros(2, dtype=torch.float64), torch.zeros(1, dtype=torch.float64)

    def speed(worlds: bwm.Worlds) -> Tensor:
        return worlds.transition(worlds.start(start), none.to(worlds.dtype)).mean[:, 0, 1]

    assert bool((speed(drawn) > 0).all())
    equal(speed(drawn[1:3]), speed(drawn)[1:3])
    equal(speed(drawn.replace(mass=1.0)), speed(drawn.replace(mass=1.0))[:1].expand(4))
    assert drawn.to(torch.float32).dtype == torch.float32
    equal(drawn.reweight(torch.arange(4.0)).weight, torch.softmax(torch.arange(4.0).double(), 0))
    assert "do(torque=1.0)" in repr(model)


WRONG = [
    (bwm.do(frce=1.0), bwm.UnknownVariableError, "did you mean 'force'"),
    (bwm.do({"noise.y": 1.0}), bwm.UnknownVariableError, "noise"),
    (bwm.do(mas=1.0), bwm.UnknownVariableError, "mass"),
    (bwm.do(x=Mechanism(lambda v: v)), bwm.SpecError, "StructuralModel"),
    (bwm.do(mass=Normal(1.0, 0.1)), bwm.SpecError, "a number, one for each step, or a change"),
    (
        bwm.do(mass=Normal(1.0, 0.1)),
        bwm.SpecError,
        r"another prior, or draw worlds and set worlds\.replace\(mass=values",
    ),
    (bwm.do(mass=lambda s, t: s[..., 0]), bwm.SpecError, "a number, one for each step, or a change"),
    (bwm.do(mass=torch.ones(4, 5)), bwm.SpecError, "a number, one for each step, or a change"),
    (bwm.do(mass=[2.0] * 4), bwm.SpecError, "for step 4"),
    (bwm.do(mass=[2.0] * 6), bwm.SpecError, r"within 0\.\.4"),
    (bwm.do({"noise.x": clamp(low=0.0)}), bwm.SpecError, "values, a law, a callable or a shift"),
    (bwm.do({"noise.x": lambda s, t: s}), bwm.SpecError, "one value for each state"),
    (bwm.do({"x": 1.0}, steps=6), bwm.SpecError, r"within 0\.\.5"),
    (bwm.do({"force": 1.0}, steps=5), bwm.SpecError, r"within 0\.\.4"),
    (bwm.do(force=[1.0, 2.0]), bwm.SpecError, "for step 2"),
    (bwm.do(force=[1.0] * 6), bwm.SpecError, r"within 0\.\.4"),
]


@pytest.mark.parametrize(("wrong", "error", "match"), WRONG)
def test_interventions_that_do_not_fit(wrong: Intervention, error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match):
        paths(cart(), wrong)


def test_models_that_cannot_take_an_intervention() -> None:
    hidden = bwm.KnownDynamics(structure=c3().structure, noise=1.0, sensor_noise=0.1)
    worlds = intervene(hidden, bwm.do(s=1.0)).draw(1)
    history = bwm.Trajectories(c3().schema, state=[[[0.0], [1.0]]], action=[[[0.0]]])
    with pytest.raises(bwm.SpecError, match="a known state"):
        worlds.start(history)
    done = intervene(hidden, bwm.do(a=1.0))
    r = bwm.rollout(done, torch.zeros(1), torch.zeros(2, 1), particles=2, generator=torch.Generator().manual_seed(0))
    assert r.mean.shape == (2, 1)
    with pytest.raises(bwm.SpecError, match="fit the model first"):
        done.fit(observed(c1(), [[0.0, 0.0, 0.0]]))
    with pytest.raises(bwm.SpecError, match="made by do"):
        intervene(c3(), {"a": 1.0})  # pyright: ignore[reportCallIssue, reportArgumentType]


def test_the_cost_grows_with_the_number_of_interventions() -> None:
    """Operations are counted, not timed: those of twelve interventions are at most twice those of six."""
    from torch.utils._python_dispatch import TorchDispatchMode

    class Counter(TorchDispatchMode):
        count = 0

        @override
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            self.count += 1
            return func(*args, **(kwargs or {}))

    def cost(n: int) -> int:
        names = (["x", "v", "force", "wind"] * 3)[:n]
        worlds = intervene(cart(), *(bwm.do({name: shift(0.1)}) for name in names)).draw(1)
        carry = worlds.start(START)
        with Counter() as counter:
            worlds.transition(carry, FORCE[0], WIND).push(STEP_NOISE[:, :, 0])
        return counter.count

    assert 0 < cost(12) <= 2 * cost(6)


def braking() -> Intervention:
    """From the moment that a trajectory has passed x = 2, its force is -1."""
    return bwm.do(force=-1.0, when=lambda state, step: state[..., 0] > 2)


SOFT = {
    "shift": (
        (bwm.do(force=shift(0.5)), bwm.do(v=shift(0.1))),
        ("carry_is_a_tree_of_tensors", "history_leads_to_state"),
    ),
    "policy": ((bwm.do(force=lambda state, step: -state[..., 1]),), ()),
    "event": ((braking(),), ("history_leads_to_state",)),
    "event of the system": (
        (bwm.do({"v": 0.0, "noise.x": shift(1.0), "mass": 3.0}, when=lambda state, step: state[..., 0] > 1),),
        ("history_leads_to_state",),
    ),
    "normal noise": ((bwm.do({"noise.v": Normal(0.5, 2.0)}),), ()),
    # what was recorded had noise in x
    "feedback in the noise": ((bwm.do({"noise.x": lambda state, step: -state[..., 0]}),), ("history_leads_to_state",)),
    # draws are in no measurement
    "law": (
        (bwm.do(force=Normal(0.0, 1.0)),),
        ("filter_follows_measurements", "smoothed_noise_replays", "history_leads_to_state"),
    ),
    "law of noise": (
        (bwm.do({"noise.v": Uniform(0.0, 1.0)}),),
        ("filter_follows_measurements", "smoothed_noise_replays", "history_leads_to_state"),
    ),
}


@pytest.mark.parametrize("name", SOFT)
def test_an_intervened_model_keeps_the_contract(name: str) -> None:
    interventions, skip = SOFT[name]
    g = torch.Generator().manual_seed(0)
    start, force = (torch.randn(6, *shape, generator=g, dtype=torch.float64) for shape in ((3,), (12, 1)))
    wind = torch.randn(6, 1, generator=g, dtype=torch.float64)
    x = bwm.rollout(cart(), start, force, context=wind, particles=1, generator=g).particles[0, 0]
    data = bwm.Trajectories(cart().schema, state=torch.cat((start[:, None], x), 1), action=force, context=wind)
    assert check_model(intervene(cart(), *interventions), data, skip=skip).failed == ()


def test_an_event_starts_an_intervention_in_each_trajectory() -> None:
    new = paths(cart(noise=1.0), braking())
    x, v = START[0].expand(4).clone(), START[1].expand(4).clone()
    drift, on = START[2].expand(4), torch.zeros(4, dtype=torch.bool)
    for t in range(5):
        on |= x > 2
        force = torch.where(on, -1.0, FORCE[t, 0])
        w = STEP_NOISE[0, :, t]
        x, v, drift = x + v + w[:, 0], 0.9 * v + (force + 0.5) / 2 + w[:, 1], drift + 0.5 + w[:, 2]
        equal(new[:, t + 1], torch.stack((x, v, drift), -1))
    assert int(on.sum()) > 0


def test_events_in_densities_and_counterfactuals(generator: torch.Generator) -> None:
    model = cart(noise=1.0)
    done = intervene(model, braking())
    r = bwm.rollout(done, START, FORCE, context=WIND, particles=1, noise=bwm.Noise(step=STEP_NOISE[:, :1]))
    x = r.particles[0, 0]
    factual = bwm.Trajectories(
        model.schema, state=torch.cat((START[None], x))[None], action=FORCE[None], context=WIND[None]
    )
    noise, log_density = done.draw(1).smooth(factual)
    torch.testing.assert_close(noise.step, STEP_NOISE[:, :1, None])
    torch.testing.assert_close(log_density.sum(), r.log_prob(x))
    plain = bwm.rollout(model, START, FORCE, context=WIND, particles=1, generator=generator).particles[0, 0]
    seen = bwm.Trajectories(
        model.schema, state=torch.cat((START[None], plain))[None], action=FORCE[None], context=WIND[None]
    )
    found = counterfactual(model, seen, braking())
    found_noise = model.draw(1).smooth(seen)[0].step
    assert found_noise is not None
    replayed = bwm.rollout(done, START, FORCE, context=WIND, particles=1, noise=bwm.Noise(step=found_noise[:, :, 0]))
    torch.testing.assert_close(found.mean[0], replayed.particles[0, 0])
    with pytest.raises(bwm.SpecError, match="when="):
        bwm.do(x=0.0, when=True)  # pyright: ignore[reportArgumentType]


def passed(state: Tensor, step: int | Tensor) -> Tensor:
    return state[..., 0] > 2


@pytest.mark.parametrize(
    "values",
    [
        {"v": 0.1},
        {"v": shift(-0.2)},
        {"v": lambda state, step: 0.5 * state[..., 1]},
        {"v": clamp(-0.1, 0.1)},
        {"noise.v": 1.0},
        {"noise.v": shift(0.5)},
        {"mass": 5.0},
        {"v": 0.1, "noise.x": shift(0.5), "mass": 5.0, "force": -1.0},
    ],
)
def test_an_event_changes_the_system_in_each_trajectory(values: dict[str, Any]) -> None:
    """By hand: states, noise and parameters change from the step on that starts where x has passed 2."""
    new = paths(cart(noise=1.0), bwm.do(values, when=passed))
    x, v = START[0].expand(4).clone(), START[1].expand(4).clone()
    drift, on = START[2].expand(4), torch.zeros(4, dtype=torch.bool)
    for t in range(5):
        on |= x > 2
        force = torch.where(on, values.get("force", FORCE[t, 0]), FORCE[t, 0])
        mass = torch.where(on, values.get("mass", 2.0), 2.0)
        w = STEP_NOISE[0, :, t].clone()
        for i, name in enumerate(("noise.x", "noise.v")):
            value = values.get(name)
            if value is not None:
                w[:, i] = torch.where(on, value if isinstance(value, float) else value.apply(w[:, i]), w[:, i])
        x, v, drift = x + v + w[:, 0], 0.9 * v + (force + 0.5) / mass + w[:, 1], drift + 0.5 + w[:, 2]
        if "v" in values:
            value = values["v"]
            value = (
                value.apply(v)
                if hasattr(value, "apply")
                else value(torch.stack((x, v), -1), t)
                if callable(value)
                else value
            )
            v = torch.where(on, value, v)
        equal(new[:, t + 1], torch.stack((x, v, drift), -1))
    assert int(on.sum()) > 0


def test_counterfactuals_and_draws_from_an_event_on(generator: torch.Generator) -> None:
    model = cart(noise=1.0)
    plain = bwm.rollout(model, START, FORCE, context=WIND, particles=1, noise=bwm.Noise(step=STEP_NOISE[:, :1]))
    path = torch.cat((START[None], plain.particles[0, 0]))
    seen = bwm.Trajectories(model.schema, state=path[None], action=FORCE[None], context=WIND[None])
    change = bwm.do({"v": 0.1, "mass": 5.0}, when=passed)
    expected = paths(model, change)[0, 1:]
    found = counterfactual(model, seen, change)
    torch.testing.assert_close(found.mean[0], expected)
    assert float(found.variance.max()) == 0
    # the noise of an episode under the intervention is found too
    factual = bwm.Trajectories(
        model.schema, state=torch.cat((START[None], expected))[None], action=FORCE[None], context=WIND[None]
    )
    noise, _ = intervene(model, change).draw(1).smooth(factual)
    assert noise.step is not None
    torch.testing.assert_close(noise.step[0, 0, 0, :, 0], STEP_NOISE[0, 0, :, 0])
    drawn = intervene(model, bwm.do({"v": Normal(0.0, 0.01)}, when=passed))
    r = bwm.rollout(drawn, START, FORCE, context=WIND, particles=50, generator=generator)
    after = (r.particles[0, :, :-1, 0] > 2).cumsum(1) > 0
    assert bool(after.any())
    assert bool((r.particles[0, :, 1:, 1][after].abs() < 0.06).all())
    assert not bool((r.particles[0, :, 1:, 1][~after].abs() < 0.06).all())


def test_events_inside_a_slice() -> None:
    """A variable of a slice, its mechanism and its noise, from an event on."""
    schema = bwm.Schema(state=[bwm.Variable("s"), bwm.Variable("q")], time_step=1.0)
    model = StructuralModel(
        {"s": Mechanism(lambda s: s + 1.0, ("s[t-1]",), noise=0.5), "q": Mechanism(lambda s: 2 * s, noise=0.1)},
        schema=schema,
    )
    noise = torch.randn(1, 3, 4, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)

    def late(state: Tensor, step: int | Tensor) -> Tensor:
        return state[..., 0] > 2

    mechanism = Mechanism(lambda s: -s, ("s[t-1]",), noise=0.5)
    for values in ({"s": 0.0}, {"s": mechanism}, {"noise.s": 1.0}, {"s": shift(1.0)}):
        done = intervene(model, bwm.do(values, when=late))
        r = bwm.rollout(done, torch.zeros(2), horizon=4, particles=3, noise=bwm.Noise(step=noise))
        s, on = torch.zeros(3, dtype=torch.float64), torch.zeros(3, dtype=torch.bool)
        for t in range(4):
            on |= s > 2
            w = noise[0, :, t]
            plain = s + 1 + 0.5 * w[:, 0]
            new = {
                "s": torch.zeros(3, dtype=torch.float64) if values.get("s") == 0.0 else -s + 0.5 * w[:, 0],
                "noise.s": s + 1.5,
            }[next(iter(values))]
            new = plain + 1.0 if isinstance(values.get("s"), type(shift(1.0))) else new
            s = torch.where(on, new, plain)
            equal(r.particles[0, :, t], torch.stack((s, 2 * s + 0.1 * w[:, 1]), -1))
        assert bool(on.any())


def test_events_that_do_not_fit() -> None:
    with pytest.raises(bwm.SpecError, match="one event for all"):
        paths(cart(), bwm.do(x=0.0, when=passed), bwm.do(mass=1.0, when=lambda state, step: state[..., 1] > 0))
    # actions may wait for other events
    paths(cart(), bwm.do(x=0.0, when=passed), bwm.do(force=1.0, when=lambda state, step: state[..., 1] > 0))
    with pytest.raises(bwm.SpecError, match="a slice by itself"):
        intervene(c1(), bwm.do(X=0.0, when=passed)).draw(1)
    hidden = bwm.KnownDynamics(structure=c3().structure, noise=1.0, sensor_noise=0.1)
    with pytest.raises(bwm.UnknownVariableError):
        paths(cart(), bwm.do(mas=1.0, when=passed))
    done = intervene(hidden, bwm.do(s=1.0, when=passed))
    history = bwm.Trajectories(c3().schema, state=[[[0.0], [1.0]]], action=[[[0.0]]])
    with pytest.raises(bwm.SpecError, match="a state to start from"):
        done.draw(1).start(history)


def test_an_angle_is_set_as_it_is_given() -> None:
    """On the line, not on the circle: 3.5 rad stays 3.5 rad, and what follows goes on from there."""
    pendulum = bwm.KnownDynamics(structure=bwm.structures.Pendulum.gymnasium(), noise=0.01)
    start, rest, g = torch.tensor([-3.0, 0.0]), torch.zeros(4, 1), torch.Generator().manual_seed(0)
    angle = bwm.do({"angle": 3.5}, steps=2)
    r = bwm.rollout(intervene(pendulum, angle), start, rest, particles=3, generator=g)
    assert r.particles[0, :, 1, 0].tolist() == [3.5] * 3
    assert bool(((r.particles[0, :, 2:, 0] - 3.5).abs() < 0.2).all())
    factual = bwm.data.simulate(pendulum, start[None], rest[None], generator=g)
    found = counterfactual(pendulum, factual, angle)
    assert found.mean[0, 1, 0].item() == 3.5
    # a turn more or less is the same pendulum
    turned = counterfactual(pendulum, factual, bwm.do({"angle": 3.5 - 2 * torch.pi}, steps=2))
    torch.testing.assert_close(turned.mean[0, 1:, 0] + 2 * torch.pi, found.mean[0, 1:, 0])
    torch.testing.assert_close(turned.mean[0, :, 1], found.mean[0, :, 1])


@pytest.mark.parametrize(
    ("intervention", "message"),
    [
        (bwm.do(force=lambda state, step: state), r"one value for each state, shape \(1, 1\).*got \(1, 1, 3\)"),
        (bwm.do(force=lambda state, step: "much"), "to return numbers, got str"),
        (bwm.do(v=lambda state, step: state), "one value for each state"),
        (bwm.do(force=1.0, when=lambda state, step: state[..., 1]), "truth values.*got torch.float64"),
        (bwm.do(force=1.0, when=lambda state, step: state > 0), "when= to return one value for each state"),
        (bwm.do(force=[[1.0]] * 5), r"batch of shape \(\), got \(5, 1\)"),
        (bwm.do(v=torch.ones(2, 6)), r"batch of shape \(\), got \(2, 6\)"),
    ],
)
def test_what_does_not_fit_the_states_is_refused(intervention, message):
    done = intervene(cart(), intervention)
    g = torch.Generator().manual_seed(0)
    with pytest.raises(bwm.SpecError, match=message):
        bwm.rollout(done, START, FORCE, context=WIND, particles=4, generator=g)


def test_rows_have_values_of_their_own_or_are_refused():
    values = torch.arange(10.0, dtype=torch.float64).view(2, 5)
    start = START.expand(2, 3)

    def forces(given):
        done = intervene(cart(), bwm.do(force=given))
        g = torch.Generator().manual_seed(0)
        return bwm.rollout(done, start, FORCE, context=WIND, particles=2, generator=g).mean

    both = forces(values)
    torch.testing.assert_close(both[0], forces(values[0])[0])
    with pytest.raises(bwm.SpecError, match=r"batch of shape \(2,\), got \(3, 5\)"):
        forces(torch.zeros(3, 5))
