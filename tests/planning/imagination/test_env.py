import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env

import bayeswm as bwm
from bayeswm.planning import Objective, WorldModelEnv, WorldModelVectorEnv, quadratic, saturating

SCHEMA = bwm.Schema(state=[bwm.Variable("x")], action=[bwm.Variable("u", bounds=(-1, 1))], time_step=0.1)
PRIOR = bwm.KnownDynamics(structure=bwm.structures.Linear(SCHEMA, A=1.0, B=torch.distributions.Uniform(0.5, 1.5)))
TRUTH = bwm.KnownDynamics(structure=bwm.structures.Linear(SCHEMA, A=1.0, B=1.0), noise=0.1)
COST = quadratic(torch.tensor([1.0]), torch.tensor([0.1]), terminal=torch.tensor([5.0]))
ZERO = torch.zeros(1)


def gain(env, row=0):
    """The gain of the world that an episode lives in, seen from outside."""
    before = env._rows._last[row].clone()
    actions = np.full(env.action_space.shape, 0.5)
    return float((env.step(actions)[0].reshape(-1)[row] - float(before)) / 0.5)


# the state of a model has no bounds, and an environment that was not registered has no spec
@pytest.mark.filterwarnings("ignore:.*(infinity|not having a spec|symmetric and normalized).*:UserWarning")
@pytest.mark.parametrize("model", [PRIOR, TRUTH, bwm.KnownDynamics(structure=TRUTH.structure, sensor_noise=0.1)])
def test_gymnasium_s_checks_pass(model):
    check_env(WorldModelEnv(model, COST, start=bwm.Gaussian(torch.zeros(1, 1, 1), torch.ones(1)), horizon=10))


def test_rewards_are_negative_costs_and_the_horizon_truncates():
    env = WorldModelEnv(TRUTH, COST, start=torch.ones(1), horizon=4)
    observation, _ = env.reset(seed=0)
    states, actions, total = [observation], [], 0.0
    for t in range(4):
        actions.append(env.action_space.sample())
        observation, reward, terminated, truncated, info = env.step(actions[-1])
        states.append(observation)
        total += reward
        assert (terminated, truncated, info) == (False, t == 3, {})
    cost = COST.cost(torch.tensor(np.array(states)), torch.tensor(np.array(actions)), torch.zeros(4, 0))
    assert total == pytest.approx(-float(cost))


def test_costs_of_the_step_see_the_step():
    objective = saturating(lambda x: x[..., 0], 1.0)
    env = WorldModelEnv(TRUTH, objective, start=torch.ones(1), horizon=3)
    env.reset(seed=0)
    assert env.step(np.zeros(1))[1] == 0.0  # the start is given
    assert env.step(np.zeros(1))[1] < -0.2


def test_an_episode_ends_where_the_objective_says():
    objective = Objective(stage=lambda x, u, c, t: -torch.ones_like(x[..., 0]), termination=lambda x, c: x[..., 0] > 2)
    env = WorldModelEnv(
        PRIOR.draw(1, generator=torch.Generator().manual_seed(0)).replace(B=1.0), objective, start=ZERO, horizon=50
    )
    env.reset(seed=0)
    ends = [env.step(np.ones(1))[2:4] for _ in range(3)]
    assert ends == [(False, False), (False, False), (True, False)]


def test_a_world_lasts_for_an_episode_and_seeds_decide_which():
    env = WorldModelEnv(PRIOR, COST, start=ZERO, horizon=50)
    env.reset(seed=3)
    first = [gain(env) for _ in range(4)]
    assert first == pytest.approx([first[0]] * 4)
    env.reset()
    second = gain(env)
    assert second != pytest.approx(first[0])
    env.reset(seed=3)
    assert gain(env) == pytest.approx(first[0])
    env.reset()
    assert gain(env) == pytest.approx(second)


def test_episodes_take_worlds_by_their_weight():
    worlds = PRIOR.draw(2, generator=torch.Generator().manual_seed(0)).reweight(torch.tensor([0.0, -1e9]).double())
    envs = WorldModelVectorEnv(worlds, COST, start=ZERO, horizon=50, num_envs=6)
    envs.reset(seed=0)
    gains = [gain(envs, row=i) for i in range(6)]
    assert gains == pytest.approx([float(worlds.parameters["B"][0])] * 6)


def test_vector_environments_reset_at_the_next_step():
    envs = WorldModelVectorEnv(PRIOR, COST, start=ZERO, horizon=3, num_envs=4)
    assert envs.metadata["autoreset_mode"] == gymnasium.vector.AutoresetMode.NEXT_STEP
    observations, _ = envs.reset(seed=0)
    assert observations in envs.observation_space
    actions = np.full((4, 1), 0.5)
    for t in range(3):
        observations, _, terminated, truncated, _ = envs.step(actions)
        assert truncated.tolist() == [t == 2] * 4
        assert not terminated.any()
    gains = envs._rows._worlds.parameters["B"].flatten()
    np.testing.assert_allclose(observations[:, 0], 1.5 * gains.numpy())
    assert len(set(observations[:, 0].tolist())) > 1  # worlds of their own
    observations, rewards, terminated, truncated, _ = envs.step(actions)
    assert rewards.tolist() == [0.0] * 4
    assert observations.tolist() == [[0.0]] * 4
    assert not (terminated | truncated).any()
    assert not torch.equal(envs._rows._worlds.parameters["B"].flatten(), gains)


def test_rows_end_one_by_one():
    objective = Objective(stage=lambda x, u, c, t: -torch.ones_like(x[..., 0]), termination=lambda x, c: x[..., 0] > 1)
    worlds = PRIOR.draw(1, generator=torch.Generator().manual_seed(0)).replace(B=1.0)
    envs = WorldModelVectorEnv(worlds, objective, start=ZERO, horizon=50, num_envs=2)
    envs.reset(seed=0)
    seen = [envs.step(np.array([[0.6], [-0.1]])) for _ in range(4)]
    np.testing.assert_allclose([s[0][:, 0] for s in seen], [[0.6, -0.1], [1.2, -0.2], [0.0, -0.3], [0.6, -0.4]])
    assert [s[2].tolist() for s in seen] == [[False, False], [True, False], [False, False], [False, False]]
    assert [s[1].tolist() for s in seen] == [[1.0, 1.0], [1.0, 1.0], [0.0, 1.0], [1.0, 1.0]]


def test_what_diverges_is_truncated_and_shown_where_it_was_last_finite():
    wild = bwm.KnownDynamics(structure=bwm.structures.Linear(SCHEMA, A=1e38, B=1.0))
    objective = Objective(terminal=lambda x, c: x[..., 0])
    env = WorldModelEnv(wild, objective, start=torch.ones(1), horizon=50)
    env.reset(seed=0)
    for _ in range(20):
        observation, _, _, truncated, info = env.step(np.zeros(1))
        assert np.isfinite(observation).all()
        if truncated:
            break
    assert info == {"diverged": True}


def test_same_seed_same_episode():
    def episode():
        envs = WorldModelVectorEnv(TRUTH, COST, start=lambda n, g: torch.rand(n, 1, generator=g), horizon=9, num_envs=3)
        return [envs.reset(seed=5)[0], *(envs.step(np.zeros((3, 1)))[0] for _ in range(3))]

    np.testing.assert_array_equal(episode(), episode())


def test_what_does_not_fit_is_refused():
    with pytest.raises(bwm.SpecError, match="horizon"):
        WorldModelEnv(TRUTH, COST, start=ZERO, horizon=0)
    with pytest.raises(bwm.SpecError, match="context"):
        WorldModelEnv(TRUTH, COST, start=ZERO, horizon=1, context=torch.zeros(1))
    with pytest.raises(bwm.SpecError, match="bounds"):
        WorldModelEnv(bwm.KnownDynamics(structure=bwm.structures.Pendulum()), COST, start=ZERO, horizon=1)
