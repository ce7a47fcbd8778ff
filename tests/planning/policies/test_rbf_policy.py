import math

import pytest
import torch

from bayeswm.base import Schema, SpecError, Variable
from bayeswm.planning import RBFPolicy

F64 = torch.float64
SCHEMA = Schema(state=[Variable("x"), Variable("v")], action=[Variable("u")], time_step=0.1)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_value_bump_by_bump() -> None:
    policy = RBFPolicy(SCHEMA, basis=2, generator=generator()).replace(
        center=torch.tensor([[0.0, 0.0], [1.0, -1.0]], dtype=F64),
        log_width=torch.tensor([0.5, 2.0], dtype=F64).log(),
        weight=torch.tensor([[2.0, -3.0]], dtype=F64),
    )
    expected = 2 * math.exp(-0.5 * (1 + 0.0625)) - 3 * math.exp(-0.5 * (1 + 0.5625))
    assert float(policy(torch.tensor([0.5, 0.5], dtype=F64), 0)) == pytest.approx(expected, abs=1e-14)


def test_far_away_it_does_nothing() -> None:
    policy = RBFPolicy(SCHEMA, generator=generator())
    assert policy(torch.tensor([1e180, -1e180], dtype=F64), 0).tolist() == [0.0]


def test_weights_are_shares_of_the_bounds() -> None:
    free, bounded = (RBFPolicy(SCHEMA, generator=generator(), bounds=b) for b in (None, (-5.0, 5.0)))
    x = torch.randn(4, 2, generator=generator(1), dtype=F64)
    torch.testing.assert_close(bounded.value(x, 0), 5 * free.value(x, 0))


def test_the_generator_decides() -> None:
    one, same, other = (RBFPolicy(SCHEMA, generator=generator(s)).parameters for s in (0, 0, 1))
    assert torch.equal(one["center"], same["center"])
    assert not torch.equal(one["center"], other["center"])
    with pytest.raises(SpecError, match="basis >= 1"):
        RBFPolicy(SCHEMA, basis=0, generator=generator())


def test_gradient() -> None:
    policy = RBFPolicy(SCHEMA, basis=3, generator=generator(), bounds=(-1.0, 2.0))
    state = torch.randn(3, 2, generator=generator(1), dtype=F64)
    names, values = zip(*policy.parameters.items(), strict=True)
    given = tuple(v.clone().requires_grad_() for v in values)

    def act(*parameters: torch.Tensor) -> torch.Tensor:
        return policy.replace(**dict(zip(names, parameters, strict=True)))(state, 0)

    assert torch.autograd.gradcheck(act, given)
