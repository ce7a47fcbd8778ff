"""Other time steps and rates, against sums, slopes and SciPy."""

import math

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given

from bayeswm.base.errors import DataError, DataWarning, SpecError, UnknownVariableError
from bayeswm.base.kinds import categorical
from bayeswm.base.resampling import differentiate, resample, resample_irregular
from bayeswm.base.schema import Schema, Variable, Variables
from bayeswm.base.trajectories import Trajectories

SCHEMA = Schema(state=[Variable("x"), Variable("a", kind="angle")], action=[Variable("u")], time_step=0.1)


def linear(lengths, schema=SCHEMA, seed=0, **more):
    """States that grow linearly in time, at a random pace; random actions."""
    g = torch.Generator().manual_seed(seed)
    pace = torch.randn(len(lengths), schema.state.size, generator=g, dtype=torch.float64) * 5
    states = [
        torch.arange(n + 1, dtype=torch.float64)[:, None] * schema.time_step * p
        for n, p in zip(lengths, pace, strict=True)
    ]
    actions = [torch.randn(n, schema.action.size, generator=g, dtype=torch.float64) for n in lengths]
    return Trajectories(schema, state=states, action=actions, **more), pace


@given(st.lists(st.integers(1, 20), min_size=1, max_size=4), st.integers(1, 6))
def test_multiples_decimate_states_exactly_and_keep_the_impulse(lengths, k):
    data, _ = linear(lengths)
    if max(lengths) < k:
        with pytest.raises(DataError, match="at least"):
            data.resample(0.1 * k)
        return
    coarse = data.resample(0.1 * k)
    kept = [n // k for n in lengths if n >= k]
    assert coarse.lengths.tolist() == kept
    assert coarse.schema.time_step == pytest.approx(0.1 * k)
    for row, i in enumerate(i for i, n in enumerate(lengths) if n >= k):
        n = kept[row]
        assert torch.equal(coarse.state[row, : n + 1], data.state[i, : n * k + 1 : k])
        impulse = data.action[i, : n * k].view(n, k).sum(1) * 0.1
        torch.testing.assert_close(coarse.action[row, :n, 0] * 0.1 * k, impulse, rtol=1e-12, atol=1e-12)
        assert bool(coarse.state[row, n + 1 :].isnan().all())
        assert coarse.episode[row] == i


@given(st.integers(2, 30), st.floats(0.013, 0.5))
def test_any_ratio_interpolates_lines_exactly_and_keeps_the_impulse(length, time_step):
    data, pace = linear([length])
    if length * 0.1 < time_step:
        with pytest.raises(DataError, match="at least"):
            resample(data, time_step)
        return
    new = resample(data, time_step)
    n = int(new.lengths)
    assert n == math.floor(length * 0.1 / time_step + 1e-9) or abs(length * 0.1 / time_step - n) < 1e-5
    line = torch.arange(n + 1, dtype=torch.float64)[:, None] * time_step * pace
    lifted = data.schema.state.unwrap(line)
    torch.testing.assert_close(new.state[0, :, 0], lifted[:, 0], rtol=0, atol=1e-5 * float(pace.abs().max()))
    # the held action, summed over time up to the last new step
    end, old = n * time_step, data.action[0, :, 0]
    whole = min(int(end / 0.1 + 1e-9), length)
    rest = float(old[whole]) * (end - whole * 0.1) if whole < length else 0.0
    assert float(new.action.sum()) * time_step == pytest.approx(float(old[:whole].sum()) * 0.1 + rest, abs=1e-6)


def test_finer_steps_hold_actions_and_unwrap_angles():
    schema = Schema(state=[Variable("a", kind="angle")], action=[Variable("u")], time_step=0.2)
    data = Trajectories(schema, state=[[[3.0], [-3.0], [-2.0]]], action=[[[1.0], [5.0]]])
    fine = data.resample(0.1)
    middle = 3.0 + (2 * math.pi - 6) / 2
    torch.testing.assert_close(fine.state[0, 1, 0], torch.tensor(middle, dtype=torch.float64))
    assert fine.action.flatten().tolist() == [1, 1, 5, 5]
    torch.testing.assert_close(fine.resample(0.2).state, data.state, rtol=0, atol=0)
    torch.testing.assert_close(fine.resample(0.2).action, data.action)


def test_the_same_step_changes_nothing():
    data, _ = linear([4, 7])
    same = data.resample(0.1)
    for name, values in data.arrays().items():
        if values is not None:
            torch.testing.assert_close(same.arrays()[name], values, rtol=0, atol=0, equal_nan=True)


def test_rotations_follow_the_great_circle_and_classes_are_held():
    schema = Schema(state=[Variable("q", kind="rotation"), Variable("k", kind=categorical(3))], time_step=1)
    turn = [[math.cos(a / 2), 0.0, 0.0, math.sin(a / 2), k] for a, k in ((0.0, 0), (2.0, 2), (1.0, 1))]
    fine = Trajectories(schema, state=[turn]).resample(0.25)
    angles = 2 * torch.atan2(fine.state[0, :, 3], fine.state[0, :, 0])
    expected = torch.tensor([0, 0.5, 1, 1.5, 2, 1.75, 1.5, 1.25, 1], dtype=torch.float64)
    torch.testing.assert_close(angles, expected)
    torch.testing.assert_close(fine.state[0, :, :4].norm(dim=-1), torch.ones(9, dtype=torch.float64))
    assert fine.state[0, :, 4].tolist() == [0, 0, 0, 0, 2, 2, 2, 2, 1]


def test_classes_among_actions_must_not_change_within_a_step():
    schema = Schema(state=[Variable("x")], action=[Variable("k", kind=categorical(3))], time_step=1)
    data = Trajectories(schema, state=np.zeros((1, 5, 1)), action=[[[0.0], [0.0], [2.0], [2.0]]])
    assert data.resample(2).action.flatten().tolist() == [0, 2]
    assert data.resample(0.5).action.flatten().tolist() == [0] * 4 + [2] * 4
    with pytest.raises(DataError, match=r"'k' \(categorical\).*within new step 0"):
        data.resample(4)


def test_a_point_between_needs_both_neighbours():
    schema = Schema(state=[Variable("x"), Variable("y")], time_step=1)
    state = np.stack((np.arange(6.0), np.arange(6.0)), -1)
    state[2, 0] = np.nan
    data = Trajectories(schema, state=state, allow_missing=True)
    assert data.resample(2).state_mask[0].tolist() == [[True, True], [False, True], [True, True]]
    fine = data.resample(0.5)
    assert fine.state_mask[0, :, 0].tolist() == [True] * 3 + [False] * 3 + [True] * 5
    assert fine.state_mask[0, :, 1].all()


def test_rewards_are_summed_or_refused():
    schema = Schema(state=[Variable("x")], reward=True, time_step=1)
    data = Trajectories(schema, state=np.zeros((1, 6, 1)), reward=[[1.0, 2, 4, 8, 16]])
    assert data.resample(2).reward.tolist() == [[3, 12]]
    with pytest.raises(SpecError, match="rewards"):
        data.resample(1.5)
    with pytest.raises(SpecError, match="rewards"):
        data.resample(0.5)


def test_context_flags_and_starts():
    schema = Schema(state=[Variable("x")], context=[Variable("c")], time_step=1)
    state = np.zeros((2, 7, 1))
    static = Trajectories(schema, state=state, context=[[1.0], [2.0]], lengths=[6, 5], terminated=[1, 1], start=[4, 5])
    coarse = static.resample(2)
    assert coarse.context.tolist() == [[1], [2]]
    assert coarse.terminated.tolist() == [True, False]  # the last step of the second fills no new one
    assert coarse.start.tolist() == [2, 2]
    stepwise = Trajectories(schema, state=state[:1], context=np.arange(6.0)[None, :, None])
    assert stepwise.resample(3).context.flatten().tolist() == [1, 4]


def test_too_short_episodes_are_left_out_and_refusals():
    data, _ = linear([2, 9])
    assert data.resample(0.4).episode.tolist() == [1]
    with pytest.raises(DataError, match=r"at least 2 s, the longest has 0\.9 s"):
        data.resample(2)
    for step in (0, -1, float("nan")):
        with pytest.raises(SpecError, match="time_step > 0"):
            data.resample(step)


def test_observations_are_resampled_too():
    schema = Schema(state=[Variable("x")], observation=[Variable("y")], time_step=1)
    data = Trajectories(schema, observation=[[[0.0], [2.0], [4.0]]])
    assert data.resample(0.5).observation.flatten().tolist() == [0, 1, 2, 3, 4]


@given(st.lists(st.floats(0.01, 1), min_size=3, max_size=30), st.floats(0.05, 0.6))
def test_irregular_lines_stay_lines_and_impulse_is_kept(gaps, time_step):
    times = torch.tensor([0.3, *gaps], dtype=torch.float64).cumsum(0)
    values = torch.stack((2 * times - 1, torch.sin(7 * times)), -1)
    group = Variables([Variable("x"), Variable("u")])
    span = float(times[-1] - times[0])
    if span < time_step:
        return
    points = resample_irregular(times, values, variables=group, time_step=time_step)
    grid = 0.3 + torch.arange(len(points), dtype=torch.float64) * time_step
    torch.testing.assert_close(points[:, 0], 2 * grid - 1, rtol=0, atol=1e-5)
    means = resample_irregular(times, values, variables=group, time_step=time_step, hold=True)
    assert len(means) == len(points) - 1
    fine = torch.linspace(0.3, float(grid[-1]), 200001, dtype=torch.float64)[:-1]
    held = values[(torch.searchsorted(times, fine, right=True) - 1).clamp(max=len(times) - 2), 1]
    assert float(means[:, 1].mean()) == pytest.approx(float(held.mean()), abs=1e-3)  # 60 jumps of at most 2 / 200,000


def test_irregular_stamps_must_increase():
    group = Variables([Variable("x")])
    for times, row in (([0.0, 0.1, 0.1], 2), ([0.0, 0.2, 0.1], 2), ([0.0, float("nan"), 0.1], 1)):
        with pytest.raises(DataError, match=f"at row {row}"):
            resample_irregular(torch.tensor(times), torch.zeros(3, 1), variables=group, time_step=0.05)
    with pytest.raises(DataError, match="span at least one step"):
        resample_irregular(torch.tensor([0.0, 0.1]), torch.zeros(2, 1), variables=group, time_step=0.2)
    with pytest.raises(DataError, match=r"\(n, 1\)"):
        resample_irregular(torch.tensor([0.0, 0.1]), torch.zeros(3, 1), variables=group, time_step=0.1)


@pytest.mark.parametrize("window", [3, 5, 11])
def test_rates_are_those_of_savgol_filter(window):
    signal = pytest.importorskip("scipy.signal")
    schema = Schema(state=[Variable("x", unit="m")], time_step=0.02)
    rows = [np.random.default_rng(n).standard_normal((n, 1)).cumsum(0) for n in (40, 13)]
    data = Trajectories(schema, state=rows)
    rated = differentiate(data, {"v": "x"}, window=window)
    for i, row in enumerate(rows):
        expected = signal.savgol_filter(row[:, 0], window, 2, deriv=1, delta=0.02)
        np.testing.assert_allclose(rated.state[i, : len(row), 1], expected, rtol=1e-9, atol=1e-9)
        assert bool(rated.state[i, len(row) :].isnan().all())
    assert torch.equal(rated.state[..., :1].nan_to_num(9), data.state.nan_to_num(9))


@given(st.integers(1, 4), st.floats(-3, 3), st.floats(-3, 3))
def test_rates_of_parabolas_are_exact(half, slope, bend):
    t = torch.arange(12, dtype=torch.float64) * 0.5
    schema = Schema(state=[Variable("x")], time_step=0.5)
    data = Trajectories(schema, state=(1 + slope * t + bend * t**2)[None, :, None])
    rate = data.differentiate({"v": "x"}, window=2 * half + 1).state[0, :, 1]
    torch.testing.assert_close(rate, slope + 2 * bend * t, rtol=1e-9, atol=1e-9)


def test_angles_are_differentiated_on_their_lift():
    schema = Schema(state=[Variable("a", unit="rad", kind="angle")], time_step=0.1)
    wrapped = np.angle(np.exp(1j * 7.0 * np.arange(50) * 0.1))
    rated = Trajectories(schema, state=wrapped[None, :, None]).differentiate({"w": "a"})
    np.testing.assert_allclose(rated.state[0, :, 1], 7.0, atol=1e-9)
    assert rated.schema.state["w"].unit == "rad/s"


def test_rates_replace_existing_variables_and_units_follow():
    schema = Schema(
        state=[Variable("x", unit="m/s"), Variable("v", bounds=(-9, 9)), Variable("n")],
        action=[Variable("u")],
        time_step=1,
    )
    data = Trajectories(schema, state=[[[0.0, 5, 0], [2.0, 5, 1], [4.0, 5, 2]]], action=np.zeros((1, 2, 1)))
    rated = data.differentiate({"v": "x", "jerk": "v", "rate": "n"})
    assert rated.schema.state.names == ("x", "v", "n", "jerk", "rate")
    assert [v.unit for v in rated.schema.state] == ["m/s", "m/s^2", "", "1/s", "1/s"]
    assert rated.schema.state["v"].bounds == (-9, 9)
    torch.testing.assert_close(rated.state[0, :, 1], torch.full((3,), 2.0, dtype=torch.float64))
    torch.testing.assert_close(rated.state[0, :, 3], torch.zeros(3, dtype=torch.float64))  # of v as it was recorded
    assert data.state[0, :, 1].tolist() == [5, 5, 5]


def test_rates_beside_gaps_use_one_side_and_short_runs_have_none():
    x = np.arange(12.0)[:, None] * 3
    x[[4, 7]] = np.nan
    schema = Schema(state=[Variable("x")], time_step=1)
    rate = Trajectories(schema, state=x, allow_missing=True).differentiate({"v": "x"}).state[0, :, 1]
    known = [i for i in range(12) if i not in (4, 5, 6, 7)]  # 5 and 6 stand alone: two points make no parabola
    torch.testing.assert_close(rate[known], torch.full((8,), 3.0, dtype=torch.float64))
    assert bool(rate[4:8].isnan().all())


def test_rate_refusals():
    data, _ = linear([5, 1])
    with pytest.raises(DataError, match="2 in episode 1"):
        data.differentiate({"v": "x"})
    whole, _ = linear([5, 5])
    for window in (1, 2, 4, 3.0, True):
        with pytest.raises(SpecError, match="odd window"):
            whole.differentiate({"v": "x"}, window=window)
    with pytest.raises(UnknownVariableError, match="'x'"):
        whole.differentiate({"v": "xx"})
    with pytest.raises(SpecError, match="to hold a rate"):
        whole.differentiate({"a": "x"})
    with pytest.raises(SpecError, match="twice"):
        whole.differentiate({"u": "x"})
    schema = Schema(state=[Variable("k", kind=categorical(2))], time_step=1)
    with pytest.raises(SpecError, match="'categorical'"):
        Trajectories(schema, state=np.zeros((1, 4, 1))).differentiate({"v": "k"})


def test_nothing_is_mutated():
    with pytest.warns(DataWarning):
        data, _ = linear([6, 0, 8])
    before = {k: v.clone() for k, v in data.arrays().items() if v is not None}
    data.resample(0.2)
    data.resample(0.07)
    data.differentiate({"v": "x"})
    for name, values in before.items():
        torch.testing.assert_close(data.arrays()[name], values, rtol=0, atol=0, equal_nan=True)
