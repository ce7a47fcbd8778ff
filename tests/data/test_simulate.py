import pytest
import torch

import bayeswm as bwm
from bayeswm.data import simulate

TRUTH = bwm.KnownDynamics(structure=bwm.structures.Pendulum(length=0.5), noise=[0.01, 0.05])


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def test_what_is_recorded_is_what_a_rollout_does():
    starts, plan = torch.randn(4, 2, generator=generator(), dtype=torch.float64), torch.ones(4, 6, 1).double()
    data = simulate(TRUTH, starts, plan, generator=generator(1))
    assert torch.equal(data.action, plan)
    # without noise the next state is the structure's own
    exact = simulate(TRUTH.draw(1).replace(process_noise=0.0), starts, plan, generator=generator(1)).transitions()
    mean, _ = TRUTH.structure.transition(
        {k: v[0] for k, v in TRUTH.draw(1).parameters.items()}, exact.state, exact.action, exact.context, 0
    )
    torch.testing.assert_close(exact.next_state, mean)


def test_noise_has_the_stated_size():
    data = simulate(TRUTH, torch.zeros(2000, 2), torch.zeros(1, 1), generator=generator(2))
    spread = data.state[:, 1].std(0)
    # the relative standard error of a standard deviation from n values is 1 / sqrt(2 n) = 0.016; 5 of them
    torch.testing.assert_close(spread, torch.tensor([0.01, 0.05], dtype=torch.float64), rtol=0.08, atol=0)


def test_a_policy_s_actions_are_recorded_and_it_is_asked_once_a_step():
    asked = []

    def policy(state, step):
        asked.append(step)
        return -0.5 * state[..., 1:]

    data = simulate(TRUTH, torch.ones(3, 2), policy, horizon=5, generator=generator())
    assert asked == [0, 1, 2, 3, 4]
    torch.testing.assert_close(data.action, -0.5 * data.state[:, :-1, 1:])


def test_one_world_is_drawn_for_all_episodes():
    prior = bwm.KnownDynamics(structure=bwm.structures.Pendulum(mass=torch.distributions.Uniform(0.5, 5.0)))
    data = simulate(prior, torch.tensor([[1.0, 0.0], [1.0, 0.0]]), torch.ones(4, 1), generator=generator())
    assert torch.equal(data.state[0], data.state[1])


def test_context_is_recorded():
    schema = bwm.Schema(state=[bwm.Variable("x")], context=[bwm.Variable("wind")], time_step=0.1)
    drift = bwm.structures.FromFunction(lambda x, u, c: x + c, schema=schema, name="drift")
    model = bwm.KnownDynamics(structure=drift)
    data = simulate(
        model, torch.zeros(2, 1), torch.zeros(3, 0), context=torch.tensor([[1.0], [2.0]]), generator=generator()
    )
    torch.testing.assert_close(data.state[:, -1, 0], torch.tensor([3.0, 6.0], dtype=torch.float64))
    assert torch.equal(data.context, torch.tensor([[1.0], [2.0]], dtype=torch.float64))


def test_a_single_start_is_refused():
    with pytest.raises(bwm.SpecError, match=r"starts of shape \(episodes, S\)"):
        simulate(TRUTH, torch.zeros(2), torch.zeros(3, 1), generator=generator())
