"""Check that a model read from a file answers as the one that was written."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bayeswm.base.errors import CheckpointError, SpecError
from bayeswm.base.model import DynamicsModel
from bayeswm.base.saving import load, parts
from bayeswm.base.structure import Structure
from bayeswm.testing.case import WORLDS, Case, identical
from bayeswm.testing.report import Breach, NotApplicable


def saved_model_answers_alike(case: Case) -> Iterator[Breach]:
    """A saved and loaded model gives identical worlds, predictives and rollouts."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.bwm"
        try:
            case.model.save(path)
        except SpecError as error:
            raise NotApplicable(f"the model cannot be saved: {error}") from None
        try:
            model = load(path, **_own_classes(case.model))
        except (CheckpointError, SpecError) as error:
            cause = "from_state does not take what state_dict returns"
            yield Breach("a saved model can be loaded", "a model", f"{type(error).__name__}: {error}", cause)
            return
    cause = "state_dict leaves something out, or from_state does not set it"
    if type(model) is not type(case.model):
        yield Breach("a loaded model is of the same class", type(case.model).__name__, type(model).__name__, cause)
    if model.schema != case.schema:
        yield Breach("a loaded model has the same schema", repr(case.schema), repr(model.schema), cause)
        return
    old, new = (m.draw(WORLDS, generator=case.generator(3)) for m in (case.model, model))
    if len(old) != len(new) or not identical(old.log_weight, new.log_weight) or old.exhaustive != new.exhaustive:
        yield Breach("a loaded model has the same worlds and weights", repr(old), repr(new), cause)
        return
    answers = [
        ("mean", case.predictive().mean, case.predictive(model=model).mean),
        ("variance", case.predictive().variance, case.predictive(model=model).variance),
        ("rollout", case.rollout(model=case.model).particles, case.rollout(model=model).particles),
    ]
    for name, expected, got in answers:
        if not identical(got, expected):
            size = (
                f"a difference of {float((got - expected).abs().max()):.4g}"
                if got.shape == expected.shape
                else "a shape"
            )
            yield Breach(f"a loaded model gives the identical {name}", "equal numbers, bit for bit", size, cause)


def _own_classes(model: DynamicsModel) -> dict[str, Any]:
    """Return what load must be told: only classes that are not the library's, so that what is in the file is used."""
    models: list[type[DynamicsModel]] = []
    structures: list[type[Structure] | Structure] = []
    for one in _with_inner(model):
        if type(one).__name__ not in DynamicsModel.registry:
            models.append(type(one))
        structure = getattr(one, "structure", None)
        if isinstance(structure, Structure):
            foreign = [part for part in parts(structure) if part.name not in Structure.registry]
            structures += [type(part) if _described(part) else part for part in foreign]
    return {"models": models, "structures": structures}


def _with_inner(model: DynamicsModel) -> list[DynamicsModel]:
    """Return a model and those that its configuration holds, as a recalibrated one does."""
    inner = [v for v in model.state_dict()[0].values() if isinstance(v, DynamicsModel)]
    return [model, *(one for part in inner for one in _with_inner(part))]


def _described(structure: Structure) -> bool:
    return type(structure).config is not Structure.config and structure.name == type(structure).__name__
