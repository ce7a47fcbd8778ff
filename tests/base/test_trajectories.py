"""Trajectories: parts, masks and boundaries."""

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given

from bayeswm.base.errors import DataError, DataWarning, SpecError
from bayeswm.base.schema import Schema, Variable
from bayeswm.base.trajectories import Trajectories

SCHEMA = Schema(
    state=[Variable("episode"), Variable("step")],
    action=[Variable("u")],
    context=[Variable("c")],
    reward=True,
    time_step=0.1,
)


def numbered(lengths, **flags):
    """Episodes whose states, actions, contexts and rewards tell where they belong."""
    states = [np.stack((np.full(n + 1, e), np.arange(n + 1)), -1) for e, n in enumerate(lengths)]
    actions = [100 * e + np.arange(n)[:, None] for e, n in enumerate(lengths)]
    rewards = [1000.0 * e + np.arange(n) for e, n in enumerate(lengths)]
    return Trajectories(
        SCHEMA, state=states, action=actions, reward=rewards, context=[[float(e)] for e in range(len(lengths))], **flags
    )


def check_numbers(data):
    """Every recorded value stands where it was recorded, and nothing stands in the padding."""
    for i in range(len(data)):
        n, e, first = int(data.lengths[i]), int(data.episode[i]), int(data.start[i])
        steps = torch.arange(first, first + n + 1, dtype=torch.float64)
        assert torch.equal(data.state[i, : n + 1], torch.stack((torch.full_like(steps, e), steps), -1))
        assert torch.equal(data.action[i, :n, 0], 100 * e + steps[:-1])
        assert torch.equal(data.reward[i, :n], 1000 * e + steps[:-1])
        assert data.context[i].unique().tolist() == [e]
        for values, after in ((data.state, n + 1), (data.action, n), (data.reward, n)):
            assert bool(values[i, after:].isnan().all())
    for t in zip(*data.transitions(), strict=True):
        state, action, context, following, row, step = t
        assert state[0] == following[0] == context[0] == data.episode[row]
        assert following[1] == state[1] + 1 == data.start[row] + step + 1
        assert action[0] == 100 * state[0] + state[1]
    assert len(data.transitions().state) == data.transition_count


lengths_of = st.lists(st.integers(1, 12), min_size=1, max_size=6)


@given(lengths_of)
def test_construction(lengths):
    data = numbered(lengths)
    check_numbers(data)
    assert len(data) == len(lengths)
    assert data.horizon == max(lengths)
    assert data.transition_count == sum(lengths)
    assert data.step_mask.sum(1).tolist() == lengths
    assert data.state_mask.all(-1).sum(1).tolist() == [n + 1 for n in lengths]


@given(lengths_of, st.integers(1, 5), st.integers(1, 5))
def test_windows_never_cross_an_episode(lengths, length, stride):
    data = numbered(lengths, terminated=[True] * len(lengths))
    if max(lengths) < length:
        with pytest.raises(DataError, match=f"at least {length} steps"):
            data.windows(length, stride=stride)
        return
    if min(lengths) < length:
        with pytest.warns(DataWarning, match=r"episode\(s\) shorter than"):
            windows = data.windows(length, stride=stride)
    else:
        windows = data.windows(length, stride=stride)
    check_numbers(windows)
    assert windows.lengths.unique().tolist() == [length]
    expected = [(e, s) for e, n in enumerate(lengths) for s in range(0, n - length + 1, stride)]
    assert list(zip(windows.episode.tolist(), windows.start.tolist(), strict=True)) == expected
    ends = [s + length == lengths[e] for e, s in expected]
    assert windows.terminated.tolist() == ends


@given(lengths_of.filter(lambda n: len(n) > 1), st.floats(0.05, 0.95), st.none() | st.integers(0, 99))
def test_split_by_episode_partitions(lengths, fraction, seed):
    data = numbered(lengths)
    first, second = data.split(fraction, seed=seed)
    check_numbers(first)
    check_numbers(second)
    assert sorted(first.episode.tolist() + second.episode.tolist()) == list(range(len(lengths)))


@given(st.lists(st.integers(4, 20), min_size=1, max_size=4), st.floats(0.2, 0.8))
def test_split_in_time_partitions_transitions(lengths, fraction):
    data = numbered(lengths, truncated=[True] * len(lengths))
    parts = data.split(fraction, within_episodes=True)
    found = []
    for part in parts:
        check_numbers(part)
        steps = part.transitions().state.tolist()
        found += [tuple(s) for s in steps]
    assert sorted(found) == [(e, s) for e, n in enumerate(lengths) for s in range(n)]
    assert not parts[0].truncated.any()
    assert parts[1].truncated.all()


def test_split_refusals():
    data = numbered([3, 4])
    for fraction in (0, 1, -1, 2):
        with pytest.raises(SpecError, match="between 0 and 1"):
            data.split(fraction)
    with pytest.raises(DataError, match="within_episodes=True"):
        data[:1].split(0.5)
    with pytest.raises(DataError, match="long enough to cut"):
        numbered([1, 5]).split(0.5, within_episodes=True)


def test_window_refusals():
    for length, stride in ((0, 1), (1, 0)):
        with pytest.raises(SpecError, match=">= 1"):
            numbered([3]).windows(length, stride=stride)


@pytest.mark.parametrize(
    "index",
    [1, -2, np.int64(1), torch.tensor(1), [1], slice(1, 2), torch.tensor([1]), [False, True, False]],
    ids=str,
)
def test_indexing_gives_trajectories(index):
    data = numbered([5, 3, 4])[index]
    check_numbers(data)
    assert data.episode.tolist() == [1]
    assert data.horizon == 3


def test_indexing_refusals_and_iteration():
    data = numbered([2, 3])
    with pytest.raises(IndexError, match="below 2"):
        data[2]
    for nothing in ([], slice(2, 2), [False, False]):
        with pytest.raises(DataError, match="at least one episode"):
            data[nothing]
    assert [d.transition_count for d in data] == [2, 3]


def test_a_window_of_a_window_knows_its_recording():
    data = numbered([10, 9]).windows(6, stride=3).windows(2, stride=2)
    check_numbers(data)


@given(lengths_of, lengths_of)
def test_concatenate_keeps_recordings_apart(first, second):
    parts = [numbered(first), numbered(second).to(torch.float32)]
    both = Trajectories.concatenate(parts)
    assert both.dtype == torch.float64
    assert both.lengths.tolist() == first + second
    assert len(set(both.episode.tolist())) == len(first) + len(second)
    after = both[len(first) :]
    assert torch.equal(after.state.nan_to_num(-7), parts[1].to(torch.float64).state.nan_to_num(-7))


def test_concatenate_mixes_static_and_stepwise_context():
    stepwise = Trajectories(
        SCHEMA,
        state=np.zeros((1, 3, 2)),
        action=np.zeros((1, 2, 1)),
        reward=np.zeros((1, 2)),
        context=np.ones((1, 2, 1)),
    )
    both = Trajectories.concatenate([numbered([4]), stepwise])
    assert both.context.shape == (2, 4, 1)
    assert both.context[1, :2].flatten().tolist() == [1, 1]
    assert bool(both.context[1, 2:].isnan().all())


def test_concatenate_refusals():
    with pytest.raises(DataError, match="at least one"):
        Trajectories.concatenate([])
    other = numbered([2]).resample(0.2)
    with pytest.raises(SpecError, match="equal schemas"):
        Trajectories.concatenate([numbered([2]), other])


def test_episodes_without_a_step_are_skipped_and_counted():
    with pytest.warns(DataWarning, match=r"2 episode\(s\) without a transition"):
        data = numbered([0, 3, 0, 1])
    check_numbers(data)
    assert data.episode.tolist() == [1, 3]


def test_what_lies_after_the_lengths_is_ignored():
    state = np.full((2, 6, 1), np.inf)
    state[0, :4], state[1, :2] = 1.0, 2.0
    schema = Schema(state=[Variable("x")], action=[Variable("u")], time_step=1)
    data = Trajectories(schema, state=state, action=np.full((2, 5, 1), 9.0), lengths=[3, 1])
    assert data.horizon == 3
    assert data.state.nansum().item() == 4 + 2 * 2
    assert bool(data.action[1, 1:].isnan().all())


def test_transitions_need_both_states():
    state = np.arange(6.0)[:, None]
    state[3] = np.nan
    schema = Schema(state=[Variable("x")], time_step=1)
    data = Trajectories(schema, state=state, allow_missing=True)
    steps = data.transitions()
    assert steps.step.tolist() == [0, 1, 4]
    assert not any(bool(v.isnan().any()) for v in steps[:4])
    state[::2] = np.nan
    with pytest.raises(DataError, match="both states recorded"):
        Trajectories(schema, state=state, allow_missing=True).transitions()


def test_observations_without_states():
    schema = Schema(state=[Variable("x"), Variable("v")], observation=[Variable("y")], time_step=1)
    data = Trajectories(schema, observation=[[[1.0], [2.0]]])
    assert data.measurement.shape == (1, 2, 1)
    with pytest.raises(DataError, match="hidden state"):
        data.transitions()
    with pytest.raises(DataError, match="expected observation="):
        Trajectories(schema, state=[[[1.0, 2.0], [2.0, 3.0]]])


def test_angles_are_unwrapped_at_construction():
    schema = Schema(state=[Variable("a", kind="angle")], time_step=1)
    turning = np.linspace(0, 20, 60)
    data = Trajectories(schema, state=(np.mod(turning + np.pi, 2 * np.pi) - np.pi)[None, :, None])
    np.testing.assert_allclose(data.state[0, :, 0], turning, atol=1e-9)


def test_dtype_moves_numbers_and_leaves_the_rest():
    data = numbered([3, 2])
    half = data.to(torch.float32)
    assert half.dtype == half.state.dtype == half.reward.dtype == torch.float32
    assert half.lengths.dtype == torch.int64
    assert half.terminated.dtype == torch.bool
    assert data.dtype == torch.float64
    assert half.to("cpu").dtype == torch.float32


def test_immutable():
    data = numbered([3])
    with pytest.raises(AttributeError):
        data.state = None


def test_per_episode_arrays_have_one_value_an_episode():
    for name in ("terminated", "truncated", "episode", "start"):
        with pytest.raises(DataError, match=rf"{name} of shape \(2,\)"):
            numbered([3, 2], **{name: [1]})


def test_with_schema_keeps_sizes():
    schema = Schema(state=[Variable("y")], action=[], time_step=0.1)
    with pytest.raises(SpecError, match="2 columns, got 1"):
        numbered([3]).with_schema(schema)
    renamed = Schema(
        state=[Variable("p"), Variable("s")],
        action=[Variable("f")],
        context=[Variable("c")],
        reward=True,
        time_step=0.1,
    )
    assert numbered([3]).with_schema(renamed).schema.state.names == ("p", "s")


def test_repr_says_what_there_is():
    text = "Trajectories(2 episodes, 5 transitions, state=(episode, step), action=(u), context=(c), 0.1 s, float64)"
    assert repr(numbered([3, 2])) == text


def test_histories_end_where_windows_begin() -> None:
    schema = Schema(state=[Variable("x")], action=[Variable("u")], context=[Variable("c")], reward=False, time_step=1.0)
    state = torch.arange(24.0).view(2, 12, 1)
    data = Trajectories(schema, state=state, action=state[:, 1:], context=state[:, 1:], lengths=[11, 7])
    windows, past = data.windows(3, stride=2), data.histories(3, stride=2)
    assert past.lengths.tolist() == [0, 2, 4, 6, 8, 0, 2, 4]
    rows = torch.arange(len(past))
    assert torch.equal(past.states()[rows, past.lengths], windows.states()[:, 0])
    assert torch.equal(past.episode, windows.episode)
    assert torch.equal(past.start + past.lengths, windows.start)
    short = data.histories(3, stride=2, steps=3)
    assert short.lengths.tolist() == [0, 2, 3, 3, 3, 0, 2, 3]
    assert torch.equal(short.action[3], past.action[3, 3:6])
    assert short[0].horizon == 0
    with pytest.raises(SpecError, match="steps >= 0"):
        data.histories(3, steps=-1)
    with pytest.raises(DataError, match="at least 30"):
        data.histories(30)


def test_measurements_are_found_by_name() -> None:
    state = [Variable("x"), Variable("v")]
    plain = Schema(state=state, time_step=1.0)
    seen = Schema(state=state, observation=[state[1]], time_step=1.0)
    values = torch.arange(6.0).view(1, 3, 2)
    data = Trajectories(plain, state=values)
    assert torch.equal(data.measured_as(plain), values)
    assert torch.equal(data.measured_as(seen), values[..., 1:])
    observed = Trajectories(seen, observation=values[..., :1])
    assert torch.equal(observed.measured_as(seen), values[..., :1])
    with pytest.raises(SpecError, match=r"measurements of \(x, v\)"):
        observed.measured_as(plain)
    with pytest.raises(SpecError, match="time step"):
        data.measured_as(Schema(state=state, time_step=2.0))
