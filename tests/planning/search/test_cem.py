import pytest
import torch

import bayeswm as bwm
from bayeswm.planning import CEM
from tests.planning.systems import least_squares, linear_model, spring_worlds, squares

START = torch.tensor([[1.0, 0.0], [-0.5, 1.0]], dtype=torch.float64)


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def test_linear_quadratic_optimum() -> None:
    """Relative gap to the batch least-squares solution at most 5 %."""
    planner = CEM(squares(), horizon=10, samples=300, elites=30, iterations=12, bounds=(-10.0, 10.0))
    plan = planner.plan(linear_model(), START, generator=generator())
    for i in range(2):
        optimum = least_squares(START[i], 10)
        assert optimum - 1e-9 <= float(plan.cost[i]) <= 1.05 * optimum


def test_two_iterations_by_hand() -> None:
    planner = CEM(squares(), horizon=4, samples=20, elites=5, iterations=2, momentum=0.3, spread=0.5, particles=2)
    worlds, state = spring_worlds(noise=0.0), START[0]
    plan = planner.plan(worlds, state, generator=generator())
    g = generator()
    mean, sd = torch.zeros(4, 1).double(), torch.ones(4, 1).double()
    for _ in range(2):
        tried = (mean + sd * torch.randn(20, 4, 1, generator=g, dtype=torch.float64)).clamp(-2, 2)
        cost = plan.problem.score(tried).cost
        elite = tried[cost.argsort()[:5]]
        mean = 0.3 * mean + 0.7 * elite.mean(0)
        sd = 0.3 * sd + 0.7 * elite.std(0, correction=0)
    torch.testing.assert_close(plan.actions, mean, rtol=0, atol=1e-12)
    assert plan.evaluations == 40


def test_keys_fall() -> None:
    planner = CEM(squares(), horizon=6, samples=60, elites=6, iterations=6, particles=2)
    history = planner.plan(spring_worlds(), START, generator=generator()).history
    assert history.shape == (6, 2)
    assert bool((history[-1] < history[0]).all())


@pytest.mark.parametrize(
    "bad",
    [
        {"elites": 0},
        {"elites": 201},
        {"iterations": 0},
        {"spread": 0.0},
        {"spread": float("nan")},
        {"momentum": 1.0},
        {"momentum": -0.1},
    ],
)
def test_settings_that_make_no_sense(bad: dict[str, float]) -> None:
    with pytest.raises(bwm.SpecError, match=next(iter(bad))):
        CEM(squares(), horizon=3, **bad)
