import math

import numpy as np
import pytest
import torch
from torch import Tensor

import bayeswm as bwm
from bayeswm.structures import RK4, Euler, Integrator, Pendulum, SemiImplicitEuler

F64 = torch.float64


def step(structure: Pendulum, state: Tensor, torque: Tensor) -> Tensor:
    parameters = {k: torch.as_tensor(p.value, dtype=F64) for k, p in structure.parameters().items()}
    return structure.transition(parameters, state, torque, torch.empty(0), 0)[0]


@pytest.mark.filterwarnings("ignore::DeprecationWarning:pygame")
def test_gymnasium_pendulum_step_for_step() -> None:
    gymnasium = pytest.importorskip("gymnasium")
    env, g = gymnasium.make("Pendulum-v1").unwrapped, np.random.default_rng(0)
    env.reset(seed=0)
    structure, fastest = Pendulum.gymnasium(), 0.0
    for i in range(200):
        if i % 50 == 0:
            env.state = np.array([g.uniform(-10, 10), g.uniform(-8, 8)])
        torque = g.uniform(-3, 3)  # beyond the limit too
        mine = step(structure, torch.tensor(env.state, dtype=F64), torch.tensor([torque], dtype=F64))
        env.step(np.array([torque]))
        np.testing.assert_allclose(mine.numpy(), env.state, atol=1e-12, rtol=0)
        fastest = max(fastest, abs(float(env.state[1])))
    assert fastest == 8.0  # the clip of the speed was met


def test_gymnasium_rollout_follows_the_environment() -> None:
    gymnasium = pytest.importorskip("gymnasium")
    env, g = gymnasium.make("Pendulum-v1").unwrapped, np.random.default_rng(1)
    env.reset(seed=1)
    torques = g.uniform(-2, 2, (200, 1))
    start, states = torch.tensor(env.state), []
    for torque in torques:
        env.step(torque)
        states.append(env.state)
    model = bwm.KnownDynamics(structure=Pendulum.gymnasium())
    r = bwm.rollout(model, start, torch.tensor(torques), particles=1)
    # rounding grows by the Lyapunov exponent of a swinging pendulum, some e^10 in 10 s
    np.testing.assert_allclose(r.particles[0, 0].numpy(), np.stack(states), atol=1e-9, rtol=0)


def swing_up_rates(x: Tensor, u: float) -> Tensor:
    """P2: theta'' = (u - 0.01 w - m g l sin(theta) / 2) / (m l^2 / 3), m = l = 1, g = 9.82; 0 hangs."""
    angle, speed = x
    return torch.stack((speed, (u - 0.01 * speed - 9.82 * torch.sin(angle) / 2) * 3))


@pytest.mark.parametrize("torque", [-2.5, 0.3, 2.5])
def test_swing_up_equals_its_formula(torque: float) -> None:
    x = torch.tensor([0.7, -1.3], dtype=F64)
    expected, h = x, 0.1 / 20
    for _ in range(20):
        k1 = swing_up_rates(expected, torque)
        k2 = swing_up_rates(expected + 0.5 * h * k1, torque)
        k3 = swing_up_rates(expected + 0.5 * h * k2, torque)
        k4 = swing_up_rates(expected + h * k3, torque)
        expected = expected + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
    got = step(Pendulum.swing_up(), x, torch.tensor([torque], dtype=F64))
    torch.testing.assert_close(got, expected, atol=1e-12, rtol=0)
    beyond = step(Pendulum.swing_up(), x, torch.tensor([10 * torque], dtype=F64))
    limit = step(Pendulum.swing_up(), x, torch.tensor([math.copysign(2.5, torque)], dtype=F64))
    assert torch.equal(beyond, limit)


def test_it_hangs_at_0_and_stands_at_upright() -> None:
    for upright in (math.pi, 0.0):
        structure = Pendulum(upright=upright, damping=0.1)
        hanging = torch.tensor([upright - math.pi, 0.0], dtype=F64)
        torch.testing.assert_close(step(structure, hanging, torch.zeros(1)), hanging, atol=1e-14, rtol=0)
        near, moved = hanging + torch.tensor([0.1, 0.0]), hanging
        moved = step(structure, near, torch.zeros(1))
        assert float(moved[1]) < 0  # back
        fallen = step(structure, torch.tensor([upright + 0.1, 0.0], dtype=F64), torch.zeros(1))
        assert float(fallen[1]) > 0  # away


def test_small_swings_have_the_period_of_a_point_mass() -> None:
    structure = Pendulum(length=0.5, time_step=1e-3)
    period = 2 * math.pi * math.sqrt(0.5 / 9.81)
    model = bwm.KnownDynamics(structure=structure)
    n = round(period / 1e-3)
    r = bwm.rollout(model, torch.tensor([1e-3, 0.0]), torch.zeros(n, 1), particles=1)
    # n steps are not quite a period; the swing's own size changes the period by size^2 / 16
    expected = 1e-3 * math.cos(2 * math.pi * n * 1e-3 / period)
    assert float(r.mean[-1, 0]) == pytest.approx(expected, rel=1e-7)


def test_friction_takes_energy_whichever_way_it_turns() -> None:
    structure = Pendulum(gravity=0.0, friction=0.2, damping=0.0, time_step=0.01)
    for speed in (-1.0, 1.0):
        after = step(structure, torch.tensor([0.0, speed], dtype=F64), torch.zeros(1))
        assert abs(float(after[1])) == pytest.approx(1 - 0.2 * 0.01, abs=1e-9)
    assert float(step(structure, torch.zeros(2, dtype=F64), torch.zeros(1))[1]) == 0.0


def test_uncertain_parameters_make_worlds() -> None:
    model = bwm.KnownDynamics(structure=Pendulum(mass=torch.distributions.Uniform(0.5, 2.0)))
    drawn = model.draw(6, generator=torch.Generator().manual_seed(0))
    carry, action = drawn.start(torch.tensor([1.0, 0.0])), torch.ones(1, dtype=F64)
    mean = drawn.transition(carry, action).mean
    for w in range(6):
        one = Pendulum(mass=float(drawn.parameters["mass"][w]))
        torch.testing.assert_close(mean[w, 0], step(one, torch.tensor([1.0, 0.0], dtype=F64), action))
    assert not drawn.exhaustive


def test_description_round_trip() -> None:
    for structure in (Pendulum.gymnasium(), Pendulum.swing_up(), Pendulum(friction=0.1)):
        again = Pendulum.from_config(structure.config())
        assert again.config() == structure.config()
        assert again.schema == structure.schema


@pytest.mark.parametrize("integrator", [Euler(), SemiImplicitEuler()])
@pytest.mark.parametrize("inertia", [None, 0.4])
def test_its_step_as_sines_and_cosines(integrator: Integrator, inertia: float | None) -> None:
    given = {"mass": 0.7, "length": 0.5, "damping": 0.2, "upright": 0.4, "inertia": inertia, "time_step": 0.1}
    structure = Pendulum(integrator=integrator, **given)  # pyright: ignore[reportArgumentType]
    parameters = {k: torch.as_tensor(p.value, dtype=F64) for k, p in structure.parameters().items()}
    found = structure.trigonometric(parameters)
    assert found is not None
    z = torch.randn(20, 3, generator=torch.Generator().manual_seed(0), dtype=F64)
    mine = z @ found.linear.mT + z.sin() @ found.sine.mT + z.cos() @ found.cosine.mT + found.constant
    torch.testing.assert_close(mine, step(structure, z[:, :2], z[:, 2:]), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize(
    "structure",
    [
        Pendulum(integrator=RK4()),
        Pendulum(integrator=Euler(substeps=2)),
        Pendulum(integrator=Euler(), torque_limit=2.0),
        Pendulum(integrator=Euler(), speed_limit=8.0),
        Pendulum(integrator=Euler(), friction=0.1),
    ],
)
def test_other_steps_are_not_sines_and_cosines(structure: Pendulum) -> None:
    parameters = {k: torch.as_tensor(p.value, dtype=F64) for k, p in structure.parameters().items()}
    assert structure.trigonometric(parameters) is None
