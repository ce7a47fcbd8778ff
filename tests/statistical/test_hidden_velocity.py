"""A linear-Gaussian system with a hidden velocity: filter, smoother and rollout against dense Gaussian algebra."""

import math

import pytest
import torch
from torch import Tensor

import bayeswm as bwm
from bayeswm.base import Noise, Trajectories
from tests.hidden_models import HiddenModel, HiddenVelocityWorlds, hidden_velocity_worlds
from tests.statistical.checks import BUDGET, gaussian_p, mean_p

HORIZON = 6


def dense(worlds: HiddenVelocityWorlds, w: int, actions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """State paths (7 * 2 values) as an affine map of all noise z ~ N(0, I): offset, matrix; and the sensors' matrix."""
    A, B, G = (v if v.ndim == 1 else v[w] for v in worlds.matrices())
    size = 2 + len(actions)
    offset, matrix = [worlds.prior.mean[0, 0]], [torch.zeros(2, size, dtype=torch.float64)]
    matrix[0][:, :2] = worlds.prior.scale_tril
    for t, a in enumerate(actions):
        offset.append(A @ offset[-1] + B * a)
        matrix.append(A @ matrix[-1])
        matrix[-1][:, 2 + t] += G
    return torch.cat(offset), torch.cat(matrix), torch.block_diag(*[worlds.sensors] * (len(actions) + 1))


def condition(worlds: HiddenVelocityWorlds, w: int, episode: Trajectories) -> tuple[Tensor, Tensor, float]:
    """Exact mean and covariance of all noise given one episode, and the log density of what was measured."""
    offset, matrix, sensors = dense(worlds, w, episode.action[0])
    seen = episode.observation_mask[0].flatten()
    y = episode.measurement[0].flatten()[seen]
    H = (sensors @ matrix)[seen]
    R = worlds.parameters["sensor_noise"][w].square().repeat(len(episode.measurement[0]))[seen]
    S = H @ H.mT + R.diag()
    residual = y - (sensors @ offset)[seen]
    gain = torch.linalg.solve(S, H).mT
    covariance = torch.eye(matrix.shape[1], dtype=torch.float64) - gain @ H
    log_density = torch.distributions.MultivariateNormal(torch.zeros_like(y), S).log_prob(residual)
    return gain @ residual, covariance, float(log_density)


def episodes(*, missing: bool, n: int = 2) -> Trajectories:
    g = torch.Generator().manual_seed(3)
    measured = torch.randn(n, HORIZON + 1, 2, generator=g, dtype=torch.float64)
    if missing:
        measured[torch.rand(measured.shape, generator=g) < 0.4] = float("nan")
        measured[:, 3] = float("nan")
    actions = torch.randn(n, HORIZON, 1, generator=g, dtype=torch.float64)
    return Trajectories(
        HiddenVelocityWorlds.schema, observation=measured, action=actions, allow_missing=True, lengths=[HORIZON] * n
    )


@pytest.mark.parametrize("missing", [False, True])
def test_filter_and_smoother_equal_dense_algebra(missing: bool) -> None:
    worlds, data = hidden_velocity_worlds(), episodes(missing=missing)
    noise, log_density = worlds.smooth(data, generator=torch.Generator().manual_seed(0))
    last, smoothed = worlds.start(data), worlds.smoothed(data)
    assert noise.initial is not None
    assert noise.step is not None
    assert noise.initial.shape == (3, 1, 2, 2)
    assert noise.step.shape == (3, 1, 2, HORIZON, 1)
    for w in range(3):
        for i in range(2):
            mean, covariance, exact = condition(worlds, w, data[i])
            offset, matrix, _ = dense(worlds, w, data.action[i])
            path, spread = offset + matrix @ mean, matrix @ covariance @ matrix.mT
            torch.testing.assert_close(last.mean[w, 0, i], path[-2:], atol=1e-8, rtol=0)
            torch.testing.assert_close(last.covariance[w, 0, i], spread[-2:, -2:], atol=1e-8, rtol=0)
            for t in range(HORIZON + 1):
                at = slice(2 * t, 2 * t + 2)
                torch.testing.assert_close(smoothed[t].mean[w, 0, i], path[at], atol=1e-8, rtol=0)
                torch.testing.assert_close(smoothed[t].covariance[w, 0, i], spread[at, at], atol=1e-8, rtol=0)
            assert float(log_density[w, 0, i]) == pytest.approx(exact, abs=1e-8)


def test_filter_of_a_ragged_batch_equals_each_episode_alone() -> None:
    data = episodes(missing=True)
    short = Trajectories(
        data.schema,
        observation=[data.measurement[0], data.measurement[1, :4]],
        action=[data.action[0], data.action[1, :3]],
        allow_missing=True,
    )
    worlds = hidden_velocity_worlds()
    together = worlds.start(short)
    _, log_density = worlds.smooth(short, generator=torch.Generator().manual_seed(0))
    for i in range(2):
        alone = worlds.start(short[i])
        torch.testing.assert_close(together.mean[:, :, i], alone.mean[:, :, 0])
        torch.testing.assert_close(together.covariance[:, :, i], alone.covariance[:, :, 0])
        torch.testing.assert_close(log_density[:, 0, i].sum(), sum(
            torch.tensor(condition(worlds, w, short[i])[2], dtype=torch.float64) for w in range(3)
        ))  # fmt: skip


def test_log_likelihood_by_steps_adds_up_to_the_exact_one() -> None:
    worlds, data = hidden_velocity_worlds(), episodes(missing=True)
    first = Trajectories(data.schema, observation=data.measurement, action=data.action, allow_missing=True)
    begin = worlds._along(first)[0][0]
    steps = worlds.log_likelihood(begin, data.measurement[:, 1:], data.action, torch.empty(2, HORIZON, 0))
    _, total = worlds.smooth(data, generator=torch.Generator().manual_seed(0))
    prior = worlds.start(worlds.prior)
    mean = prior.mean[:, :, None].expand(3, 1, 2, 2)
    prior = type(prior)(mean, prior.covariance[:, :, None].expand(*mean.shape, 2))
    _, at_start = worlds._update(prior, data.measurement[:, 0], data.observation_mask[:, 0])
    assert steps.shape == (3, 1, 2, HORIZON)
    torch.testing.assert_close(steps.sum(-1) + at_start, total, atol=1e-8, rtol=0)


@pytest.mark.statistical
@pytest.mark.parametrize("missing", [False, True])
def test_smoothed_noise_has_the_exact_posterior(missing: bool) -> None:
    worlds, data = hidden_velocity_worlds(), episodes(missing=missing)
    copies = data[torch.zeros(4000, dtype=torch.int64)]
    noise, _ = worlds.smooth(copies, generator=torch.Generator().manual_seed(1))
    assert noise.initial is not None
    assert noise.step is not None
    for w in range(3):
        draws = torch.cat((noise.initial[w, 0], noise.step[w, 0, :, :, 0]), -1)
        mean, covariance, _ = condition(worlds, w, data[0])
        assert min(gaussian_p(draws, mean, covariance)) > BUDGET


def test_replayed_noise_leads_to_states_that_the_sensors_report() -> None:
    """With nearly exact sensors the smoothed noise, replayed in a rollout, goes through the measurements."""
    worlds = hidden_velocity_worlds().replace(sensor_noise=1e-6)
    g = torch.Generator().manual_seed(5)
    actions = torch.randn(1, HORIZON, 1, generator=g, dtype=torch.float64)
    r = bwm.rollout(worlds[0], worlds.prior.map(lambda v: v[:, :, None]), actions, particles=1, generator=g)
    path = torch.cat((r.initial[0, 0, :, None], r.particles[0, 0]), -2)  # (1, H + 1, 2)
    data = Trajectories(worlds.schema, observation=path @ worlds.sensors.mT, action=actions)
    noise, _ = worlds.smooth(data, generator=g)
    again = bwm.rollout(worlds, worlds.prior.map(lambda v: v[:, :, None]), actions, particles=1, noise=noise)
    assert float((again.particles[..., 0] - path[:, 1:, 0]).abs().max()) < 1e-4


@pytest.mark.statistical
def test_rollout_has_the_exact_joint_law() -> None:
    worlds = hidden_velocity_worlds()
    actions = torch.linspace(-1, 1, HORIZON, dtype=torch.float64)[:, None]
    r = bwm.rollout(worlds, worlds.prior, actions, particles=4000, generator=torch.Generator().manual_seed(2))
    for w in range(3):
        offset, matrix, _ = dense(worlds, w, actions)
        # velocities only: a position is a combination of earlier values, so the joint law of both is singular
        rows = torch.arange(3, 2 * HORIZON + 2, 2)
        samples = r.particles[w, :, :, 1]
        assert min(gaussian_p(samples, offset[rows], (matrix @ matrix.mT)[rows][:, rows])) > BUDGET


@pytest.mark.statistical
def test_predictive_of_a_measurement_given_a_history() -> None:
    worlds, data = hidden_velocity_worlds(), episodes(missing=True)
    model, action = HiddenModel(worlds), torch.tensor([[0.4], [-0.3]], dtype=torch.float64)
    last = worlds.start(data)
    law = worlds.transition(last, action)
    exact = law.mean @ worlds.sensors.mT
    repeats = []
    for seed in range(40):
        g = torch.Generator().manual_seed(seed)
        p = model.predictive(None, action, history=data, of="measurement", particles=50, generator=g)
        assert p.variables.columns == ("gauge", "lever")
        repeats.append(torch.stack((p.mean[:, 0], p.variance[:, 0])))
    weight = worlds.weight[:, None, None]
    mean = (weight * exact[:, 0]).sum(0)
    within = worlds.sensors @ law.covariance @ worlds.sensors.mT
    within = within.diagonal(dim1=-2, dim2=-1)[:, 0] + worlds.parameters["sensor_noise"].square()[:, None]
    total = (weight * (within + (exact[:, 0] - mean).square())).sum(0)
    assert mean_p(torch.stack(repeats), torch.stack((mean, total))) > BUDGET


def test_predictive_of_the_state_samples_values_not_carries() -> None:
    """A law of a hidden system pushes a carry; a predictive must show the state in it, from every particle."""
    worlds, data = hidden_velocity_worlds(), episodes(missing=False)
    g = torch.Generator().manual_seed(0)
    p = HiddenModel(worlds).predictive(None, torch.zeros(1, dtype=torch.float64), history=data, generator=g)
    samples = p.sample(3000, generator=g)
    assert samples.shape == (3000, 2, 1, 2)
    # the variance is dominated by the spread of the particles: one particle a world would show next to none of it
    ratio = samples.var(0) / p.variance
    assert bool((ratio > 0.7).all())
    assert bool((ratio < 1.4).all())


def test_abduct_needs_a_known_state() -> None:
    worlds = hidden_velocity_worlds()
    with pytest.raises(bwm.NotInvertible, match="known state"):
        worlds.transition(worlds.start(worlds.prior), torch.zeros(1)).abduct(torch.zeros(2))
    carry = worlds.start(torch.zeros(2, dtype=torch.float64))
    law = worlds.transition(carry, torch.ones(1, dtype=torch.float64))
    noise = torch.full((3, 1, 1), 0.7, dtype=torch.float64)
    torch.testing.assert_close(law.abduct(law.push(noise).mean), noise)


def test_one_drawn_world_and_fresh_worlds_keep_the_contract() -> None:
    worlds = hidden_velocity_worlds(exhaustive=False)
    r = bwm.rollout(
        worlds,
        worlds.prior,
        torch.zeros(4, 1),
        particles=20,
        fresh_worlds=True,
        generator=torch.Generator().manual_seed(0),
    )
    assert r.particles.shape == (3, 20, 4, 2)
    assert bool(r.variance.isfinite().all())
    assert math.isfinite(float(r.quantile(0.5).sum()))
    with pytest.raises(bwm.SpecError, match="log_likelihood"):
        r.log_prob(torch.zeros(4, 2, dtype=torch.float64))


def test_missing_noise_parts_are_drawn() -> None:
    """Noise(step=...) alone must not switch off the belief about the start."""
    worlds = hidden_velocity_worlds()
    step = torch.zeros(3, 5, HORIZON, 1, dtype=torch.float64)
    g = torch.Generator().manual_seed(0)
    r = bwm.rollout(worlds, worlds.prior, torch.zeros(HORIZON, 1), particles=5, noise=Noise(step=step), generator=g)
    assert r.initial is not None
    assert float(r.initial.var(1).min()) > 0
