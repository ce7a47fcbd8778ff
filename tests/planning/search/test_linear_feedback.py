import torch

import bayeswm as bwm
from bayeswm.planning import Limits, LinearFeedback


def feedback(limits=None):
    gains = torch.tensor([[[-1.0, -2.0]], [[-3.0, 0.0]]])
    return LinearFeedback(gains, torch.tensor([[1.0, 0.0], [0.0, 0.0]]), torch.tensor([[0.5], [0.0]]), limits)


def test_action_is_the_planned_one_and_the_gain_times_what_is_off():
    policy, state = feedback(), torch.tensor([2.0, 1.0])
    torch.testing.assert_close(policy(state, 0), torch.tensor([0.5 - 1.0 - 2.0]))
    torch.testing.assert_close(policy(state, 1), torch.tensor([-6.0]))
    torch.testing.assert_close(policy(state, 9), policy(state, 1))


def test_limits_clip():
    policy = feedback(Limits(torch.tensor([-1.0]), torch.tensor([1.0]), torch.tensor([0.1])))
    torch.testing.assert_close(policy(torch.tensor([[2.0, 1.0], [-9.0, 0.0]]), 1), torch.tensor([[-1.0], [1.0]]))


def test_worlds_and_particles_in_front_of_starts():
    gains, zeros = torch.randn(3, 4, 1, 2), torch.zeros(3, 4, 2)
    policy = LinearFeedback(gains, zeros, zeros[..., :1])
    state = torch.randn(5, 6, 3, 2)
    torch.testing.assert_close(policy(state, 2)[..., 0], (gains[:, 2, 0] * state).sum(-1))


def test_fixed_actions_for_some_starts():
    policy = LinearFeedback(torch.ones(2, 3, 1, 1), torch.zeros(2, 3, 1), torch.zeros(2, 3, 1))
    mixed = policy.where(torch.tensor([True, False]), torch.full((2, 3, 1), 7.0))
    torch.testing.assert_close(mixed(torch.tensor([[4.0], [4.0]]), 1), torch.tensor([[4.0], [7.0]]))


def test_it_is_a_policy_of_rollouts():
    model = bwm.KnownDynamics(structure=bwm.structures.Pendulum.gymnasium(), noise=0.01)
    policy = LinearFeedback(torch.tensor([[[-20.0, -5.0]]]).double(), torch.zeros(1, 2), torch.zeros(1, 1))
    r = bwm.rollout(model, torch.tensor([0.05, 0.0]), policy, horizon=30, generator=torch.Generator().manual_seed(0))
    assert float(r.mean[-1].abs().max()) < 0.05
