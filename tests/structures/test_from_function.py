import pytest
import torch

import bayeswm as bwm
from bayeswm.base import Parameter, Schema, SpecError, Variable
from bayeswm.structures import RK4, FromFunction, Leapfrog

SCHEMA = Schema(state=[Variable("x"), Variable("v")], action=[Variable("u")], context=[Variable("c")], time_step=0.1)
X, U, C = torch.tensor([1.0, 2.0]), torch.tensor([3.0]), torch.tensor([5.0])


def test_each_number_of_arguments() -> None:
    cases = [
        (lambda x, u: x + u, {}, [4.0, 5.0]),
        (lambda x, u, c: x + u + c, {}, [9.0, 10.0]),
        (lambda x, u, c, p: p["k"] * (x + u + c), {"k": 2.0}, [18.0, 20.0]),
    ]
    for fn, given, expected in cases:
        structure = FromFunction(fn, schema=SCHEMA, parameters=given)
        values = {k: torch.tensor(float(v)) for k, v in given.items()}
        assert structure.transition(values, X, U, C, 0)[0].tolist() == expected
        mean, _ = structure.batched({k: v.expand(3) for k, v in values.items()}, X.expand(3, 1, 2), U, C, 0)
        assert mean[2, 0].tolist() == expected


def test_other_signatures_are_refused() -> None:
    for fn in (lambda x: x, lambda a, b, c, d, e: a):
        with pytest.raises(SpecError, match="positional arguments"):
            FromFunction(fn, schema=SCHEMA)
    with pytest.raises(SpecError, match="since there are parameters"):
        FromFunction(lambda x, u: x, schema=SCHEMA, parameters={"k": 1.0})


def test_a_rate_of_change_and_an_integrator() -> None:
    def rate(x: torch.Tensor, u: torch.Tensor) -> torch.Tensor:
        return torch.stack((x[..., 1], -x[..., 0]), -1)

    exact = torch.tensor([1.0, 2.0]).double() @ torch.linalg.matrix_exp(
        torch.tensor([[0.0, -0.1], [0.1, 0.0]], dtype=torch.float64)
    )
    by_rk4 = FromFunction(rate, schema=SCHEMA, integrator=RK4()).transition({}, X.double(), U, C, 0)[0]
    torch.testing.assert_close(by_rk4, exact, atol=1e-6, rtol=0)
    by_leapfrog = FromFunction(rate, schema=SCHEMA, integrator=Leapfrog(), pairs=[(0, 1)])
    torch.testing.assert_close(by_leapfrog.transition({}, X.double(), U, C, 0)[0], exact, atol=1e-3, rtol=0)
    with pytest.raises(SpecError, match="pairs="):
        FromFunction(rate, schema=SCHEMA, integrator=Leapfrog()).transition({}, X, U, C, 0)


def test_uncertain_parameters_with_units() -> None:
    law = torch.distributions.Uniform(1.0, 2.0)
    structure = FromFunction(
        lambda x, u, c, p: p["k"] * x, schema=SCHEMA, parameters={"k": Parameter(law, unit="1/s", positive=True)}
    )
    assert structure.parameters()["k"].unit == "1/s"
    drawn = bwm.KnownDynamics(structure=structure).draw(4, generator=torch.Generator().manual_seed(0))
    mean = drawn.transition(drawn.start(X), U.double(), C.double()).mean
    torch.testing.assert_close(mean[:, 0, 0], drawn.parameters["k"])


def test_names() -> None:
    def drift(x: torch.Tensor, u: torch.Tensor) -> torch.Tensor:
        return x

    assert FromFunction(drift, schema=SCHEMA).name == "drift"
    assert FromFunction(drift, schema=SCHEMA, name="mine").name == "mine"


def test_a_function_may_state_its_own_noise():
    schema = bwm.Schema(state=[bwm.Variable("x")], time_step=0.1)
    noisy = FromFunction(lambda x, u: (0.5 * x, 0.1 + 0.0 * x), schema=schema, name="noisy")
    p = bwm.KnownDynamics(structure=noisy).predictive(torch.ones(1), torch.zeros(0))
    torch.testing.assert_close(p.mean, torch.full((1, 1), 0.5, dtype=torch.float64))
    torch.testing.assert_close(p.stddev, torch.full((1, 1), 0.1, dtype=torch.float64))
