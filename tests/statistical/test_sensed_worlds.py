"""Draws of a smoother and forecasts of measurements against their exact laws."""

import pytest
import torch

import bayeswm as bwm
from bayeswm.inference import LinearGaussian, ParticleFilter, Unscented
from bayeswm.inference.filtering import Filter
from bayeswm.models.sensed_worlds import SensedWorlds
from tests.models.sensed import BELIEF, STEPS, exact, model, record
from tests.statistical.checks import BUDGET, gaussian_p, mean_p


@pytest.mark.statistical
@pytest.mark.parametrize("missing", [False, True])
@pytest.mark.parametrize("method", [LinearGaussian(), Unscented(), ParticleFilter(particles=500)])
def test_smoothed_draws_have_the_exact_posterior(method: Filter, missing: bool) -> None:
    """Copies of one episode: the paths that the drawn noise leads to are draws of the Rauch-Tung-Striebel law.

    A particle filter's bias is of order 1 / particles, below the resolution of 1,000 draws.
    """
    worlds, data = model(filtering=method).draw(1), record(missing=missing)
    assert isinstance(worlds, SensedWorlds)
    copies = data[torch.zeros(1000 if isinstance(method, ParticleFilter) else 4000, dtype=torch.int64)]
    g = torch.Generator().manual_seed(1)
    noise, _ = worlds.smooth(copies, generator=g)
    replay = bwm.rollout(worlds, worlds.beginning(copies), copies.action, particles=1, noise=noise)
    assert replay.initial is not None
    path = torch.cat((replay.initial[0, 0, :, None], replay.particles[0, 0]), 1).flatten(1)
    dense = exact(data, 0)
    assert min(gaussian_p(path, dense.mean, dense.covariance)) > BUDGET


@pytest.mark.statistical
def test_smoothed_noise_of_a_silent_start_only() -> None:
    """Without process noise the path follows from the start: its posterior is that of the first state."""
    worlds, data = model(noise=(0.0, 0.0)).draw(1), record()
    assert isinstance(worlds, SensedWorlds)
    copies = data[torch.zeros(4000, dtype=torch.int64)]
    noise, _ = worlds.smooth(copies, generator=torch.Generator().manual_seed(1))
    assert noise.initial is not None
    start = worlds.beginning(copies).push(noise.initial)[0, 0]
    assert min(gaussian_p(start, *exact(data, 0, noise=(0.0, 0.0)).at(0, 2))) > BUDGET


@pytest.mark.statistical
def test_particles_of_measurements_have_the_exact_joint_law() -> None:
    """y[h] = x[h] + r v: the joint covariance of what the sensors will report along a horizon."""
    noise, start = torch.tensor([0.1, 0.3], dtype=torch.float64), torch.tensor([0.4, -0.2], dtype=torch.float64)
    action = torch.linspace(-1, 1, STEPS, dtype=torch.float64)[:, None]
    g = torch.Generator().manual_seed(0)
    r = bwm.rollout(model(), start, action, particles=5000, generator=g, of="measurement")
    assert r.variables.names == ("x",)
    bare = bwm.testing.LinearGaussianSystem(
        A=torch.tensor([[1.0, 0.2], [-0.3, 0.9]]).double(), B=torch.tensor([[0.0], [0.5]]).double(), noise=noise,
        drift=torch.zeros(2).double(),
    ).joint(start, action)  # fmt: skip
    rows = torch.arange(0, 2 * STEPS, 2)
    covariance = bare.covariance[rows][:, rows] + 0.2**2 * torch.eye(STEPS, dtype=torch.float64)
    assert min(gaussian_p(r.particles[0, :, :, 0], bare.mean[rows], covariance)) > BUDGET
    # the mixture of the laws says the same, up to Monte Carlo error
    repeats = [
        bwm.rollout(model(), start, action, particles=100, generator=g, of="measurement").mean for _ in range(60)
    ]
    assert mean_p(torch.stack(repeats)[..., 0], bare.mean[rows]) > BUDGET


@pytest.mark.statistical
def test_the_true_model_is_calibrated_on_measurements_and_a_wrong_one_is_not() -> None:
    """300 recordings, so that a share of 0.9 has a standard error of 0.017."""
    data = record(episodes=300, steps=12, seed=5)
    found = bwm.diagnostics.calibration(model(), data, horizon=4, particles=400).sel(level=0.9, variable="x")
    z = (found.coverage - 0.9) / found.coverage_se
    # four horizons: |z| < 4.9 has p = 4e-6 together; 400 particles let 90 % intervals cover 0.6 / 400 less
    assert float(abs(z).max()) < 4.9
    assert list(found.horizon.values) == [1, 2, 3, 4]
    deaf = bwm.KnownDynamics(structure=model().structure, noise=(0.1, 0.3), sensor_noise={"x": 0.02}, belief=BELIEF)
    wrong = bwm.diagnostics.calibration(deaf, data, horizon=4, particles=400).sel(level=0.9, variable="x", horizon=1)
    assert float(wrong.coverage) < 0.9 - 10 * float(wrong.coverage_se)
