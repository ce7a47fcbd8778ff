import pytest
import torch

import bayeswm as bwm
from bayeswm.planning import RandomShooting
from tests.planning.systems import spring_worlds, squares

START = torch.tensor([[1.0, 0.0], [-0.5, 1.0]], dtype=torch.float64)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_the_best_of_what_was_drawn() -> None:
    planner = RandomShooting(squares(), horizon=4, samples=50)
    plan = planner.plan(spring_worlds(noise=0.0), START, generator=generator())
    tried = 4 * torch.rand(50, 1, 4, 1, generator=generator(), dtype=torch.float64) - 2
    cost = plan.problem.score(tried.expand(50, 2, 4, 1)).cost
    assert torch.equal(plan.history[0], cost.amin(0))
    for i in range(2):
        torch.testing.assert_close(plan.actions[i], tried[cost[:, i].argmin(), 0], rtol=0, atol=1e-14)


def test_what_remains_of_the_last_plan_is_one_of_them() -> None:
    worlds = spring_worlds(noise=0.0)
    first = RandomShooting(squares(), horizon=4, samples=500).plan(worlds, START, generator=generator())
    one = RandomShooting(squares(), horizon=4, samples=1)
    plan = one.plan(worlds, START, generator=generator(1), previous=first, done=0)
    assert torch.equal(plan.actions, first.actions)
    assert plan.evaluations == 2


def test_settings_that_make_no_sense() -> None:
    with pytest.raises(bwm.SpecError, match="samples"):
        RandomShooting(squares(), horizon=3, samples=0)
