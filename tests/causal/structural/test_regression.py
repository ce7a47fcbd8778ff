import pytest
import torch

import bayeswm as bwm
from bayeswm.causal.structural.regression import DrawnRegression, Regression

SCHEMA = bwm.Schema(
    state=[bwm.Variable("s", unit="m", bounds=(-9, 9)), bwm.Variable("q"), bwm.Variable("angle", kind="angle")],
    action=[bwm.Variable("a", unit="N"), bwm.Variable("q_before")],
    context=[bwm.Variable("c")],
    time_step=0.5,
)


def data() -> bwm.Trajectories:
    g = torch.Generator().manual_seed(0)
    state = [torch.randn(n, 3, generator=g).double() for n in (4, 3)]
    state[0][1, 1] = float("nan")
    action = [torch.randn(n, 2, generator=g).double() for n in (3, 2)]
    return bwm.Trajectories(
        SCHEMA, state=state, action=action, context=torch.tensor([[7.0], [8.0]]).double(), allow_missing=True
    )


def test_the_variables_of_a_regression() -> None:
    found = Regression.of("s", ("angle", "s[t-1]", "q[t-1]", "a", "c", "q_before"), SCHEMA)
    assert found.own == 1
    assert found.schema.state == SCHEMA.state[:1]
    assert found.schema.time_step == 0.5
    # a lagged parent keeps clear of a variable that has its name
    assert found.schema.action.names == ("angle", "q_before_", "a", "c", "q_before")
    assert found.schema.action["angle"].kind.name == "angle"
    assert found.schema.action["a"].unit == "N"
    rotation = bwm.Schema(state=[bwm.Variable("s")], action=[bwm.Variable("q", kind="rotation")], time_step=1.0)
    assert Regression.of("s", ("q_x",), rotation).schema.action == (bwm.Variable("q_x"),)


def test_rows_are_the_steps_that_were_recorded() -> None:
    d = data()
    found = Regression.of("s", ("q", "s[t-1]", "a", "c"), SCHEMA).rows(d)
    # the first step of the first episode leads to a q that is missing
    assert found.episode.tolist() == [0, 0, 1, 1]
    assert found.start.tolist() == [1, 2, 0, 1]
    x, u = d.states(), d.action
    assert found.states()[:, :, 0].tolist() == [
        [x[i, t, 0], x[i, t + 1, 0]] for i, t in ((0, 1), (0, 2), (1, 0), (1, 1))
    ]
    expected = [[x[i, t + 1, 1], u[i, t, 0], 7.0 + i] for i, t in ((0, 1), (0, 2), (1, 0), (1, 1))]
    assert found.action[:, 0].tolist() == expected
    lagged = Regression.of("s", ("q[t-1]",), SCHEMA).rows(d)
    assert lagged.states()[:, 0].abs().max() == 0
    assert lagged.action.flatten().tolist() == [x[i, t, 1] for i, t in ((0, 0), (0, 2), (1, 0), (1, 1))]
    assert len(Regression.of("s", (), SCHEMA).rows(d)) == 5


def test_what_cannot_be_a_regression() -> None:
    with pytest.raises(bwm.UnknownVariableError, match="did you mean"):
        Regression.of("s", ("q[t-2]",), SCHEMA)
    with pytest.raises(bwm.UnknownVariableError, match="'angel'"):
        Regression.of("s", ("angel",), SCHEMA)
    with pytest.raises(bwm.SpecError, match="different parents"):
        Regression.of("s", ("q", "q[t]"), SCHEMA)
    with pytest.raises(bwm.SpecError, match=r"'angle\[t-1\]' among the parents"):
        Regression.of("angle", ("a",), SCHEMA)
    d = data()
    blank = bwm.Trajectories(
        SCHEMA,
        state=torch.full((1, 2, 3), float("nan")).double(),
        action=torch.zeros(1, 1, 2).double(),
        context=[[0.0]],
        allow_missing=True,
    )
    assert d.schema == blank.schema
    with pytest.raises(bwm.DataError, match="s: expected at least one step with it and its parents recorded"):
        Regression.of("s", ("q",), SCHEMA).rows(blank)


def test_points_keep_their_world_wherever_they_lie() -> None:
    regression = Regression.of("s", ("q", "s[t-1]"), SCHEMA)
    structure = bwm.structures.Linear(regression.schema, c=0.5)
    prior = bwm.KnownDynamics(structure=structure, noise=0.1)
    worlds = prior.draw(4, generator=torch.Generator().manual_seed(0))
    drawn = DrawnRegression(regression, worlds)
    g = torch.Generator().manual_seed(1)
    q, s = (torch.randn(4, 3, 5, generator=g).double() for _ in range(2))
    a, b = (worlds.parameters[k].view(4, 1, 1) for k in ("A", "B"))
    mean, scale = drawn((q, s), q.shape, None)
    torch.testing.assert_close(mean, a * s + b * q + 0.5)
    assert float((scale - 0.1).abs().max()) < 1e-12
    # a number for all, and a further axis in front
    more = torch.randn(7, 4, 3, 5, generator=g).double()
    mean, _ = drawn((more, torch.tensor(2.0)), q.shape, None)
    torch.testing.assert_close(mean, a * 2.0 + b * more + 0.5)
    index = torch.randint(4, (2, 9), generator=g)
    flat = torch.randn(2, 9, generator=g).double()
    mean, scale = drawn((flat, flat), index.shape, index.double())
    torch.testing.assert_close(mean, (a.flatten()[index] + b.flatten()[index]) * flat + 0.5)
    assert scale.shape == mean.shape
