"""Half-spaces, by rows and by the names of variables."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import bayeswm as bwm
from bayeswm.planning import HalfSpaces
from bayeswm.planning.safety.safe_sets import half_spaces

SCHEMA = bwm.Schema(state=[bwm.Variable("place"), bwm.Variable("velocity")], time_step=1.0)


@given(st.floats(-5, 5), st.floats(-5, 5))
def test_a_box_is_inside_between_its_bounds(place: float, velocity: float) -> None:
    box = HalfSpaces.between(SCHEMA, {"place": (-1.0, 2.0), "velocity": (None, 3.0)})
    state = torch.tensor([place, velocity], dtype=torch.float64)
    assert float(box(state)) == pytest.approx(min(place + 1, 2 - place, 3 - velocity), abs=1e-12)
    assert box.margins(state).shape == (3,)


def test_what_a_variable_holds_that_is_not_bounded_does_not_matter() -> None:
    box = HalfSpaces.between(SCHEMA, {"place": (-1.0, None)})
    assert box.columns == [0]
    assert float(box(torch.tensor([1.0, float("nan")]))) == 2.0


def test_margins_are_those_of_the_rows() -> None:
    g = torch.Generator().manual_seed(0)
    normal, offset = torch.randn(4, 3, generator=g), torch.randn(4, generator=g)
    x = torch.randn(5, 2, 3, generator=g)
    expected = offset - torch.einsum("ij,...j->...i", normal, x)
    torch.testing.assert_close(HalfSpaces(normal, offset).margins(x), expected)


@pytest.mark.parametrize(
    ("normal", "offset"),
    [
        (torch.zeros(1, 2), torch.ones(1)),
        (torch.ones(2), torch.ones(1)),
        (torch.ones(2, 2), torch.ones(1)),
        (torch.ones(1, 2), torch.tensor([float("inf")])),
        (torch.ones(0, 2), torch.ones(0)),
    ],
)
def test_half_spaces_that_make_no_sense_are_refused(normal: torch.Tensor, offset: torch.Tensor) -> None:
    with pytest.raises(bwm.SpecError, match="expected"):
        HalfSpaces(normal, offset)


def test_bounds_are_checked_against_the_schema_and_states_against_the_rows() -> None:
    with pytest.raises(bwm.UnknownVariableError):
        HalfSpaces.between(SCHEMA, {"plaice": (0.0, 1.0)})
    with pytest.raises(bwm.SpecError, match="at least one"):
        HalfSpaces.between(SCHEMA, {"place": (None, None)})
    with pytest.raises(bwm.SpecError, match="3 state variable"):
        HalfSpaces.between(SCHEMA, {"place": (0.0, None)})(torch.zeros(3))
    with pytest.raises(bwm.SpecError, match="HalfSpaces"):
        half_spaces(lambda x: x)
