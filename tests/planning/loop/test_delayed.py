import pytest
import torch

import bayeswm as bwm
from bayeswm.planning.loop.delayed import DelayedWorlds
from tests.hidden_models import hidden_velocity_worlds

MODEL = bwm.KnownDynamics(structure=bwm.structures.Pendulum(mass=torch.distributions.Uniform(0.5, 2.0)), noise=0.1)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def test_it_starts_where_the_pending_actions_lead():
    worlds = MODEL.draw(4, generator=generator())
    pending = [torch.full((3, 1), v).double() for v in (1.0, -2.0)]
    state = torch.randn(3, 2, generator=generator(1)).double()
    later = DelayedWorlds(worlds, pending)
    assert later.initial_noise_size(state) == 4
    noise = torch.randn(4, 5, 1, 4, generator=generator(2)).double()
    carry = worlds.start(state)
    for t, action in enumerate(pending):
        carry = worlds.step(carry, action, noise=noise[..., 2 * t : 2 * t + 2], step=t)
    torch.testing.assert_close(later.start(state, None, bwm.Noise(noise)), carry)


def test_rollouts_are_those_of_the_whole_sequence_of_actions():
    worlds = MODEL.draw(4, generator=generator()).replace(process_noise=0.0)
    actions = torch.randn(3, 6, 1, generator=generator(1)).double()
    state = torch.randn(3, 2, generator=generator(2)).double()
    later = DelayedWorlds(worlds, list(actions[:, :2].unbind(1)))
    whole = bwm.rollout(worlds, state, actions, particles=2, generator=generator(3))
    part = bwm.rollout(later, state, actions[:, 2:], particles=2, generator=generator(3))
    torch.testing.assert_close(part.particles, whole.particles[..., 2:, :])
    assert later[1:3].parameters["mass"].shape == (2,)


def test_a_hidden_state_comes_first():
    worlds = hidden_velocity_worlds()
    history = bwm.Trajectories(worlds.schema, observation=torch.zeros(1, 2, 2), action=torch.zeros(1, 1, 1))
    later = DelayedWorlds(worlds, [torch.ones(1, 1).double()])
    own = worlds.initial_noise_size(history)
    assert later.initial_noise_size(history) == own + 1
    noise = torch.randn(3, 5, 1, own + 1, generator=generator()).double()
    expected = worlds.step(
        worlds.start(history, None, bwm.Noise(noise[..., :own])), torch.ones(1, 1).double(), noise=noise[..., own:]
    )
    torch.testing.assert_close(later.state(later.start(history, None, bwm.Noise(noise))), worlds.state(expected))


def test_nothing_pending_and_no_noise_are_refused():
    worlds = MODEL.draw(2, generator=generator())
    with pytest.raises(bwm.SpecError, match="pending"):
        DelayedWorlds(worlds, [])
    with pytest.raises(bwm.SpecError, match="noise"):
        DelayedWorlds(worlds, [torch.zeros(1)]).start(torch.zeros(2))


def test_worlds_that_start_later_do_not_say_how_episodes_began():
    worlds = bwm.KnownDynamics(structure=bwm.structures.Pendulum(), noise=0.1, sensor_noise=0.2).draw(1)
    data = bwm.Trajectories(worlds.schema, state=torch.ones(2, 3, 2), action=torch.zeros(2, 2, 1))
    with pytest.raises(bwm.SpecError, match="some that start later"):
        DelayedWorlds(worlds, [torch.zeros(1)]).beginning(data)
