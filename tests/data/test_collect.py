"""Episodes from environments: what is recorded is what happened."""

import random
from typing import ClassVar

import numpy as np
import pytest
import torch

from bayeswm.base.errors import DataError, DataWarning, SpecError
from bayeswm.base.kinds import categorical
from bayeswm.base.schema import Schema, Variable
from bayeswm.data.collect import collect

gymnasium = pytest.importorskip("gymnasium")

PENDULUM = Schema(
    state=[Variable("angle", unit="rad", kind="angle"), Variable("velocity", unit="rad/s")],
    action=[Variable("torque", unit="N m", bounds=(-2, 2))],
    reward=True,
    time_step=0.05,
)


def true_state(env):
    return env.unwrapped.state


class Counter(gymnasium.Env):
    """Counts steps: the state is (episode, step). Ends by itself after 2, 3, 4, ... steps."""

    observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (2,), dtype=np.float64)
    action_space = gymnasium.spaces.Box(-1, 1, (1,), dtype=np.float64)
    metadata: ClassVar = {"render_modes": []}

    def __init__(self, ends=True):
        self.episode, self.step_count, self.closed, self.ends, self.seeds = -1, 0, False, ends, []

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.seeds.append(seed)
        self.episode, self.step_count = self.episode + 1, 0
        return self.seen(), {}

    def seen(self):
        return np.array([self.episode, self.step_count], dtype=np.float64)

    def step(self, action):
        self.step_count += 1
        return self.seen(), float(self.step_count), self.ends and self.step_count >= self.episode + 2, False, {}

    def close(self):
        self.closed = True


COUNTER = Schema(state=[Variable("episode"), Variable("step")], action=[Variable("u")], reward=True, time_step=1)


def assert_same(first, second):
    for name, values in first.arrays().items():
        other = second.arrays()[name]
        assert (values is None) == (other is None), name
        if values is not None:
            torch.testing.assert_close(other, values, rtol=0, atol=0, equal_nan=True)


def pendulum(**more):
    given = {"schema": PENDULUM, "state": true_state, "episodes": 3, "seed": 0, "progress": False} | more
    return collect("Pendulum-v1", **given)


def test_recorded_steps_are_the_simulators_own():
    data = pendulum()
    assert data.lengths.tolist() == [200] * 3
    assert data.truncated.all()
    assert not data.terminated.any()
    env = gymnasium.make("Pendulum-v1").unwrapped
    env.reset(seed=0)
    for i in range(3):
        for t in range(0, 200, 7):
            env.state = data.state[i, t].numpy()
            _, reward, *_ = env.step(data.action[i, t].numpy().astype(np.float32))
            np.testing.assert_allclose(data.state[i, t + 1], env.state, rtol=0, atol=1e-12)
            assert float(data.reward[i, t]) == pytest.approx(float(reward), abs=1e-12)


def test_start_and_actions_differ_between_episodes_and_fill_their_range():
    data = pendulum(episodes=20)
    assert len(set(data.state[:, 0, 0].tolist())) == 20
    assert len(set(data.action[:, 0, 0].tolist())) == 20
    assert float(data.action.min()) < -1.99
    assert float(data.action.max()) > 1.99
    assert abs(float(data.action.mean())) < 5 * 4 / 12**0.5 / 4000**0.5  # five standard errors


@pytest.mark.parametrize("num_envs", [2, 5, 8])
@pytest.mark.parametrize("name", ["Pendulum-v1", "CartPole-v1"])
def test_same_seed_same_data_however_many_environments(name, num_envs):
    cartpole = Schema(
        state=[Variable("x"), Variable("v"), Variable("a", kind="angle"), Variable("w")],
        action=[Variable("push", kind=categorical(2))],
        reward=True,
        time_step=0.02,
    )
    more = {"schema": PENDULUM, "state": true_state} if name == "Pendulum-v1" else {"schema": cartpole}
    more |= {"episodes": 6, "max_steps": 40, "progress": False}
    one = collect(name, seed=1, num_envs=1, **more)
    assert_same(one, collect(name, seed=1, num_envs=num_envs, **more))
    assert_same(one, collect(name, seed=torch.Generator().manual_seed(1), **more))
    assert not torch.equal(one.state[:, 0], collect(name, seed=2, **more).state[:, 0])


def test_the_callers_random_state_stays():
    before = random.getstate(), np.random.get_state()[1].copy(), torch.get_rng_state()  # noqa: NPY002
    pendulum(max_steps=5)
    assert random.getstate() == before[0]
    assert np.array_equal(np.random.get_state()[1], before[1])  # noqa: NPY002
    assert torch.equal(torch.get_rng_state(), before[2])


def test_no_transition_crosses_an_episode_of_an_environment():
    env = Counter()
    data = collect(env, schema=COUNTER, episodes=4, seed=0, progress=False)
    assert data.lengths.tolist() == [2, 3, 4, 5]
    assert data.terminated.all()
    assert not data.truncated.any()
    steps = data.transitions()
    assert torch.equal(steps.state[:, 0], steps.next_state[:, 0])
    assert torch.equal(steps.state[:, 1] + 1, steps.next_state[:, 1])
    assert torch.equal(data.reward[data.step_mask], steps.next_state[:, 1])
    assert len(set(env.seeds)) == 4
    assert not env.closed


def test_no_transition_crosses_an_episode_side_by_side():
    gymnasium.register("bayeswm/Counter-v0", entry_point=Counter)
    try:
        data = collect("bayeswm/Counter-v0", schema=COUNTER, episodes=7, seed=0, num_envs=3, progress=False)
    finally:
        del gymnasium.registry["bayeswm/Counter-v0"]
    assert data.lengths.tolist() == [2, 2, 2, 3, 3, 3, 4]  # each of the three environments counts its own episodes
    steps = data.transitions()
    assert torch.equal(steps.state[:, 0], steps.next_state[:, 0])
    assert torch.equal(steps.state[:, 1] + 1, steps.next_state[:, 1])


def test_an_environment_that_resets_itself_is_recorded_alike():
    data = collect(gymnasium.wrappers.Autoreset(Counter()), schema=COUNTER, episodes=3, seed=0, progress=False)
    steps = data.transitions()
    assert torch.equal(steps.state[:, 0], steps.next_state[:, 0])
    assert torch.equal(steps.state[:, 1] + 1, steps.next_state[:, 1])


def test_max_steps_truncates():
    data = collect(Counter(ends=False), schema=COUNTER, episodes=2, seed=0, max_steps=6, progress=False)
    assert data.lengths.tolist() == [6, 6]
    assert data.truncated.all()
    assert not data.terminated.any()


def test_policy_sees_observation_and_step():
    seen = []

    def policy(observation, step):
        seen.append((*observation.tolist(), step))
        observation[:] = -99  # must not reach the record
        return [0.1 * step]

    data = collect(Counter(), schema=COUNTER, policy=policy, episodes=2, seed=0, progress=False)
    assert seen == [(0, 0, 0), (0, 1, 1), (1, 0, 0), (1, 1, 1), (1, 2, 2)]
    torch.testing.assert_close(data.action[1, :, 0], torch.tensor([0.0, 0.1, 0.2], dtype=torch.float64))
    assert float(data.state.nan_to_num(0).min()) == 0


def test_the_action_given_is_recorded_not_the_clipped_one():
    with pytest.warns(DataWarning, match="4 recorded value"):
        data = pendulum(policy=lambda observation, step: [5.0], episodes=1, max_steps=4)
    assert data.action.flatten().tolist() == [5.0] * 4


def test_observation_and_state_are_recorded_together():
    schema = Schema(
        state=PENDULUM.state, action=PENDULUM.action, observation=[Variable(n) for n in ("c", "s", "w")], time_step=0.05
    )
    data = pendulum(schema=schema, max_steps=30)
    torch.testing.assert_close(data.observation[..., 0], data.state[..., 0].cos(), rtol=0, atol=1e-6)
    torch.testing.assert_close(data.observation[..., 1], data.state[..., 0].sin(), rtol=0, atol=1e-6)
    torch.testing.assert_close(data.observation[..., 2], data.state[..., 1], rtol=0, atol=1e-6)
    only = pendulum(schema=schema, state=None, max_steps=30)
    assert only.state is None
    torch.testing.assert_close(only.observation.double(), data.observation, rtol=0, atol=0)


def test_context_is_read_at_the_start():
    schema = Schema(state=COUNTER.state, action=COUNTER.action, context=[Variable("gravity")], time_step=1)
    data = collect(
        Counter(), schema=schema, context=lambda env: env.unwrapped.episode, episodes=3, seed=0, progress=False
    )
    assert data.context.tolist() == [[0], [1], [2]]
    with pytest.raises(SpecError, match="context="):
        collect(Counter(), schema=schema, episodes=1, seed=0, progress=False)
    with pytest.raises(SpecError, match="context="):
        collect(Counter(), schema=COUNTER, context=lambda env: 1.0, episodes=1, seed=0, progress=False)


def test_discrete_actions_are_classes():
    schema = Schema(state=[Variable(n) for n in "xvaw"], action=[Variable("push", kind=categorical(2))], time_step=0.02)
    data = collect("CartPole-v1", schema=schema, episodes=5, seed=0, progress=False)
    assert set(data.action[data.step_mask].flatten().tolist()) == {0, 1}
    for policy in (lambda o, s: 0.5, lambda o, s: 2):
        with pytest.raises(DataError, match=r"an action in Discrete\(2\)"):
            collect("CartPole-v1", schema=schema, policy=policy, episodes=1, seed=0, progress=False)


WRONG = {
    "action size": ({"schema": Schema(state=PENDULUM.state, time_step=1)}, SpecError, "environment has 1 .*schema 0"),
    "state size": (
        {"schema": Schema(state=[Variable("x")], action=PENDULUM.action, time_step=1)}, SpecError, "expected 1 .*got 2",
    ),
    "observation for a state": ({"state": None}, SpecError, "environment has 3 .*schema 2"),
    "episodes": ({"episodes": 0}, SpecError, "episodes >= 1"),
    "max_steps": ({"max_steps": 0}, SpecError, "max_steps >= 1"),
    "num_envs": ({"num_envs": 0}, SpecError, "num_envs >= 1"),
    "seed": ({"seed": None}, SpecError, "seed"),
    "policy shape": ({"policy": lambda o, s: [1.0, 2.0]}, DataError, r"shape \(1,\) from the policy, got .* 0, step 0"),
    "policy NaN": ({"policy": lambda o, s: [np.nan]}, DataError, "finite actions from the policy"),
    "state NaN": ({"state": lambda env: [0.0, np.nan]}, DataError, "NaN, first at episode 0, time 0, variable 'vel"),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_refusals(case):
    more, error, message = WRONG[case]
    with pytest.raises(error, match=message):
        pendulum(**more)


def test_what_is_no_environment():
    for env in (3, None, gymnasium.make_vec("Pendulum-v1", num_envs=2)):
        with pytest.raises(SpecError, match="environment or its id"):
            collect(env, schema=PENDULUM, episodes=1, seed=0)
    with pytest.raises(SpecError, match="'Pendulm-v1'"):
        collect("Pendulm-v1", schema=PENDULUM, episodes=1, seed=0)
    with pytest.raises(SpecError, match="num_envs=1"):
        collect(Counter(), schema=COUNTER, episodes=1, seed=0, num_envs=2)


def test_progress_is_shown_or_silent(capsys):
    pendulum(max_steps=3)
    assert capsys.readouterr().err == ""
    pendulum(max_steps=3, progress=True)
    assert "3/3" in capsys.readouterr().err
