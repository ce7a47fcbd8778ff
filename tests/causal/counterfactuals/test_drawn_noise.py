import torch
from torch.distributions import Normal

import bayeswm as bwm
from bayeswm.causal.counterfactuals.abduction import solved_noise
from bayeswm.causal.counterfactuals.drawn_noise import DrawnNoise
from tests.causal.reference_models import c3, line

SEEN = bwm.Trajectories(line(), state=[[[1.0], [1.0], [0.5]]], action=[[[0.0]] * 2])


def test_known_noise_needs_no_particles(generator: torch.Generator) -> None:
    worlds = c3().draw(1)
    noise = solved_noise(worlds, SEEN, generator=None)
    drawn = DrawnNoise(noise, SEEN.states()[:, 0], SEEN, particles=7, generator=generator)
    done, found = drawn.branch(worlds, [])
    assert found.particles.shape == (1, 1, 1, 2, 1)
    torch.testing.assert_close(found.mean, SEEN.states()[:, 1:])
    assert done.noise_size == 0
    _, stochastic = drawn.branch(worlds, [bwm.do(a=Normal(0.0, 1.0))])
    assert stochastic.particles.shape[1] == 7


def test_draws_are_particles(generator: torch.Generator) -> None:
    worlds = c3().draw(1)
    step = torch.randn(1, 5, 1, 2, 1, generator=generator, dtype=torch.float64)
    drawn = DrawnNoise(bwm.Noise(step=step), torch.ones(1, 1), SEEN, particles=5, generator=None)
    _, found = drawn.branch(worlds, [])
    w = step[0, :, 0, :, 0]
    torch.testing.assert_close(found.particles[0, :, 0, 0, 0], 0.8 + w[:, 0])
    torch.testing.assert_close(found.mean[0, 0, 0], 0.8 + w[:, 0].mean())
    # draws that begin in one place spread all the same
    torch.testing.assert_close(found.variance[0, :, 0], torch.stack((w[:, 0].var(), (0.8 * w[:, 0] + w[:, 1]).var())))
