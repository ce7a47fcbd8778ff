import math

import pytest
import torch

import bayeswm as bwm
from bayeswm.base.errors import SpecError
from bayeswm.planning import LQR, certify, quadratic, region_of_attraction, sampled_level_set
from tests.planning.cubic_system import cubic, damped, seeded


def regulated():
    model = bwm.KnownDynamics(structure=bwm.structures.Pendulum.gymnasium())
    objective = quadratic(torch.tensor([1.0, 0.1]), torch.tensor([0.001]))
    policy = LQR(objective, horizon=2, stationary=True).plan(model, torch.zeros(2)).feedback
    return model.draw(1), policy


def test_certified_set_of_a_pendulum_lies_in_its_simulated_basin():
    worlds, policy = regulated()
    P = certify(worlds, policy, torch.zeros(2)).each.P[0]
    level = sampled_level_set(worlds, policy, torch.zeros(2), P=P, largest=0.5 * float(P[0, 0]), generator=seeded())
    assert 0 < level.value < 0.5 * float(P[0, 0])
    wide = (P.inverse().diagonal() * level.value).sqrt()
    found = region_of_attraction(
        worlds,
        policy,
        torch.zeros(2),
        box=(-wide, wide),
        tolerance=1e-3,
        steps=150,
        generator=seeded(1),
    )
    inside = ((found.starts @ P) * found.starts).sum(-1) < level.value
    # an ellipse takes pi / 4 of its box
    assert float(inside.double().mean()) == pytest.approx(math.pi / 4, abs=5 * math.sqrt(0.17 / 1000))
    assert bool(found.reached[0][inside].all())
    # torque can hold the pendulum up to sin(angle) = 2 / 5 at rest, no further
    resting = torch.tensor([[0.405, 0.0], [0.418, 0.0]])
    held = bwm.rollout(worlds, resting, policy, horizon=400).mean[:, -1].abs().amax(-1) < 1e-3
    assert held.tolist() == [True, False]
    assert level.value < float(P[0, 0]) * math.asin(0.4) ** 2


def level(worlds, **given):
    arguments = {"P": torch.eye(1), "largest": 1.0, "samples": 20_000, "generator": seeded()}
    return sampled_level_set(worlds, damped, torch.zeros(1), **(arguments | given))


def test_level_of_a_cubic():
    found = level(cubic().draw(1))
    # V = x^2 falls where x^2 < 1/2; the lowest of the samples beyond is 1e-3 off with probability e^-13
    assert 0.5 < found.value < 0.501
    share = 1 - 0.05 ** (1 / 20_000)
    assert found.violating == pytest.approx(share / math.sqrt(found.value), rel=1e-9)
    assert found.inside == pytest.approx(20_000 * math.sqrt(0.5), abs=5 * math.sqrt(20_000 * 0.21))


def test_all_worlds_must_agree():
    worlds = cubic(torch.distributions.LogNormal(0.0, 0.5)).draw(20, generator=seeded(1))
    assert level(worlds).value == pytest.approx(float(0.5 / worlds.parameters["k"].max()), rel=2e-3)


def test_where_nothing_contradicts_all_is_inside():
    found = level(cubic().draw(1), largest=0.4, samples=1000)
    assert found.value == 0.4
    assert found.inside == 1000
    assert found.violating == pytest.approx(1 - 0.05 ** (1 / 1000))


def test_the_statement_on_what_is_violated_holds_as_often_as_it_says():
    # violating are x^2 > 1/2; below the level that is a share of (sqrt(value) - sqrt(1/2)) / sqrt(value)
    few, misses = 20, 0
    worlds, g = cubic().draw(1), seeded(3)
    for _ in range(400):
        found = level(worlds, samples=few, confidence=0.8, generator=g)
        misses += max(0.0, 1 - math.sqrt(0.5 / found.value)) > found.violating
    # exactly 20 % of them miss: 80 +- 8
    assert 80 - 4.4 * 8 < misses < 80 + 4.4 * 8


def test_a_goal_that_is_nearly_fixed_needs_a_least_level():
    schema = bwm.Schema(state=[bwm.Variable("x")], action=[bwm.Variable("u")], time_step=1.0)
    drifting = bwm.structures.FromFunction(lambda x, u: x + u + 0.01, schema=schema)
    worlds = bwm.KnownDynamics(structure=drifting).draw(1)
    assert level(worlds).value < 0.01**2 * 4
    # |x / 2 + 0.01| < |x| beyond |x| = 0.02
    assert level(worlds, least=0.02**2).value == 1.0


def test_points_are_uniform_over_the_ellipsoid():
    P = torch.tensor([[2.0, 0.5], [0.5, 1.0]])
    schema = bwm.Schema(state=[bwm.Variable("x"), bwm.Variable("y")], action=[bwm.Variable("u")], time_step=1.0)
    # V falls nowhere beyond a level of 1/4, in which a quarter of the area lies
    worlds = bwm.KnownDynamics(
        structure=bwm.structures.FromFunction(
            lambda x, u: torch.where(((x @ P.double()) * x).sum(-1, keepdim=True) < 0.25, 0.5 * x, 2 * x), schema=schema
        )
    ).draw(1)
    found = sampled_level_set(
        worlds, lambda x, t: x[..., :1], torch.zeros(2), P=P, largest=1.0, samples=40_000, generator=seeded()
    )
    assert found.value == pytest.approx(0.25, abs=1e-3)
    assert found.inside == pytest.approx(10_000, abs=5 * math.sqrt(7500))


@pytest.mark.parametrize(
    "wrong",
    [{"largest": 0.0}, {"least": 2.0}, {"samples": 0}, {"confidence": 1.0}, {"P": -torch.eye(1)}],
)
def test_settings_of_a_level_set_that_make_no_sense(wrong):
    with pytest.raises(SpecError):
        level(cubic().draw(1), **wrong)
