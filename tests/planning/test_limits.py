import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import bayeswm as bwm
from bayeswm.base import Schema, Variable
from bayeswm.planning import Limits

LIKE = torch.empty(2, dtype=torch.float64)


def schema(*bounds: tuple[float, float] | None) -> Schema:
    actions = [Variable(f"u{i}", bounds=b) for i, b in enumerate(bounds)]
    return Schema(state=[Variable("x")], action=actions, time_step=0.1)


def test_bounds_of_a_schema() -> None:
    limits = Limits.of(schema((-1.0, 3.0), (0.5, 1.0)), like=LIKE)
    assert limits.low.tolist() == [-1.0, 0.5]
    assert limits.high.tolist() == [3.0, 1.0]
    assert limits.center.tolist() == [1.0, 0.75]
    assert limits.radius.tolist() == [2.0, 0.25]
    assert limits.change is None
    with pytest.raises(bwm.SpecError, match=r"action\(s\) u1"):
        Limits.of(schema((-1.0, 3.0), None), like=LIKE)


@given(seed=st.integers(0, 10_000), change=st.floats(0.01, 2.0))
@settings(max_examples=30)
def test_what_is_applied_is_possible(seed: int, change: float) -> None:
    g = torch.Generator().manual_seed(seed)
    limits = Limits.between(-1.0, [0.5, 2.0], change=change, like=LIKE)
    wanted = 3 * torch.randn(5, 7, 2, generator=g, dtype=torch.float64)
    previous = limits.apply(torch.randn(1, 2, generator=g, dtype=torch.float64))[0]
    found = limits.apply(wanted, previous)
    assert bool((found >= limits.low).all())
    assert bool((found <= limits.high).all())
    moves = torch.cat((previous.expand(5, 1, 2), found), -2).diff(dim=-2)
    assert bool((moves.abs() <= change + 1e-12).all())
    torch.testing.assert_close(limits.apply(found, previous), found, rtol=0, atol=0)


def test_each_action_is_the_nearest_that_can_be_reached() -> None:
    limits = Limits.between(-1.0, 1.0, change=torch.tensor([0.5, 10.0]), like=LIKE)
    wanted = torch.tensor([[2.0, 2.0], [-1.0, -0.25], [0.3, 0.0]], dtype=torch.float64)
    assert limits.apply(wanted).tolist() == [[1.0, 1.0], [0.5, -0.25], [0.3, 0.0]]
    assert limits.apply(wanted, torch.zeros(2).double()).tolist() == [[0.5, 1.0], [0.0, -0.25], [0.3, 0.0]]


def test_check() -> None:
    limits = Limits.between(-1.0, 1.0, like=LIKE)
    limits.check(torch.tensor([[1.0, -1.0]]), names=("push", "turn"))
    with pytest.raises(bwm.DataError, match=r"expected turn between -1 and 1, got 1.5 at \(2,\)"):
        limits.check(torch.tensor([[0.0, 0.0], [0.0, 0.0], [0.0, 1.5]]), names=("push", "turn"))
    with pytest.raises(bwm.DataError, match="expected push between -1 and 1, got nan"):
        limits.check(torch.tensor([[float("nan"), 0.0]]), names=("push", "turn"))


@pytest.mark.parametrize("bounds", [(1.0, -1.0), (0.0, 0.0), (-float("inf"), 1.0), (0.0, float("nan"))])
def test_bounds_that_make_no_sense(bounds: tuple[float, float]) -> None:
    with pytest.raises(bwm.SpecError, match="finite bounds with low < high"):
        Limits.between(*bounds, like=LIKE)


@pytest.mark.parametrize("change", [0.0, -1.0, float("nan"), torch.tensor([1.0, 0.0])])
def test_changes_that_make_no_sense(change: float | torch.Tensor) -> None:
    with pytest.raises(bwm.SpecError, match="largest change > 0"):
        Limits.between(-1.0, 1.0, change=change, like=LIKE)


def test_bounds_of_the_wrong_number() -> None:
    with pytest.raises(bwm.SpecError, match="bounds fitting 2 action"):
        Limits.between(torch.zeros(3), torch.ones(3), like=LIKE)
    with pytest.raises(bwm.SpecError, match="largest change fitting 2 action"):
        Limits.between(-1.0, 1.0, change=torch.ones(3), like=LIKE)


def test_bounds_that_were_chosen() -> None:
    partly = schema((-1.0, 3.0), None)
    limits = Limits.chosen(partly, (torch.tensor([0.0, -9.0]), 3.0), change=0.5, like=LIKE)
    assert limits.low.tolist() == [0.0, -9.0]
    assert limits.high.tolist() == [3.0, 3.0]
    assert limits.change is not None
    with pytest.raises(bwm.DataError, match="expected u0 between -1 and 3, got -2"):
        Limits.chosen(partly, (-2.0, 3.0), like=LIKE)
    with pytest.raises(bwm.SpecError, match=r"expected bounds=\(low, high\), got 2.0"):
        Limits.chosen(partly, 2.0, like=LIKE)
    full = schema((-1.0, 3.0), (0.5, 1.0))
    assert torch.equal(Limits.chosen(full, None, like=LIKE).low, Limits.of(full, like=LIKE).low)
