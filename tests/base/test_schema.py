"""Variables and schemas: names, columns, arithmetic, JSON."""

import json
import math

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given

from bayeswm.base.errors import SpecError, UnknownVariableError
from bayeswm.base.kinds import TURN, categorical, wrap
from bayeswm.base.schema import Schema, Variable, Variables

MIXED = Variables(
    [
        Variable("x", unit="m"),
        Variable("q", kind="rotation"),
        Variable("a", kind="angle"),
        Variable("c", kind=categorical(3)),
    ]
)


def mixed_values(seed, *shape):
    g = torch.Generator().manual_seed(seed)
    q = torch.nn.functional.normalize(torch.randn(*shape, 4, generator=g, dtype=torch.float64), dim=-1)
    x, a = (10 * torch.randn(*shape, 1, generator=g, dtype=torch.float64) for _ in range(2))
    return torch.cat((x, q, a, torch.randint(3, (*shape, 1), generator=g).double()), -1)


@pytest.mark.parametrize("name", ["", "1x", "a b", "lambda", "x-y", 3])
def test_names_are_identifiers(name):
    with pytest.raises(SpecError, match="identifier"):
        Variable(name)


@pytest.mark.parametrize("bounds", [(1, 1), (2, 1), (0,), "ab", (float("nan"), 1)])
def test_bounds_increase(bounds):
    with pytest.raises(SpecError, match="'x'"):
        Variable("x", bounds=bounds)


def test_rotation_has_four_columns():
    assert MIXED.columns == ("x", "q_w", "q_x", "q_y", "q_z", "a", "c")
    assert (MIXED.size, MIXED.tangent_size, MIXED.embedding_size) == (7, 6, 15)
    assert MIXED.slices["a"] == slice(5, 6)
    assert MIXED.angles == (5,)
    assert MIXED.column("q_y") == 3


@pytest.mark.parametrize("names", [("x", "x"), ("q", "q_w")])
def test_names_must_differ(names):
    kinds = {"q": "rotation"}
    with pytest.raises(SpecError, match="twice"):
        Variables([Variable(n, kind=kinds.get(n, "real")) for n in names])
    with pytest.raises(SpecError, match="twice"):
        Schema(state=[Variable(names[0], kind=kinds.get(names[0], "real"))], action=[Variable(names[1])], time_step=1)


def test_no_strings_for_variables():
    with pytest.raises(SpecError, match=r"bayeswm\.Variable"):
        Variables(["x"])


def test_unknown_names_are_refused():
    with pytest.raises(UnknownVariableError, match="did you mean 'q_"):
        MIXED.column("q_v")
    with pytest.raises(UnknownVariableError):
        MIXED["y"]


def test_parts_of_a_group():
    assert MIXED["a"].name == MIXED[2].name == "a"
    assert MIXED[1:].names == ("q", "a", "c")
    assert isinstance(MIXED[1:], Variables)


@given(seed=st.integers(0, 10**6))
def test_adding_the_difference_arrives_for_a_mixed_group(seed):
    old, new = mixed_values(seed, 4), mixed_values(seed + 1, 4)
    arrived = MIXED.add(old, MIXED.difference(new, old))
    off = (arrived - new)[:, [0, 6]]
    assert float(off.abs().max()) < 1e-12
    assert float(wrap(arrived - new)[:, 5].abs().max()) < 1e-12
    assert float((1 - (arrived[:, 1:5] * new[:, 1:5]).sum(-1).abs()).abs().max()) < 1e-12


def test_arithmetic_broadcasts():
    value, change = mixed_values(0, 3, 1), MIXED.difference(mixed_values(1, 5), mixed_values(2, 5))
    assert MIXED.add(value, change).shape == (3, 5, 7)
    assert MIXED.difference(mixed_values(0, 3, 1), mixed_values(1, 5)).shape == (3, 5, 6)
    assert MIXED.embed(value).shape == (3, 1, 15)
    assert MIXED.mean(mixed_values(0, 6, 2)).shape == (2, 7)


def test_empty_group():
    assert Variables().difference(torch.zeros(2, 0), torch.zeros(2, 0)).shape == (2, 0)
    assert Variables().add(torch.zeros(2, 0), torch.zeros(2, 0)).shape == (2, 0)


@given(st.lists(st.floats(-40, 40), min_size=1, max_size=30), st.sets(st.integers(0, 29)))
def test_unwrap_keeps_directions_and_takes_short_steps(angles, holes):
    group = Variables([Variable("a", kind="angle")])
    given_values = torch.tensor(angles, dtype=torch.float64)[:, None]
    for hole in holes:
        given_values[hole : hole + 1] = math.nan
    before = given_values.clone()
    lifted = group.unwrap(given_values)
    torch.testing.assert_close(given_values, before, equal_nan=True, rtol=0, atol=0)
    known = ~before.isnan()
    assert torch.equal(lifted.isnan(), before.isnan())
    assert float(wrap(lifted - before)[known].abs().max() if known.any() else 0) < 1e-9
    steps = lifted[known].diff().abs()  # over gaps too
    assert bool((steps <= math.pi + 1e-9).all())
    torch.testing.assert_close(group.wrap(lifted), group.wrap(before), equal_nan=True, atol=1e-9, rtol=0)
    torch.testing.assert_close(group.unwrap(lifted), lifted, equal_nan=True, rtol=0, atol=0)


def test_unwrap_flips_quaternions_onto_one_side():
    group = Variables([Variable("q", kind="rotation")])
    unit = torch.tensor([1.0, 0.0, 0.0, 0.0])
    flipped = torch.stack((unit, -unit, unit, -unit))
    assert torch.equal(group.unwrap(flipped), unit.expand(4, 4))
    assert torch.equal(flipped[1], -unit)


def test_wrap_returns_to_one_turn():
    group = Variables([Variable("x"), Variable("a", kind="angle")])
    value = torch.tensor([[9.0, 9.0]], dtype=torch.float64)
    torch.testing.assert_close(group.wrap(value), torch.tensor([[9.0, 9.0 - TURN]], dtype=torch.float64))
    assert value.tolist() == [[9.0, 9.0]]


@pytest.mark.parametrize("step", [0, -0.1, float("nan"), float("inf"), None, "fast"])
def test_time_step_is_positive(step):
    with pytest.raises(SpecError, match="time_step > 0"):
        Schema(state=[], time_step=step)


def test_groups_and_what_is_measured():
    schema = Schema(
        state=[Variable("x")], action=[Variable("u")], context=[Variable("m")], observation=[Variable("y")], time_step=1
    )
    assert schema.measured.names == ("y",)
    assert Schema(state=[Variable("x")], time_step=1).measured.names == ("x",)
    assert [schema.group_of(n) for n in "xum"] == ["state", "action", "context"]
    with pytest.raises(UnknownVariableError, match="Known: x, u, m"):
        schema.group_of("z")


def test_json_round_trip():
    schema = Schema(
        state=MIXED,
        action=[Variable("u", unit="N m", bounds=(-1.5, math.inf))],
        context=[],
        observation=[Variable("x", unit="m")],
        reward=True,
        time_step=1 / 148,
    )
    again = Schema.from_dict(json.loads(json.dumps(schema.to_dict())))
    assert again == schema
    assert hash(again) == hash(schema)
    assert again.state["c"].kind == categorical(3)
    assert Schema.from_dict(Schema(state=[], time_step=1).to_dict()).observation is None


def test_other_variables_another_order_kind_or_time_step_are_refused():
    own = Schema(state=[Variable("q", kind="angle"), Variable("v")], action=[Variable("u")], time_step=0.1)
    own.check_same(Schema(state=own.state, action=own.action, time_step=0.1), who="it")
    swapped = Schema(state=[Variable("v"), Variable("q", kind="angle")], action=own.action, time_step=0.1)
    plain = Schema(state=[Variable("q"), Variable("v")], action=own.action, time_step=0.1)
    for other in (swapped, plain):
        with pytest.raises(SpecError, match=r"expected state \(q: angle, v\), as it has, got"):
            own.check_same(other, who="it")
    with pytest.raises(SpecError, match=r"time step of 0.1 s, as it has, got 0.2 s"):
        own.check_same(Schema(state=own.state, action=own.action, time_step=0.2), who="it")


def test_columns_too_many_are_named():
    few = Schema(state=[Variable("s")], context=[Variable("load")], time_step=1.0)
    many = Schema(state=[Variable("s")], context=[Variable("wind"), Variable("load")], time_step=1.0)
    with pytest.raises(SpecError, match=r"got \(wind, load\); leave out wind$"):
        few.check_same(many, who="the model")
    with pytest.raises(SpecError, match="order the columns so"):
        many.check_same(few, who="the model")
