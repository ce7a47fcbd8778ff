import math

import pytest
import torch

import bayeswm as bwm
from bayeswm.base.errors import SpecError
from bayeswm.planning import region_of_attraction
from tests.planning.cubic_system import cubic, damped, seeded


def basin(worlds, **given):
    arguments = {
        "box": (-torch.ones(1), torch.ones(1)),
        "tolerance": 1e-3,
        "steps": 60,
        "samples": 2000,
        "generator": seeded(),
    }
    return region_of_attraction(worlds, damped, torch.zeros(1), **(arguments | given))


def test_basin_of_a_cubic_is_an_interval():
    found = basin(cubic().draw(1))
    exact = found.starts[:, 0].abs() < math.sqrt(0.5)
    # a start next to the edge leaves it slowly
    clear = (found.starts[:, 0].abs() - math.sqrt(0.5)).abs() > 1e-3
    assert bool((found.reached[0] == exact)[clear].all())
    low, high = found.volume_interval
    assert float(low) < math.sqrt(0.5) < float(high)
    assert float(found.probability_interval[0][0]) == float(found.probability[0])


def test_probability_over_worlds_and_its_interval():
    worlds = cubic(torch.distributions.LogNormal(0.0, 0.5)).draw(200, generator=seeded(1))
    found = basin(worlds, samples=300, level=0.99)
    edge = (0.5 / worlds.parameters["k"]).sqrt()
    clear = ((edge[:, None] - found.starts[:, 0].abs()).abs() > 1e-3).all(0)
    exact = (found.starts[:, 0].abs() < edge[:, None]).double().mean(0)
    torch.testing.assert_close(found.probability[clear], exact[clear])
    # P(k < 1 / (2 x^2)) under the law the worlds come from
    normal = torch.distributions.Normal(0.0, 0.5)
    truth = normal.cdf((0.5 / found.starts[:, 0].square()).log())
    low, high = found.probability_interval
    assert float(((low <= truth) & (truth <= high)).double().mean()) > 0.9


def test_noise_must_not_carry_any_particle_away():
    quiet, noisy = cubic(noise=0.0).draw(1), cubic(noise=0.1).draw(1)
    given = {"tolerance": 0.6, "samples": 400, "steps": 30, "settled": 5}
    one = basin(noisy, particles=1, **given)
    many = basin(noisy, particles=20, **given)
    assert float(many.volume) < float(one.volume) < float(basin(quiet, **given).volume) + 0.05


def test_what_is_nan_has_not_arrived():
    found = basin(cubic().draw(1), box=(torch.tensor([2.0]), torch.tensor([3.0])), steps=100, samples=50)
    assert float(found.volume) == 0.0
    assert float(found.volume_interval[1]) == pytest.approx(1 - 0.025 ** (1 / 50), rel=1e-6)


def test_angles_count_modulo_a_turn():
    model = bwm.KnownDynamics(structure=bwm.structures.Pendulum(damping=1.0))
    found = region_of_attraction(
        model.draw(1),
        lambda x, t: torch.zeros(1),
        torch.zeros(2),
        box=(torch.tensor([5.0, 0.0]), torch.tensor([7.0, 0.0])),
        tolerance=0.05,
        steps=300,
        samples=50,
        generator=seeded(),
    )
    assert float(found.volume) == 1.0


@pytest.mark.parametrize(
    "wrong",
    [{"settled": 0}, {"settled": 99}, {"samples": 0}, {"box": (torch.ones(1), -torch.ones(1))}],
)
def test_settings_of_a_basin_that_make_no_sense(wrong):
    with pytest.raises(SpecError):
        basin(cubic().draw(1), **wrong)
