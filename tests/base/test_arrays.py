"""What users hand in becomes checked copies, or a clear error."""

import numpy as np
import pytest
import torch

from bayeswm.base.arrays import as_tensor
from bayeswm.base.errors import DataError, DataWarning
from bayeswm.base.kinds import categorical
from bayeswm.base.schema import Schema, Variable
from bayeswm.base.trajectories import Trajectories

ONE = Schema(state=[Variable("x")], action=[Variable("u")], time_step=0.1)
STATE, ACTION = np.arange(5.0)[:, None], np.ones((4, 1))


def read_only(values):
    values = values.copy()
    values.flags.writeable = False
    return values


LAYOUTS = {
    "negative stride": lambda v: v[::-1].copy()[::-1],
    "read-only": read_only,
    "Fortran order": np.asfortranarray,
    "every other": lambda v: np.repeat(v, 2, axis=0)[::2],
    "integer": lambda v: v.astype(np.int32),
    "unsigned": lambda v: v.astype(np.uint8),
    "big endian": lambda v: v.astype(">f8"),
    "long double": lambda v: v.astype(np.longdouble),
    "list": lambda v: v.tolist(),
    "requires grad": lambda v: torch.from_numpy(v).requires_grad_(),
    "not contiguous": lambda v: torch.from_numpy(np.repeat(v, 2, axis=0))[::2],
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_gives_the_same_numbers_in_a_copy(layout):
    given = LAYOUTS[layout](STATE)
    tensor = as_tensor("state", given)
    assert tensor.dtype == torch.float64
    assert not tensor.requires_grad
    assert torch.equal(tensor, torch.from_numpy(STATE))
    tensor[:] = -1
    assert np.array_equal(np.asarray(given.detach() if isinstance(given, torch.Tensor) else given, dtype=float), STATE)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_trajectories_share_nothing_with_the_input(layout):
    given = LAYOUTS[layout](STATE)
    data = Trajectories(ONE, state=[given], action=[ACTION])
    data.state[:] = -1
    assert np.array_equal(np.asarray(given.detach() if isinstance(given, torch.Tensor) else given, dtype=float), STATE)


@pytest.mark.parametrize(
    "values",
    [
        np.array([1, "a"], dtype=object),
        np.array(["1", "2"]),
        np.array([1j]),
        torch.tensor([1j]),
        [[1.0], [1.0, 2.0]],
        np.array(["2020-01-01"], dtype="M8[s]"),
    ],
)
def test_what_is_no_number_is_refused_by_name(values):
    with pytest.raises(DataError, match=r"^state: expected"):
        as_tensor("state", values)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_floating_dtype_is_kept_and_integers_become_doubles(dtype):
    assert as_tensor("x", torch.ones(2, dtype=dtype)).dtype == dtype
    assert as_tensor("x", torch.ones(2, dtype=torch.int16)).dtype == torch.float64
    data = Trajectories(ONE, state=torch.ones(1, 3, 1, dtype=dtype), action=torch.ones(1, 2, 1, dtype=torch.float64))
    assert data.dtype == data.state.dtype == torch.float64


WRONG_SHAPES = {
    "(n,) for (n, 1)": ({"state": STATE[:, 0], "action": ACTION}, r"state, episode 0.*\(T \+ 1, 1\)"),
    "(n,) for (n, 1) in a list": ({"state": [STATE[:, 0]], "action": [ACTION]}, r"state, episode 0.*values\[:, None\]"),
    "a number": ({"state": 3.0, "action": ACTION}, "the single number 3"),
    "four axes": ({"state": np.zeros((1, 2, 3, 1)), "action": ACTION}, "state, episode 0"),
    "(n,) action": (
        {"state": STATE, "action": ACTION[:, 0]},
        r"action, episode 0: expected shape \(4, 1\), got \(4,\)",
    ),
    "T + 1 actions": ({"state": STATE, "action": np.ones((5, 1))}, "drop the last action"),
    "T - 1 actions": ({"state": STATE, "action": np.ones((3, 1))}, r"expected shape \(4, 1\), got \(3, 1\)"),
    "two columns": ({"state": np.zeros((5, 2)), "action": ACTION}, r"state, episode 0: expected shape \(5, 1\)"),
    "an episode too few": ({"state": [STATE, STATE], "action": [ACTION]}, "as many episodes"),
    "no action": ({"state": STATE}, "expected action="),
    "no state": ({"action": ACTION}, "expected state="),
    "no episode": ({"state": [], "action": []}, "at least one episode"),
    "no state in an episode": ({"state": [np.zeros((0, 1))], "action": [np.zeros((0, 1))]}, "start state"),
    "no transition": ({"state": [STATE[:1]], "action": [ACTION[:0]]}, "at least one transition"),
    "an observation": ({"state": STATE, "action": ACTION, "observation": STATE}, "add observation"),
    "a context": ({"state": STATE, "action": ACTION, "context": [1.0]}, "expected no context"),
    "a ragged reward": (
        {"state": [STATE, STATE[:2]], "action": [ACTION, ACTION[:1]], "reward": [[1.0] * 4, [1.0]]},
        "no reward",
    ),
    "lengths beyond the data": ({"state": STATE[None], "action": ACTION[None], "lengths": [5]}, "lengths"),
    "lengths of another number": ({"state": STATE[None], "action": ACTION[None], "lengths": [2, 2]}, "lengths"),
}


@pytest.mark.parametrize("case", WRONG_SHAPES)
def test_wrong_shapes_say_what_was_expected(case):
    given, message = WRONG_SHAPES[case]
    with pytest.raises(DataError, match=message):
        Trajectories(ONE, **given)


def test_empty_actions_are_no_actions():
    schema = Schema(state=[Variable("x")], time_step=1)
    ragged = [np.zeros((4, 0)), np.zeros((2, 0))]
    data = Trajectories(schema, state=[STATE, STATE[:3]], action=ragged)
    assert data.action.shape == (2, 4, 0)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_devices_are_not_mixed():
    with pytest.raises(DataError, match="one device"):
        Trajectories(ONE, state=torch.from_numpy(STATE).cuda(), action=ACTION)
    data = Trajectories(ONE, state=torch.from_numpy(STATE).cuda(), action=torch.from_numpy(ACTION).cuda())
    assert {v.device.type for v in data.arrays().values() if v is not None} == {"cuda"}
    assert {v.device.type for v in data.windows(2).arrays().values() if v is not None} == {"cuda"}
    assert data.resample(0.2).device.type == "cuda"


@pytest.mark.parametrize(
    ("value", "word"), [(np.nan, "NaN"), (np.inf, "infinity"), (-np.inf, "infinity"), (1e200, "rescale")]
)
@pytest.mark.parametrize(
    ("group", "variable"), [("state", "a"), ("action", "u"), ("context", "c"), ("reward", "reward")]
)
def test_bad_numbers_name_episode_time_and_variable(group, variable, value, word):
    schema = Schema(
        state=[Variable("x"), Variable("a", kind="angle")],
        action=[Variable("v"), Variable("u")],
        context=[Variable("c")],
        reward=True,
        time_step=0.1,
    )
    arrays = {
        "state": np.zeros((3, 7, 2)),
        "action": np.zeros((3, 6, 2)),
        "context": np.zeros((3, 6, 1)),
        "reward": np.zeros((3, 6)),
    }
    arrays[group][(2, 4, -1)[: arrays[group].ndim]] = value
    arrays[group][(2, 5, -1)[: arrays[group].ndim]] = value
    with pytest.raises(DataError, match=rf"{word}|{variable}") as error:
        Trajectories(schema, **arrays)
    text = str(error.value)
    assert word in text
    assert f"episode 2, time 4, variable {variable!r} (2 value(s)" in text


def test_infinity_is_never_taken_for_missing():
    schema = Schema(state=[Variable("a", kind="angle")], time_step=1)
    with pytest.raises(DataError, match="infinity, first at episode 0, time 1"):
        Trajectories(schema, state=[[[0.0], [np.inf], [1.0]]], allow_missing=True)


def test_missing_values_only_on_request_and_never_in_actions():
    gap = STATE.copy()
    gap[2] = np.nan
    with pytest.raises(DataError, match="allow_missing=True"):
        Trajectories(ONE, state=gap, action=ACTION)
    data = Trajectories(ONE, state=gap, action=ACTION, allow_missing=True)
    assert data.state_mask[0, :, 0].tolist() == [True, True, False, True, True]
    with pytest.raises(DataError, match="NaN"):
        Trajectories(ONE, state=STATE, action=gap[1:], allow_missing=True)


def test_huge_numbers_in_float32_are_kept_or_refused():
    kept = Trajectories(ONE, state=torch.full((3, 1), 1e15), action=torch.zeros(2, 1))
    assert kept.dtype == torch.float32
    assert float(kept.state.max()) == pytest.approx(1e15)
    with pytest.raises(DataError, match="rescale"):
        Trajectories(ONE, state=torch.full((3, 1), 1e30), action=torch.zeros(2, 1))


def test_an_error_counts_episodes_as_the_caller_does():
    gap = STATE.copy()
    gap[1] = np.nan
    with pytest.raises(DataError, match="episode 2, time 1"):
        Trajectories(ONE, state=[STATE[:1], STATE, gap], action=[ACTION[:0], ACTION, ACTION])


def test_rotations_and_classes_are_checked():
    rotation = Schema(state=[Variable("q", kind="rotation")], time_step=1)
    with pytest.raises(DataError, match=r"unit quaternions.*'q_w'"):
        Trajectories(rotation, state=[[[1.0, 0, 0, 0], [2.0, 0, 0, 0]]])
    classes = Schema(state=[Variable("k", kind=categorical(3))], time_step=1)
    for bad in (3.0, -1.0, 0.5):
        with pytest.raises(DataError, match=r"codes 0\.\.2"):
            Trajectories(classes, state=[[[1.0], [bad]]])


def test_values_outside_bounds_are_counted_in_a_warning():
    schema = Schema(state=[Variable("x")], action=[Variable("u", bounds=(-0.5, 0.5))], time_step=1)
    with pytest.warns(DataWarning, match=r"4 recorded value\(s\) of action variable 'u' outside its bounds"):
        data = Trajectories(schema, state=STATE, action=ACTION)
    assert float(data.action.max()) == 1


def test_nested_lists_of_numbers_are_one_episode_and_lists_of_those_are_several():
    schema = Schema(state=[Variable("x"), Variable("y")], action=[Variable("u")], time_step=0.1)
    one = Trajectories(schema, state=[[1.0, 2.0], [3.0, 4.0]], action=[[1.0]])
    assert (len(one), one.transition_count) == (1, 1)
    two = Trajectories(schema, state=[[[1.0, 2.0], [3.0, 4.0]]] * 2, action=[[[1.0]]] * 2)
    assert (len(two), two.transition_count) == (2, 2)


def test_episodes_of_one_length_are_as_those_of_several():
    state, action = torch.randn(3, 5, 1), torch.randn(3, 4, 1)
    lengths = [4, 2, 3]
    padded = Trajectories(ONE, state=state, action=action, lengths=lengths)
    ragged = Trajectories(
        ONE,
        state=[state[i, : n + 1] for i, n in enumerate(lengths)],
        action=[action[i, :n] for i, n in enumerate(lengths)],
    )
    for name, values in padded.arrays().items():
        torch.testing.assert_close(values, ragged.arrays()[name], equal_nan=True)
    assert padded.state.dtype == torch.float32
