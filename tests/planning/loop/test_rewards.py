import torch

from bayeswm.planning import Objective, quadratic
from bayeswm.planning.loop.rewards import ended, step_reward


def test_rewards_of_an_episode_add_up_to_minus_its_cost():
    g = torch.Generator().manual_seed(0)
    states, actions = torch.randn(3, 6, 2, generator=g).double(), torch.randn(3, 5, 1, generator=g).double()
    context, before = torch.randn(3, 1, generator=g).double(), torch.randn(3, 1, generator=g).double()

    def stage(x, u, c, t):
        return x[..., 0] * (1 + t) + u[..., 0] ** 2 + c[..., 0]

    objective = Objective(stage=stage, terminal=lambda x, c: x[..., 1] * c[..., 0], change=0.3)
    total, previous = torch.zeros(3, dtype=torch.float64), before
    for t in range(5):
        total += step_reward(
            objective,
            states[:, t],
            actions[:, t],
            context=context,
            after=states[:, t + 1],
            step=t,
            previous=previous,
            last=t == 4,
        )
        previous = actions[:, t]
    cost = objective.cost(states, actions, context[:, None].expand(3, 5, 1), previous=before)
    torch.testing.assert_close(total, -cost)


def test_without_a_termination_nothing_ends():
    none = torch.zeros(4, 0)
    assert not ended(quadratic(torch.ones(1), torch.ones(1)), torch.ones(4, 1), none).any()
    objective = Objective(terminal=lambda x, c: x[..., 0], termination=lambda x, c: x[..., 0] > 2)
    assert ended(objective, torch.arange(4.0)[:, None], none).tolist() == [False, False, False, True]
    assert (
        step_reward(objective, torch.ones(1), torch.ones(1), context=torch.zeros(0), after=torch.ones(1), step=0) == 0
    )
