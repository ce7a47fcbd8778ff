"""Labelled data sets hold trajectories exactly, in memory and in netCDF files."""

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
import xarray
from hypothesis import given, settings

from bayeswm.base.errors import DataError
from bayeswm.base.kinds import categorical
from bayeswm.base.labelled import trajectories_from_xarray, trajectories_to_xarray
from bayeswm.base.schema import Schema, Variable
from bayeswm.base.trajectories import Trajectories

VARIABLES = {
    "x": Variable("x", unit="m"),
    "a": Variable("a", unit="rad", kind="angle", bounds=(-1, 1)),
    "q": Variable("q", kind="rotation"),
    "k": Variable("k", kind=categorical(3)),
}


def draw_values(variables, rng, *shape):
    parts = []
    for v in variables:
        if v.name.startswith("q"):
            q = rng.standard_normal((*shape, 4))
            parts.append(q / np.linalg.norm(q, axis=-1, keepdims=True))
        elif v.name.startswith("k"):
            parts.append(rng.integers(0, 3, (*shape, 1)).astype(float))
        else:
            parts.append(rng.standard_normal((*shape, 1)) * 3)
    return np.concatenate(parts, -1) if parts else np.zeros((*shape, 0))


@st.composite
def trajectories(draw):
    def group(prefix, least=0):
        names = draw(st.lists(st.sampled_from(sorted(VARIABLES)), min_size=least, max_size=3, unique=True))
        return [Variable(f"{n}_{prefix}", unit=VARIABLES[n].unit, kind=VARIABLES[n].kind) for n in names]

    observed, stepwise = draw(st.booleans()), draw(st.booleans())
    schema = Schema(
        state=group("s", 1),
        action=group("u"),
        context=group("c"),
        observation=group("o", 1) if observed else None,
        reward=draw(st.booleans()),
        time_step=draw(st.floats(1e-3, 10)),
    )
    lengths = draw(st.lists(st.integers(1, 5), min_size=1, max_size=4))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    states = [draw_values(schema.state, rng, n + 1) for n in lengths]
    if draw(st.booleans()):
        states[0][rng.integers(0, len(states[0]))] = np.nan
    context = (
        [draw_values(schema.context, rng, *((n,) if stepwise else ())) for n in lengths] if schema.context else None
    )
    data = Trajectories(
        schema,
        state=states if not observed or draw(st.booleans()) else None,
        observation=[draw_values(schema.observation, rng, n + 1) for n in lengths] if observed else None,
        action=[draw_values(schema.action, rng, n) for n in lengths],
        context=context,
        reward=[rng.standard_normal(n) for n in lengths] if schema.reward else None,
        terminated=rng.integers(0, 2, len(lengths)),
        truncated=rng.integers(0, 2, len(lengths)),
        episode=rng.integers(0, 99, len(lengths)),
        start=rng.integers(0, 99, len(lengths)),
        allow_missing=True,
    )
    return data.to(draw(st.sampled_from([torch.float32, torch.float64, torch.float16, torch.bfloat16])))


def assert_identical(first, second):
    assert first.schema == second.schema
    assert first.arrays().keys() == second.arrays().keys()
    for name, values in first.arrays().items():
        other = second.arrays()[name]
        if values is None:
            assert other is None, name
            continue
        assert (values.dtype, values.shape) == (other.dtype, other.shape), name
        assert torch.equal(values.nan_to_num(nan=123.0), other.nan_to_num(nan=123.0)), name
        assert torch.equal(values.isnan(), other.isnan()), name


@given(trajectories())
def test_round_trip_is_exact(data):
    assert_identical(data, trajectories_from_xarray(trajectories_to_xarray(data)))


@settings(max_examples=25)
@given(data=trajectories())
def test_round_trip_through_netcdf_is_exact(data, tmp_path_factory):
    pytest.importorskip("h5netcdf")
    path = tmp_path_factory.mktemp("netcdf") / "data.nc"
    data.to_xarray().to_netcdf(path, engine="h5netcdf")
    with xarray.open_dataset(path, engine="h5netcdf") as dataset:
        assert_identical(data, Trajectories.from_xarray(dataset.load()))


def example():
    schema = Schema(
        state=[Variable("x", unit="m"), Variable("q", kind="rotation")],
        action=[Variable("u", unit="N")],
        context=[Variable("mass", unit="kg")],
        reward=True,
        time_step=0.5,
    )
    rng = np.random.default_rng(0)
    return Trajectories(
        schema,
        state=[draw_values([VARIABLES["x"], VARIABLES["q"]], rng, n + 1) for n in (3, 2)],
        action=[np.ones((n, 1)) for n in (3, 2)],
        context=[[1.0], [2.0]],
        reward=[np.ones(n) for n in (3, 2)],
    )


def test_labels():
    dataset = example().to_xarray()
    assert dict(dataset.sizes) == {
        "row": 2, "state_step": 4, "step": 3, "state_variable": 5, "action_variable": 1, "context_variable": 1,
    }  # fmt: skip
    assert dataset.state_variable.values.tolist() == ["x", "q_w", "q_x", "q_y", "q_z"]
    assert dataset.state_unit.values.tolist() == ["m", "", "", "", ""]
    assert dataset.context.sel(context_variable="mass").values.tolist() == [1, 2]
    assert dataset.state_step.dtype.kind == dataset.step.dtype.kind == "i"
    assert "time" not in dataset.indexes
    assert dataset.time.values.tolist() == [0, 0.5, 1, 1.5]
    assert dataset.action_time.values.tolist() == [0, 0.5, 1]
    assert dataset.state.isnull().sum(("state_step", "state_variable")).values.tolist() == [0, 5]


def test_the_data_set_shares_no_memory():
    data = example()
    before = data.state.clone()
    dataset = data.to_xarray()
    dataset.state[:] = 0
    dataset.lengths[:] = 1
    assert torch.equal(data.state.nan_to_num(9), before.nan_to_num(9))
    assert data.lengths.tolist() == [3, 2]


def test_rows_may_be_chosen_and_axes_turned():
    data = example()
    dataset = data.to_xarray()
    assert_identical(Trajectories.from_xarray(dataset.isel(row=[1])), data[1])
    assert_identical(Trajectories.from_xarray(dataset.isel(row=[1, 0])), data[[1, 0]])
    assert_identical(Trajectories.from_xarray(dataset.transpose()), data)


BROKEN = {
    "no format": (lambda d: d.drop_attrs(), "expected a data set of"),
    "steps cut off": (lambda d: d.isel(step=slice(0, 2)), "lengths from 1 to 2"),
    "states cut off": (lambda d: d.isel(state_step=slice(0, 3)), "expected 4 states for 3 steps"),
    "no lengths": (lambda d: d.drop_vars("lengths"), "expected 'lengths'"),
    "no reward": (lambda d: d.drop_vars("reward"), "expected 'reward'"),
    "no action": (lambda d: d.drop_vars("action"), "expected 'action'"),
    "columns in another order": (lambda d: d.isel(state_variable=[1, 0, 2, 3, 4]), "columns"),
    "a value after the end": (lambda d: d.fillna(1.0), "after each episode's end"),
    "an infinite action": (lambda d: d.assign(action=d.action * np.inf), "infinity"),
    "a missing action": (lambda d: d.assign(action=d.action * np.nan), "NaN"),
    "another dimension": (lambda d: d.assign(reward=d.reward.expand_dims("extra")), "dimensions"),
}


@pytest.mark.parametrize("how", BROKEN)
def test_changed_data_sets_are_refused(how):
    change, message = BROKEN[how]
    with pytest.raises(DataError, match=message):
        Trajectories.from_xarray(change(example().to_xarray()))
