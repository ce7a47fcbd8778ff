"""Forecasts of windows: what they start from, what they refuse."""

import pytest
import torch

import bayeswm as bwm
from bayeswm.diagnostics.forecast import forecast, forecast_of, gather, known
from tests.diagnostics.recordings import Linear, linear_system, record
from tests.models import sensed


def test_windows_come_back_in_order_whatever_the_chunk(linear: Linear) -> None:
    windows = linear.data.windows(2)
    parts = list(forecast(linear.truth, linear.data, horizon=2, chunk=97))
    assert [len(part.windows) for part in parts] == [97] * 12 + [36]
    assert torch.equal(torch.cat([part.outcomes for part in parts]), windows.states()[:, 1:])
    assert torch.equal(torch.cat([part.windows.episode for part in parts]), windows.episode)
    (whole,) = forecast(linear.truth, linear.data, horizon=2)
    first = torch.cat([part.predictive.mean[:, 0] for part in parts])
    assert torch.allclose(whole.predictive.mean[:, 0], first, rtol=1e-12)


def test_first_step_is_the_law_from_the_recorded_state(linear: Linear) -> None:
    (part,) = forecast(linear.truth, linear.data, horizon=3, stride=1)
    expected = linear.truth.predictive(part.windows.states()[:, 0], part.windows.action[:, 0])
    assert torch.allclose(part.predictive.mean[:, 0], expected.mean[:, 0], rtol=1e-12)


def test_all_parts_meet_the_same_worlds() -> None:
    law = torch.distributions.LogNormal(0.0, 0.3)
    model = bwm.KnownDynamics(structure=bwm.structures.Pendulum(mass=law), noise=0.01)
    data = bwm.Trajectories(model.schema, state=torch.zeros(4, 4, 2), action=torch.zeros(4, 3, 1))
    parts = list(forecast(model, data, horizon=3, worlds=6, chunk=1))
    assert all(torch.equal(part.worlds.parameters["mass"], parts[0].worlds.parameters["mass"]) for part in parts)


def test_few_worlds_get_more_particles(linear: Linear) -> None:
    (part,) = forecast(linear.truth, linear.data[:3], horizon=2)
    assert part.predictive.particles.shape[:2] == (1, 100)


def test_same_seed_same_answer_and_the_global_state_is_left_alone(linear: Linear) -> None:
    before = torch.get_rng_state()
    first, second = (next(forecast(linear.truth, linear.data[:5], horizon=4, seed=3)) for _ in range(2))
    assert torch.equal(first.predictive.particles, second.predictive.particles)
    assert torch.equal(torch.get_rng_state(), before)


def test_windows_without_a_recorded_start_are_left_out() -> None:
    truth = linear_system()
    state = record(truth, episodes=3, steps=4, seed=0).states().clone()
    state[1, 0, 1] = float("nan")
    data = bwm.Trajectories(truth.schema, state=state, action=torch.zeros(3, 4, 1), allow_missing=True)
    with pytest.warns(bwm.DataWarning, match=r"1 window\(s\) left out"):
        (part,) = forecast(truth, data, horizon=4)
    assert part.windows.episode.tolist() == [0, 2]
    with pytest.raises(bwm.DataError, match="start from a recorded state"):
        forecast(truth, data[1], horizon=4)


def test_data_that_do_not_fit_are_refused_before_anything_runs(linear: Linear) -> None:
    other = bwm.Schema(
        state=[bwm.Variable("v"), bwm.Variable("x")],
        action=[bwm.Variable("force")],
        time_step=linear.data.schema.time_step,
    )
    with pytest.raises(bwm.SpecError, match=r"expected state \(x, v\), as the model has, got \(v, x\)"):
        forecast(linear.truth, linear.data.with_schema(other), horizon=2)
    slow = bwm.Schema(state=linear.data.schema.state, action=linear.data.schema.action, time_step=0.2)
    with pytest.raises(bwm.SpecError, match=r"time step of 0\.1 s"):
        forecast(linear.truth, linear.data.with_schema(slow), horizon=2)
    with pytest.raises(bwm.DataError, match="at least 50 steps"):
        forecast(linear.truth, linear.data, horizon=50)
    with pytest.raises(bwm.SpecError, match="length >= 1"):
        forecast(linear.truth, linear.data, horizon=0)
    with pytest.raises(bwm.SpecError, match="chunk >= 1"):
        forecast(linear.truth, linear.data, horizon=2, chunk=0)


def test_a_hidden_state_is_forecast_from_all_that_was_measured_before() -> None:
    data, model = sensed.record(episodes=3, steps=10), sensed.model()
    (part,) = forecast(model, data, horizon=4, stride=3)
    assert part.past is not None
    assert part.past.lengths.tolist() == [0, 3, 6] * 3
    assert part.predictive.variables.names == ("x",)
    assert torch.equal(part.outcomes, data.windows(4, stride=3).states()[:, 1:, :1])
    # one forecast by hand: the third of the first episode
    begun = model.draw(1).start(part.past[2])
    exact = sensed.A @ begun.mean[0, 0, 0] + sensed.B @ data.action[0, 6]
    error = (part.predictive.variance[2, 0] / 100).sqrt()
    assert abs(float(part.predictive.mean[2, 0] - exact[0])) < 5 * float(error)
    (short,) = forecast(model, data, horizon=4, stride=3, history=2)
    assert short.past is not None
    assert short.past.lengths.tolist() == [2, 2] * 3  # the first window of an episode has no past
    assert torch.equal(short.outcomes[0], data.windows(4, stride=3).states()[1, 1:, :1])
    with pytest.raises(bwm.DataError, match="8 steps before a window of 4"):
        list(forecast(model, data, horizon=4, history=8))
    several = list(forecast(model, data, horizon=4, stride=3, chunk=2))
    assert torch.equal(torch.cat([p.outcomes for p in several]), part.outcomes)


def test_history_is_for_hidden_states(linear: Linear) -> None:
    with pytest.raises(bwm.SpecError, match="no history="):
        forecast(linear.truth, linear.data, horizon=2, history=3)
    with pytest.raises(bwm.SpecError, match="steps >= 0"):
        forecast(sensed.model(), sensed.record(), horizon=2, history=-1)


def test_a_predictive_alone_is_a_forecast(linear: Linear) -> None:
    actions = torch.zeros(2, 3, 4, 1, dtype=torch.float64)
    start = torch.randn(2, 3, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    p = bwm.rollout(linear.truth, start, actions, particles=30, generator=torch.Generator().manual_seed(1))
    outcomes = torch.zeros(2, 3, 4, 2, dtype=torch.float64)
    made = forecast_of(p, outcomes)
    assert made.recording.tolist() == list(range(6))
    assert made.predictive.batch_shape == (6,)
    for name in ("mean", "variance", "aleatoric_variance", "particles"):
        whole = getattr(p, name)
        lead = whole.ndim - 4
        assert torch.equal(getattr(made.predictive, name), whole.flatten(lead, lead + 1)), name
    flat = made.predictive.log_score(made.outcomes, marginal=True).value
    assert torch.equal(flat, p.log_score(outcomes, marginal=True).value.flatten(0, 1))
    single = forecast_of(p[0][1], outcomes[0, 1])
    torch.testing.assert_close(single.predictive.mean[0], p.mean[0, 1])
    with pytest.raises(bwm.SpecError, match="knows its model and its data"):
        known(made)


def test_values_of_parts_are_put_together(linear: Linear) -> None:
    parts = list(forecast(linear.truth, linear.data[:50], horizon=3, chunk=40))
    found = gather(parts, lambda part: {"mean": part.predictive.mean})
    assert torch.equal(found.values["mean"], torch.cat([part.predictive.mean for part in parts]))
    assert found.recording.tolist() == [i for i in range(50) for _ in range(2)]
    assert found.start is not None
    assert found.start.tolist() == [0, 3] * 50
    with pytest.raises(bwm.DataError, match="at least one forecast"):
        gather([], lambda part: {"mean": part.predictive.mean})
