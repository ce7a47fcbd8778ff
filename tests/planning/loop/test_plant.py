import pytest
import torch

import bayeswm as bwm
from bayeswm.planning import Objective, Simulated, quadratic
from bayeswm.planning.loop.plant import Shown, check_finite
from tests.hidden_models import hidden_velocity_worlds

SCHEMA = bwm.Schema(
    state=[bwm.Variable("x")], action=[bwm.Variable("u")], context=[bwm.Variable("wind")], time_step=0.1
)
DRIFT = bwm.KnownDynamics(
    structure=bwm.structures.FromFunction(lambda x, u, c: x + u + c, schema=SCHEMA, name="drift"), noise=0.1
)
COST = quadratic(torch.ones(1), torch.zeros(1))


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def test_a_step_is_the_system_s_with_its_noise():
    plant = Simulated(DRIFT, torch.zeros(2, 1), objective=COST, context=torch.tensor([[1.0], [2.0]]))
    first = plant.reset(generator())
    assert first.measured.tolist() == [[0.0], [0.0]]
    shown = plant.step(torch.full((2, 1), 0.5), last=False)
    moved = shown.measured[:, 0] - torch.tensor([1.5, 2.5])
    assert bool(((moved.abs() > 1e-6) & (moved.abs() < 0.6)).all())
    assert shown.reward.tolist() == [0.0, 0.0]
    # the terminal cost belongs to the last step
    last = plant.step(torch.zeros(2, 1), last=True)
    torch.testing.assert_close(last.reward, -(shown.measured**2 + last.measured**2)[:, 0])
    again = Simulated(DRIFT, torch.zeros(2, 1), objective=COST, context=torch.tensor([[1.0], [2.0]]))
    again.reset(generator())
    assert torch.equal(again.step(torch.full((2, 1), 0.5), last=False).measured, shown.measured)


def test_a_hidden_state_is_shown_by_its_sensors():
    worlds = hidden_velocity_worlds()
    plant = Simulated(worlds, torch.zeros(3, 2), objective=Objective(terminal=lambda x, c: x[..., 0]))
    shown = plant.reset(generator())
    assert shown.measured.shape == (3, 2)
    assert shown.state is not None
    assert shown.state.tolist() == [[0.0, 0.0]] * 3
    assert not torch.equal(shown.measured, shown.state)


def test_each_episode_draws_a_world():
    law = torch.distributions.Uniform(0.5, 2.0)
    plain = bwm.Schema(state=[bwm.Variable("x")], action=[bwm.Variable("u")], time_step=0.1)
    prior = bwm.KnownDynamics(structure=bwm.structures.Linear(plain, A=1.0, B=law))
    plant = Simulated(prior, torch.zeros(2, 1), objective=COST)
    gains = []
    for seed in range(3):
        plant.reset(generator(seed))
        gains.append(plant.step(torch.ones(2, 1), last=False).measured[:, 0].tolist())
    assert all(a == b for a, b in gains)
    assert len({a for a, _ in gains}) == 3


def test_infinity_is_refused_but_for_rows_that_ended():
    plant = Simulated(DRIFT, torch.zeros(2, 1), objective=COST, context=torch.zeros(2, 1))
    off = torch.zeros(2, dtype=torch.bool)
    shown = Shown(torch.tensor([[0.0], [float("inf")]]), None, torch.zeros(2), off, off)
    check_finite(plant, shown, torch.tensor([False, True]))
    with pytest.raises(bwm.DataError, match="row 1"):
        check_finite(plant, shown, off)


def test_what_does_not_fit_is_refused():
    with pytest.raises(bwm.SpecError, match="context"):
        Simulated(DRIFT, torch.zeros(2, 1), objective=COST)
    with pytest.raises(bwm.SpecError, match="hold"):
        Simulated(DRIFT, torch.zeros(2, 1), objective=COST, context=torch.zeros(2, 1), hold=0)
    with pytest.raises(bwm.SpecError, match="reset"):
        Simulated(DRIFT, torch.zeros(1, 1), objective=COST, context=torch.zeros(1, 1)).step(
            torch.zeros(1, 1), last=False
        )
