import pytest
import torch

from bayeswm.base import Schema, SpecError, Variable
from bayeswm.planning import MLPPolicy

F64 = torch.float64
SCHEMA = Schema(
    state=[Variable("x"), Variable("v")], action=[Variable("u", bounds=(-3.0, 3.0)), Variable("w")], time_step=0.1
)


def policy(*hidden: int, seed: int = 0) -> MLPPolicy:
    return MLPPolicy(SCHEMA, hidden=hidden, generator=torch.Generator().manual_seed(seed))


def test_value_layer_by_layer() -> None:
    p, x = policy(4, 3), torch.tensor([0.3, -0.7], dtype=F64)
    w = p.parameters
    inner = torch.tanh(w["weight_1"] @ torch.tanh(w["weight_0"] @ x + w["bias_0"]) + w["bias_1"])
    torch.testing.assert_close(p.value(x, 0), torch.tensor([3.0, 1.0], dtype=F64) * (w["weight_2"] @ inner))


def test_without_hidden_layers_it_is_linear() -> None:
    p = policy()
    x = torch.tensor([[1.0, 2.0], [2.0, 4.0]], dtype=F64)
    value = p.value(x, 0)
    torch.testing.assert_close(value[1], 2 * value[0])


def test_the_generator_decides() -> None:
    assert torch.equal(policy(4).parameters["weight_0"], policy(4).parameters["weight_0"])
    assert not torch.equal(policy(4).parameters["weight_0"], policy(4, seed=1).parameters["weight_0"])
    with pytest.raises(SpecError, match="1 unit or more"):
        policy(4, 0)


def test_gradient() -> None:
    p, state = policy(3), torch.randn(3, 2, generator=torch.Generator().manual_seed(1), dtype=F64)
    names, values = zip(*p.parameters.items(), strict=True)
    given = tuple(v.clone().requires_grad_() for v in values)

    def act(*parameters: torch.Tensor) -> torch.Tensor:
        return p.replace(**dict(zip(names, parameters, strict=True)))(state, 0)

    assert torch.autograd.gradcheck(act, given)
