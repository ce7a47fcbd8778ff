import pytest
import torch

import bayeswm as bwm
from bayeswm.causal import IntervenedModel, IntervenedWorlds, intervene
from tests.causal.reference_models import c1, c3, observed


def test_models_and_worlds_are_intervened_on_alike() -> None:
    one, other = bwm.do(a=1.0), bwm.do({"a": 2.0}, steps=1)
    model = intervene(intervene(c3(), one), other)
    worlds = intervene(intervene(c3().draw(1), one), other)
    assert isinstance(model, IntervenedModel)
    assert isinstance(worlds, IntervenedWorlds)
    assert model.interventions == worlds.interventions == model.draw(1).interventions == (one, other)
    assert not isinstance(model.inner, IntervenedModel)


def test_it_is_conditioned_on_the_system_without_interventions() -> None:
    seen = bwm.Trajectories(c3().schema, state=[[[0.0], [1.0]]], action=[[[0.0]]])
    done = intervene(c3(), bwm.do(a=1.0)).condition(seen)
    assert isinstance(done, IntervenedModel)
    assert "do(a=1.0)" in repr(done)


def test_what_it_refuses() -> None:
    with pytest.raises(bwm.SpecError, match="fit the model first"):
        intervene(c3(), bwm.do(a=1.0)).fit(observed(c1(), [[0.0, 0.0, 0.0]]))
    with pytest.raises(bwm.SpecError, match="made by do"):
        intervene(c3(), {"a": 1.0})  # pyright: ignore[reportCallIssue, reportArgumentType]
    with pytest.raises(bwm.UnknownVariableError):
        intervene(c3(), bwm.do(b=1.0))
    with pytest.raises(bwm.SpecError, match="expected a model, or worlds drawn from one, got str"):
        intervene("c3", bwm.do(a=1.0))  # pyright: ignore[reportCallIssue, reportArgumentType]
    generator = torch.Generator().manual_seed(0)
    assert len(intervene(c3(), bwm.do(a=1.0)).draw(3, generator=generator)) == 1
