import pytest
import torch

import bayeswm as bwm
from bayeswm.planning import CEM, CVaR, Plan
from tests.planning.systems import spring_worlds, squares

START = torch.tensor([[1.0, 0.0], [-0.5, 0.3]], dtype=torch.float64)


def made(**more: object) -> Plan:
    planner = CEM(squares(), horizon=5, samples=30, elites=5, iterations=2, particles=3, risk=CVaR(0.5), **more)
    return planner.plan(spring_worlds(), START, generator=torch.Generator().manual_seed(0))


def test_action_is_the_first() -> None:
    plan = made()
    assert plan.actions.shape == (2, 5, 1)
    assert torch.equal(plan.action, plan.actions[:, 0])


def test_the_forecast_agrees_with_the_returns() -> None:
    plan = made()
    forecast = plan.predictive
    assert forecast.mean.shape == (2, 5, 2)
    states = torch.cat((START[:, None].expand(3, 3, 2, 1, 2), forecast.particles), -2)
    cost = squares().cost(states, plan.actions, torch.zeros(5, 0, dtype=torch.float64))
    assert plan.returns.shape == (3, 3, 2)
    torch.testing.assert_close(plan.returns, -cost, rtol=0, atol=1e-10)
    torch.testing.assert_close(plan.cost, CVaR(0.5)(cost, plan.log_weight), rtol=0, atol=1e-10)


def test_the_forecast_is_made_once_and_only_if_asked() -> None:
    plan = made()
    assert "predictive" not in vars(plan)
    assert plan.predictive is plan.predictive
    assert plan.returns is plan.returns


def test_memory_is_shifted() -> None:
    plan = made()
    mean = plan.memory["actions"]
    assert mean.shape == (2, 5, 1)
    assert torch.equal(plan.shifted(0)["actions"], mean)
    assert torch.equal(plan.shifted()["actions"], torch.cat((mean[:, 1:], mean[:, -1:]), 1))
    assert torch.equal(plan.shifted(3)["actions"], torch.cat((mean[:, 3:], mean[:, -1:].expand(2, 3, 1)), 1))
    assert torch.equal(plan.shifted(9)["actions"], mean[:, -1:].expand(2, 5, 1))
    with pytest.raises(bwm.SpecError, match="steps >= 0"):
        plan.shifted(-1)


def test_what_a_plan_says_of_itself() -> None:
    plan = made()
    assert plan.evaluations == 60
    assert plan.history.shape == (2, 2)
    assert plan.diverged.tolist() == [0.0, 0.0]
    assert plan.feasible.tolist() == [True, True]
    assert plan.fallback.tolist() == [False, False]
