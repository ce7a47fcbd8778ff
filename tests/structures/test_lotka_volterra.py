import math

import pytest
import torch
from torch import Tensor

import bayeswm as bwm
from bayeswm.base import SpecError
from bayeswm.structures import RK4, Euler, Leapfrog, LotkaVolterra

F64 = torch.float64
RATES = {"growth": 1.1, "predation": 0.4, "conversion": 0.1, "death": 0.4}
START = torch.tensor([10.0, 5.0], dtype=F64)


def step(structure: LotkaVolterra, state: Tensor) -> Tensor:
    parameters = {k: torch.as_tensor(p.value, dtype=F64) for k, p in structure.parameters().items()}
    return structure.transition(parameters, state, torch.empty(0), torch.empty(0), 0)[0]


def run(structure: LotkaVolterra, seconds: float) -> Tensor:
    x = START
    for _ in range(round(seconds / structure.schema.time_step)):
        x = step(structure, x)
    return x


def conserved(x: Tensor) -> Tensor:
    u, v = x.unbind(-1)
    return 0.1 * u - 0.4 * u.log() + 0.4 * v - 1.1 * v.log()


@pytest.mark.parametrize(("method", "order"), [(Euler(), 1), (RK4(), 4)])
def test_the_conserved_quantity_and_the_order_of_convergence(method: RK4 | Euler, order: int) -> None:
    exact = run(LotkaVolterra(**RATES, time_step=2.0 / 4096), 2.0)
    sizes = [2.0 / n for n in (128, 256, 512)]
    found = [run(LotkaVolterra(**RATES, time_step=h, integrator=method), 2.0) for h in sizes]
    errors = [float((x - exact).norm()) for x in found]
    assert math.log2(errors[1] / errors[2]) == pytest.approx(order, abs=0.1)
    drift = [abs(float(conserved(x) - conserved(START))) for x in found]
    assert drift[1] / drift[2] > 2 ** (order - 0.1)
    assert float((conserved(exact) - conserved(START)).abs()) < 1e-12


def test_the_field_is_the_textbook_one() -> None:
    h = 1e-6
    rate = (step(LotkaVolterra(**RATES, time_step=h), START) - START) / h
    expected = torch.tensor([(1.1 - 0.4 * 5) * 10, (0.1 * 10 - 0.4) * 5], dtype=F64)
    torch.testing.assert_close(rate, expected, atol=1e-4, rtol=0)  # + O(h)


def test_rest_and_extinction() -> None:
    structure = LotkaVolterra(**RATES)
    rest = torch.tensor([0.4 / 0.1, 1.1 / 0.4], dtype=F64)
    torch.testing.assert_close(step(structure, rest), rest, rtol=1e-14, atol=0)
    # alone, prey grow and predators die exponentially; logarithms make that exact
    prey = step(structure, torch.tensor([2.0, 0.0], dtype=F64))
    torch.testing.assert_close(prey, torch.tensor([2 * math.exp(0.11), 0.0], dtype=F64), rtol=1e-14, atol=0)
    predators = step(structure, torch.tensor([0.0, 2.0], dtype=F64))
    torch.testing.assert_close(predators, torch.tensor([0.0, 2 * math.exp(-0.04)], dtype=F64), rtol=1e-14, atol=0)
    crude = LotkaVolterra(**RATES, integrator=Euler(), time_step=3.0)
    assert bool((step(crude, torch.tensor([50.0, 80.0], dtype=F64)) > 0).all())  # however coarse the step


def test_a_gradient_where_a_population_is_extinct() -> None:
    jacobian = torch.func.jacrev(lambda x: step(LotkaVolterra(**RATES), x))(torch.tensor([2.0, 0.0], dtype=F64))
    assert bool(jacobian.isfinite().all())


def test_uncertain_parameters_make_worlds() -> None:
    law = torch.distributions.LogNormal(0.0, 0.3)
    model = bwm.KnownDynamics(structure=LotkaVolterra(growth=law, death=law))
    drawn = model.draw(5, generator=torch.Generator().manual_seed(0))
    mean = drawn.transition(drawn.start(START), torch.empty(0, dtype=F64)).mean
    for w in range(5):
        one = LotkaVolterra(**{k: float(drawn.parameters[k][w]) for k in ("growth", "death")})
        torch.testing.assert_close(mean[w, 0], step(one, START))


def test_what_makes_no_sense_and_description() -> None:
    with pytest.raises(SpecError, match="death > 0"):
        LotkaVolterra(death=0.0)
    with pytest.raises(SpecError, match="law of numbers > 0"):
        LotkaVolterra(growth=torch.distributions.Normal(1.0, 0.1))
    with pytest.raises(SpecError, match="use RK4"):
        step(LotkaVolterra(integrator=Leapfrog()), START)
    law = torch.distributions.LogNormal(0.0, 0.3)
    for structure in (LotkaVolterra(), LotkaVolterra(growth=law, time_step=1.0)):
        again = LotkaVolterra.from_config(structure.config())
        assert again.config() == structure.config()
        assert again.schema == structure.schema
