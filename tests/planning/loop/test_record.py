import torch

import bayeswm as bwm
from bayeswm.planning import Simulated, quadratic
from bayeswm.planning.loop.plant import Shown
from bayeswm.planning.loop.record import Record

SCHEMA = bwm.Schema(state=[bwm.Variable("x")], action=[bwm.Variable("u")], time_step=0.1)
PLANT = Simulated(
    bwm.KnownDynamics(structure=bwm.structures.Linear(SCHEMA, A=1.0, B=1.0)),
    torch.zeros(2, 1),
    objective=quadratic(torch.ones(1), torch.ones(1)),
)


def shown(values, rewards=(0.0, 0.0), terminated=(False, False), truncated=(False, False)):
    column = torch.tensor(values, dtype=torch.float64)[:, None]
    return Shown(column, None, torch.tensor(rewards).double(), torch.tensor(terminated), torch.tensor(truncated))


def test_a_row_that_ended_gets_nothing_more():
    record = Record(shown([0.0, 0.0]))
    action = torch.ones(2, 1)
    record.take(action, shown([1.0, 2.0], (1.0, 1.0)))
    record.take(action, shown([3.0, 4.0], (1.0, 1.0), (True, False)))
    record.take(action, shown([float("nan"), 5.0], (float("nan"), 1.0), (False, False), (True, False)))
    assert record.over.tolist() == [True, False]
    assert record.shown.measured.flatten().tolist() == [3.0, 5.0]
    found = record.trajectories(PLANT)
    assert found.lengths.tolist() == [2, 3]
    assert found.terminated.tolist() == [True, False]
    assert found.truncated.tolist() == [False, True]
    assert found.reward[1].tolist() == [1.0, 1.0, 1.0]
    assert found.states()[0, :3, 0].tolist() == [0.0, 1.0, 3.0]
