"""Worlds seen through sensors: filter, smoother and likelihood against dense algebra, and the contract of a carry."""

import math

import pytest
import torch
from torch.distributions import Normal

import bayeswm as bwm
from bayeswm.base import Noise
from bayeswm.base.laws import Gaussian
from bayeswm.base.worlds import StructureWorlds
from bayeswm.inference import GaussianBelief, LinearGaussian, ParticleFilter, Unscented
from bayeswm.inference.filtering import Filter
from bayeswm.models.sensed_worlds import SensedWorlds
from bayeswm.structures import Pendulum
from tests.models.sensed import BELIEF, NOISE, SENSOR, STEPS, A, B, exact, model, oscillator, record

METHODS = [LinearGaussian(), Unscented()]


def worlds_of(**choices) -> SensedWorlds:
    drawn = model(**choices).draw(1)
    assert isinstance(drawn, SensedWorlds)
    return drawn


# --- against dense algebra --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("missing", [False, True])
@pytest.mark.parametrize("noise", [NOISE, (0.0, 0.0)])
def test_filter_smoother_and_likelihood_equal_dense_algebra(method: Filter, missing: bool, noise) -> None:
    worlds, data = worlds_of(filtering=method, noise=noise), record(missing=missing)
    last, smoothed = worlds.start(data), worlds.smoothed(data)
    _, log_prob = worlds.smooth(data, generator=torch.Generator().manual_seed(0))
    assert isinstance(last, GaussianBelief)
    for i in range(len(data)):
        dense = exact(data, i, noise=noise)
        mean, covariance = dense.at(STEPS, 2)
        torch.testing.assert_close(last.mean[0, 0, i], mean, atol=1e-8, rtol=0)
        torch.testing.assert_close(last.covariance[0, 0, i], covariance, atol=1e-8, rtol=0)
        torch.testing.assert_close(log_prob[0, 0, i], dense.log_density, atol=1e-8, rtol=0)
        for t in range(STEPS + 1):
            mean, covariance = dense.at(t, 2)
            torch.testing.assert_close(smoothed.mean[0, 0, i, t], mean, atol=1e-8, rtol=0)
            torch.testing.assert_close(smoothed.covariance[0, 0, i, t], covariance, atol=1e-8, rtol=0)


def test_a_ragged_batch_equals_each_episode_alone() -> None:
    worlds, whole = worlds_of(), record(episodes=3, missing=True)
    data = bwm.Trajectories(
        whole.schema,
        state=[whole.states()[0], whole.states()[1, :4], whole.states()[2, :2]],
        action=[whole.action[0], whole.action[1, :3], whole.action[2, :1]],
        allow_missing=True,
    )
    together, smoothed = worlds.start(data), worlds.smoothed(data)
    noise, log_prob = worlds.smooth(data, generator=torch.Generator().manual_seed(0))
    assert noise.step is not None
    assert torch.equal(noise.step[0, 0, :, :, 0].isnan(), ~data.step_mask)
    for i, steps in enumerate(data.lengths.tolist()):
        dense = exact(data, i)
        mean, covariance = dense.at(steps, 2)
        torch.testing.assert_close(together.mean[0, 0, i], mean, atol=1e-8, rtol=0)
        torch.testing.assert_close(together.covariance[0, 0, i], covariance, atol=1e-8, rtol=0)
        torch.testing.assert_close(smoothed.mean[0, 0, i, 0], dense.at(0, 2)[0], atol=1e-8, rtol=0)
        torch.testing.assert_close(log_prob[0, 0, i], dense.log_density, atol=1e-8, rtol=0)


def test_steps_of_the_likelihood_add_up() -> None:
    worlds, data = worlds_of(), record(missing=True)
    _, total = worlds.smooth(data, generator=torch.Generator().manual_seed(0))
    begun, measured = worlds.start(worlds.beginning(data)), data.states()[..., :1]
    steps = worlds.log_likelihood(begun, measured[:, 1:], data.action, torch.zeros(2, STEPS, 0))
    assert steps.shape == (1, 1, 2, STEPS)
    first = Normal(0.2, math.sqrt(0.7**2 + SENSOR**2)).log_prob(measured[:, 0, 0])
    torch.testing.assert_close(steps.sum(-1)[0, 0] + first, total[0, 0], atol=1e-6, rtol=0)
    carry, by_hand = begun, []
    for t in range(STEPS):
        carry, log_prob = worlds.filter(carry, data.action[:, t], None, measured[:, t + 1], step=t)
        by_hand.append(log_prob)
    torch.testing.assert_close(torch.stack(by_hand, -1), steps)
    torch.testing.assert_close(carry.mean, worlds.start(data).mean)


def test_a_column_without_a_belief_starts_at_its_measurement() -> None:
    """A flat prior is the limit of a wide one; its measurement has no density."""
    data = record()
    flat, wide = worlds_of(belief={"v": BELIEF["v"]}), worlds_of(belief={**BELIEF, "x": Normal(0.0, 1e5)})
    begun = flat.beginning(data)
    torch.testing.assert_close(begun.mean[0, 0, :, 0], data.states()[:, 0, 0])
    torch.testing.assert_close(begun.spread[0, 0, :, 0], torch.full((2,), SENSOR).double())
    torch.testing.assert_close(flat.start(data).mean, wide.start(data).mean, atol=1e-8, rtol=0)
    g = torch.Generator()
    first = -0.5 * math.log(2 * math.pi) - math.log(1e5)
    torch.testing.assert_close(
        flat.smooth(data, generator=g)[1], wide.smooth(data, generator=g)[1] - first, atol=1e-8, rtol=0
    )
    gone = data.states().clone()
    gone[1, 0, 0] = float("nan")
    with pytest.raises(bwm.DataError, match="first measurement of state column 0"):
        flat.start(bwm.Trajectories(data.schema, state=gone, action=data.action, allow_missing=True))


# --- rollouts ---------------------------------------------------------------------------------------------------------


def test_a_known_state_costs_one_call_of_the_structure_a_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """And moves exactly as it does without sensors."""
    calls: list[int] = []
    batched = Pendulum.batched

    def counted(self, parameters, state, *rest):
        calls.append(state.numel())
        return batched(self, parameters, state, *rest)

    monkeypatch.setattr(Pendulum, "batched", counted)
    seen = bwm.KnownDynamics(structure=Pendulum(), noise=0.1, sensor_noise=0.1)
    bare = bwm.KnownDynamics(structure=Pendulum(), noise=0.1)
    start, torque = torch.tensor([0.3, 0.1]), torch.ones(7, 1)
    r, plain = (
        bwm.rollout(m, start, torque, particles=5, generator=torch.Generator().manual_seed(0)) for m in (seen, bare)
    )
    assert torch.equal(r.particles, plain.particles)
    assert len(calls) == 14
    assert sorted(set(calls)) == [2, 10]
    assert r.laws[3].exact


def test_smoothed_noise_replays_to_the_measurements() -> None:
    """With nearly exact sensors the replay passes through them, also where the pendulum is not linear."""
    for structure in (oscillator(), Pendulum(time_step=0.1)):
        name = structure.schema.state.columns[0]
        seen = bwm.KnownDynamics(
            structure=structure, noise=[0.02, 0.1], sensor_noise={name: 1e-6},
            belief={structure.schema.state.columns[1]: Normal(0.0, 1.0)},
        )  # fmt: skip
        g = torch.Generator().manual_seed(0)
        action = torch.randn(3, 8, 1, generator=g, dtype=torch.float64)
        truth = bwm.KnownDynamics(structure=structure, noise=[0.02, 0.1])
        start = 0.5 * torch.randn(3, 2, generator=g, dtype=torch.float64)
        path = bwm.rollout(truth, start, action, particles=1, generator=g).particles[0, 0]
        data = bwm.Trajectories(truth.schema, state=torch.cat((start[:, None], path), 1), action=action)
        worlds = seen.draw(1)
        assert isinstance(worlds, SensedWorlds)
        noise, _ = worlds.smooth(data, generator=g)
        again = bwm.rollout(worlds, worlds.beginning(data), action, particles=1, noise=noise)
        assert float((again.particles[0, 0, ..., 0] - path[..., 0]).abs().max()) < 1e-4


def test_rollout_from_a_history_starts_with_the_filtered_belief() -> None:
    data = record()
    r = bwm.rollout(model(), data, torch.zeros(2, 3, 1), particles=20000, generator=torch.Generator().manual_seed(0))
    assert r.initial is not None
    for i in range(2):
        mean, covariance = exact(data, i).at(STEPS, 2)
        error = (covariance.diagonal() / 20000).sqrt()
        assert bool(((r.initial[0, :, i].mean(0) - mean).abs() < 5 * error).all())
        later = A @ covariance @ A.mT + torch.tensor(NOISE).double().square().diag()
        ratio = r.variance[i, 0] / later.diagonal()
        # relative standard error of a variance from n draws: sqrt(2 / n) = 0.01
        assert bool((ratio - 1).abs().lt(0.05).all())


def test_predictive_of_a_measurement_given_a_history() -> None:
    """Exact mean C m and variance C P C' + r^2 of the predicted measurement."""
    data, action = record(), torch.tensor([[0.4], [-0.3]], dtype=torch.float64)
    g = torch.Generator().manual_seed(0)
    p = model().predictive(None, action, history=data, of="measurement", particles=40000, generator=g)
    assert p.variables.names == ("x",)
    assert p.initial is not None
    assert p.initial.shape[-1] == 1
    for i in range(2):
        mean, covariance = exact(data, i).at(STEPS, 2)
        later = A @ covariance @ A.mT + torch.tensor(NOISE).double().square().diag()
        hidden, total = later[0, 0], later[0, 0] + SENSOR**2
        assert abs(float(p.mean[i, 0, 0] - (A @ mean + B @ action[i])[0])) < 5 * float((hidden / 40000).sqrt())
        assert float(p.variance[i, 0, 0] / total) == pytest.approx(1, abs=5 * math.sqrt(2 / 40000))


def test_initial_noise_and_definite_starts() -> None:
    worlds, data = worlds_of(), record()
    assert worlds.initial_noise_size(torch.zeros(2)) == 0
    assert worlds.initial_noise_size(data) == 2
    noise = torch.randn(1, 5, 2, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    drawn, belief = worlds.start(data, None, Noise(initial=noise)), worlds.start(data)
    torch.testing.assert_close(drawn, belief.draw(noise))
    law = Gaussian(torch.zeros(1, 1, 2).double(), torch.ones(2).double())
    known = worlds.start(law, None, Noise(initial=noise[:, :, 0]))
    torch.testing.assert_close(known, noise[:, :, 0])
    kept = worlds.start(law)
    assert isinstance(kept, GaussianBelief)
    torch.testing.assert_close(kept.covariance[0, 0], torch.eye(2).double())
    still = worlds.start(Gaussian(torch.zeros(1, 1, 2).double()))
    assert isinstance(still, torch.Tensor)
    # a filtered belief as a law, and back
    again = worlds.start(worlds.state_law(belief))
    torch.testing.assert_close(again.mean, belief.mean)
    torch.testing.assert_close(again.covariance, belief.covariance)
    assert isinstance(worlds.start(worlds.state_law(still)), torch.Tensor)


# --- beliefs as carries -----------------------------------------------------------------------------------------------


def test_measurement_of_states_beliefs_and_clouds() -> None:
    action = torch.zeros(2, 1, dtype=torch.float64)
    worlds, data = worlds_of(), record()
    known = worlds.measurement(worlds.start(torch.tensor([[0.5, 1.0]]).double()))
    assert known.mean.tolist() == [[[[0.5]]]]
    assert float(known.variance) == pytest.approx(SENSOR**2)
    belief = worlds.start(data)
    law = worlds.measurement(belief)
    torch.testing.assert_close(law.variance[..., 0], belief.covariance[..., 0, 0] + SENSOR**2)
    cloudy = worlds_of(filtering=ParticleFilter(particles=200))
    cloud = cloudy.start(data)
    law = cloudy.measurement(cloud)
    torch.testing.assert_close(law.variance[..., 0], cloud.covariance[..., 0, 0] + SENSOR**2)
    # the density of what came is that of the filter
    y = torch.tensor([[0.3], [0.1]], dtype=torch.float64)
    predicted = cloudy.method.passage(cloud, cloudy._move(cloud, action, None, step=0)).predicted()
    _, log_prob = cloudy.filter(cloud, action, None, y)
    torch.testing.assert_close(log_prob, cloudy.measurement(predicted).log_prob(y))


def test_particle_filter_agrees_with_kalman() -> None:
    """The filtered mean of n = 20,000 particles is off by about sd / sqrt(n), a few times that after six steps."""
    data = record(missing=True)
    worlds, gaussian = worlds_of(filtering=ParticleFilter(particles=20000)), worlds_of()
    cloud, belief = worlds.start(data), gaussian.start(data)
    sd = belief.covariance.diagonal(dim1=-2, dim2=-1).sqrt()
    assert bool(((cloud.mean - belief.mean).abs() < 8 * sd / math.sqrt(20000)).all())
    assert worlds.initial_noise_size(data) == 3
    noise, log_prob = worlds.smooth(data, generator=torch.Generator().manual_seed(0))
    assert noise.initial is not None
    assert noise.initial.shape == (1, 1, 2, 2)
    _, expected = gaussian.smooth(data, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(log_prob, expected, atol=0.05, rtol=0)
    law = worlds.transition(cloud, torch.zeros(2, 1).double())
    torch.testing.assert_close(law.covariance.diagonal(dim1=-2, dim2=-1), law.variance, atol=1e-12, rtol=0)
    assert not law.exact
    with pytest.raises(bwm.SpecError, match="average draws"):
        worlds.smoothed(data)


# --- other systems ----------------------------------------------------------------------------------------------------


def test_an_angle_is_followed_over_its_lift() -> None:
    """Turns of a spinning pendulum that a recording wraps at pi: the belief goes on, and the velocity is found."""
    structure = Pendulum(gravity=0.0, time_step=0.1)
    t = torch.arange(41, dtype=torch.float64) * 0.1
    wrapped = torch.atan2(torch.sin(3.0 + 4.0 * t), torch.cos(3.0 + 4.0 * t))
    state = torch.stack((wrapped, torch.full_like(t, float("nan"))), -1)
    data = bwm.Trajectories(structure.schema, state=state, action=torch.zeros(40, 1), allow_missing=True)
    seen = bwm.KnownDynamics(
        structure=structure, noise=1e-3, sensor_noise={"angle": 0.01}, belief={"velocity": Normal(0.0, 10.0)}
    )
    belief = seen.draw(1).start(data)
    torch.testing.assert_close(belief.mean[0, 0, 0], torch.tensor([19.0, 4.0]).double(), atol=0.02, rtol=0)


def test_a_structures_own_noise_is_respected() -> None:
    net = bwm.structures.MLP(hidden=(8,), schema=oscillator().schema)
    g = torch.Generator().manual_seed(0)
    inner = StructureWorlds(net, net.schema, net.initial(3, g, torch.float64), exhaustive=True)
    worlds = SensedWorlds(
        inner,
        schema=net.schema,
        sensor_noise=torch.full((3, 2), 0.1, dtype=torch.float64),
        belief=Gaussian(torch.zeros(1, 1, 2).double(), torch.full((1, 1, 2), math.inf).double()),
        method=Unscented(),
    )
    full = record().states().nan_to_num(0.3)
    data = bwm.Trajectories(net.schema, state=full, action=record().action)
    belief = worlds.start(data)
    assert belief.mean.shape == (3, 1, 2, 2)
    known = worlds.start(torch.zeros(2, 2).double())
    law = worlds.transition(known, data.action[:, 0])
    torch.testing.assert_close(law.variance, inner.transition(known, data.action[:, 0]).variance)
    lost = GaussianBelief(known, torch.zeros(3, 1, 2, 2, 2).double())
    torch.testing.assert_close(worlds.transition(lost, data.action[:, 0]).variance, law.variance)


def test_actions_of_particles_and_contexts_reach_the_points() -> None:
    def drift(x, u, c, p):
        return x + p["gain"] * u + c

    schema = bwm.Schema(
        state=[bwm.Variable("x")], action=[bwm.Variable("u")], context=[bwm.Variable("wind")], time_step=1.0
    )
    structure = bwm.structures.FromFunction(drift, schema=schema, parameters={"gain": 2.0}, name="drift")
    worlds = bwm.KnownDynamics(structure=structure, noise=0.1, sensor_noise=0.5).draw(1)
    mean = torch.arange(12.0).double().view(1, 3, 4, 1)
    belief = GaussianBelief(mean, torch.ones(1, 3, 4, 1, 1).double())
    action, wind = torch.randn(1, 3, 4, 1, dtype=torch.float64), torch.arange(4.0).double()[:, None]
    law = worlds.transition(belief, action, wind)
    torch.testing.assert_close(law.mean, mean + 2 * action + wind)
    torch.testing.assert_close(law.variance, torch.full((1, 3, 4, 1), 1.01).double())


def test_position_alone_finds_the_velocity() -> None:
    """The error of the smoothed velocity has the size that the belief says: mean square ratio 1 over many episodes."""
    structure, n = Pendulum(time_step=0.05), 400
    belief = {"angle": Normal(0.5, 0.3), "velocity": Normal(0.0, 2.0)}
    seen = bwm.KnownDynamics(structure=structure, noise=0.02, sensor_noise={"angle": 0.03}, belief=belief)
    truth, g = bwm.KnownDynamics(structure=structure, noise=0.02), torch.Generator().manual_seed(0)
    start = torch.stack(
        [law.loc + law.scale * torch.randn(n, generator=g, dtype=torch.float64) for law in belief.values()], -1
    )
    action = torch.randn(n, 30, 1, generator=g, dtype=torch.float64)
    path = bwm.rollout(truth, start, action, particles=1, generator=g).particles[0, 0]
    states = torch.cat((start[:, None], path), 1)
    noisy = states + 0.03 * torch.randn(states.shape, generator=g, dtype=torch.float64)
    noisy[..., 1] = float("nan")
    data = bwm.Trajectories(structure.schema, state=noisy, action=action, allow_missing=True)
    worlds = seen.draw(1)
    assert isinstance(worlds, SensedWorlds)
    lift = data.states()[:, :1, :1] - noisy[:, :1, :1]
    assert float(lift.abs().max()) == 0
    for belief_of in (worlds.smoothed(data), worlds.start(data)):
        mean, cover = belief_of.mean[0, 0], belief_of.covariance[0, 0]
        error = mean - (states if mean.ndim == 3 else states[:, -1])
        ratio = (error[..., 1].square() / cover[..., 1, 1]).view(n, -1)
        # of n independent squares of N(0, 1) the mean has a standard error of sqrt(2 / n) = 0.07
        assert bool((ratio.mean(0) - 1).abs().lt(5 * math.sqrt(2 / n)).all())
        assert float(cover[..., 1, 1].max().sqrt()) < 0.5 * 2.0


# --- the collection ---------------------------------------------------------------------------------------------------


def drawn(count: int = 4) -> SensedWorlds:
    law = torch.distributions.LogNormal(0.0, 0.3)
    seen = bwm.KnownDynamics(
        structure=Pendulum(mass=law), noise={"velocity": 0.1}, sensor_noise={"angle": 0.1},
        belief={"velocity": Normal(0.0, 1.0)},
    )  # fmt: skip
    worlds = seen.draw(count, generator=torch.Generator().manual_seed(0))
    assert isinstance(worlds, SensedWorlds)
    return worlds


def test_parts_and_replaced_worlds_keep_their_sensors() -> None:
    worlds = drawn()
    part = worlds[1:3]
    assert part.parameters["sensor_noise"].shape == (2, 1)
    assert part.dynamics.parameters["mass"].equal(worlds.parameters["mass"][1:3])
    changed = worlds.replace(sensor_noise=0.5, mass=2.0)
    assert changed.parameters["sensor_noise"].unique().tolist() == [0.5]
    assert changed.dynamics.parameters["mass"].unique().tolist() == [2.0]
    assert worlds.replace(process_noise=0.1).noise_size == 2
    single = worlds.to(torch.float32)
    assert single.dtype == torch.float32
    assert single.start(torch.zeros(2)).dtype == torch.float32
    heavy = worlds.reweight(torch.tensor([0.0, 0.0, 0.0, 5.0]).double())
    torch.testing.assert_close(heavy.dynamics.log_weight, heavy.log_weight)
    with pytest.raises(bwm.SpecError, match="sensor noise >= 0"):
        worlds.replace(sensor_noise=-0.1)
    with pytest.raises(bwm.SpecError, match="mass > 0"):
        worlds.replace(mass=-1.0)


def test_float32_filters_too() -> None:
    structure = Pendulum()
    seen = bwm.KnownDynamics(structure=structure, noise=0.02, sensor_noise=0.05, dtype=torch.float32)
    states = 0.1 * torch.randn(3, 9, 2, generator=torch.Generator().manual_seed(0))
    data = bwm.Trajectories(structure.schema, state=states, action=torch.zeros(3, 8, 1))
    belief, double = seen.draw(1).start(data), bwm.KnownDynamics(structure=structure, noise=0.02, sensor_noise=0.05)
    assert belief.mean.dtype == torch.float32
    torch.testing.assert_close(belief.mean.double(), double.draw(1).start(data).mean, atol=1e-5, rtol=1e-4)


def test_what_is_refused() -> None:
    worlds, data = worlds_of(), record()
    with pytest.raises(bwm.SpecError, match="generator"):
        worlds.smooth(data)
    other = bwm.Schema(state=[bwm.Variable("x"), bwm.Variable("w")], action=[bwm.Variable("force")], time_step=0.2)
    with pytest.raises(bwm.SpecError, match=r"expected state \(x, v\)"):
        worlds.start(data.with_schema(other))
    inner = worlds.dynamics
    with pytest.raises(bwm.SpecError, match="sensor noise >= 0"):
        SensedWorlds(
            inner,
            schema=worlds.schema,
            sensor_noise=torch.full((1, 1), -0.1),
            belief=worlds.belief,
            method=Unscented(),
        )
