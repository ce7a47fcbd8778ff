import gymnasium
import pytest
import torch

import bayeswm as bwm
from bayeswm.planning import CEM, Objective, Simulated, closed_loop, control, quadratic

SCHEMA = bwm.Schema(state=[bwm.Variable("x")], action=[bwm.Variable("u", bounds=(-1, 1))], time_step=0.1)
INTEGRATOR = bwm.structures.Linear(SCHEMA, A=1.0, B=1.0)
TRUTH = bwm.KnownDynamics(structure=INTEGRATOR, noise=0.05)
PENDULUM = bwm.KnownDynamics(structure=bwm.structures.Pendulum.gymnasium())
COST = quadratic(torch.tensor([1.0]), torch.tensor([0.01]))
PLANNER = CEM(COST, horizon=3, samples=64, elites=8, iterations=4, particles=4)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def angle_of(env):
    return env.unwrapped.state


def pendulum_cost(x, u, c, t):
    angle = torch.remainder(x[..., 0] + torch.pi, 2 * torch.pi) - torch.pi
    return angle**2 + 0.1 * x[..., 1] ** 2 + 0.001 * u[..., 0] ** 2


def loop(starts=None, *, system=TRUTH, model=TRUTH, planner=PLANNER, steps=5, seed=0, **more):
    starts = torch.tensor([[2.0], [-1.0], [0.3]]) if starts is None else starts
    return closed_loop(system, model, planner, starts=starts, steps=steps, generator=generator(seed), **more)


def test_it_drives_the_state_to_the_goal_and_counts_what_it_costs():
    done = loop()
    states, actions = done.trajectories.states(), done.trajectories.action
    # 2 and -1 are 2 and 1 steps away; noise of 0.05 is what is left
    assert bool((states[:, -1].abs() < 0.4).all())
    torch.testing.assert_close(done.returns, -COST.cost(states, actions, torch.zeros(3, 5, 0).double()))
    assert len(done.plans) == 1
    assert len(done.plans[0]) == 5
    torch.testing.assert_close(done.plans[0][2].action, actions[:, 2])
    assert done.trajectories.truncated.all()
    assert not done.trajectories.terminated.any()


def test_same_generator_same_result_and_every_row_on_its_own():
    first, again, other = loop(), loop(), loop(seed=1)
    assert torch.equal(first.trajectories.states(), again.trajectories.states())
    assert not torch.equal(first.trajectories.states(), other.trajectories.states())
    exact = bwm.KnownDynamics(structure=INTEGRATOR)
    together, alone = loop(system=exact), loop(torch.tensor([[-1.0]]), system=exact)
    torch.testing.assert_close(together.trajectories.states()[1:2], alone.trajectories.states())


def test_the_system_meets_the_same_chance_whoever_controls_it():
    def noise(planner):
        done = loop(planner=planner).trajectories
        return done.states()[:, 1:] - done.states()[:, :-1] - done.action

    other = CEM(COST, horizon=2, samples=16, elites=4, iterations=2, particles=4)
    torch.testing.assert_close(noise(PLANNER), noise(other))


def test_latency_delays_actions_and_plans_for_it():
    exact = bwm.KnownDynamics(structure=INTEGRATOR)
    done = loop(torch.tensor([[3.0]]), system=exact, model=exact, steps=7, latency=2)
    actions = done.trajectories.action[0, :, 0]
    assert actions[:2].tolist() == [0.0, 0.0]
    # what is decided at a step is done two steps later
    decided = torch.cat([plan.action[0] for plan in done.plans[0]])
    torch.testing.assert_close(actions[2:], decided[:5])
    # knowing what is on the way it does not overshoot: the third -1 is the last
    torch.testing.assert_close(actions[2:5], torch.full((3,), -1.0).double(), atol=0.15, rtol=0)
    assert float(done.trajectories.states()[0, 5:].abs().max()) < 0.3
    same, none = loop(latency=0), loop()
    assert torch.equal(same.trajectories.states(), none.trajectories.states())


@pytest.mark.parametrize("latency", [0, 2])
def test_limits_on_change_hold_along_an_episode(latency):
    slow = CEM(COST, horizon=3, samples=16, elites=4, iterations=2, particles=2, change=0.3)
    done = loop(planner=slow, latency=latency).trajectories.action
    # what is done while the first plan is on its way is 0, and the first of its actions within reach of that
    assert float(done.diff(dim=1).abs().max()) <= 0.3 + 1e-12
    assert bool((done[:, :latency] == 0).all())
    assert float(done.abs().max()) > 0


def test_an_action_is_held_for_some_steps_of_the_system():
    slow = bwm.Schema(state=[bwm.Variable("x")], action=[bwm.Variable("u", bounds=(-1, 1))], time_step=0.4)
    model = bwm.KnownDynamics(structure=bwm.structures.Linear(slow, A=1.0, B=4.0))
    done = loop(system=bwm.KnownDynamics(structure=INTEGRATOR), model=model, steps=3, hold=4)
    states, actions = done.trajectories.states(), done.trajectories.action
    torch.testing.assert_close(states.diff(dim=1), 4 * actions)
    assert done.trajectories.schema.time_step == pytest.approx(0.4)
    with pytest.raises(bwm.SpecError, match="time step"):
        loop(hold=2)


def test_a_row_that_ended_is_left_alone():
    objective = Objective(stage=lambda x, u, c, t: -torch.ones_like(x[..., 0]), termination=lambda x, c: x[..., 0] > 3)
    planner = CEM(objective, horizon=2, samples=8, elites=2, iterations=1, particles=1)
    system = bwm.KnownDynamics(structure=bwm.structures.Linear(SCHEMA, A=2.0, B=0.1))
    done = loop(torch.tensor([[1.0], [0.0]]), system=system, model=system, planner=planner, steps=6)
    assert done.trajectories.lengths.tolist() == [2, 6]
    assert done.trajectories.terminated.tolist() == [True, False]
    assert done.trajectories.truncated.tolist() == [False, True]
    assert done.returns.tolist() == [2.0, 6.0]


def test_a_hidden_state_is_filtered():
    seen = bwm.KnownDynamics(structure=INTEGRATOR, noise=0.05, sensor_noise=0.5)
    done = loop(torch.zeros(200, 1), system=seen, model=seen, steps=12)
    blind = loop(torch.zeros(200, 1), system=seen, model=TRUTH, steps=12)
    # a filtered belief moves with part of each measurement only: a paired t test over 200 rows
    gain = done.returns - blind.returns
    assert float(gain.mean() / (gain.std() / 200**0.5)) > 4.4  # p < 1e-5


def test_worlds_of_an_episode_or_of_a_plan():
    prior = bwm.KnownDynamics(structure=bwm.structures.Linear(SCHEMA, A=1.0, B=torch.distributions.Uniform(0.5, 1.5)))
    gains = [plan.problem.worlds.parameters["B"].flatten() for plan in loop(model=prior).plans[0]]
    assert all(torch.equal(g, gains[0]) for g in gains)
    gains = [plan.problem.worlds.parameters["B"].flatten() for plan in loop(model=prior, redraw=True).plans[0]]
    assert not torch.equal(gains[0], gains[1])
    noisy = bwm.KnownDynamics(structure=prior.structure, noise=0.02)
    done = loop(torch.tensor([[3.0]]), model=noisy, system=bwm.KnownDynamics(structure=INTEGRATOR), reweight=True)
    worlds = done.plans[0][-1].problem.worlds
    near = (worlds.parameters["B"].flatten() - 1).abs() < 0.1
    assert float(worlds.weight[near].sum()) > 0.95
    with pytest.raises(bwm.SpecError, match="redraw"):
        loop(model=prior, redraw=True, reweight=True)


def test_gymnasium_s_pendulum_with_its_own_rewards():
    planner = CEM(Objective(stage=pendulum_cost), horizon=15, samples=64, elites=8, iterations=3)
    arguments = {"state": angle_of, "max_steps": 12, "seed": 3, "progress": False}
    done = control("Pendulum-v1", PENDULUM, planner, episodes=2, **arguments)
    assert len(done.trajectories) == len(done.plans) == 2
    states, actions = done.trajectories.states(), done.trajectories.action
    rewards = -pendulum_cost(states[:, :-1], actions, None, None)
    torch.testing.assert_close(done.trajectories.reward, rewards, rtol=1e-5, atol=1e-5)
    # the model is the environment's own: what was forecast is what came
    plan = done.plans[0][0]
    torch.testing.assert_close(plan.predictive.mean[0, 0], states[0, 1], rtol=1e-4, atol=1e-4)
    again = control("Pendulum-v1", PENDULUM, planner, episodes=2, **arguments)
    assert torch.equal(done.trajectories.action, again.trajectories.action)


def test_observations_of_an_environment():
    schema = bwm.Schema(
        state=PENDULUM.schema.state,
        action=PENDULUM.schema.action,
        observation=[bwm.Variable("cosine"), bwm.Variable("sine"), bwm.Variable("turn")],
        time_step=0.05,
    )
    planner = CEM(Objective(stage=pendulum_cost), horizon=3, samples=8, elites=2, iterations=1)
    with pytest.raises(bwm.SpecError, match="measurements"):
        control("Pendulum-v1", PENDULUM, planner, schema=schema, max_steps=2, seed=0, progress=False)


def test_a_handed_in_environment_stays_open_and_a_held_action_sums_rewards():
    env = gymnasium.make("Pendulum-v1")
    schema = bwm.Schema(state=PENDULUM.schema.state, action=PENDULUM.schema.action, time_step=0.1)
    structure = bwm.structures.FromFunction(lambda x, u, c: x, schema=schema, name="still")
    model = bwm.KnownDynamics(structure=structure)
    planner = CEM(Objective(stage=pendulum_cost), horizon=2, samples=8, elites=2, iterations=1)
    done = control(env, model, planner, state=angle_of, max_steps=200, hold=2, seed=0, progress=False)
    assert done.trajectories.lengths.tolist() == [100]  # the environment's own limit is 200 of its steps
    assert done.trajectories.truncated.all()
    env.reset(seed=0)
    env.close()


def test_impossible_actions_and_arguments_are_refused():
    wild = CEM(COST, horizon=2, samples=8, elites=2, iterations=1, bounds=(-5.0, 5.0))
    pendulum = CEM(Objective(stage=pendulum_cost), horizon=2, samples=8, elites=2, iterations=1, bounds=(3.0, 5.0))
    free = bwm.Schema(state=PENDULUM.schema.state, action=[bwm.Variable("torque")], time_step=0.05)
    still = bwm.KnownDynamics(structure=bwm.structures.FromFunction(lambda x, u: x + 0 * u, schema=free))
    with pytest.raises(bwm.DataError, match="an action in Box"):
        control("Pendulum-v1", still, pendulum, state=angle_of, max_steps=2, seed=0, progress=False)
    with pytest.raises(bwm.SpecError, match="expected a model or worlds, got a CEM"):
        control("Pendulum-v1", pendulum, PENDULUM, seed=0)
    with pytest.raises(bwm.DataError, match="u between -1 and 1, got -5"):
        loop(planner=wild)
    schema = bwm.Schema(
        state=bwm.structures.CartPole.gymnasium().schema.state,
        action=[bwm.Variable("push", kind=bwm.categorical(2))],
        time_step=0.02,
    )
    with pytest.raises(bwm.SpecError, match="continuous"):
        control("CartPole-v1", PENDULUM, pendulum, schema=schema, seed=0)
    with pytest.raises(bwm.SpecError, match="registered"):
        control("Pendulum-v99", PENDULUM, pendulum, seed=0)
    with pytest.raises(bwm.SpecError, match="Gymnasium environment"):
        control(3, PENDULUM, pendulum, seed=0)
    plant = Simulated(TRUTH, torch.zeros(1, 1), objective=COST)
    for arguments in ({"max_steps": 0}, {"max_steps": 1, "latency": -1}, {"max_steps": 1, "episodes": 0}, {}):
        with pytest.raises(bwm.SpecError, match=r"max_steps|latency|episodes"):
            control(plant, TRUTH, PLANNER, seed=0, progress=False, **arguments)
    with pytest.raises(bwm.SpecError, match="expected state"):
        control(plant, PENDULUM, PLANNER, max_steps=1, seed=0)


def test_a_system_that_diverges_says_so():
    system = bwm.KnownDynamics(structure=bwm.structures.Linear(SCHEMA, A=1e30, B=1.0))
    with pytest.raises(bwm.DataError, match="finite"):
        loop(system=system, steps=20)
