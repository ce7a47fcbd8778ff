import torch

import bayeswm as bwm
from bayeswm.planning import Objective, quadratic
from bayeswm.planning.imagination.inhabited import Inhabited
from tests.hidden_models import HiddenVelocityWorlds, hidden_velocity_worlds

SCHEMA = bwm.Schema(
    state=[bwm.Variable("x")],
    action=[bwm.Variable("u", bounds=(-1, 1))],
    context=[bwm.Variable("wind")],
    time_step=0.1,
)
DRIFT = bwm.KnownDynamics(structure=bwm.structures.FromFunction(lambda x, u, c: x + u + c, schema=SCHEMA, name="drift"))


def rows(model, objective, **more):
    given = {"start": torch.zeros(1), "horizon": 5, "rows": 3, "worlds": 4, "context": None, **more}
    found = Inhabited(model, objective, **given)
    found.seed(torch.Generator().manual_seed(0))
    return found


def test_context_and_clipped_actions():
    found = rows(DRIFT, quadratic(torch.ones(1), torch.zeros(1)), context=torch.tensor([0.25]))
    found.reset(torch.ones(3, dtype=torch.bool))
    moved = found.step(torch.tensor([[0.5], [-0.5], [7.0]]), torch.tensor([False, False, True]))
    assert moved.measured[:, 0].tolist() == [0.75, -0.25, 0.0]
    assert found.step_count.tolist() == [1, 1, 0]


def test_a_change_of_the_action_costs():
    found = rows(DRIFT, Objective(terminal=lambda x, c: 0 * x[..., 0], change=2.0), context=torch.zeros(1))
    found.reset(torch.ones(3, dtype=torch.bool))
    still = torch.zeros(3, dtype=torch.bool)
    first = found.step(torch.tensor([[0.5], [0.0], [1.0]]), still).reward
    second = found.step(torch.tensor([[0.5], [1.0], [-1.0]]), still).reward
    assert first.tolist() == [-0.5, 0.0, -2.0]
    assert second.tolist() == [0.0, -2.0, -8.0]


class Bounded(HiddenVelocityWorlds):
    schema = bwm.Schema(
        state=HiddenVelocityWorlds.schema.state,
        action=[bwm.Variable("force", unit="N", bounds=(-1, 1))],
        observation=HiddenVelocityWorlds.schema.observation,
        time_step=0.1,
    )

    def initial_noise_size(self, belief):
        return belief.noise_size  # a known start needs none


def test_carries_that_are_no_tensors_and_sensors():
    plain = hidden_velocity_worlds()
    worlds = Bounded(plain.parameters, log_weight=plain.log_weight, exhaustive=True)
    found = rows(worlds, Objective(terminal=lambda x, c: x[..., 0]), start=torch.zeros(2))
    first = found.reset(torch.ones(3, dtype=torch.bool))
    moved = found.step(torch.ones(3, 1), torch.tensor([False, True, False])).measured
    assert moved.shape == (3, 2)
    assert torch.equal(moved[1], first[1])
    assert not torch.equal(moved[0], first[0])
