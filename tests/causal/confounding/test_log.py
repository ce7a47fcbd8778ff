"""Logs as the model of outcomes sees them."""

from dataclasses import replace

import pytest
import torch

import bayeswm as bwm
from bayeswm.base import SpecError, UnknownVariableError
from bayeswm.causal import Adjusted, FrontDoor, Instrumented, Unconfounded
from bayeswm.causal.confounding.log import Recipe, with_context
from tests.causal.confounding.logs import schema


def padded() -> bwm.Trajectories:
    """Two episodes of different length with two recorded columns."""
    states = [torch.arange(4.0).view(4, 1), torch.arange(2.0).view(2, 1)]
    actions = [torch.ones(3, 1), torch.ones(1, 1)]
    context = [torch.tensor([[1.0, 2.0]] * 3), torch.tensor([[3.0, 4.0]])]
    return bwm.Trajectories(schema("e", "m"), state=states, action=actions, context=context)


def test_columns_are_found_by_name():
    found = with_context(padded(), schema("m"))
    assert found.schema.context.names == ("m",)
    assert found.context[0, :, 0].tolist() == [2.0, 2.0, 2.0]
    with pytest.raises(UnknownVariableError, match="x"):
        with_context(padded(), schema("x"))


def test_recorded_causes_are_context():
    recipe = Recipe(Adjusted(("e",)), schema(), schema("e", "m"))
    found = recipe.outcome_log(padded())
    assert found.schema == recipe.inner == schema("e")
    assert found.step_context()[0, :, 0].tolist() == [1.0, 1.0, 1.0]
    assert bool(found.step_context()[1, 1:].isnan().all())


def test_behind_a_front_door_the_mediator_acts():
    recipe = Recipe(FrontDoor(("m",)), schema(), schema("e", "m"))
    found = recipe.outcome_log(padded())
    assert found.schema.action.names == ("m",)
    assert found.schema.context.names == ("a_logged",)
    assert found.action[0, :, 0].tolist() == [2.0, 2.0, 2.0]
    assert found.step_context()[0, :, 0].tolist() == [1.0, 1.0, 1.0]


def test_without_causes_the_log_only_loses_columns():
    found = Recipe(Unconfounded(), schema(), schema("e", "m")).outcome_log(padded())
    assert found.schema == schema()


def test_a_control_makes_the_column():
    control = torch.tensor([[0.5, 2.0, 1.0, -1.0]])
    recipe = Recipe(Instrumented(("e",), ("a",)), schema(), schema("e", "m"), control=control)
    found = recipe.outcome_log(padded()).step_context()
    assert found[0, :, 0].tolist() == [0.5, 2.5, 4.5]  # 0.5 + 2 s + a - e
    with pytest.raises(SpecError, match="first stage"):
        replace(recipe, control=None).outcome_log(padded())


def test_causes_are_real_numbers():
    angle = bwm.Schema(
        state=[bwm.Variable("s")],
        action=[bwm.Variable("a")],
        context=[bwm.Variable("e", kind="angle")],
        time_step=1.0,
    )
    with pytest.raises(SpecError, match="e: expected a real variable"):
        Recipe(Adjusted(("e",)), schema(), angle).check()
    turned = bwm.Schema(
        state=[bwm.Variable("s")],
        action=[bwm.Variable("a", kind="angle")],
        context=[bwm.Variable("m")],
        time_step=1.0,
    )
    with pytest.raises(SpecError, match="a: expected a real variable"):
        Recipe(FrontDoor(("m",)), turned, turned).check()
    Recipe(Unconfounded(), turned, turned).check()
