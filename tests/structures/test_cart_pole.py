import math

import numpy as np
import pytest
import torch
from torch import Tensor

from bayeswm.base import SpecError
from bayeswm.structures import CartPole

F64 = torch.float64


def step(structure: CartPole, state: Tensor, force: float) -> Tensor:
    parameters = {k: torch.as_tensor(p.value, dtype=F64) for k, p in structure.parameters().items()}
    return structure.transition(parameters, state, torch.tensor([force], dtype=F64), torch.empty(0), 0)[0]


@pytest.mark.filterwarnings("ignore")  # the environment warns of steps after its own end
def test_gymnasium_cart_pole_by_both_actions() -> None:
    gymnasium = pytest.importorskip("gymnasium")
    env, g = gymnasium.make("CartPole-v1").unwrapped, np.random.default_rng(0)
    env.reset(seed=0)
    structure = CartPole.gymnasium()
    for i in range(100):
        if i % 10 == 0:
            env.state = g.uniform(-1, 1, 4) * [2.0, 3.0, 3.0, 4.0]
        action = int(g.integers(2))
        mine = step(structure, torch.tensor(np.array(env.state), dtype=F64), 10.0 if action else -10.0)
        env.step(action)
        np.testing.assert_allclose(mine.numpy(), np.array(env.state), atol=1e-12, rtol=0)


def swing_up_rates(x: Tensor, u: float) -> Tensor:
    """P1 of the swing-up benchmark, theta = 0 hanging."""
    M, m, length, b, g = 0.5, 0.5, 0.5, 0.1, 9.82
    _, v, angle, w = x
    s, c = torch.sin(angle), torch.cos(angle)
    dv = (2 * m * length * w**2 * s + 3 * m * g * s * c + 4 * u - 4 * b * v) / (4 * (M + m) - 3 * m * c**2)
    dw = (-3 * m * length * w**2 * s * c - 6 * (M + m) * g * s - 6 * (u - b * v) * c) / (
        4 * length * (M + m) - 3 * m * length * c**2
    )
    return torch.stack((v, dv, w, dw))


@pytest.mark.parametrize("force", [-10.0, 0.0, 7.0])
def test_swing_up_equals_its_formula(force: float) -> None:
    x = torch.tensor([0.3, -1.0, 0.8, 2.0], dtype=F64)
    expected, h = x, 0.1 / 20
    for _ in range(20):
        k1 = swing_up_rates(expected, force)
        k2 = swing_up_rates(expected + 0.5 * h * k1, force)
        k3 = swing_up_rates(expected + 0.5 * h * k2, force)
        k4 = swing_up_rates(expected + h * k3, force)
        expected = expected + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
    torch.testing.assert_close(step(CartPole.swing_up(), x, force), expected, atol=1e-12, rtol=0)


def test_both_ways_of_counting_the_angle_describe_one_system() -> None:
    up, down = CartPole(upright=0.0), CartPole(upright=math.pi)
    x = torch.tensor([0.1, 0.5, 0.4, -1.0], dtype=F64)
    mirrored = torch.tensor([0.1, 0.5, math.pi - 0.4, 1.0], dtype=F64)
    one, two = step(up, x, 3.0), step(down, mirrored, 3.0)
    torch.testing.assert_close(two, torch.stack((one[0], one[1], math.pi - one[2], -one[3])))


def test_energy_is_kept_without_friction_and_force() -> None:
    structure = CartPole(time_step=1e-3)

    def energy(x: Tensor) -> Tensor:
        _, v, angle, w = x
        m, length, tip = 0.1, 0.5, torch.cos(angle)
        return (
            0.5 * 1.1 * v**2 + m * length * v * w * tip + 0.5 * (4 / 3) * m * length**2 * w**2 + m * 9.81 * length * tip
        )

    x = torch.tensor([0.0, 0.3, 0.5, 1.0], dtype=F64)
    before = energy(x)
    for _ in range(500):
        x = step(structure, x, 0.0)
    assert float(energy(x)) == pytest.approx(float(before), abs=1e-9)  # RK4 at 1 ms: error O(h^4) a second


def test_an_inertia_of_its_own() -> None:
    x = torch.tensor([0.0, 0.0, 0.3, 0.0], dtype=F64)
    rod = CartPole(inertia=4 / 3 * 0.1 * 0.25)
    torch.testing.assert_close(step(rod, x, 1.0), step(CartPole(), x, 1.0))
    assert float(step(CartPole(inertia=0.5), x, 0.0)[3]) < float(step(CartPole(), x, 0.0)[3])


def test_what_makes_no_sense_and_description() -> None:
    with pytest.raises(SpecError, match="upright=0"):
        CartPole(upright=1.0)
    with pytest.raises(SpecError, match="cart_mass > 0"):
        CartPole(cart_mass=0.0)
    for structure in (CartPole.gymnasium(), CartPole.swing_up(), CartPole(inertia=0.1)):
        again = CartPole.from_config(structure.config())
        assert again.config() == structure.config()
        assert again.schema == structure.schema
