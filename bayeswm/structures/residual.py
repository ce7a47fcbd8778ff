"""Known physics with a learned correction."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, override

import torch
from torch import Tensor

from bayeswm.base.errors import SpecError
from bayeswm.base.objective import Objective
from bayeswm.base.schema import Schema, Variable
from bayeswm.base.structure import Parameter, Parameters, Structure
from bayeswm.base.trajectories import Transitions


class Residual(Structure):
    """The step of a known structure, and to it the change of state that a learned one adds.

    The next state is ``known(state, action) + (learned(state, action) - state)``, with angles and rotations added in
    their own way. Parameters are named ``known.<name>`` and ``learned.<name>``. The noise is the learned part's, or the
    known part's where that says nothing.

    Gradient training leaves the numbers of the known part as they are; its laws are learned along with the correction,
    each member of an ensemble beginning from a draw. For inference both parts may have laws.

    Parameters
    ----------
    known : Structure
        The physics. It says what the variables are.
    learned : Structure
        The correction, such as ``MLP``. One without variables takes those of the known part, without their bounds,
        which limit the state and not a correction of it.

    Raises
    ------
    SpecError
        If the known part has no schema, or the learned one has another.

    Examples
    --------
    >>> from bayeswm.structures import MLP, Pendulum
    >>> model = Residual(Pendulum(gravity=7.0), MLP(hidden=(16,)))
    >>> sorted(model.parameters())[:3]
    ['known.damping', 'known.friction', 'known.gravity']
    """

    def __init__(self, known: Structure, learned: Structure) -> None:
        if known.schema is None:
            raise SpecError(f"expected known physics with a schema, got {known.name}, which learns its variables")
        self._schema = known.schema
        self.known, self.learned = known, learned.bind(_unbounded(known.schema))

    @property
    @override
    def schema(self) -> Schema:
        return self._schema

    @override
    def parameters(self) -> dict[str, Parameter]:
        known = {k: replace(p, trained=p.trained and p.uncertain) for k, p in self.known.parameters().items()}
        return {**_named("known", known), **_named("learned", self.learned.parameters())}

    @override
    def layers(self) -> dict[str, tuple[tuple[int, int], ...]]:
        parts = {"known": self.known, "learned": self.learned}
        return {f"{part}.{k}": v for part, structure in parts.items() for k, v in structure.layers().items()}

    @override
    def transition(
        self, parameters: Parameters, state: Tensor, action: Tensor, context: Tensor, step: int | Tensor
    ) -> tuple[Tensor, Tensor | None]:
        known = self.known.transition(_part("known", parameters), state, action, context, step)
        learned = self.learned.transition(_part("learned", parameters), state, action, context, step)
        return self._sum(state, known, learned)

    @override
    def batched(
        self, parameters: Parameters, state: Tensor, action: Tensor, context: Tensor, step: int | Tensor
    ) -> tuple[Tensor, Tensor | None]:
        known = self.known.batched(_part("known", parameters), state, action, context, step)
        learned = self.learned.batched(_part("learned", parameters), state, action, context, step)
        return self._sum(state, known, learned)

    def _sum(
        self, state: Tensor, known: tuple[Tensor, Tensor | None], learned: tuple[Tensor, Tensor | None]
    ) -> tuple[Tensor, Tensor | None]:
        change = self._schema.state.difference(learned[0], state)
        return self._schema.state.add(known[0], change), known[1] if learned[1] is None else learned[1]

    @override
    def initial(self, worlds: int, generator: torch.Generator | None, dtype: torch.dtype) -> dict[str, Tensor]:
        known = self.known.initial(worlds, generator, dtype)
        return {**_named("known", known), **_named("learned", self.learned.initial(worlds, generator, dtype))}

    def defects(self, parameters: Parameters, data: Transitions) -> Transitions:
        """Return the data as the correction sees them: each next state is the state plus what the physics missed.

        Of an uncertain parameter of the physics the median over the worlds is taken.
        """
        known = {k: v.double().median(0, keepdim=True).values for k, v in _part("known", parameters).items()}
        state, action, context = (v.double() for v in data[:3])
        predicted = self.known.batched(known, state[None, None], action, context, data.step)[0][0, 0]
        variables = self._schema.state
        missed = variables.difference(data.next_state.double(), predicted)
        return data._replace(next_state=variables.add(state, missed))

    @override
    def standardise(self, parameters: Parameters, data: Transitions) -> dict[str, Tensor]:
        """Return the parameters with the learned part's scales, taken from what the physics missed."""
        learned = self.learned.standardise(_part("learned", parameters), self.defects(parameters, data))
        return {**parameters, **_named("learned", learned)}

    @override
    def objective(self, parameters: Parameters, data: Transitions) -> Objective:
        """Return the training loss: the learned part's own on the defects, where the physics is fixed."""
        learned = _part("learned", parameters)
        state, action, context = (v[:1].double() for v in data[:3])
        one = {k: v[:1].double() for k, v in learned.items()}
        silent = self.learned.batched(one, state[None, None], action, context, 0)[1] is None
        if silent or any(p.uncertain for p in self.known.parameters().values()):
            return super().objective(parameters, data)
        return _LearnedPart(self.learned.objective(learned, self.defects(parameters, data)))

    @override
    def config(self) -> dict[str, Any]:
        return {"known": self.known, "learned": self.learned}


class _LearnedPart:
    """An objective of the learned part under the names that its parameters have in the whole."""

    def __init__(self, objective: Objective) -> None:
        self.inner = objective
        self.trained = _named("learned", objective.trained)

    def gradient(self, rows: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        loss, gradients = self.inner.gradient(rows)
        return loss, _named("learned", gradients)

    def log_prob(self, rows: Tensor) -> Tensor:
        return self.inner.log_prob(rows)


def _named[V](part: str, values: dict[str, V]) -> dict[str, V]:
    return {f"{part}.{k}": v for k, v in values.items()}


def _part(part: str, values: Parameters) -> dict[str, Tensor]:
    return {k.removeprefix(f"{part}."): v for k, v in values.items() if k.startswith(f"{part}.")}


def _unbounded(schema: Schema) -> Schema:
    return replace(schema, state=[Variable(v.name, unit=v.unit, kind=v.kind) for v in schema.state])
