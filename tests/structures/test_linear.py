import pytest
import torch
from torch.distributions import LogNormal, MultivariateNormal, Normal

import bayeswm as bwm
from bayeswm.base import Schema, SpecError, Variable
from bayeswm.structures import Linear

F64 = torch.float64
SCHEMA = Schema(state=[Variable("x"), Variable("v")], action=[Variable("u")], time_step=0.1)
A = torch.tensor([[1.0, 0.1], [-0.2, 0.9]], dtype=F64)
B = torch.tensor([[0.0], [0.5]], dtype=F64)


def test_formula() -> None:
    structure = Linear(SCHEMA, A=A, B=B, c=torch.tensor([1.0, -1.0], dtype=F64))
    model = bwm.KnownDynamics(structure=structure)
    x, u = torch.tensor([[0.3, -2.0], [1.0, 1.0]], dtype=F64), torch.tensor([[2.0], [-1.0]], dtype=F64)
    expected = torch.stack([A @ x[i] + B @ u[i] + torch.tensor([1.0, -1.0]) for i in range(2)])
    torch.testing.assert_close(model.predictive(x, u).mean[:, 0], expected)


def test_each_world_has_its_own_matrices() -> None:
    model = bwm.KnownDynamics(structure=Linear(SCHEMA, c=Normal(0.0, 1.0)))
    worlds = model.draw(5, generator=torch.Generator().manual_seed(0))
    assert {k: tuple(v.shape) for k, v in worlds.parameters.items() if k != "process_noise"} == {
        "A": (5, 2, 2),
        "B": (5, 2, 1),
        "c": (5, 2),
    }
    x, u = torch.tensor([0.3, -2.0], dtype=F64), torch.tensor([2.0], dtype=F64)
    mean = worlds.transition(worlds.start(x), u).mean[:, 0]
    p = worlds.parameters
    for w in range(5):
        torch.testing.assert_close(mean[w], p["A"][w] @ x + p["B"][w] @ u + p["c"][w])


def test_without_action_there_is_no_B() -> None:
    structure = Linear(Schema(state=[Variable("x")], time_step=1.0), A=0.5)
    assert set(structure.parameters()) == {"A", "c"}
    model = bwm.KnownDynamics(structure=structure)
    assert bwm.rollout(model, torch.ones(1), torch.zeros(3, 0), particles=1).mean.flatten().tolist() == [
        0.5,
        0.25,
        0.125,
    ]


def test_description_round_trip() -> None:
    for structure in (
        Linear(SCHEMA),
        Linear(SCHEMA, A=A, B=LogNormal(0.0, 1.0), c=Normal(torch.zeros(2), 0.1)),
        Linear(Schema(state=[Variable("x")], time_step=1.0)),
        Linear(c=Normal(0.0, 0.1)),
    ):
        again = Linear.from_config(structure.config())
        assert again.config() == structure.config()
        assert again.schema == structure.schema


def test_it_takes_the_variables_of_the_data() -> None:
    free = Linear(A=0.5, c=Normal(0.0, 3.0))
    assert free.schema is None
    bound = free.bind(SCHEMA)
    assert bound.config() == Linear(SCHEMA, A=0.5, c=Normal(0.0, 3.0)).config()
    with pytest.raises(SpecError, match="expected state"):
        bound.bind(Schema(state=[Variable("x")], time_step=0.1))
    with pytest.raises(SpecError, match="bound to variables"):
        free.parameters()
    with pytest.raises(SpecError, match="schema"):
        bwm.KnownDynamics(structure=free)


def test_what_does_not_fit() -> None:
    with pytest.raises(SpecError, match=r"A of shape \(2, 2\), got \(3, 3\)"):
        Linear(SCHEMA, A=torch.eye(3))
    with pytest.raises(SpecError, match=r"c of shape \(2,\), got \(3,\)"):
        Linear(SCHEMA, c=MultivariateNormal(torch.zeros(3), torch.eye(3)))
    with pytest.raises(SpecError, match="no context, got"):
        Linear(Schema(state=[Variable("x")], context=[Variable("wind")], time_step=0.1))
    with pytest.raises(SpecError, match="expected A finite"):
        Linear(SCHEMA, A=float("nan"))


def test_its_step_is_linear() -> None:
    still = Linear(Schema(state=SCHEMA.state, time_step=0.1), A=A)
    for structure in (Linear(SCHEMA, A=A, B=B, c=torch.tensor([1.0, -1.0])), still):
        parameters = {k: torch.as_tensor(p.value, dtype=F64) for k, p in structure.parameters().items()}
        found, width = structure.trigonometric(parameters), 2 + ("B" in parameters)
        z = torch.randn(20, width, generator=torch.Generator().manual_seed(0), dtype=F64)
        expected = structure.transition(parameters, z[:, :2], z[:, 2:], z[:, :0], 0)[0]
        torch.testing.assert_close(z @ found.linear.mT + found.constant, expected)
        assert not bool(found.sine.any() or found.cosine.any())
