"""What users say of sensors, and what of it makes no sense."""

import pytest
import torch
from torch.distributions import LogNormal, Normal

import bayeswm as bwm
from bayeswm.inference import LinearGaussian, ParticleFilter, Unscented
from bayeswm.models.sensing import Sensing
from bayeswm.structures import Linear, Pendulum
from tests.models.sensed import oscillator

FAST = {"velocity": Normal(0.0, 3.0)}
WAYS = [
    (0.1, ("angle", "velocity"), (0.1, 0.1)),
    ([0.1, 0.2], ("angle", "velocity"), (0.1, 0.2)),
    (torch.tensor([0.5, 0.25]), ("angle", "velocity"), (0.5, 0.25)),
    ({"angle": 0.3}, ("angle",), (0.3,)),
    ({"velocity": 0.2, "angle": 0.3}, ("angle", "velocity"), (0.3, 0.2)),
]


@pytest.mark.parametrize(("noise", "names", "scale"), WAYS)
def test_ways_to_give_the_sensor_noise(noise, names, scale) -> None:
    sensing = Sensing.of(Pendulum(), noise, belief=FAST)
    assert sensing.schema.measured.names == names
    assert sensing.scale == pytest.approx(scale)
    assert (sensing.schema.observation is None) == (len(names) == 2)


def test_an_observation_of_the_schema_says_what_is_measured() -> None:
    state = [bwm.Variable("x", unit="m"), bwm.Variable("v", unit="m/s")]
    schema = bwm.Schema(state=state, observation=state[:1], time_step=0.1)
    structure = Linear(schema, A=torch.eye(2))
    sensing = Sensing.of(structure, 0.1, belief={"v": Normal(0.0, 1.0)})
    assert sensing.schema == schema
    assert sensing.belief.spread[0, 0].tolist() == [float("inf"), 1.0]
    worlds = bwm.KnownDynamics(structure=structure, sensor_noise=0.1, belief={"v": Normal(0.0, 1.0)}).draw(1)
    data = bwm.Trajectories(schema, observation=torch.zeros(2, 5, 1), action=torch.zeros(2, 4, 0))
    assert worlds.start(data).mean.shape == (1, 1, 2, 2)
    gauge = bwm.Schema(state=state, observation=[bwm.Variable("gauge", unit="m")], time_step=0.1)
    with pytest.raises(bwm.SpecError, match="'gauge'"):
        Sensing.of(Linear(gauge, A=torch.eye(2)), 0.1)


def test_filter_that_fits_the_structure() -> None:
    assert isinstance(Sensing.of(oscillator(), 0.1).method, LinearGaussian)
    assert isinstance(Sensing.of(Pendulum(), 0.1).method, Unscented)
    given = ParticleFilter(particles=10)
    assert Sensing.of(oscillator(), 0.1, filtering=given).method is given


def test_what_makes_no_sense() -> None:
    with pytest.raises(bwm.UnknownVariableError, match="did you mean 'angle'"):
        Sensing.of(Pendulum(), {"angel": 0.1})
    with pytest.raises(bwm.SpecError, match="2 scales of sensor noise"):
        Sensing.of(Pendulum(), [0.1, 0.2, 0.3])
    for bad in (0.0, -0.1, float("nan"), float("inf"), {}):
        with pytest.raises(bwm.SpecError, match="sensor noise > 0"):
            Sensing.of(Pendulum(), bad)
    with pytest.raises(bwm.SpecError, match=r"belief=\{'velocity': Normal"):
        Sensing.of(Pendulum(), {"angle": 0.1})
    with pytest.raises(bwm.UnknownVariableError, match="did you mean 'velocity'"):
        Sensing.of(Pendulum(), 0.1, belief={"velocty": Normal(0.0, 1.0)})
    with pytest.raises(bwm.SpecError, match="Normal"):
        Sensing.of(Pendulum(), 0.1, belief={"velocity": LogNormal(0.0, 1.0)})  # pyright: ignore[reportArgumentType]
    with pytest.raises(bwm.SpecError, match="with a schema"):
        Sensing.of(bwm.structures.MLP(), 0.1)


@pytest.mark.parametrize("filtering", [None, Unscented(), ParticleFilter(particles=77, seed=5)])
def test_saved_and_loaded(filtering, tmp_path) -> None:
    given = {"sensor_noise": {"angle": 0.1}, "belief": FAST, "filtering": filtering}
    model = bwm.KnownDynamics(structure=Pendulum(), noise=0.1, **given)
    model.save(tmp_path / "seen.bwm")
    again = bwm.load(tmp_path / "seen.bwm")
    assert repr(again.sensing.method) == repr(model.sensing.method)
    assert again.sensing.scale == model.sensing.scale
    assert torch.equal(again.sensing.belief.spread, model.sensing.belief.spread)
    assert again.schema == model.schema
    with pytest.raises(bwm.SpecError, match="filter among"):
        Sensing.from_config(Pendulum(), {**model.sensing.config(), "filtering": {"method": "Guess"}})


def test_fitted_without_process_noise_saved_and_loaded(tmp_path) -> None:
    angle = torch.linspace(0.3, 0.2, 12, dtype=torch.float64).square()[None, :, None]
    states = torch.cat((angle, torch.zeros_like(angle)), -1)
    data = bwm.Trajectories(Pendulum().schema, state=states, action=torch.zeros(1, 11, 1, dtype=torch.float64))
    model = bwm.BayesianDynamics(
        structure=Pendulum(mass=LogNormal(0.0, 0.1)),
        inference=bwm.inference.Laplace(starts=1),
        noise=0.0,
        sensor_noise={"angle": 0.1},
        belief=FAST,
        window=6,
    ).fit(data, seed=0, progress=False)
    model.save(tmp_path / "still.bwm")
    again = bwm.load(tmp_path / "still.bwm")
    assert torch.equal(again.posterior["mass"], model.posterior["mass"])
    assert again.draw(1, generator=torch.Generator().manual_seed(0)).parameters["process_noise"].abs().sum() == 0
    assert again.window == 6
    assert again.sensor_noise == {"angle": 0.1}
    assert again.belief.keys() == FAST.keys()


def test_belief_and_filter_need_sensors() -> None:
    with pytest.raises(bwm.SpecError, match="together with sensor_noise"):
        bwm.KnownDynamics(structure=Pendulum(), belief=FAST)
