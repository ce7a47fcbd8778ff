import pytest
import torch
from torch.distributions import Normal

import bayeswm as bwm
from bayeswm.base.random import make_generator, standard_normal
from bayeswm.models.episode_worlds import EpisodeWorlds
from bayeswm.models.sensing import Sensing
from tests.models import random_effects as walk
from tests.statistical.checks import BUDGET, chi_square_p

F64 = torch.float64


def worlds(count: int = 1) -> EpisodeWorlds:
    one = torch.ones(count, dtype=F64)
    parameters = {"drift.location": walk.MEAN * one, "drift.scale": walk.SPREAD * one}
    return EpisodeWorlds(walk.drift(), {**parameters, "process_noise": walk.KICK * one[:, None]})


def changes(data: bwm.Trajectories) -> torch.Tensor:
    return data.states()[:, 1:, 0] - data.states()[:, :-1, 0]


def test_likelihood_of_measured_states_is_that_of_the_population() -> None:
    data = walk.recordings()
    found = worlds().log_likelihood(
        worlds().start(data.states()[:, 0]), data.states()[:, 1:], data.action, data.step_context()
    )
    wanted = walk.changes_law(data.horizon).log_prob(changes(data))
    torch.testing.assert_close(found[0, 0].sum(-1), wanted, rtol=1e-9, atol=0)


def test_a_history_tells_of_the_episode() -> None:
    data = walk.recordings()
    carry = worlds().start(data)
    # the next change has the mean of the drift given the history
    mean, _ = walk.drift_given(changes(data))
    law = worlds().transition(carry, data.action[:, 0])
    torch.testing.assert_close(law.mean[0, 0, :, 0], data.states()[:, -1, 0] + mean, rtol=1e-9, atol=0)
    spread = walk.drift_given(changes(data))[1]
    wanted = torch.full((5,), spread**2 + walk.KICK**2, dtype=F64)
    torch.testing.assert_close(law.variance[0, 0, :, 0], wanted, rtol=1e-9, atol=0)


@pytest.mark.statistical
def test_smoothed_noise_has_the_posterior_of_the_drift_and_replays() -> None:
    data, n = walk.recordings(episodes=3), 2000
    noise, log_weight = worlds(n).smooth(data, generator=make_generator(0))
    assert noise.initial is None
    assert noise.episode.shape == (n, 1, 3, 1)
    mean, spread = walk.drift_given(changes(data))
    white = ((walk.MEAN + walk.SPREAD * noise.episode[:, 0, :, 0]) - mean) / spread
    assert chi_square_p(n * white.mean(0).square().sum(), 3) > BUDGET
    assert chi_square_p(white.square().sum(), 3 * n) > BUDGET
    wanted = walk.changes_law(data.horizon).log_prob(changes(data))
    torch.testing.assert_close(log_weight[:, 0], wanted.expand(n, 3), rtol=1e-9, atol=0)
    replay = bwm.rollout(worlds(n)[:3], data.states()[:, 0], horizon=data.horizon, noise=bwm.Noise(
        episode=noise.episode[:3], step=noise.step[:3]
    ), particles=1)  # fmt: skip
    # the root of a variance that cancelled keeps half of the digits
    wanted = data.states()[:, 1:].expand(3, -1, -1, -1)
    torch.testing.assert_close(replay.particles[:, 0], wanted, rtol=0, atol=1e-7)


@pytest.mark.statistical
def test_new_episodes_are_drawn_from_the_population() -> None:
    n = 4000
    future = bwm.rollout(worlds(), torch.zeros(1, dtype=F64), horizon=4, particles=n, generator=make_generator(1))
    steps = torch.diff(future.particles[0, :, :, 0], dim=1, prepend=torch.zeros(n, 1, dtype=F64))
    law = walk.changes_law(4)
    white = torch.linalg.solve_triangular(law.scale_tril, (steps - walk.MEAN).mT, upper=False)
    assert chi_square_p(white.square().sum(), 4 * n) > BUDGET
    assert chi_square_p(n * white.mean(1).square().sum(), 4) > BUDGET


def test_with_sensors_as_dense_algebra_says() -> None:
    data = walk.recordings(sensor=walk.SENSOR)
    structure, h = walk.drift(), data.horizon
    sensing = Sensing.of(structure, walk.SENSOR, belief={"x": Normal(0.0, 1.0)})
    seen = EpisodeWorlds(
        structure, {**worlds().parameters, "sensor_noise": torch.tensor([[walk.SENSOR]], dtype=F64)}, sensing=sensing
    )
    # y = x0 + t b + sums of kicks + sensor noise
    t = torch.arange(h + 1, dtype=F64)
    covariance = 1.0 + walk.SPREAD**2 * t[:, None] * t + walk.KICK**2 * torch.minimum(t[:, None], t)
    covariance = covariance + walk.SENSOR**2 * torch.eye(h + 1, dtype=F64)
    law = torch.distributions.MultivariateNormal(walk.MEAN * t, covariance)
    _, log_weight = seen.smooth(data, generator=make_generator(0))
    torch.testing.assert_close(log_weight[0, 0], law.log_prob(data.states()[..., 0]), rtol=1e-9, atol=0)
    assert not seen.state_is_measured
    assert seen.measurement(seen.start(data)).mean.shape == (1, 1, 5, 1)


@pytest.mark.statistical
def test_episode_noise_is_a_part_of_the_aleatoric_variance() -> None:
    n, start = 4000, torch.zeros(1, dtype=F64)
    parts = bwm.aleatoric_parts(worlds(), start, torch.empty(3, 0), particles=n, generator=make_generator(0))
    # after t steps the drift has spread t * 0.5, the kicks sqrt(t) * 0.2; the product of two correlated normal numbers
    # of variance v with covariance c has variance v^2 + c^2, v at most 1.16 c
    wanted = walk.SPREAD**2 * torch.tensor([1.0, 4.0, 9.0], dtype=F64)
    assert bool(((parts.episode[:, 0] / wanted - 1).abs() < 4.5 * ((1.16**2 + 1) / n) ** 0.5).all())


def test_law_of_a_known_start_is_a_bijection() -> None:
    w, x = worlds(2), torch.zeros(3, 1, dtype=F64)
    episode = standard_normal((2, 1, 3, 1), make_generator(0), dtype=F64)
    law = w.transition(w.start(x, noise=bwm.Noise(episode=episode)), x[:, :0])
    noise = standard_normal((2, 1, 3, 1), make_generator(1), dtype=F64)
    torch.testing.assert_close(law.abduct(w.state(law.push(noise))), noise)
    assert law.log_prob(law.mean).shape == (2, 1, 3)
