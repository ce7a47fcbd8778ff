"""Rows of data frames become episodes."""

import numpy as np
import pytest
import torch

from bayeswm.base.errors import DataError, DataWarning, SpecError, UnknownVariableError
from bayeswm.base.kinds import categorical
from bayeswm.base.schema import Schema, Variable
from bayeswm.data.dataframe import from_dataframe

pandas = pytest.importorskip("pandas")

SCHEMA = Schema(state=[Variable("x"), Variable("a", kind="angle")], action=[Variable("u")], time_step=0.1)


def frame(**columns):
    rows = {
        "run": ["p"] * 4 + ["q"] * 3,
        "t": [0.0, 0.1, 0.2, 0.3, 5.0, 5.1, 5.2],
        "x": [0.0, 1, 2, 3, 10, 11, 12],
        "a": [3.0, 3.1, -3.1, -3.0, 0, 0, 0],
        "u": [1.0, 2, 3, np.nan, 4, 5, np.nan],
    }
    return pandas.DataFrame(rows | columns)


def test_rows_become_states_and_the_last_action_is_left_out():
    data = from_dataframe(frame(), schema=SCHEMA, episode="run", time="t")
    assert data.lengths.tolist() == [3, 2]
    assert data.state[0, :, 0].tolist() == [0, 1, 2, 3]
    assert data.action[0, :, 0].tolist() == [1, 2, 3]
    assert data.action[1, :2, 0].tolist() == [4, 5]
    np.testing.assert_allclose(data.state[0, :, 1], [3.0, 3.1, 2 * np.pi - 3.1, 2 * np.pi - 3.0])


def test_columns_by_other_names_and_without_episodes():
    renamed = frame().rename(columns={"x": "position in m", "u": "force"}).head(4)
    data = from_dataframe(renamed, schema=SCHEMA, columns={"x": "position in m", "u": "force"})
    assert data.lengths.tolist() == [3]
    assert data.state[0, :, 0].tolist() == [0, 1, 2, 3]


def test_mixed_rows_and_any_index():
    shuffled = frame().iloc[[4, 0, 1, 5, 2, 6, 3]].set_index("t", drop=False)
    data = from_dataframe(shuffled, schema=SCHEMA, episode="run", time="t")
    assert data.lengths.tolist() == [2, 3]
    assert data.state[1, :, 0].tolist() == [0, 1, 2, 3]


def test_the_frame_is_not_changed_or_shared():
    table = frame()
    before = table.copy()
    data = from_dataframe(table, schema=SCHEMA, episode="run", time="t")
    data.state[:] = -1
    pandas.testing.assert_frame_equal(table, before)


@pytest.mark.parametrize(
    ("stamps", "message"),
    [
        ([0.0, 0.1, 0.1, 0.2], r"time, episode 'p': expected increasing stamps, got 0\.1 s after 0\.1 s at row 2"),
        ([0.0, 0.2, 0.1, 0.3], r"time, episode 'p': expected increasing stamps, got 0\.1 s after 0\.2 s at row 2"),
        ([0.0, 0.1, np.nan, 0.3], "time, episode 'p': expected increasing stamps, got nan"),
        ([0.0, 0.1, 0.25, 0.35], r"time, episode 'p': expected steps of 0\.1 s, got 0\.15 s before row 2 \(1 step"),
    ],
)
def test_bad_stamps_name_episode_and_row(stamps, message):
    with pytest.raises(DataError, match=message):
        from_dataframe(frame(t=[*stamps, 5.0, 5.1, 5.2]), schema=SCHEMA, episode="run", time="t")


def test_tolerance_of_jitter():
    jitter = frame(t=[0.0, 0.102, 0.199, 0.3, 5.0, 5.1, 5.2])
    with pytest.raises(DataError, match="resample=True"):
        from_dataframe(jitter, schema=SCHEMA, episode="run", time="t")
    data = from_dataframe(jitter, schema=SCHEMA, episode="run", time="t", tolerance=0.05)
    assert data.state[0, :, 0].tolist() == [0, 1, 2, 3]


def test_irregular_stamps_are_resampled_on_request():
    irregular = frame(t=[0.0, 0.05, 0.25, 0.4, 5.0, 5.1, 5.2], x=[0.0, 0.5, 2.5, 4, 50, 51, 52])
    data = from_dataframe(irregular, schema=SCHEMA, episode="run", time="t", resample=True)
    assert data.lengths.tolist() == [4, 2]
    torch.testing.assert_close(data.state[0, :, 0], torch.arange(5.0, dtype=torch.float64))
    # 1 is held until 0.05 s, 2 until 0.25 s, 3 until 0.4 s
    torch.testing.assert_close(data.action[0, :, 0], torch.tensor([1.5, 2, 2.5, 3], dtype=torch.float64))
    for stamps in ([0.0, 0.1, 0.1, 0.2], [0.0, 0.2, 0.1, 0.3]):
        with pytest.raises(DataError, match=r"episode 'p'.*at row 2"):
            from_dataframe(frame(t=[*stamps, 5.0, 5.1, 5.2]), schema=SCHEMA, episode="run", time="t", resample=True)


def test_resampling_refusals():
    with pytest.raises(SpecError, match="time="):
        from_dataframe(frame(), schema=SCHEMA, resample=True)
    rewarded = Schema(state=SCHEMA.state, reward=True, time_step=0.1)
    with pytest.raises(SpecError, match="without reward"):
        from_dataframe(frame(reward=0.0), schema=rewarded, time="t", resample=True)
    classes = Schema(state=SCHEMA.state, action=[Variable("u", kind=categorical(9))], time_step=0.2)
    with pytest.raises(DataError, match=r"action, episode 'p': .*'u' \(categorical\)"):
        from_dataframe(frame(), schema=classes, episode="run", time="t", resample=True)
    slow = Schema(state=SCHEMA.state, action=SCHEMA.action, time_step=0.25)
    with pytest.raises(DataError, match=r"episode 'q': expected stamps over at least one step of 0\.25 s, got 0\.2 s"):
        from_dataframe(frame(), schema=slow, episode="run", time="t", resample=True)


def test_dates_are_stamps():
    dates = pandas.to_datetime("2024-03-01") + pandas.to_timedelta(frame()["t"], unit="s")
    data = from_dataframe(frame(t=dates), schema=SCHEMA, episode="run", time="t")
    assert data.lengths.tolist() == [3, 2]
    late = dates.where(dates.index != 2)
    with pytest.raises(DataError, match="got nan"):
        from_dataframe(frame(t=late), schema=SCHEMA, episode="run", time="t")


@pytest.mark.parametrize("hole", [np.nan, None, pandas.NA], ids=str)
def test_holes_are_missing_on_request_only(hole):
    x = pandas.Series([0.0, 1, hole, 3, 10, 11, 12], dtype="Float64" if hole is pandas.NA else "float64")
    with pytest.raises(DataError, match=r"episode 0, time 2, variable 'x' \(1 value"):
        from_dataframe(frame(x=x), schema=SCHEMA, episode="run")
    data = from_dataframe(frame(x=x), schema=SCHEMA, episode="run", allow_missing=True)
    assert data.state_mask[0, :, 0].tolist() == [True, True, False, True]
    fine = Schema(state=SCHEMA.state, action=SCHEMA.action, time_step=0.05)
    between = from_dataframe(frame(x=x), schema=fine, episode="run", time="t", resample=True, allow_missing=True)
    assert between.state_mask[0, :, 0].tolist() == [True] * 3 + [False] * 3 + [True]


def test_a_missing_action_is_an_error():
    u = [1.0, np.nan, 3, np.nan, 4, 5, np.nan]
    with pytest.raises(DataError, match=r"action: .*episode 0, time 1, variable 'u'"):
        from_dataframe(frame(u=u), schema=SCHEMA, episode="run")


def test_contexts_rewards_observations_and_rotations():
    schema = Schema(
        state=[Variable("q", kind="rotation")],
        context=[Variable("mass")],
        observation=[Variable("x")],
        reward=True,
        time_step=0.1,
    )
    more = {"q_w": 1.0, "q_x": 0.0, "q_y": 0.0, "q_z": 0.0, "mass": [1.0] * 4 + [2.0] * 3, "reward": range(7)}
    data = from_dataframe(frame(**more), schema=schema, episode="run")
    assert data.context.tolist() == [[1], [2]]
    assert data.reward[0].tolist() == [0, 1, 2]
    assert data.observation[1, :3, 0].tolist() == [10, 11, 12]
    assert data.state.shape == (2, 4, 4)
    changing = from_dataframe(frame(**more | {"mass": range(7)}), schema=schema, episode="run")
    assert changing.context[0, :, 0].tolist() == [0, 1, 2]
    hidden = from_dataframe(frame(**more).drop(columns="q_z"), schema=schema, episode="run")
    assert hidden.state is None


def test_one_row_episodes_are_left_out():
    with pytest.warns(DataWarning, match="1 episode"):
        data = from_dataframe(frame(run=[*"pppp", *"qqr"]), schema=SCHEMA, episode="run")
    assert data.lengths.tolist() == [3, 1]


def test_missing_and_unknown_columns():
    with pytest.raises(DataError, match=r"column 'u' for the action, got run, t, x, a, force"):
        from_dataframe(frame().rename(columns={"u": "force"}), schema=SCHEMA)
    with pytest.raises(DataError, match="did you mean 'x_m'"):
        from_dataframe(frame().rename(columns={"x": "x_m"}), schema=SCHEMA, columns={"x": "xm"})
    with pytest.raises(UnknownVariableError, match="'y'"):
        from_dataframe(frame(), schema=SCHEMA, columns={"y": "x"})
    for name in ("episode", "time"):
        with pytest.raises(UnknownVariableError, match="'nothing'"):
            from_dataframe(frame(), schema=SCHEMA, **{name: "nothing"})
    with pytest.raises(DataError, match="numbers in column 'x'"):
        from_dataframe(frame(x="far"), schema=SCHEMA)
    with pytest.raises(DataError, match="an episode in every row, got none in row 6"):
        from_dataframe(frame(run=[*"pppqqq", None]), schema=SCHEMA, episode="run")
    with pytest.raises(DataError, match="without rows"):
        from_dataframe(frame().head(0), schema=SCHEMA)
    with pytest.raises(DataError, match="a data frame, got dict"):
        from_dataframe({"x": [1]}, schema=SCHEMA)
