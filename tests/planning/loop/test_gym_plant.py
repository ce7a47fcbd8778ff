import gymnasium
import numpy as np
import pytest
import torch

import bayeswm as bwm
from bayeswm.planning.loop.gym_plant import GymPlant

SCHEMA = bwm.structures.Pendulum.gymnasium().schema
WATCHED = bwm.Schema(
    state=SCHEMA.state,
    action=SCHEMA.action,
    observation=[bwm.Variable("cosine"), bwm.Variable("sine"), bwm.Variable("turn")],
    time_step=0.05,
)


def angle_of(env):
    return env.unwrapped.state


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def test_observation_and_state():
    plant = GymPlant("Pendulum-v1", schema=WATCHED, state=angle_of)
    shown = plant.reset(generator())
    assert shown.state is not None
    features = torch.stack((shown.state[:, 0].cos(), shown.state[:, 0].sin(), shown.state[:, 1]), -1)
    torch.testing.assert_close(shown.measured, features, rtol=1e-6, atol=1e-6)
    assert GymPlant("Pendulum-v1", schema=WATCHED).reset(generator()).state is None


def test_the_context_is_read_at_the_start():
    schema = bwm.Schema(state=SCHEMA.state, action=SCHEMA.action, context=[bwm.Variable("gravity")], time_step=0.05)
    plant = GymPlant("Pendulum-v1", schema=schema, state=angle_of, context=lambda env: env.unwrapped.g)
    plant.reset(generator())
    assert plant.context is not None
    assert plant.context.tolist() == [[10.0]]
    plant = GymPlant("Pendulum-v1", schema=schema, state=angle_of, context=lambda env: [1, 2])
    with pytest.raises(bwm.SpecError, match="1 numbers from context="):
        plant.reset(generator())


def test_a_held_action_is_repeated_and_its_rewards_add_up():
    once, twice = (GymPlant("Pendulum-v1", schema=SCHEMA, state=angle_of, hold=n) for n in (1, 2))
    once.reset(generator())
    twice.reset(generator())
    push = torch.tensor([[1.3]])
    parts = [once.step(push, last=False) for _ in range(2)]
    whole = twice.step(push, last=False)
    torch.testing.assert_close(whole.measured, parts[1].measured)
    torch.testing.assert_close(whole.reward, parts[0].reward + parts[1].reward)


def test_rounding_at_a_bound_is_no_violation():
    plant = GymPlant("Pendulum-v1", schema=SCHEMA, state=angle_of)
    plant.reset(generator())
    plant.step(torch.tensor([[2.0 + 1e-7]], dtype=torch.float64), last=False)
    for wrong in (2.1, float("nan")):
        with pytest.raises(bwm.DataError, match="an action in Box"):
            plant.step(torch.tensor([[wrong]]), last=False)


def test_an_environment_that_was_handed_in_stays_open():
    class Watched(gymnasium.Wrapper):
        closed = False

        def close(self):
            self.closed = True

    env = Watched(gymnasium.make("Pendulum-v1"))
    GymPlant(env, schema=SCHEMA, state=angle_of).close()
    assert not env.closed
    env.reset(seed=0)
    assert np.isfinite(env.unwrapped.state).all()


def test_what_does_not_fit_is_refused():
    with pytest.raises(bwm.SpecError, match="as many state columns"):
        GymPlant("Pendulum-v1", schema=SCHEMA)
    with pytest.raises(bwm.SpecError, match="hold"):
        GymPlant("Pendulum-v1", schema=SCHEMA, state=angle_of, hold=0)
    with pytest.raises(bwm.SpecError, match="context"):
        GymPlant("Pendulum-v1", schema=SCHEMA, state=angle_of, context=angle_of)


def test_without_gymnasium_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "gymnasium", None)
    with pytest.raises(ImportError, match=r"bayeswm\[rl\]"):
        GymPlant("Pendulum-v1", schema=SCHEMA, state=angle_of)
