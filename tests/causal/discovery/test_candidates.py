"""Rows of candidate causes: which times they come from, and their features."""

import pytest
import torch

import bayeswm as bwm
from bayeswm.base.errors import DataError, SpecError
from bayeswm.causal.discovery.candidates import candidates, standardised


def numbered(episodes=2, steps=4):
    """Return data whose values say where they are: 100 episode + time, 0.5 more for the action."""
    schema = bwm.Schema(
        state=[bwm.Variable("s"), bwm.Variable("angle", kind="angle")],
        action=[bwm.Variable("a")],
        context=[bwm.Variable("c")],
        time_step=1.0,
    )
    time = torch.arange(steps + 1.0, dtype=torch.float64) + 100 * torch.arange(episodes)[:, None]
    state = torch.stack((time, 0.1 * time), -1)
    context = torch.arange(episodes, dtype=torch.float64)[:, None]
    return bwm.Trajectories(schema, state=state, action=time[:, :-1, None] + 0.5, context=context)


def test_one_step():
    given = candidates(numbered(), lags=1)
    assert given.causes == ("s[t-1]", "angle[t-1]", "a[t-1]", "c[t-1]")
    assert given.effects == ("s[t]", "angle[t]")
    assert given.angles == (False, True, False, False)
    assert given.own == ((), (1,))
    assert given.values[:, 0].tolist() == [0, 1, 2, 3, 100, 101, 102, 103]
    assert given.values[:, 2].tolist() == [0.5, 1.5, 2.5, 3.5, 100.5, 101.5, 102.5, 103.5]
    assert given.values[:, 3].tolist() == [0] * 4 + [1] * 4
    assert given.outcomes[:, 0].tolist() == [1, 2, 3, 4, 101, 102, 103, 104]


def test_two_steps_stay_within_an_episode():
    given = candidates(numbered(), lags=2)
    assert given.causes == ("s[t-1]", "angle[t-1]", "a[t-1]", "c[t-1]", "s[t-2]", "angle[t-2]", "a[t-2]")
    assert given.own == ((), (1, 5))
    assert given.values[:, 0].tolist() == [1, 2, 3, 101, 102, 103]
    assert given.values[:, 4].tolist() == [0, 1, 2, 100, 101, 102]
    assert given.values[:, 6].tolist() == [0.5, 1.5, 2.5, 100.5, 101.5, 102.5]
    assert given.outcomes[:, 0].tolist() == [2, 3, 4, 102, 103, 104]


def test_steps_with_gaps_are_left_out():
    data = numbered()
    state = data.state.clone()
    state[0, 2, 0] = float("nan")
    holed = bwm.Trajectories(data.schema, state=state, action=data.action, context=data.context, allow_missing=True)
    assert candidates(holed, lags=1).outcomes[:, 0].tolist() == [1, 4, 101, 102, 103, 104]
    assert candidates(holed, lags=2).outcomes[:, 0].tolist() == [102, 103, 104]


def test_features_and_their_owners():
    g = torch.Generator().manual_seed(0)
    schema = numbered().schema
    data = bwm.Trajectories(
        schema,
        state=torch.randn(5, 9, 2, generator=g, dtype=torch.float64),
        action=torch.randn(5, 8, 1, generator=g, dtype=torch.float64),
        context=torch.ones(5, 1, dtype=torch.float64),  # never varies: no feature
    )
    given = candidates(data, lags=1)
    simple = given.design(0, degree=1)
    assert simple.owners.int().tolist() == [[1, 0, 0, 0], [0, 1, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0]]
    torch.testing.assert_close(simple.columns.square().sum(0), torch.ones(4, dtype=torch.float64))
    torch.testing.assert_close(simple.columns.sum(0), torch.zeros(4, dtype=torch.float64))
    # the own past of an angle enters as it is, too
    assert given.design(1, degree=1).owners.int().tolist()[-1] == [0, 1, 0, 0]
    both = given.design(0, degree=2)
    # s^2, sin^2, sin cos, a^2 and the products of s, the angle's two and a: 4 + 2 + 1 + 2
    assert both.owners.shape == (4 + 9, 4)
    assert int((both.owners.sum(-1) == 2).sum()) == 5


def test_standardised_leaves_constants_at_zero():
    assert standardised(torch.full((5,), 1e9, dtype=torch.float64)).tolist() == [0.0] * 5
    assert float(standardised(torch.arange(5.0)).square().mean()) == pytest.approx(1.0)


def test_refusals():
    for lags in (0, 3, True):
        with pytest.raises(SpecError, match="lags=1 or lags=2"):
            candidates(numbered(), lags=lags)
    with pytest.raises(DataError, match="3 recorded states"):
        candidates(numbered(steps=1), lags=2)
    schema = bwm.Schema(state=[bwm.Variable("turn", kind="rotation")], time_step=1.0)
    data = bwm.Trajectories(schema, state=torch.tensor([1.0, 0, 0, 0]).expand(1, 3, 4))
    with pytest.raises(SpecError, match="real variables and angles"):
        candidates(data, lags=1)
