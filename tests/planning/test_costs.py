import math

import numpy as np
import pytest
import torch

import bayeswm as bwm
from bayeswm.base import Schema, Variable
from bayeswm.planning import quadratic, saturating, tip_distance
from bayeswm.structures import CartPole, Pendulum

G = torch.Generator().manual_seed(1)


def test_quadratic_forms() -> None:
    Q, R, last = (torch.randn(n, n, generator=G, dtype=torch.float64) for n in (3, 2, 3))
    goal = torch.randn(3, generator=G, dtype=torch.float64)
    x, u = (torch.randn(4, 6 - i, n, generator=G, dtype=torch.float64) for i, n in enumerate((3, 2)))
    objective = quadratic(Q, R, terminal=last, goal=goal)
    found = objective.cost(x, u, torch.zeros(1, 5, 0, dtype=torch.float64))
    for k in range(4):
        away = (x[k] - goal).numpy()
        expected = sum(a @ Q.numpy() @ a for a in away[:-1]) + sum(v @ R.numpy() @ v for v in u[k].numpy())
        expected += away[-1] @ last.numpy() @ away[-1]
        assert float(found[k]) == pytest.approx(float(expected), rel=1e-12)


def test_quadratic_diagonals_are_matrices() -> None:
    x, u = torch.randn(6, 3, generator=G), torch.randn(5, 1, generator=G)
    context = torch.zeros(5, 0)
    weights = torch.tensor([1.0, 0.5, 2.0])
    short, whole = quadratic(weights, torch.tensor([0.1])), quadratic(weights.diag(), torch.tensor([[0.1]]))
    torch.testing.assert_close(short.cost(x, u, context), whole.cost(x, u, context))
    with pytest.raises(bwm.SpecError, match="expected state of shape"):
        quadratic(torch.ones(2, 3), torch.ones(1))
    with pytest.raises(bwm.SpecError, match="expected action of shape"):
        quadratic(torch.ones(2), torch.tensor(1.0))


def test_saturating_counts_the_states_after_each_step() -> None:
    x = torch.randn(4, 6, 2, generator=G, dtype=torch.float64)
    objective = saturating(lambda state: state[..., 0].abs(), 0.7)
    found = objective.cost(x, torch.zeros(5, 1, dtype=torch.float64), torch.zeros(5, 0, dtype=torch.float64))
    expected = (1 - np.exp(-0.5 * (x[:, 1:, 0].numpy() / 0.7) ** 2)).sum(-1)
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-12)


def test_saturating_keeps_its_digits_near_the_goal() -> None:
    objective = saturating(lambda state: state[..., 0], 1.0)
    found = objective.cost(torch.full((2, 1), 1e-4), torch.zeros(1, 1), torch.zeros(1, 0))
    assert float(found) == pytest.approx(0.5e-8, rel=1e-5)
    for bad in (0.0, -1.0, float("nan")):
        with pytest.raises(bwm.SpecError, match="width"):
            saturating(lambda state: state[..., 0], bad)


def test_distance_of_a_carts_pole_is_the_published_formula() -> None:
    """d^2 = x^2 + 2 x l sin + 2 l^2 + 2 l^2 cos, the target one length above the middle of the track."""
    schema, length = CartPole.swing_up().schema, 0.5
    distance = tip_distance(schema, ["angle"], lengths=[length], target=[0.0, length], base="position", upright=math.pi)
    state = torch.randn(50, 4, generator=G, dtype=torch.float64)
    x, angle = state[:, 0], state[:, 2]
    square = x**2 + 2 * x * length * torch.sin(angle) + 2 * length**2 + 2 * length**2 * torch.cos(angle)
    torch.testing.assert_close(distance(state).square(), square)


def test_distance_of_a_chain() -> None:
    names = ["first", "second"]
    schema = Schema(state=[Variable("speed"), *(Variable(n, kind="angle") for n in names)], time_step=0.1)
    distance = tip_distance(schema, names, lengths=[0.5, 0.25], target=[0.1, -0.2])
    state = torch.randn(20, schema.state.size, generator=G, dtype=torch.float64)
    angles = [state[:, schema.state.column(n)].numpy() for n in names]
    across = 0.5 * np.sin(angles[0]) + 0.25 * np.sin(angles[1]) - 0.1
    up = 0.5 * np.cos(angles[0]) + 0.25 * np.cos(angles[1]) + 0.2
    np.testing.assert_allclose(distance(state).numpy(), np.hypot(across, up), rtol=1e-12)


def test_a_chain_that_makes_no_sense() -> None:
    schema = Pendulum().schema
    with pytest.raises(bwm.SpecError, match="one length for each angle"):
        tip_distance(schema, ["angle"], lengths=[1.0, 2.0], target=[0.0, 1.0])
    with pytest.raises(bwm.SpecError, match="horizontal, vertical"):
        tip_distance(schema, ["angle"], lengths=[1.0], target=[0.0])
    with pytest.raises(bwm.UnknownVariableError, match="angle"):
        tip_distance(schema, ["angel"], lengths=[1.0], target=[0.0, 1.0])
