import pytest
import torch

import bayeswm as bwm
from bayeswm.causal.counterfactuals.abduction import abducted, completed, is_even, solved_noise, weighed
from bayeswm.causal.interventions.intervened import IntervenedWorlds
from tests.causal.reference_models import c3, line

UNEVEN = bwm.Trajectories(line(), state=[[[1.0], [1.0], [0.5]], [[1.0], [2.0]]], action=[[[0.0]] * 2, [[0.0]]])


def test_solved_noise_has_a_particle_and_none_beyond_the_end() -> None:
    noise = solved_noise(c3().draw(1), UNEVEN, generator=None)
    assert noise.step is not None
    assert noise.step.shape == (1, 1, 2, 2, 1)
    torch.testing.assert_close(noise.step.flatten(), torch.tensor([0.2, -0.3, 1.2, 0.0], dtype=torch.float64))
    both, log_density = abducted(c3().draw(1), UNEVEN, copies=1, generator=None)
    torch.testing.assert_close(both.step, noise.step)
    density = torch.distributions.Normal(0.0, 1.0).log_prob(torch.tensor([0.2, -0.3, 1.2])).sum()
    assert log_density.item() == pytest.approx(density.item())
    assert is_even(UNEVEN[0])
    assert not is_even(UNEVEN)


def test_draws_of_hidden_noise_take_the_axis_of_particles(generator: torch.Generator) -> None:
    hidden = bwm.KnownDynamics(structure=c3().structure, noise=1.0, sensor_noise=0.5).draw(1)
    noise, log_density = abducted(hidden, UNEVEN, copies=7, generator=generator)
    assert noise.initial is not None
    assert noise.step is not None
    assert (noise.initial.shape, noise.step.shape) == ((1, 7, 2, 1), (1, 7, 2, 2, 1))
    # an exact filter says the same in each copy
    _, exact = hidden.smooth(UNEVEN, generator=generator)
    assert log_density.item() == pytest.approx(exact.sum().item())


def test_worlds_are_weighed_or_refused() -> None:
    four = c3().draw(1)[[0, 0, 0, 0]]
    found, share = weighed(four, torch.tensor([0.0, 0.0, -1e9, -1e9]).double())
    assert found.weight.tolist() == pytest.approx([0.5, 0.5, 0.0, 0.0])
    assert share == pytest.approx(0.5)
    with pytest.raises(bwm.FitError, match="density 0"):
        weighed(four, torch.full((4,), -torch.inf))
    many = c3().draw(1)[[0] * 20]
    with pytest.raises(bwm.FitError, match="effective share"):
        weighed(many, torch.arange(20).double() * 100)


def test_noise_is_completed_for_stochastic_interventions(generator: torch.Generator) -> None:
    noise = solved_noise(c3().draw(1), UNEVEN, generator=None)
    law = torch.distributions.Normal(0.0, 1.0)
    done = IntervenedWorlds(c3().draw(1), [bwm.do(a=law)], replay=noise.step)
    assert completed(noise, done, None) == bwm.Noise()
    with pytest.raises(bwm.SpecError, match="worlds as they are"):
        _ = done[[0]]
    assert done.reweight(torch.zeros(1)).replay is noise.step
    known = noise._replace(episode=torch.zeros(1, 1, 2, 0).double())
    found = completed(known, done, generator)
    assert found is not None
    assert found.episode is not None
    assert found.episode.shape == (1, 1, 2, 1)
    with pytest.raises(bwm.SpecError, match="generator="):
        completed(known, done, None)
