"""Linearisation: the path without noise, and tangents by hand."""

import torch
from torch import Tensor

import bayeswm as bwm
from bayeswm.base import Schema, Variable
from bayeswm.propagation import Linearized
from bayeswm.structures import FromFunction
from tests.propagation import linear_systems as lin
from tests.propagation.linear_systems import generator, normal

F64 = torch.float64


def test_mean_and_covariance_by_the_tangent() -> None:
    """x' = sin(x) + y u, y' = x y: the Jacobian by hand, along the path without noise."""
    plane = Schema(state=[Variable("x"), Variable("y")], action=[Variable("u")], time_step=1.0)

    def move(x: Tensor, u: Tensor) -> Tensor:
        return torch.stack((torch.sin(x[..., 0]) + x[..., 1] * u[..., 0], x[..., 0] * x[..., 1]), -1)

    model = bwm.KnownDynamics(structure=FromFunction(move, schema=plane), noise=[0.1, 0.0])
    belief, actions = lin.start(batch=1), normal(1, 5, 1)
    found = bwm.propagate(model, belief, actions, method=Linearized())
    (m,), (C,) = lin.as_belief(belief)
    for h in range(5):
        u = actions[0, h]
        J = torch.stack((torch.stack((m[0].cos(), u[0])), torch.stack((m[1], m[0]))))
        m, C = move(m, u), J @ C @ J.mT + torch.diag(torch.tensor([0.01, 0.0], dtype=F64))
        torch.testing.assert_close(found.mean[0, h], m)
        torch.testing.assert_close(found.covariance[0, h], C, rtol=1e-6, atol=1e-12)


def test_ensembles_and_processes_have_tangents() -> None:
    """A network's gradient is written by hand, a process's goes through its kernel: both against differences."""
    true = bwm.KnownDynamics(structure=bwm.structures.Pendulum.gymnasium(), noise=0.01)
    states, actions = normal(4, 12, 2), normal(4, 11, 1).clamp(-2, 2)
    data = bwm.Trajectories(true.schema, state=states, action=actions)
    network = bwm.structures.MLP(hidden=(8,))
    ensemble = bwm.DeepEnsemble(structure=network, members=2, epochs=1, dtype=F64).fit(data, seed=0, progress=False)
    process = bwm.GaussianProcess().fit(data, seed=0, progress=False).draw(2, generator=generator())
    for worlds in (ensemble.draw(2), process):
        belief = bwm.Gaussian(normal(1, 1, 3, 2), torch.tensor([1e-4, 0.0], dtype=F64))
        law = bwm.propagate(worlds, belief, normal(3, 1, 1), method=Linearized()).laws[0]
        step = 1e-4 * torch.tensor([1.0, 0.0], dtype=F64)
        up, down = (worlds.transition(belief.mean.expand(2, 1, 3, 2) + s, normal(3, 1)).mean for s in (step, -step))
        noise = worlds.transition(belief.mean.expand(2, 1, 3, 2), normal(3, 1)).variance
        torch.testing.assert_close(law.variance - noise, ((up - down) / 2).square(), rtol=1e-4, atol=1e-12)
