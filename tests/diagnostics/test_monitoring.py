"""Monitoring: no more false alarms than promised, whenever one looks, and an alarm soon after a shift."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import bayeswm as bwm
from bayeswm.diagnostics import Monitor, forecast, forecast_of
from bayeswm.diagnostics.monitoring import adjust
from tests.diagnostics.recordings import Linear, record


def coverage_of(runs: int, steps: int, horizon: int, *, decay: float, seed: int, shift: tuple[int, float]) -> Tensor:
    """Whether exact forecasts of autoregressions x' = decay x + e hold, (runs, steps, H): NaN where none is due.

    From the step of the shift on, the noise is so many times larger than the forecasts believe.
    """
    g = torch.Generator().manual_seed(seed)
    noise = torch.randn(runs, steps, generator=g, dtype=torch.float64)
    noise[:, shift[0] :] *= shift[1]
    x = torch.zeros(runs, steps + 1, dtype=torch.float64)
    for t in range(steps):
        x[:, t + 1] = decay * x[:, t] + noise[:, t]
    held = torch.full((runs, steps, horizon), math.nan, dtype=torch.float64)
    for h in range(1, horizon + 1):
        sd = math.sqrt(sum(decay ** (2 * k) for k in range(h)))
        miss = (x[:, h:] - decay**h * x[:, :-h]).abs() > 1.6448536 * sd
        held[:, h - 1 :, h - 1] = 1 - miss.double()
    return held


def run(held: Tensor, **settings) -> tuple[Monitor, Tensor]:
    """Watch all runs side by side; the evidence, (steps, runs)."""
    monitor = Monitor(horizon=held.shape[-1], **settings)
    for t in range(held.shape[1]):
        monitor.observe(held[:, t, :, None])
    return monitor, monitor.evidence


def false_alarms(runs: int, steps: int, horizon: int, *, decay: float, seed: int, **settings) -> float:
    _, evidence = run(coverage_of(runs, steps, horizon, decay=decay, seed=seed, shift=(steps, 1.0)), **settings)
    return float((evidence.amax(0) >= 20).double().mean())


@pytest.mark.statistical
@pytest.mark.parametrize("decay", [1.0, 0.9])
def test_false_alarms_quickly(decay: float) -> None:
    # at most 5 %; 200 runs: standard error 1.5 %
    assert false_alarms(200, 150, 5, decay=decay, seed=0) <= 0.05 + 4.3 * 0.0155


@pytest.mark.slow
@pytest.mark.statistical
@pytest.mark.parametrize("decay", [1.0, 0.9])
def test_false_alarms(decay: float) -> None:
    monitor, together = run(coverage_of(1000, 500, 10, decay=decay, seed=1, shift=(500, 1.0)))
    alone = monitor.evidence_by_horizon
    few = alone[..., [0, 4, 9]].mean(-1)
    for evidence in (together, few, *(alone[..., h] for h in range(10))):
        share = float((evidence.amax(0) >= 20).double().mean())
        assert share <= 0.05 + 2 * math.sqrt(0.05 * 0.95 / 1000)


@pytest.mark.statistical
def test_alarm_after_a_shift() -> None:
    # noise twice as large from step 100: coverage of a 90 % interval falls to 59 %
    held = coverage_of(60, 450, 5, decay=0.9, seed=2, shift=(100, 2.0))
    for horizons, latest in ((None, 50), ((1,), 45), ((5,), 200)):
        _, evidence = run(held, horizons=horizons)
        delay = ((evidence >= 20).int().argmax(0) - 100).double()
        raised = (evidence.amax(0) >= 20).double().mean()
        assert float(raised) >= 0.95
        assert float(delay[evidence.amax(0) >= 20].median()) < latest


def capital(held: list[float], level: float, switching: float = 0.01) -> float:
    """The capital after these outcomes, bet by bet."""
    share = (np.arange(12) + 0.5) / 12
    bets = np.concatenate(([level], level * share, level + (1 - level) * share))
    still, moving = np.ones(25), np.ones(25)
    for value in held:
        if not math.isnan(value):
            gain = bets / level if value else (1 - bets) / (1 - level)
            still, moving = still * gain, moving * gain
            moving = (1 - switching) * moving + switching * moving.mean()
    return float((still.mean() + moving.mean()) / 2)


@settings(deadline=None)
@given(
    st.lists(st.sampled_from([0.0, 1.0, math.nan]), min_size=1, max_size=30),
    st.sampled_from([0.5, 0.9]),
    st.sampled_from([0.0, 0.01, 0.3]),
)
def test_one_step_ahead_is_the_capital_of_all_bets(held: list[float], level: float, switching: float) -> None:
    monitor, best = Monitor(horizon=1, level=level, switching=switching), 0.0
    for i, value in enumerate(held):
        found = monitor.observe(torch.tensor([[value]]))
        expected = capital(held[: i + 1], level, switching)
        assert math.isclose(float(found), expected, rel_tol=1e-9)
        best = max(best, expected)
    assert monitor.alarm == (best >= 20)


@given(st.sampled_from([0.3, 0.5, 0.9]), st.sampled_from([0.0, 0.05]), st.floats(-1.0, 1.0))
def test_a_bet_is_fair(level: float, tolerance: float, place: float) -> None:
    coverage = level + place * tolerance
    after = [float(Monitor(horizon=1, level=level, tolerance=tolerance).observe(torch.full((1, 1), v))) for v in (1, 0)]
    expected = coverage * after[0] + (1 - coverage) * after[1]
    assert expected <= 1 + 1e-12
    if tolerance == 0:
        assert math.isclose(expected, 1, rel_tol=1e-9)


def test_overlapping_forecasts_are_games_of_their_own() -> None:
    horizon, level = 3, 0.9
    held = (torch.rand(20, horizon, 1, generator=torch.Generator().manual_seed(0)) < 0.5).double()
    monitor = Monitor(horizon=horizon, level=level)
    for now in held:
        monitor.observe(now)
    for h in (2, 3):
        total = 0.0
        for game in range(h):
            mine = held[game::h, h - 1, 0]
            largest = max(capital(mine[:k].tolist(), level) for k in range(len(mine) + 1))
            total += float(adjust(torch.tensor(largest, dtype=torch.float64).log()))
        assert math.isclose(float(monitor.to_dataset().evidence_by_horizon[-1, h - 1]), total / h, rel_tol=1e-9)
    assert math.isclose(float(monitor.evidence[-1]), float(monitor.to_dataset().evidence_by_horizon[-1].mean()))


def test_adjuster_is_worth_one() -> None:
    # with u = log e, the integral of A(e) e^-2 de is that of A e^-u du: by the midpoint rule on (0, 600)
    u = (torch.arange(600_000).double() + 0.5) * 1e-3
    body = float((adjust(u) * (-u).exp()).sum() * 1e-3)
    # beyond it A e^-u is 1 / u^2 to a part in 1e250
    assert math.isclose(body + 1 / 600, 1.0, abs_tol=1e-6)


def test_online_and_recorded_agree(linear: Linear) -> None:
    model = linear.model(0.6)
    data = record(linear.truth, episodes=1, steps=40, seed=5)
    states, actions = data.states()[0], data.action[0]
    online, horizon = Monitor(horizon=3), 3
    plan = torch.cat((actions, torch.zeros(horizon, 1)))
    recorded = Monitor(horizon=3)
    found = recorded.watch(forecast(model, data, horizon=3, stride=1, particles=300, seed=0))
    for t in range(41):
        g = torch.Generator().manual_seed(t)
        ahead = bwm.rollout(model, states[t], plan[t : t + horizon], particles=300, generator=g)
        online.update(ahead, states[t])
    mine = online.to_dataset()
    # one step ahead is exact in both; later steps are sampled apart, and their intervals differ a little
    both = mine.inside.isel(step=slice(1, 38)).values, found.inside.isel(step=slice(0, 37)).values
    assert np.array_equal(np.isnan(both[0]), np.isnan(both[1]))
    assert np.array_equal(both[0][:, 0], both[1][:, 0])
    assert np.nanmean(np.abs(both[0] - both[1])) < 0.05
    assert dict(found.sizes) == {"step": 40, "horizon": 3, "variable": 2}
    assert found.attrs["threshold"] == 20
    first = np.flatnonzero(mine.evidence.values >= 20)
    assert int(mine.alarm_step) == (first[0] if len(first) else -1)
    assert online.alarm == bool(len(first))


def test_recordings_follow_one_another(linear: Linear) -> None:
    data = record(linear.truth, episodes=3, steps=12, seed=6)
    found = Monitor(horizon=2).watch(forecast(linear.truth, data, horizon=2, stride=1, seed=0))
    assert found.sizes["step"] == 3 * 12
    # each recording has 11 forecasts: of one step at its steps 1 to 11, of two steps at 2 to 12
    due = ~np.isnan(found.inside.values[..., 0]).reshape(3, 12, 2)
    assert np.array_equal(due[..., 0], np.tile(np.arange(12) < 11, (3, 1)))
    assert np.array_equal(due[..., 1], np.tile(np.arange(12) >= 1, (3, 1)))


@settings(deadline=None, max_examples=15)
@given(st.lists(st.sampled_from([-2.0, 0.0, 0.0, 3.0, math.nan]), min_size=1, max_size=12), st.integers(1, 3))
def test_missing_outcomes_ties_and_zero_spread(states: list[float], horizon: int) -> None:
    schema = bwm.Schema(state=[bwm.Variable("x")], action=[], time_step=1.0)
    still = bwm.structures.FromFunction(lambda x, u: x, schema=schema, name="still")
    model = bwm.KnownDynamics(structure=still)
    monitor = Monitor(horizon=horizon)
    for value in states:
        start = torch.zeros(1).double()
        evidence = monitor.update(bwm.rollout(model, start, horizon=horizon), torch.tensor([value]))
        assert math.isfinite(evidence)
    inside = monitor.to_dataset().inside.values[:, 0, 0]
    expected = [math.nan, *(math.nan if math.isnan(v) else float(v == 0) for v in states[1:])]
    assert np.array_equal(inside, expected, equal_nan=True)


def test_tolerated_coverage_is_no_reason() -> None:
    # coverage 0.833, always: an alarm without tolerance, none with it
    held = torch.ones(1, 600, 1, dtype=torch.float64)
    held[:, ::6] = 0
    held = held[:, torch.randperm(600, generator=torch.Generator().manual_seed(0))]
    assert run(held)[0].alarm
    assert not run(held, tolerance=0.08)[0].alarm


def test_requests_that_make_no_sense(linear: Linear) -> None:
    for wrong in (
        {"horizon": 0},
        {"horizon": 1, "level": 1.0},
        {"horizon": 1, "false_alarm": 0.0},
        {"horizon": 1, "tolerance": 0.2},
        {"horizon": 2, "horizons": (3,)},
    ):
        with pytest.raises(bwm.SpecError):
            Monitor(**wrong)
    monitor = Monitor(horizon=2)
    assert not monitor.alarm
    with pytest.raises(bwm.SpecError, match="without updates"):
        monitor.to_dataset()
    with pytest.raises(bwm.DataError, match="shape"):
        monitor.observe(torch.zeros(3, 1))
    with pytest.raises(bwm.DataError, match="1 for an outcome inside"):
        monitor.observe(torch.full((2, 1), 0.5))
    monitor.observe(torch.zeros(2, 1))
    with pytest.raises(bwm.DataError, match="like those before"):
        monitor.observe(torch.zeros(2, 3))
    p = linear.truth.predictive(torch.zeros(2), torch.zeros(1))
    with pytest.raises(bwm.DataError, match="2 step"):
        monitor.update(p, torch.zeros(2))
    with pytest.raises(bwm.DataError, match="state of shape"):
        Monitor(horizon=1).update(p, torch.zeros(3))
    with pytest.raises(bwm.DataError, match="where they start"):
        Monitor(horizon=1).watch(forecast_of(p, torch.zeros(1, 2)))
