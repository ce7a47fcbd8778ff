import torch

from bayeswm.base import Schema, Variable
from bayeswm.planning import LinearPolicy

F64 = torch.float64
SCHEMA = Schema(state=[Variable("x"), Variable("v")], action=[Variable("u"), Variable("w")], time_step=0.1)


def test_without_bounds_it_is_linear_feedback() -> None:
    gain, bias = torch.tensor([[1.0, -2.0], [0.5, 0.0]], dtype=F64), torch.tensor([0.1, -0.3], dtype=F64)
    policy = LinearPolicy(SCHEMA).replace(gain=gain, bias=bias)
    state = torch.tensor([2.0, 3.0], dtype=F64)
    torch.testing.assert_close(policy(state, 0), gain @ state + bias)


def test_it_begins_at_rest_and_restarts_elsewhere() -> None:
    policy = LinearPolicy(SCHEMA, bounds=(-4.0, 4.0))
    assert float(policy(torch.ones(2, dtype=F64), 0).abs().max()) == 0
    g = torch.Generator().manual_seed(0)
    first, second = policy.initial(g), policy.initial(g)
    assert not torch.equal(first["gain"], second["gain"])
    assert float(first["bias"].abs().max()) == 0


def test_gradient() -> None:
    policy = LinearPolicy(SCHEMA, bounds=(-1.0, 2.0))
    state = torch.randn(3, 2, generator=torch.Generator().manual_seed(0), dtype=F64)
    gain = torch.randn(2, 2, generator=torch.Generator().manual_seed(1), dtype=F64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda k: policy.replace(gain=k)(state, 0), (gain,))
