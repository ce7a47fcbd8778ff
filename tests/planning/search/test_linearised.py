import pytest
import torch

import bayeswm as bwm
from bayeswm.base.errors import SpecError
from bayeswm.planning import Objective, quadratic
from bayeswm.planning.search.linearised import linearise, mean_step, quadratise
from tests.planning.linear_systems import linear_problem, starts


def uncertain(weights=None):
    p = linear_problem(0, offset=0.1)
    law = torch.distributions.Normal(p.A, 0.1)
    structure = bwm.structures.Linear(p.schema(1.0), A=law, B=p.B, c=p.c)
    worlds = bwm.KnownDynamics(structure=structure).draw(3, generator=torch.Generator().manual_seed(0))
    return p, worlds if weights is None else worlds.reweight(torch.tensor(weights).log())


@pytest.mark.parametrize("weights", [None, [0.7, 0.2, 0.1]])
def test_linear_worlds_have_the_mean_matrices(weights):
    p, worlds = uncertain(weights)
    A = (worlds.weight[:, None, None] * worlds.parameters["A"]).sum(0)
    x, u = starts(6).view(2, 3, 4), starts(6, states=2).view(2, 3, 2)
    mean, by_x, by_u = linearise(worlds, x, u)
    torch.testing.assert_close(mean, x @ A.T + u @ p.B.T + p.c)
    torch.testing.assert_close(by_x, A.expand(2, 3, 4, 4))
    torch.testing.assert_close(by_u, p.B.expand(2, 3, 4, 2))


def test_derivatives_of_a_pendulum_agree_with_differences():
    worlds = bwm.KnownDynamics(structure=bwm.structures.Pendulum(integrator=bwm.structures.RK4())).draw(1)
    x, u, h = torch.tensor([0.7, -0.3], dtype=torch.float64), torch.tensor([0.5], dtype=torch.float64), 1e-5
    _, by_x, by_u = linearise(worlds, x, u)
    for i, step in enumerate(h * torch.eye(2, dtype=torch.float64)):
        change = (mean_step(worlds, x + step, u) - mean_step(worlds, x - step, u)) / (2 * h)
        torch.testing.assert_close(by_x[:, i], change, rtol=1e-7, atol=1e-9)
    change = (mean_step(worlds, x, u + h) - mean_step(worlds, x, u - h)) / (2 * h)
    torch.testing.assert_close(by_u[:, 0], change, rtol=1e-7, atol=1e-9)


def test_a_step_that_ignores_the_action():
    schema = bwm.Schema(state=[bwm.Variable("x")], action=[bwm.Variable("u")], time_step=1.0)
    worlds = bwm.KnownDynamics(structure=bwm.structures.FromFunction(lambda x, u: 2 * x, schema=schema)).draw(1)
    _, by_x, by_u = linearise(worlds, torch.ones(1), torch.ones(1))
    assert by_x.tolist() == [[2.0]]
    assert by_u.tolist() == [[0.0]]


def test_expansion_of_a_cost_of_everything():
    def stage(x, u, c, t):
        return (t + 1) * (x[..., 0] * x[..., 1] * u[..., 0] + c[..., 0] * u[..., 0] ** 2)

    objective = Objective(stage=stage, terminal=lambda x, c: c[..., 0] * x[..., 1] ** 3, discount=0.5, change=9.0)
    states = torch.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])
    actions, context = torch.tensor([[0.5], [-1.0]]), torch.tensor([[1.0], [2.0]])
    gradient, hessian, last, curvature = quadratise(objective, states, actions, context=context)
    # (t + 1) 0.5^t is 1 at both steps
    for t in range(2):
        (x, v), u, c = states[t], actions[t, 0], context[t, 0]
        torch.testing.assert_close(gradient[t], torch.stack((v * u, x * u, x * v + 2 * c * u)).double())
        exact = torch.stack((torch.stack((0 * u, u, v)), torch.stack((u, 0 * u, x)), torch.stack((v, x, 2 * c))))
        torch.testing.assert_close(hessian[t], exact.double())
    torch.testing.assert_close(last, 0.25 * torch.tensor([0.0, 3 * 2 * 36.0]).double())
    torch.testing.assert_close(curvature, 0.25 * torch.tensor([[0.0, 0.0], [0.0, 6 * 2 * 6.0]]).double())


def test_after_the_end_of_an_episode_nothing_counts():
    plain = quadratic(torch.ones(1), torch.ones(1))
    objective = Objective(stage=plain.stage, terminal=plain.terminal, termination=lambda x, c: x[..., 0] > 1)
    states = torch.tensor([[0.5], [2.0], [0.5]])
    gradient, hessian, last, curvature = quadratise(objective, states, torch.ones(2, 1), context=torch.zeros(2, 0))
    torch.testing.assert_close(gradient, torch.tensor([[1.0, 2.0], [0.0, 0.0]]).double())
    torch.testing.assert_close(hessian[0], 2 * torch.eye(2).double())
    assert not bool(hessian[1].any() | last.any() | curvature.any())


def test_a_kink_is_named():
    objective = Objective(stage=lambda x, u, c, t: x[..., 0].abs().sqrt())
    with pytest.raises(SpecError, match="kink"):
        quadratise(objective, torch.zeros(2, 1), torch.zeros(1, 1), context=torch.zeros(1, 0))
