import math

import pytest
import torch
from torch import Tensor

import bayeswm as bwm
from bayeswm.structures import RK4, DuffingOscillator, Leapfrog

F64 = torch.float64
START = torch.tensor([0.4, -0.7], dtype=F64)


def step(structure: DuffingOscillator, state: Tensor, *inputs: float) -> Tensor:
    parameters = {k: torch.as_tensor(p.value, dtype=F64) for k, p in structure.parameters().items()}
    return structure.transition(parameters, state, torch.tensor(inputs, dtype=F64), torch.empty(0), 0)[0]


def linear(h: float, first: float, last: float, *, damping: float = 0.5) -> Tensor:
    """The exact step without the cubic term: input and slope are states of the linear system too."""
    rates = torch.tensor([[0, 1, 0, 0], [-4.0, -damping, 1.5, 0], [0, 0, 0, 1], [0, 0, 0, 0]], dtype=F64)
    return (torch.linalg.matrix_exp(h * rates) @ torch.cat((START, torch.tensor([first, (last - first) / h]))))[:2]


LINEAR = {"damping": 0.5, "stiffness": 4.0, "cubic": 0.0, "gain": 1.5}


# Of a step of h = 0.1: RK4 with 10 substeps errs by less than (2 h / 10)^5 * 10; leapfrog with 100, which is of order 2
# without damping, by 100 (h / 100)^3 / 6 times the third derivative, some 50
@pytest.mark.parametrize(
    ("integrator", "damping", "error"), [(RK4(substeps=10), 0.5, 3e-8), (Leapfrog(substeps=100), 0.0, 1e-6)]
)
def test_a_linear_spring_moves_as_the_matrix_exponential(
    integrator: RK4 | Leapfrog, damping: float, error: float
) -> None:
    given = {**LINEAR, "damping": damping, "time_step": 0.1, "integrator": integrator}
    held, moved = DuffingOscillator(**given), DuffingOscillator(**given, input_samples=2)
    constant, line = linear(0.1, 2.0, 2.0, damping=damping), linear(0.1, 2.0, -1.0, damping=damping)
    torch.testing.assert_close(step(held, START, 2.0), constant, atol=error, rtol=0)
    torch.testing.assert_close(step(moved, START, 2.0, -1.0), line, atol=error, rtol=0)
    torch.testing.assert_close(step(moved, START, 2.0, 2.0), step(held, START, 2.0), atol=1e-14, rtol=0)
    assert float((line - constant).abs().max()) > 0.1  # it matters


@pytest.mark.parametrize("stiffness", [1.0, -1.0])
def test_energy_is_kept_without_damping_and_input(stiffness: float) -> None:
    structure = DuffingOscillator(damping=0.0, stiffness=stiffness, cubic=2.0, time_step=1e-2)

    def energy(x: Tensor) -> float:
        return float(0.5 * x[1] ** 2 + 0.5 * stiffness * x[0] ** 2 + 0.5 * x[0] ** 4)

    x = START
    for _ in range(500):
        x = step(structure, x, 0.0)
    assert energy(x) == pytest.approx(energy(START), abs=1e-8)  # order h^4 in 5 s


def test_a_buckled_spring_rests_in_its_wells() -> None:
    structure = DuffingOscillator(stiffness=-2.0, cubic=0.5)
    for at in (-2.0, 0.0, 2.0):  # x^2 = -alpha / beta
        x = torch.tensor([at, 0.0], dtype=F64)
        torch.testing.assert_close(step(structure, x, 0.0), x, atol=1e-14, rtol=0)
    # and a steady input of alpha x + beta x^3 holds it anywhere
    x = torch.tensor([3.0, 0.0], dtype=F64)
    torch.testing.assert_close(step(structure, x, -2.0 * 3.0 + 0.5 * 27.0), x, atol=1e-14, rtol=0)


def test_a_bent_input_moves_a_linear_spring_as_the_matrix_exponential() -> None:
    # u(t) = 2 - 7 t + 40 t^2 in a step of h = 0.1: states x, v, u, u', u''
    h = 0.1
    rates = torch.zeros(5, 5, dtype=F64)
    rates[0, 1] = rates[2, 3] = rates[3, 4] = 1.0
    rates[1] = torch.tensor([-4.0, -0.5, 1.5, 0.0, 0.0])
    begun = torch.cat((START, torch.tensor([2.0, -7.0, 80.0], dtype=F64)))
    exact = (torch.linalg.matrix_exp(h * rates) @ begun)[:2]
    inputs = [2 - 7 * t + 40 * t**2 for t in (0.0, h / 2, h)]
    # the fourth-order method with 10 substeps errs by less than (2 h / 10)^5 * 10, as above
    structure = DuffingOscillator(**LINEAR, input_samples=3, integrator=RK4(substeps=10), time_step=h)
    torch.testing.assert_close(step(structure, START, *inputs), exact, atol=3e-8, rtol=0)
    # leapfrog is of order 2; without damping its error is h (h / 100)^2 / 24 times the second derivative, below 100
    rates[1, 1] = 0.0
    exact = (torch.linalg.matrix_exp(h * rates) @ begun)[:2]
    given = {**LINEAR, "damping": 0.0, "integrator": Leapfrog(substeps=100)}
    structure = DuffingOscillator(**given, input_samples=3, time_step=h)
    torch.testing.assert_close(step(structure, START, *inputs), exact, atol=1e-6, rtol=0)
    # on a straight line the parabola is the line
    line = DuffingOscillator(**LINEAR, input_samples=2, time_step=h)
    bent = DuffingOscillator(**LINEAR, input_samples=3, time_step=h)
    torch.testing.assert_close(step(bent, START, 2.0, 0.5, -1.0), step(line, START, 2.0, -1.0), atol=1e-14, rtol=0)


def test_an_offset_and_a_quadratic_spring_balance_where_they_should() -> None:
    structure = DuffingOscillator(stiffness=2.0, quadratic=-0.6, cubic=0.5, gain=1.5, offset=0.3)
    for at in (-1.0, 0.5, 2.0):  # gain (u + offset) = alpha x + kappa x^2 + beta x^3 holds it
        x = torch.tensor([at, 0.0], dtype=F64)
        force = (2.0 * at - 0.6 * at**2 + 0.5 * at**3) / 1.5 - 0.3
        torch.testing.assert_close(step(structure, x, force), x, atol=1e-14, rtol=0)
    # and energy is kept: kappa x^3 / 3 beside the others
    free = DuffingOscillator(damping=0.0, quadratic=0.9, cubic=2.0, time_step=1e-2)

    def energy(x: Tensor) -> float:
        return float(0.5 * x[1] ** 2 + 0.5 * x[0] ** 2 + 0.3 * x[0] ** 3 + 0.5 * x[0] ** 4)

    x = START
    for _ in range(500):
        x = step(free, x, 0.0)
    assert energy(x) == pytest.approx(energy(START), abs=1e-8)  # order h^4 in 5 s


def test_another_number_of_samples_is_refused() -> None:
    with pytest.raises(bwm.SpecError, match="expected input_samples=1, 2 or 3, got 4"):
        DuffingOscillator(input_samples=4)


def test_a_recorded_sine_is_followed_closer_by_straight_lines() -> None:
    """The steady response to sin(2 t) from recorded samples: amplitude gain / |4 - w^2 + 0.5 i w| at w = 2."""
    h, n = 0.1, 600
    t = h * torch.arange(n + 1, dtype=F64)
    u = torch.sin(2 * t)
    expected = 1.5 / (0.5 * 2) * torch.sin(2 * t - math.pi / 2)
    errors = []
    for straight in (False, True):
        structure = DuffingOscillator(**LINEAR, input_samples=1 + straight, time_step=h)
        actions = torch.stack((u[:-1], u[1:]), -1)[:, : 1 + straight]
        r = bwm.rollout(bwm.KnownDynamics(structure=structure), torch.zeros(2), actions, particles=1)
        errors.append(float((r.mean[-200:, 0] - expected[-200:]).abs().max()))
    # held samples come h / 2 late: an error of amplitude * w h / 2 = 0.15; lines lose (w h)^2 / 12 of the input
    assert errors[0] == pytest.approx(1.5 * 2 * h / 2, rel=0.05)
    assert errors[1] == pytest.approx(1.5 * (2 * h) ** 2 / 12, rel=0.05)


@pytest.mark.parametrize("straight", [False, True])
def test_uncertain_parameters_make_worlds(straight: bool) -> None:
    law = torch.distributions.Normal(1.0, 0.3)
    model = bwm.KnownDynamics(structure=DuffingOscillator(cubic=law, gain=law, input_samples=1 + straight))
    drawn = model.draw(5, generator=torch.Generator().manual_seed(0))
    inputs = [0.3, -0.2][: 1 + straight]
    mean = drawn.transition(drawn.start(START), torch.tensor(inputs, dtype=F64)).mean
    for w in range(5):
        given = {k: float(drawn.parameters[k][w]) for k in ("cubic", "gain")}
        one = DuffingOscillator(**given, input_samples=1 + straight)
        torch.testing.assert_close(mean[w, 0], step(one, START, *inputs))


def test_description_round_trip() -> None:
    law = torch.distributions.Normal(1.0, 0.3)
    for structure in (
        DuffingOscillator(),
        DuffingOscillator(cubic=law, input_samples=2, integrator=RK4(substeps=3)),
        DuffingOscillator(offset=law, quadratic=-0.1, input_samples=3),
    ):
        again = DuffingOscillator.from_config(structure.config())
        assert again.config() == structure.config()
        assert again.schema == structure.schema
