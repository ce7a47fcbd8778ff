import itertools
import math

import pytest
import torch
from torch import Tensor

import bayeswm as bwm
from bayeswm.base import SpecError
from bayeswm.structures import RK4, Ballistic, Leapfrog

F64 = torch.float64


def step(structure: Ballistic, state: Tensor) -> Tensor:
    parameters = {k: torch.as_tensor(p.value, dtype=F64) for k, p in structure.parameters().items()}
    return structure.transition(parameters, state, torch.empty(0), torch.empty(0), 0)[0]


@pytest.mark.parametrize("dimensions", [2, 3])
@pytest.mark.parametrize("integrator", [RK4(), Leapfrog()])
def test_a_parabola_without_drag(dimensions: int, integrator: RK4 | Leapfrog) -> None:
    structure = Ballistic(gravity=9.6, dimensions=dimensions, integrator=integrator, time_step=0.7)
    x = torch.randn(5, 2 * dimensions, generator=torch.Generator().manual_seed(0), dtype=F64)
    at, velocity = x.split(dimensions, -1)
    g = torch.tensor([0.0, 0.0, -9.6], dtype=F64)[-dimensions:]
    expected = torch.cat((at + 0.7 * velocity + 0.5 * 0.7**2 * g, velocity + 0.7 * g), -1)
    torch.testing.assert_close(step(structure, x), expected, atol=1e-14, rtol=1e-14)


@pytest.mark.parametrize("dimensions", [2, 3])
def test_a_fall_with_quadratic_drag_converges_to_its_closed_form(dimensions: int) -> None:
    # from rest: v = -v_end tanh(g t / v_end), z = -v_end^2 / g log cosh(g t / v_end), v_end = sqrt(g / k)
    g, k, seconds = 9.81, 0.05, 2.0
    end = math.sqrt(g / k)
    expected = torch.zeros(2 * dimensions, dtype=F64)
    expected[dimensions - 1] = -(end**2) / g * math.log(math.cosh(g * seconds / end))
    expected[-1] = -end * math.tanh(g * seconds / end)
    errors = []
    for n in (20, 40, 80):
        x, structure = torch.zeros(2 * dimensions, dtype=F64), Ballistic(drag=k, dimensions=dimensions, time_step=2 / n)
        for _ in range(n):
            x = step(structure, x)
        errors.append(float((x - expected).norm()))
    rates = [math.log2(a / b) for a, b in itertools.pairwise(errors)]
    assert rates[-1] == pytest.approx(4, abs=0.2)
    assert errors[-1] < 1e-6


def test_drag_points_against_the_motion_whichever_way() -> None:
    structure = Ballistic(gravity=0.0, drag=0.1, time_step=0.5, integrator=RK4(substeps=20))
    velocity = torch.tensor([3.0, -4.0, 12.0], dtype=F64)  # a speed of 13
    after = step(structure, torch.cat((torch.zeros(3, dtype=F64), velocity)))
    # along a line v = v0 / (1 + k v0 t), and the way is log(1 + k v0 t) / k; RK4 errs by some (k v h)^4 = 1e-6 of it
    torch.testing.assert_close(after[3:], velocity / (1 + 0.1 * 13 * 0.5), rtol=1e-6, atol=0)
    torch.testing.assert_close(after[:3], velocity / 13 * math.log(1 + 0.1 * 13 * 0.5) / 0.1, rtol=1e-6, atol=0)


def test_a_gradient_at_rest() -> None:
    jacobian = torch.func.jacrev(lambda x: step(Ballistic(drag=0.1), x))(torch.zeros(6, dtype=F64))
    assert bool(jacobian.isfinite().all())


def test_uncertain_parameters_make_worlds() -> None:
    law = torch.distributions.LogNormal(0.0, 0.3)
    start = torch.tensor([0.0, 1.0, 2.0, 3.0, -2.0, 1.0], dtype=F64)
    drawn = bwm.KnownDynamics(structure=Ballistic(gravity=law, drag=law)).draw(
        5, generator=torch.Generator().manual_seed(0)
    )
    mean = drawn.transition(drawn.start(start), torch.empty(0, dtype=F64)).mean
    for w in range(5):
        one = Ballistic(**{k: float(drawn.parameters[k][w]) for k in ("gravity", "drag")})
        torch.testing.assert_close(mean[w, 0], step(one, start))


def test_what_makes_no_sense_and_description() -> None:
    with pytest.raises(SpecError, match="dimensions=2 or 3, got 4"):
        Ballistic(dimensions=4)
    with pytest.raises(SpecError, match="drag finite"):
        Ballistic(drag=math.nan)
    law = torch.distributions.Normal(9.81, 0.3)
    for structure in (Ballistic(), Ballistic(gravity=law, drag=0.1, dimensions=2, integrator=Leapfrog())):
        again = Ballistic.from_config(structure.config())
        assert again.config() == structure.config()
        assert again.schema == structure.schema
    assert Ballistic(dimensions=2).schema.state.names == ("x", "z", "velocity_x", "velocity_z")
