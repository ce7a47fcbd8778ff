"""The unscented transform: what its points are exact for, and that they are few."""

import pytest
import torch
from torch import Tensor

import bayeswm as bwm
from bayeswm.base import Gaussian, Schema, Variable
from bayeswm.propagation import MomentMatching, Unscented
from bayeswm.structures import FromFunction

LINE = Schema(state=[Variable("x")], time_step=1.0)


@pytest.mark.parametrize("size", [1, 2, 5])
def test_the_mean_of_a_cubic_function_is_exact_and_takes_few_points(size: int) -> None:
    seen = list[int]()

    def move(x: Tensor, u: Tensor) -> Tensor:
        seen.append(x.shape[0])
        return x**3

    schema = Schema(state=[Variable(f"x{i}") for i in range(size)], time_step=1.0)
    model = bwm.KnownDynamics(structure=FromFunction(move, schema=schema))
    belief = Gaussian(torch.full((1, 1, size), 0.5).double(), torch.full((size,), 0.3).double())
    found = bwm.propagate(model, belief, horizon=1, method=Unscented())
    # E[x^3] = m^3 + 3 m s^2
    torch.testing.assert_close(found.mean, torch.full((1, size), 0.5**3 + 3 * 0.5 * 0.09).double())
    assert seen[-1] == 2 * size + 1


def test_one_column_has_the_points_of_moment_matching() -> None:
    model = bwm.KnownDynamics(structure=FromFunction(lambda x, u: torch.sin(3 * x), schema=LINE), noise=0.1)
    belief = Gaussian(torch.ones(1, 1, 1).double(), torch.ones(1).double())
    one, other = (bwm.propagate(model, belief, horizon=4, method=m) for m in (Unscented(), MomentMatching()))
    torch.testing.assert_close(one.mean, other.mean)
    torch.testing.assert_close(one.variance, other.variance)
