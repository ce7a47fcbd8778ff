"""Sampling planners in closed loop on a true system, against published returns."""

import pytest
import torch

import bayeswm as bwm
from bayeswm.planning import CEM, ICEM, MPPI, Objective, Plan, Planner, RandomShooting, frozen
from bayeswm.structures import CartPole


def balance(x: torch.Tensor) -> torch.Tensor:
    return 0.01 * x[..., 0].square() - torch.cos(x[..., 2])


OBJECTIVE = Objective(stage=lambda x, u, c, t: torch.where(t == 0, 0.0, balance(x)), terminal=lambda x, c: balance(x))


@pytest.mark.parametrize(
    "planner",
    [
        CEM(OBJECTIVE, horizon=15, samples=60, elites=8, iterations=3),
        RandomShooting(OBJECTIVE, horizon=15, samples=150),
        ICEM(OBJECTIVE, horizon=15, samples=60, elites=8, iterations=3),
        MPPI(OBJECTIVE, horizon=15, samples=150),
    ],
    ids=lambda p: type(p).__name__,
)
def test_a_cart_pole_is_balanced(planner: Planner) -> None:
    """Wang et al. (2019) report 199.9 for CEM and 200.0 for random shooting; 199 in each of three episodes here."""
    worlds = bwm.KnownDynamics(structure=CartPole.gymnasium(), dtype=torch.float32).draw(1)
    step, g = frozen(worlds), torch.Generator().manual_seed(0)
    x, total = 0.1 * torch.rand(3, 4, generator=g) - 0.05, torch.zeros(3)
    plan: Plan | None = None
    for _ in range(200):
        plan = planner.plan(worlds, x, generator=g, previous=plan)
        x = step(x, plan.action)
        total -= balance(x)
    assert float(total.min()) >= 199.0
