"""The strategies make what they say, and cover it."""

import subprocess
import sys

import numpy as np
import torch
from hypothesis import find, given, settings
from hypothesis import strategies as st

import bayeswm as bwm
from bayeswm.testing import strategies
from bayeswm.testing.strategies import gaussian_mixtures, kinds, schemas, trajectories


@given(schemas(observation=True))
def test_schemas_keep_their_limits(schema):
    assert 1 <= len(schema.state) <= 3
    assert len(schema.action) <= 2
    assert len(schema.context) <= 2
    assert bwm.Schema.from_dict(schema.to_dict()) == schema


@given(trajectories(max_episodes=3, max_steps=5))
def test_trajectories_are_complete(recorded):
    assert 1 <= len(recorded) <= 3
    assert recorded.lengths.min() >= 1
    assert recorded.lengths.max() <= 5
    assert len(recorded.transitions().state) == recorded.transition_count


@given(trajectories(schemas(observation=True), missing=True))
def test_trajectories_survive_the_labelled_form(recorded):
    again = bwm.Trajectories.from_xarray(recorded.to_xarray())
    for name, values in recorded.arrays().items():
        if values is not None:
            np.testing.assert_array_equal(again.arrays()[name].numpy(), values.numpy())


@given(st.data())
def test_a_given_schema_is_kept(data):
    schema = bwm.structures.Pendulum.gymnasium().schema
    recorded = data.draw(trajectories(schema, dtype=torch.float32))
    assert recorded.schema == schema
    assert recorded.dtype == torch.float32
    bounds = schema.action["torque"].bounds
    inside = recorded.action[recorded.step_mask]
    assert bool(((inside >= bounds[0]) & (inside <= bounds[1])).all())


def test_all_kinds_come_up():
    once = settings(max_examples=500, database=None, derandomize=True)
    for name in ("real", "angle", "rotation", "categorical"):
        schema = find(schemas(), lambda s, name=name: name in {v.kind.name for v in s.state}, settings=once)
        assert name in {v.kind.name for v in schema.state}
    ragged = find(trajectories(missing=True), lambda t: len(set(t.lengths.tolist())) > 1, settings=once)
    assert bool((~ragged.step_mask).any())
    gaps = find(trajectories(missing=True), lambda t: bool(t.states()[0, 0].isnan().any()), settings=once)
    assert len(gaps) == 1
    per_step = find(trajectories(), lambda t: t.context.ndim == 3, settings=once)
    assert per_step.schema.context.size > 0


@given(schemas(kind=kinds(["real", "angle"])))
def test_kinds_can_be_chosen(schema):
    assert schema.state.flat


@given(gaussian_mixtures())
def test_mixtures_have_their_moments(p):
    w, law = p.weight[:, None], p.laws[0]
    mean = (w * law.mean[:, 0]).sum(0)
    within, between = (w * law.variance[:, 0]).sum(0), (w * (law.mean[:, 0] - mean).square()).sum(0)
    torch.testing.assert_close(p.mean[0], mean, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(p.variance[0], within + between, rtol=1e-10, atol=1e-12)


def test_missing_hypothesis_names_the_extra():
    code = (
        "import sys; sys.modules['hypothesis'] = None; import bayeswm.testing as t; t.check_model\n"
        "try:\n    t.strategies\nexcept ImportError as e:\n    print(e)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "pip install 'bayeswm[dev]'" in done.stdout


def test_public_names_exist():
    assert all(hasattr(strategies, name) for name in strategies.__all__)
    assert all(hasattr(bwm.testing, name) for name in bwm.testing.__all__)
