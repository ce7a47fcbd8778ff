"""Counterfactuals of hidden states and of hidden numbers of an episode, against dense linear algebra."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.distributions import Normal

import bayeswm as bwm
from bayeswm.causal import counterfactual
from bayeswm.causal.counterfactuals.abduction import abducted
from bayeswm.causal.counterfactuals.drawn_noise import DrawnNoise
from bayeswm.models.episode_worlds import EpisodeWorlds
from bayeswm.models.sensing import Sensing
from tests.causal.dense import conditioned, unrolled
from tests.models import random_effects as walk
from tests.statistical.checks import BUDGET, chi_square_p, gaussian_p

F64 = torch.float64
SENSOR = 0.3
A = torch.tensor([[1.0, 0.5], [-0.2, 0.9]], dtype=F64)
B = torch.tensor([[0.0], [0.5]], dtype=F64)
L = torch.diag(torch.tensor([0.1, 0.4], dtype=F64))
SCHEMA = bwm.Schema(
    state=[bwm.Variable("position"), bwm.Variable("velocity")], action=[bwm.Variable("force")], time_step=1.0
)
FORCE = torch.tensor([[1.0], [-0.5], [0.0], [2.0]], dtype=F64)
SEEN = torch.tensor([0.0, 0.4, 0.1, -0.3, 0.8], dtype=F64)


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def spring(filtering: object = None) -> bwm.KnownDynamics:
    """A spring of which only the position is measured, with noise."""
    return bwm.KnownDynamics(
        structure=bwm.structures.Linear(SCHEMA, A=A, B=B),
        noise=[0.1, 0.4],
        sensor_noise={"position": SENSOR},
        belief={"velocity": Normal(0.0, 1.0)},
        filtering=filtering,  # pyright: ignore[reportArgumentType]
    )


def recorded() -> bwm.Trajectories:
    model = spring()
    seen = SEEN[None, :, None]
    return bwm.Trajectories(model.schema, observation=seen, action=FORCE[None])


def dense(force: Tensor) -> tuple[Tensor, Tensor]:
    """Return b (H, S) and G (H, S, n) of the path, with the noise of the start first: its belief is N(y0, sensor)."""
    start, spread = torch.tensor([float(SEEN[0]), 0.0], dtype=F64), torch.diag(torch.tensor([SENSOR, 1.0], dtype=F64))
    b, G = unrolled(A, L, force @ B.mT, start=start)
    powers = torch.stack([torch.linalg.matrix_power(A, t + 1) @ spread for t in range(len(force))])
    return b, torch.cat((powers, G), -1)


def believed() -> tuple[Tensor, Tensor]:
    """Mean and covariance of all noise given what was measured after the start."""
    b, G = dense(FORCE)
    return conditioned(G[:, 0], SEEN[1:] - b[:, 0], noise=SENSOR)


@pytest.mark.statistical
def test_a_measured_position_and_a_hidden_velocity() -> None:
    n = 2000
    other = torch.tensor([[0.0], [1.0], [1.0], [0.0]], dtype=F64)
    change = bwm.do({"force": other[:, 0]})
    found = counterfactual(spring(), recorded(), change, particles=n, generator=seeded())
    (mean, covariance), (b, G) = believed(), dense(other)
    spread = torch.einsum("hsi,ij,htj->hst", G, covariance, G)
    # in closed form, also without a generator
    for one in (found, counterfactual(spring(), recorded(), change)):
        torch.testing.assert_close(one.mean[0], b + G @ mean, rtol=0, atol=1e-9)
        torch.testing.assert_close(one.predictive.covariance[0], spread, rtol=0, atol=1e-9)
    for h in range(4):
        samples = found.predictive.particles[0, :, 0, h]
        assert min(gaussian_p(samples, b[h] + G[h] @ mean, G[h] @ covariance @ G[h].mT)) > BUDGET
    # the system is linear: what the force does is the same in all particles
    moved, _ = dense(other)
    torch.testing.assert_close(found.difference[0], moved - dense(FORCE)[0])


@pytest.mark.statistical
@pytest.mark.parametrize("filtering", [None, bwm.inference.ParticleFilter(particles=500)], ids=["exact", "particles"])
def test_draws_of_the_smoothers(filtering: object) -> None:
    """What is taken where a system is not linear, on one that is."""
    other, worlds = torch.tensor([[0.0], [1.0], [1.0], [0.0]], dtype=F64), spring(filtering).draw(1)
    noise, _ = abducted(worlds, recorded(), copies=800, generator=seeded())
    drawn = DrawnNoise(noise, worlds.beginning(recorded()), recorded(), particles=800, generator=seeded())
    _, found = drawn.branch(worlds, [bwm.do({"force": other[:, 0]})])
    (mean, covariance), (b, G) = believed(), dense(other)
    for h in range(4):
        wanted, spread = b[h] + G[h] @ mean, G[h] @ covariance @ G[h].mT
        assert min(gaussian_p(found.particles[0, :, 0, h], wanted, spread)) > BUDGET


@pytest.mark.statistical
@pytest.mark.parametrize(
    "filtering", [None, bwm.inference.ParticleFilter(particles=500)], ids=["unscented", "particles"]
)
def test_a_hidden_state_of_a_system_that_is_not_linear(filtering: object) -> None:
    """Doing what was done keeps what the smoother believes."""
    pendulum = bwm.structures.Pendulum(length=0.5)
    known = {"noise": 0.05, "sensor_noise": 0.1, "filtering": filtering}
    model = bwm.KnownDynamics(structure=pendulum, **known)  # pyright: ignore[reportArgumentType]
    truth = bwm.KnownDynamics(structure=pendulum, noise=0.05)
    start, torque = torch.tensor([[1.0, 0.0]], dtype=F64), torch.zeros(1, 6, 1, dtype=F64)
    x = bwm.rollout(truth, start, torque, particles=1, generator=seeded()).particles[0, 0]
    seen = torch.cat((start[:, None], x), 1) + 0.1 * torch.randn(1, 7, 2, generator=seeded(), dtype=F64)
    data = bwm.Trajectories(model.schema, state=seen, action=torque)
    same = counterfactual(model, data, bwm.do(torque=0.0), particles=500, generator=seeded())
    assert same.replayed is not None
    torch.testing.assert_close(same.predictive.particles, same.replayed.particles)
    noise, _ = abducted(model.draw(1), data, copies=500, generator=seeded())
    again = DrawnNoise(noise, model.draw(1).beginning(data), data, particles=500, generator=seeded())
    torch.testing.assert_close(again.branch(model.draw(1), [])[1].particles, same.replayed.particles)
    assert float(same.variance.min()) > 1e-4
    # most of what is believed lies near the truth
    off = (same.mean[0] - x[0]) / same.variance[0].sqrt()
    assert chi_square_p(off.square().sum(), off.numel()) > BUDGET


@pytest.mark.statistical
def test_doing_what_was_done_returns_what_is_believed() -> None:
    found = counterfactual(spring(), recorded(), bwm.do(force=FORCE[:, 0]), particles=2000, generator=seeded())
    assert found.replayed is not None
    torch.testing.assert_close(found.predictive.particles, found.replayed.particles)
    assert float(found.difference.abs().max()) < 1e-12
    mean, covariance = believed()
    b, G = dense(FORCE)
    belief = spring().draw(1).smoothed(recorded())  # pyright: ignore[reportAttributeAccessIssue]
    torch.testing.assert_close(belief.mean[0, 0, 0, 1:], b + G @ mean)
    assert min(gaussian_p(found.predictive.particles[0, :, 0, 3], b[3] + G[3] @ mean, G[3] @ covariance @ G[3].mT)) > (
        BUDGET
    )
    assert float(found.variance.min()) > 0.01


PUSHED = bwm.Schema(state=[bwm.Variable("x", unit="m")], action=[bwm.Variable("a")], time_step=1.0)


def own_gain(*, sensor: float | None = None) -> EpisodeWorlds:
    """x' = x + gain a + w, with a gain of each episode."""
    law = bwm.Hierarchical(walk.MEAN, walk.SPREAD)
    structure = bwm.structures.FromFunction(
        lambda x, u, c, p: x + p["gain"][..., None] * u, schema=PUSHED, parameters={"gain": law}, name="own_gain"
    )
    one = torch.ones(1, dtype=F64)
    parameters = {"gain.location": walk.MEAN * one, "gain.scale": walk.SPREAD * one}
    parameters["process_noise"] = walk.KICK * one[:, None]
    sensing = None
    if sensor is not None:
        parameters["sensor_noise"] = sensor * one[:, None]
        sensing = Sensing.of(structure, sensor)
    return EpisodeWorlds(structure, parameters, sensing=sensing, exhaustive=True)


def pushed(*, sensor: float = 0.0) -> bwm.Trajectories:
    walked = walk.recordings(episodes=3, steps=6, sensor=sensor)
    return bwm.Trajectories(PUSHED, state=walked.states(), action=torch.ones(3, 6, 1, dtype=F64))


def lasting(steps: int) -> Callable[[Tensor], Tensor]:
    """What each further unit of the push adds: the gain times the number of steps."""
    t = torch.arange(1, steps + 1, dtype=F64)
    return lambda gain: gain[..., None] * t


@pytest.mark.statistical
def test_what_an_episode_tells_of_its_context_lasts() -> None:
    data, n = pushed(), 2000
    found = counterfactual(own_gain(), data, bwm.do(a=2.0), particles=n, generator=seeded())
    states = data.states()[..., 0]
    mean, spread = walk.drift_given(states.diff(dim=1))
    t = torch.arange(1, 7, dtype=F64)
    torch.testing.assert_close(found.mean[..., 0], states[:, 1:] + mean[:, None] * t, rtol=0, atol=1e-9)
    torch.testing.assert_close(found.variance[..., 0], (spread * t).square().expand(3, 6), rtol=0, atol=1e-9)
    moved = found.predictive.particles[0, ..., 0] - states[:, 1:]  # (n, 3, 6)
    gain = moved[..., 0]
    # one number an episode, all along it
    torch.testing.assert_close(moved, lasting(6)(gain), rtol=1e-6, atol=1e-6)
    white = (gain - mean) / spread
    assert chi_square_p(n * white.mean(0).square().sum(), 3) > BUDGET
    assert chi_square_p(white.square().sum(), 3 * n) > BUDGET
    # the state is measured: doing what was done returns it
    same = counterfactual(own_gain(), data, bwm.do(a=1.0), particles=50, generator=seeded())
    torch.testing.assert_close(same.mean, data.states()[:, 1:], rtol=0, atol=1e-9)
    assert float(same.variance.max()) < 1e-12


@pytest.mark.statistical
def test_a_context_behind_noisy_sensors() -> None:
    data, n = pushed(sensor=walk.SENSOR), 2000
    found = counterfactual(own_gain(sensor=walk.SENSOR), data, bwm.do(a=2.0), particles=n, generator=seeded())
    seen = data.states()[..., 0]
    # noise: of the start, of the gain, of six kicks
    t = torch.arange(1, 7, dtype=F64)
    kicks = walk.KICK * torch.tril(torch.ones(6, 6, dtype=F64))
    G = torch.cat((torch.full((6, 1), walk.SENSOR, dtype=F64), walk.SPREAD * t[:, None], kicks), -1)
    G2 = torch.cat((G[:, :1], 2 * G[:, 1:2], G[:, 2:]), -1)
    for row in range(3):
        mean, covariance = conditioned(G, seen[row, 1:] - seen[row, 0] - walk.MEAN * t, noise=walk.SENSOR)
        wanted = seen[row, 0] + 2 * walk.MEAN * t + G2 @ mean
        torch.testing.assert_close(found.mean[row, :, 0], wanted, rtol=0, atol=1e-9)
        samples = found.predictive.particles[0, :, row, :, 0]
        assert min(gaussian_p(samples, wanted, G2 @ covariance @ G2.mT)) > BUDGET
    assert found.replayed is not None
    assert float(found.replayed.variance.min()) > 1e-4
