import torch
from tqdm import tqdm

import bayeswm as bwm
from bayeswm.planning import CEM, Simulated, quadratic
from bayeswm.planning.loop.controlled import AtRandom, Controller, limits_of, run_episode

SCHEMA = bwm.Schema(state=[bwm.Variable("x")], action=[bwm.Variable("u", bounds=(1.0, 3.0))], time_step=0.1)
COST = quadratic(torch.ones(1), torch.ones(1))
TRUTH = bwm.KnownDynamics(structure=bwm.structures.Linear(SCHEMA, A=1.0, B=1.0), noise=0.1)
PLANT = Simulated(TRUTH, torch.zeros(500, 1), objective=COST)
PLANNER = CEM(COST, horizon=2)


class Fixed(Controller):
    """Does what it is told, and keeps what it sees."""

    def __init__(self, actions):
        self.actions, self.seen, self.pending = list(actions), [], []

    def begin(self, measured, plant, generator):
        self.seen.append(measured)

    def decide(self, pending):
        self.pending.append([float(p[0, 0]) for p in pending])
        return torch.full((500, 1), self.actions.pop(0))

    def learn(self, action, measured):
        self.seen.append(measured)


def episode(controller, **more):
    given = {"steps": 4, "latency": 0, "seed": 0, **more}
    return run_episode(PLANT, controller, limits_of(PLANNER, PLANT), bar=tqdm(disable=True), **given)


def test_random_actions_are_uniform_within_the_bounds():
    found = episode(AtRandom(limits_of(PLANNER, PLANT))).action.flatten()
    assert 1.0 <= float(found.min()) < 1.05
    assert 2.95 < float(found.max()) <= 3.0
    # the standard error of the mean of 2,000 uniform values of width 2 is 0.013; 4.5 of them
    assert abs(float(found.mean()) - 2.0) < 4.5 * 2 / 12**0.5 / 2000**0.5


def test_a_controller_sees_what_was_recorded_and_what_is_on_the_way():
    controller = Fixed([1.5, 2.0, 2.5, 3.0])
    found = episode(controller, latency=2)
    # nothing was decided yet: the possible action nearest to 0
    assert found.action[0, :, 0].tolist() == [1.0, 1.0, 1.5, 2.0]
    assert controller.pending == [[1.0, 1.0], [1.0, 1.5], [1.5, 2.0], [2.0, 2.5]]
    seen = torch.stack(controller.seen, 1)
    # after the last step there is nothing to decide, but it may be learned from
    torch.testing.assert_close(found.states(), seen)


def test_chance_is_the_system_s_own():
    first, second = episode(Fixed([1.5] * 4)), episode(Fixed([2.5] * 4))
    torch.testing.assert_close(first.states().diff(dim=1) - first.action, second.states().diff(dim=1) - second.action)
