"""Models under interventions, and how to get them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Self, overload, override

import torch
from torch import Tensor

from bayeswm.base.errors import SpecError
from bayeswm.base.model import DynamicsModel
from bayeswm.base.schema import Schema
from bayeswm.base.trajectories import Trajectories
from bayeswm.base.worlds import Worlds
from bayeswm.causal.interventions.arrangement import group_of
from bayeswm.causal.interventions.intervened import IntervenedWorlds
from bayeswm.causal.interventions.intervention import Intervention


class IntervenedModel(DynamicsModel):
    """A model whose worlds are intervened on; made by :func:`intervene`."""

    def __init__(self, model: DynamicsModel, interventions: Iterable[Intervention]) -> None:
        self.inner, self.interventions = model, tuple(interventions)

    @property
    @override
    def schema(self) -> Schema:
        return self.inner.schema

    @override
    def fit(self, trajectories: Trajectories, *, seed: int | None = None, progress: bool = True) -> Self:
        """Refuse: which data came under the interventions is not known.

        Raises
        ------
        SpecError
            Always.
        """
        raise SpecError("expected to fit the model first, and to intervene on it then")

    @override
    def draw(self, worlds: int, *, generator: torch.Generator | None = None) -> IntervenedWorlds:
        """Draw worlds from the posterior and intervene in each."""
        return IntervenedWorlds(self.inner.draw(worlds, generator=generator), self.interventions)

    @override
    def prior(self, worlds: int, *, generator: torch.Generator) -> IntervenedWorlds:
        return IntervenedWorlds(self.inner.prior(worlds, generator=generator), self.interventions)

    @override
    def condition(self, trajectories: Trajectories, *, in_training: bool = False) -> DynamicsModel:
        """Return the intervened model given trajectories of the system without the interventions."""
        return IntervenedModel(self.inner.condition(trajectories, in_training=in_training), self.interventions)

    @override
    def __repr__(self) -> str:
        return f"IntervenedModel({self.inner!r}, {', '.join(map(repr, self.interventions))})"


@overload
def intervene(model: DynamicsModel, *interventions: Intervention) -> IntervenedModel: ...
@overload
def intervene(model: Worlds, *interventions: Intervention) -> IntervenedWorlds: ...
def intervene(model: DynamicsModel | Worlds, *interventions: Intervention) -> IntervenedModel | IntervenedWorlds:
    """Return the same system, with variables set.

    The result is a model (or worlds) as any other: rollouts, propagation, planners and diagnostics take it.

    Parameters
    ----------
    model : DynamicsModel or Worlds
        A fitted model, or worlds drawn from one.
    *interventions : Intervention
        Made by :func:`do`. Several of the same variable are applied in turn, others at once; a callable sees the state
        before the interventions of its own slice.

    Returns
    -------
    IntervenedModel or IntervenedWorlds
        With the cost of the system itself and one operation more for each variable that is set. ``at_boundary`` of the
        worlds names variables of the state that are set after the step, since the system's step is one block.

    Raises
    ------
    UnknownVariableError, SpecError
        For a name that the system does not have, with the closest ones; for an intervention that it cannot take. A step
        beyond the horizon is refused at the end of a rollout.

    Examples
    --------
    >>> import bayeswm as bwm
    >>> model = bwm.KnownDynamics(structure=bwm.structures.Pendulum.gymnasium())
    >>> held = intervene(model, bwm.causal.do(velocity=0.0))
    >>> r = bwm.rollout(held, torch.tensor([0.1, 1.0]), torch.ones(3, 1))
    >>> r.mean[:, 1].tolist(), held.draw(1).at_boundary
    ([0.0, 0.0, 0.0], ('velocity',))
    """
    for one in interventions:
        if not isinstance(one, Intervention):
            raise SpecError(f"expected interventions made by do(...), got {type(one).__name__}")
    if isinstance(model, Worlds):
        if isinstance(model, IntervenedWorlds):
            return IntervenedWorlds(model.inner, (*model.interventions, *interventions), replay=model.replay)
        return IntervenedWorlds(model, interventions)
    if not isinstance(model, DynamicsModel):
        raise SpecError(f"expected a model, or worlds drawn from one, got {type(model).__name__}")
    before = model.interventions if isinstance(model, IntervenedModel) else ()
    system = model.inner if isinstance(model, IntervenedModel) else model
    names = [a.name for i in interventions for a in i.assignments]
    columns = {*model.schema.state.columns, *model.schema.action.columns, *model.schema.context.columns}
    parameters: Mapping[str, Tensor] = {}
    if any(n not in columns and n.removeprefix("noise.") not in columns for n in names):
        parameters = system.draw(1, generator=torch.Generator().manual_seed(0)).parameters
    for name in names:
        group_of(model.schema, name, parameters)
    return IntervenedModel(system, (*before, *interventions))
