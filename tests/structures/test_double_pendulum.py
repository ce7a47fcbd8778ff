import math

import numpy as np
import pytest
import torch
from torch import Tensor

import bayeswm as bwm
from bayeswm.base import SpecError
from bayeswm.structures import DoublePendulum, Leapfrog

F64 = torch.float64


def step(structure: DoublePendulum, state: Tensor, *torques: float) -> Tensor:
    parameters = {k: torch.as_tensor(p.value, dtype=F64) for k, p in structure.parameters().items()}
    return structure.transition(parameters, state, torch.tensor(torques, dtype=F64), torch.empty(0), 0)[0]


def energy(structure: DoublePendulum, x: Tensor) -> Tensor:
    """Kinetic and potential energy from the positions and velocities of the two centres of mass."""
    v = structure.values
    l1, r1, r2 = v["length_1"], v.get("center_1", v["length_1"] / 2), v.get("center_2", v["length_2"] / 2)
    inertia = [v.get(f"inertia_{i}", v[f"mass_{i}"] * v[f"length_{i}"] ** 2 / 12) for i in (1, 2)]

    def centers(q: Tensor) -> Tensor:
        first, second = q[0], q[0] + q[1]
        elbow = torch.stack((l1 * torch.sin(first), -l1 * torch.cos(first)))
        one = torch.stack((r1 * torch.sin(first), -r1 * torch.cos(first)))
        return torch.stack((one, elbow + torch.stack((r2 * torch.sin(second), -r2 * torch.cos(second)))))

    q, w = x[:2], x[2:]
    at, moving = centers(q), torch.func.jacrev(centers)(q) @ w
    masses = torch.tensor([v["mass_1"], v["mass_2"]], dtype=F64)
    kinetic = 0.5 * (masses * moving.square().sum(-1)).sum() + 0.5 * (
        inertia[0] * w[0] ** 2 + inertia[1] * w.sum() ** 2
    )
    return kinetic + v["gravity"] * (masses * at[:, 1]).sum()


START = torch.tensor([0.5, -1.2, 1.0, 2.0], dtype=F64)
UNEQUAL = {"mass_1": 0.7, "mass_2": 1.3, "length_1": 0.9, "center_1": 0.4, "center_2": 0.6, "inertia_1": 0.05}


@pytest.mark.filterwarnings("ignore")  # the environment warns of steps after its own end
def test_gymnasium_acrobot_by_all_actions() -> None:
    gymnasium = pytest.importorskip("gymnasium")
    env, g = gymnasium.make("Acrobot-v1").unwrapped, np.random.default_rng(0)
    env.reset(seed=0)
    structure, fastest = DoublePendulum.gymnasium(), np.zeros(2)
    for i in range(200):
        if i % 20 == 0:
            env.state = g.uniform(-1, 1, 4) * [math.pi, math.pi, 4 * math.pi, 9 * math.pi]
        action = int(g.integers(3))
        mine = step(structure, torch.tensor(np.array(env.state), dtype=F64), action - 1.0)
        env.step(action)
        fastest = np.maximum(fastest, np.abs(env.state[2:]))
        np.testing.assert_allclose(structure.schema.state.wrap(mine).numpy(), env.state, atol=1e-10, rtol=0)
    assert fastest.tolist() == [4 * math.pi, 9 * math.pi]  # both clips were met


@pytest.mark.parametrize("structure", [DoublePendulum(**UNEQUAL), DoublePendulum.acrobot()])
def test_energy_is_kept_at_the_order_of_the_integrator(structure: DoublePendulum) -> None:
    errors = []
    for h in (0.01, 0.005, 0.0025):
        again = DoublePendulum.from_config({**structure.config(), "time_step": h})
        x = START
        for _ in range(round(0.4 / h)):
            x = step(again, x, *[0.0] * len(again.actuated))
        errors.append(abs(float(energy(again, x) - energy(again, START))))
    # the global error is of order h^4; the energy of RK4 drifts at that order or one above
    assert errors[2] < 1e-7
    assert errors[1] / errors[2] > 2**3.7


def test_power_is_torque_times_speed_and_damping_takes_it() -> None:
    h, damping = 1e-5, {"damping_1": 0.3, "damping_2": 0.7}
    driven = DoublePendulum(**UNEQUAL, time_step=h)
    gained = (energy(driven, step(driven, START, 1.5, -0.4)) - energy(driven, START)) / h
    assert float(gained) == pytest.approx(1.5 * 1.0 - 0.4 * 2.0, abs=1e-3)  # + O(h)
    lossy = DoublePendulum(**UNEQUAL, **damping, time_step=h)
    lost = (energy(lossy, step(lossy, START, 0.0, 0.0)) - energy(lossy, START)) / h
    assert float(lost) == pytest.approx(-0.3 * 1.0**2 - 0.7 * 2.0**2, abs=1e-3)


@pytest.mark.parametrize("sign", [-1, 1])
def test_small_swings_of_two_equal_points_have_their_two_frequencies(sign: int) -> None:
    # equal points at the ends of equal massless rods: w^2 = (2 +- sqrt 2) g / l, second angle -+ sqrt 2 of the first
    structure = DoublePendulum(
        center_1=1.0, center_2=1.0, inertia_1=1e-13, inertia_2=1e-13, gravity=9.81, time_step=1e-3
    )
    frequency = math.sqrt((2 + sign * math.sqrt(2)) * 9.81)
    shape = torch.tensor([1.0, -sign * math.sqrt(2) - 1.0, 0.0, 0.0], dtype=F64)
    x = 1e-5 * shape
    for _ in range(1000):
        x = step(structure, x, 0.0, 0.0)
    # terms of third order in the size 1e-5, and (w h)^4 of the integrator: 1e-9 of the swing
    torch.testing.assert_close(x[:2], 1e-5 * math.cos(frequency) * shape[:2], atol=2e-14, rtol=0)


def test_who_is_actuated() -> None:
    both, shoulder, elbow = (
        step(DoublePendulum(actuated=a), START, *torques)
        for a, torques in ((("elbow", "shoulder"), (1.0, 2.0)), (("shoulder",), (1.0,)), (("elbow",), (2.0,)))
    )
    torch.testing.assert_close(step(DoublePendulum(), START, 1.0, 0.0), shoulder, rtol=0, atol=1e-15)
    torch.testing.assert_close(step(DoublePendulum(), START, 0.0, 2.0), elbow, rtol=0, atol=1e-15)
    torch.testing.assert_close(step(DoublePendulum(), START, 1.0, 2.0), both, rtol=0, atol=1e-15)
    free = DoublePendulum(actuated=())
    torch.testing.assert_close(step(free, START), step(DoublePendulum(), START, 0.0, 0.0), rtol=0, atol=1e-15)
    assert DoublePendulum.acrobot().schema.action.names == ("elbow_torque",)
    assert DoublePendulum.pendubot().schema.action.names == ("shoulder_torque",)


def test_uncertain_parameters_make_worlds() -> None:
    law = torch.distributions.Uniform(0.5, 2.0)
    drawn = bwm.KnownDynamics(structure=DoublePendulum(mass_2=law, center_2=law)).draw(
        5, generator=torch.Generator().manual_seed(0)
    )
    mean = drawn.transition(drawn.start(START), torch.tensor([1.0, -1.0], dtype=F64)).mean
    for w in range(5):
        one = DoublePendulum(**{k: float(drawn.parameters[k][w]) for k in ("mass_2", "center_2")})
        torch.testing.assert_close(mean[w, 0], step(one, START, 1.0, -1.0))


def test_what_makes_no_sense() -> None:
    for wrong in ("elbow", ("knee",), (0,)):
        with pytest.raises(SpecError, match="joints among"):
            DoublePendulum(actuated=wrong)
    for name in ("mass_1", "length_2", "center_1", "inertia_2"):
        with pytest.raises(SpecError, match=f"{name} > 0"):
            DoublePendulum(**{name: 0.0})


def test_description_round_trip() -> None:
    law = torch.distributions.LogNormal(0.0, 0.1)
    for structure in (
        *(DoublePendulum.gymnasium(), DoublePendulum.acrobot(), DoublePendulum.pendubot()),
        DoublePendulum(**{**UNEQUAL, "mass_2": law}, integrator=Leapfrog(substeps=2)),
    ):
        again = DoublePendulum.from_config(structure.config())
        assert again.config() == structure.config()
        assert again.schema == structure.schema
