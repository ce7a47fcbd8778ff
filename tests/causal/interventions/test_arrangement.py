import pytest
import torch
from torch.distributions import Normal, Uniform

import bayeswm as bwm
from bayeswm.causal.interventions.arrangement import Arrangement, group_of
from tests.causal.reference_models import c1, cart


def test_interventions_are_sorted() -> None:
    done = (bwm.do(force=Normal(0.0, 1.0), v=1.0), bwm.do({"v": Normal(0.0, 1.0), "noise.x": 0.0}, steps=slice(0, 2)))
    plan = Arrangement(cart().draw(1), done)
    assert {k: [a.name for a in v] for k, v in plan.by_group.items()} == {
        "state": ["v", "v"],
        "action": ["force"],
        "context": [],
        "noise": ["noise.x"],
        "parameter": [],
    }
    assert [a.name for a in plan.carried] == ["force", "v"]
    assert (len(plan.first), len(plan.at_start), plan.at_boundary) == (2, 1, ("v",))
    assert (plan.remembers, plan.sliced) == (True, False)


def test_nothing_is_set_at_the_start_of_a_static_slice() -> None:
    plan = Arrangement(c1().draw(1), (bwm.do(X=1.0), bwm.do(Y=Normal(0.0, 1.0))))
    assert (plan.first, plan.at_boundary, plan.extra, plan.sliced) == ((), (), 1, True)


def test_laws_of_noise_are_drawn_ahead_where_they_have_no_coordinate() -> None:
    def carried(worlds: bwm.Worlds, *, replayed: bool) -> list[str]:
        name = worlds.schema.state.columns[0]
        done = [bwm.do({f"noise.{name}": law}) for law in (Normal(0.0, 2.0), Uniform(0.0, 1.0))]
        return [type(a.value).__name__ for a in Arrangement(worlds, done, replayed=replayed).carried]

    assert carried(c1().draw(1), replayed=False) == []
    assert carried(cart().draw(1), replayed=False) == ["Uniform"]
    assert carried(cart().draw(1), replayed=True) == carried(c1().draw(1), replayed=True) == ["Normal", "Uniform"]


def test_actions_are_set_column_by_column() -> None:
    plan = Arrangement(cart().draw(1), (bwm.do({"force": 2.0}, steps=1),))
    proposed, state = torch.zeros(1, 1, 1), torch.zeros(1, 1, 3)
    for step, expected in ((0, 0.0), (1, 2.0)):
        assert plan.changed("action", proposed, state, step=step, draws={}, happened=None).item() == expected


def test_groups_of_names() -> None:
    schema = cart().schema
    names = {"v": "state", "force": "action", "wind": "context", "noise.v": "noise", "mass": "parameter"}
    assert {name: group_of(schema, name, ["mass"]) for name in names} == names
    with pytest.raises(bwm.UnknownVariableError, match="did you mean 'mass'"):
        group_of(schema, "mas", ["mass"])
    turning = bwm.Schema(state=[bwm.Variable("q", kind="rotation")], time_step=1.0)
    with pytest.raises(bwm.SpecError, match="one column"):
        group_of(turning, "q", [])
