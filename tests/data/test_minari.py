"""Minari's data sets hold what trajectories hold."""

import sys

import numpy as np
import pytest
import torch

from bayeswm.base.errors import DataError, SpecError
from bayeswm.base.kinds import categorical
from bayeswm.base.schema import Schema, Variable
from bayeswm.base.trajectories import Trajectories
from bayeswm.data.collect import collect
from bayeswm.data.minari import from_minari, to_minari

minari = pytest.importorskip("minari")
pytest.importorskip("h5py", reason="could not import h5py, which minari needs")


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    return tmp_path


def assert_same(first, second):
    for name, values in first.arrays().items():
        other = second.arrays()[name]
        assert (values is None) == (other is None), name
        if values is not None:
            torch.testing.assert_close(other, values, rtol=0, atol=0, equal_nan=True)


def random_data(schema, lengths, seed=0, **more):
    rng = np.random.default_rng(seed)

    def draw(variables, n):
        codes = [v.kind.n if v.kind.name == "categorical" else 0 for v in variables]
        parts = [rng.integers(0, c, n).astype(float) if c else rng.standard_normal(n) for c in codes]
        return np.stack(parts, -1)

    arrays = {
        "state": [draw(schema.state, n + 1) for n in lengths],
        "action": [draw(schema.action, n) for n in lengths],
        "observation": [draw(schema.observation, n + 1) for n in lengths] if schema.observation else None,
        "reward": [rng.standard_normal(n) for n in lengths] if schema.reward else None,
        "terminated": rng.integers(0, 2, len(lengths)),
        "truncated": rng.integers(0, 2, len(lengths)),
    }
    return Trajectories(schema, **arrays | more)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("reward", [False, True])
def test_round_trip(dtype, reward):
    schema = Schema(state=[Variable("x"), Variable("y")], action=[Variable("u")], reward=reward, time_step=0.1)
    data = random_data(schema, [4, 1, 7]).to(dtype)
    dataset = to_minari(data, "test/round-trip-v0")
    assert dataset.total_episodes == 3
    assert dataset.total_steps == 12
    again = from_minari("test/round-trip-v0", schema=schema)
    assert again.state.dtype == (torch.float64 if reward else dtype)  # Minari keeps rewards as doubles
    assert_same(data, again.to(dtype))
    assert not [m for m in sys.modules if m.split(".")[0] == "jax"]


def test_round_trip_of_states_beside_observations_and_contexts():
    schema = Schema(
        state=[Variable("x"), Variable("a", kind="angle")],
        action=[Variable("u"), Variable("v")],
        context=[Variable("c")],
        observation=[Variable("y")],
        reward=True,
        time_step=0.1,
    )
    data = random_data(schema, [3, 5], context=[[1.0], [2.0]])
    to_minari(data, "hidden-v0")
    assert_same(data, from_minari("hidden-v0", schema=schema))
    stepwise = random_data(schema, [3, 5], context=[np.arange(3.0)[:, None], np.arange(5.0)[:, None]])
    to_minari(stepwise, "stepwise-v0")
    assert_same(stepwise, from_minari("stepwise-v0", schema=schema))


@pytest.mark.parametrize("actions", [1, 2])
def test_round_trip_of_classes(actions):
    schema = Schema(
        state=[Variable("k", kind=categorical(4))],
        action=[Variable(f"u{i}", kind=categorical(2 + i)) for i in range(actions)],
        time_step=0.1,
    )
    data = random_data(schema, [6, 3])
    dataset = to_minari(data, "classes-v0")
    assert type(dataset.action_space).__name__ == ("Discrete" if actions == 1 else "MultiDiscrete")
    assert_same(data, from_minari(dataset, schema=schema))


def test_missing_values_stay_missing():
    schema = Schema(state=[Variable("x")], action=[Variable("u")], time_step=0.1)
    state = np.array([[0.0], [np.nan], [2.0]])
    data = Trajectories(schema, state=state, action=np.ones((2, 1)), allow_missing=True)
    to_minari(data, "gaps-v0")
    with pytest.raises(DataError, match="NaN, first at episode 0, time 1"):
        from_minari("gaps-v0", schema=schema)
    assert_same(data, from_minari("gaps-v0", schema=schema, allow_missing=True))


def test_an_environment_round_trip_with_its_true_state():
    schema = Schema(
        state=[Variable("angle", kind="angle"), Variable("velocity")],
        action=[Variable("torque")],
        reward=True,
        time_step=0.05,
    )
    data = collect(
        "Pendulum-v1",
        schema=schema,
        state=lambda e: e.unwrapped.state,
        episodes=2,
        seed=0,
        max_steps=20,
        progress=False,
    )
    observed = Schema(
        state=schema.state, action=schema.action, observation=[Variable(n) for n in "csw"], reward=True, time_step=0.05
    )
    both = collect(
        "Pendulum-v1",
        schema=observed,
        state=lambda e: e.unwrapped.state,
        episodes=2,
        seed=0,
        max_steps=20,
        progress=False,
    )
    dataset = to_minari(both, "pendulum/random-v0", env="Pendulum-v1", description="random torques")
    assert dataset.storage.metadata["description"] == "random torques"
    assert dataset.recover_environment().spec.id == "Pendulum-v1"
    assert_same(both, from_minari(dataset, schema=observed))
    read = from_minari(dataset, schema=schema, state=lambda episode: episode.infos["state"])
    assert_same(data, read)


def test_refusals():
    schema = Schema(state=[Variable("x")], action=[Variable("u")], time_step=0.1)
    with pytest.raises(DataError, match="'nothing-v0'; pass download=True"):
        from_minari("nothing-v0", schema=schema)
    dataset = to_minari(random_data(schema, [3]), "one-v0")
    with pytest.raises(SpecError, match=r"environment has 1 .*schema 2 \(x, y\)"):
        from_minari(dataset, schema=Schema(state=[Variable("x"), Variable("y")], action=[Variable("u")], time_step=1))
    with pytest.raises(SpecError, match=r"environment has 1 .*schema 2"):
        from_minari(dataset, schema=Schema(state=[Variable("x")], action=[Variable("u"), Variable("v")], time_step=1))
    contextual = Schema(state=[Variable("x")], action=[Variable("u")], context=[Variable("c")], time_step=1)
    with pytest.raises(DataError, match="context in the infos of episode 0"):
        from_minari(dataset, schema=contextual)
    passive = Trajectories(Schema(state=[Variable("x")], time_step=1), state=[[[0.0], [1.0]]])
    with pytest.raises(SpecError, match="must have"):
        to_minari(passive, "none-v0")


def test_an_episode_that_goes_on_after_its_end_is_refused():
    class Joined:
        action_space = observation_space = pytest.importorskip("gymnasium").spaces.Box(-1, 1, (1,))

        @staticmethod
        def iterate_episodes():
            class Episode:
                id, infos = 7, None
                observations, actions, rewards = np.zeros((4, 1)), np.zeros((3, 1)), np.zeros(3)
                terminations, truncations = np.array([False, True, False]), np.array([False, False, True])

            yield Episode()

    schema = Schema(state=[Variable("x")], action=[Variable("u")], time_step=0.1)
    with pytest.raises(DataError, match="earlier one in episode 7"):
        from_minari(Joined(), schema=schema)
