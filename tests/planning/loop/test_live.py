import pytest
import torch

import bayeswm as bwm
from bayeswm.planning import Live
from tests.hidden_models import hidden_mode_worlds, hidden_velocity_worlds

PENDULUM = bwm.structures.Pendulum()
SCHEMA = bwm.Schema(
    state=[bwm.Variable("x"), bwm.Variable("v")], action=[bwm.Variable("u", bounds=(-1, 1))], time_step=0.1
)
LINEAR = bwm.structures.Linear(
    SCHEMA,
    A=torch.tensor([[1.0, 0.1], [-0.2, 0.9]], dtype=torch.float64),
    B=torch.tensor([[0.0], [0.1]], dtype=torch.float64),
)


def measurements(rows=3, steps=6, columns=2, seed=0):
    g = torch.Generator().manual_seed(seed)
    return torch.randn(steps + 1, rows, columns, generator=g).double(), torch.randn(
        steps, rows, 1, generator=g
    ).double().tanh()


def followed(live, measured, actions):
    for action, value in zip(actions, measured[1:], strict=True):
        live.update(action, value)
    return live


def history(schema, measured, actions):
    group = "state" if schema.observation is None else "observation"
    arrays = {group: measured.transpose(0, 1), "action": actions.transpose(0, 1)}
    return bwm.Trajectories(schema, **arrays, allow_missing=True)


def test_a_measured_state_is_the_belief():
    measured, actions = measurements()
    worlds = bwm.KnownDynamics(structure=LINEAR, noise=0.1).draw(1)
    assert torch.equal(followed(Live(worlds, measured[0]), measured, actions).belief, measured[-1])


def test_angles_go_on_from_those_before():
    worlds = bwm.KnownDynamics(structure=PENDULUM).draw(1)
    live = Live(worlds, torch.tensor([[3.0, 1.0]]))
    live.update(torch.zeros(1, 1), torch.tensor([[-3.0, 1.0]]))
    live.update(torch.zeros(1, 1), torch.tensor([[-2.5, 1.0]]))
    torch.testing.assert_close(live.belief[0, 0], torch.tensor(2 * torch.pi - 2.5).double())


@pytest.mark.parametrize("missing", [False, True])
def test_a_filtered_belief_is_that_of_the_whole_history(missing):
    measured, actions = measurements()
    if missing:
        measured[2, 1, 0] = float("nan")
    worlds = bwm.KnownDynamics(structure=LINEAR, noise=0.1, sensor_noise=0.3).draw(1)
    live = followed(Live(worlds, measured[0]), measured, actions)
    known = worlds.start(history(worlds.schema, measured, actions))
    torch.testing.assert_close(live.belief.mean, known.mean)
    torch.testing.assert_close(live.belief.covariance, known.covariance)
    # and planners start from it as from the history
    noise = bwm.Noise(torch.randn(1, 4, 1, 2, generator=torch.Generator().manual_seed(1)).double())
    assert worlds.start(live.belief, noise=noise).shape == (1, 4, 3, 2)


def test_worlds_that_know_more_than_the_state_are_given_the_history():
    measured, actions = measurements(columns=1)
    worlds = hidden_mode_worlds()
    live = followed(Live(worlds, measured[0]), measured, actions)
    assert isinstance(live.belief, bwm.Trajectories)
    expected = worlds.start(history(worlds.schema, measured, actions))
    torch.testing.assert_close(worlds.start(live.belief).mode, expected.mode)
    torch.testing.assert_close(live._carry.mode, expected.mode)


def test_weights_follow_the_likelihood():
    measured, actions = measurements(rows=1)
    worlds = hidden_velocity_worlds()
    live = followed(Live(worlds, measured[0], reweight=True), measured, actions)
    carry, total = worlds.start(Live(worlds, measured[0]).belief), torch.zeros(3, dtype=torch.float64)
    for action, value in zip(actions, measured[1:], strict=True):
        carry, log_prob = worlds.filter(carry, action, None, value)
        total = total + log_prob[:, 0, 0]
    torch.testing.assert_close(live.worlds.log_weight, torch.log_softmax(worlds.log_weight + total, 0))


def test_new_worlds_are_told_what_happened():
    measured, actions = measurements()
    model = bwm.KnownDynamics(structure=LINEAR, noise=0.1, sensor_noise=0.3)
    live = followed(Live(model.draw(1), measured[0]), measured, actions)
    before = live.belief.mean
    live.meet(model.draw(1))
    torch.testing.assert_close(live.belief.mean, before)


def test_what_does_not_fit_is_refused():
    worlds = bwm.KnownDynamics(structure=LINEAR).draw(1)
    with pytest.raises(bwm.DataError, match="shape"):
        Live(worlds, torch.zeros(2))
    with pytest.raises(bwm.SpecError, match="one row"):
        Live(worlds, torch.zeros(2, 2), reweight=True)
    with pytest.raises(bwm.SpecError, match="expected state"):
        Live(worlds, torch.zeros(1, 2), schema=PENDULUM.schema)
