"""A model whose forecasts are mapped: what recalibration returns."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Self, override

import torch
from torch import Tensor

from bayeswm.base.errors import SpecError
from bayeswm.base.laws import Law
from bayeswm.base.model import DynamicsModel
from bayeswm.base.predictive import Predictive
from bayeswm.base.random import standard_normal
from bayeswm.base.schema import Schema
from bayeswm.base.trajectories import Trajectories
from bayeswm.base.worlds import Worlds
from bayeswm.base.wrapped import WrappedWorlds
from bayeswm.diagnostics.maps import OutcomeMap

if TYPE_CHECKING:
    import xarray as xr

    from bayeswm.base.structure import Structure


class RecalibratedWorlds(WrappedWorlds):
    """Worlds whose finished rollouts are mapped; step by step they are those of the model inside.

    Parameters
    ----------
    inner : Worlds
        Of the model inside.
    outcome_map : OutcomeMap
        What :meth:`finish` applies.
    """

    def __init__(self, inner: Worlds, outcome_map: OutcomeMap) -> None:
        super().__init__(inner)
        self.outcome_map = outcome_map

    @override
    def _around(self, inner: Worlds) -> Self:
        return type(self)(inner, self.outcome_map)

    @override
    def finish(self, predictive: Predictive) -> Predictive:
        return self.outcome_map(super().finish(predictive))

    @override
    def beginning(self, trajectory: Trajectories) -> Law:
        """Refuse: a replay of noise that was found is no forecast, and the map would move and stretch it.

        Raises
        ------
        SpecError
            Always.
        """
        raise SpecError(
            f"expected worlds whose forecasts are not mapped, to replay {len(trajectory)} hidden episode(s), "
            "got recalibrated ones: their map is of forecasts; ask .model, the model inside"
        )

    @override
    def log_likelihood(self, carry: Any, measurements: Tensor, actions: Tensor, context: Tensor) -> Tensor:
        return self.inner.log_likelihood(carry, measurements, actions, context)


class RecalibratedModel(DynamicsModel):
    """A fitted model with a map of its outcomes by horizon and variable; made by :func:`recalibrate`.

    Rollouts and predictives are those of the model inside, mapped: every particle keeps its world and its rank, so that
    events over trajectories, tubes and planners see the change. They have no density. What happens on the way is not
    mapped: a policy sees the states of the model inside, and ``transition``, ``filter`` and ``log_likelihood`` of the
    worlds are its own. Beyond the steps of the fit it refuses to answer: how far off a model is changes with the
    horizon, so that a map carried on would be a guess.

    Parameters
    ----------
    model : DynamicsModel
        A fitted model.
    outcome_map : OutcomeMap
        The fitted map.

    Examples
    --------
    >>> import bayeswm as bwm
    >>> from bayeswm.diagnostics.maps import Stretch
    >>> model = bwm.KnownDynamics(structure=bwm.structures.Pendulum.gymnasium(), noise=0.01)
    >>> wide = RecalibratedModel(model, Stretch(("angle", "velocity"), {"factor": torch.full((5, 2), 2.0)}))
    >>> wide.predictive(torch.zeros(2), torch.zeros(1)).stddev
    tensor([[0.0200, 0.0200]], dtype=torch.float64)
    """

    def __init__(self, model: DynamicsModel, outcome_map: OutcomeMap) -> None:
        self.model, self.outcome_map = model, outcome_map

    def __repr__(self) -> str:
        return f"RecalibratedModel({self.model!r}, {type(self.outcome_map).__name__}, {self.outcome_map.horizon} steps)"

    @property
    @override
    def schema(self) -> Schema:
        return self.model.schema

    @override
    def fit(self, trajectories: Trajectories, *, seed: int | None = None, progress: bool = True) -> Self:
        """Refuse: after a new fit of the model inside, the map would no longer be its own.

        Raises
        ------
        SpecError
            Always.
        """
        raise SpecError("expected a model to fit, got a recalibrated one; fit .model and recalibrate it again")

    @override
    def draw(self, worlds: int, *, generator: torch.Generator | None = None) -> RecalibratedWorlds:
        """Draw worlds whose rollouts are mapped."""
        return RecalibratedWorlds(self.model.draw(worlds, generator=generator), self.outcome_map)

    @override
    def predictive(
        self,
        state: Tensor | None,
        action: Tensor,
        *,
        context: Tensor | None = None,
        history: Trajectories | None = None,
        of: str = "state",
        worlds: int = 64,
        particles: int = 100,
        generator: torch.Generator | None = None,
    ) -> Predictive:
        """Return the law of the next state, mapped as the first step of a rollout.

        Where the map goes by ranks, the answer is one of particles: ``particles`` in each world from the same noise for
        all rows, for which the generator is needed.

        Raises
        ------
        SpecError
            Also for ``of="function"`` where the map goes by ranks, which know nothing of the noise.
        """
        if of == "function" and not self.outcome_map.on_laws:
            raise SpecError(
                "expected of='state' or 'measurement', since this recalibration maps outcomes by their ranks; ask "
                ".model, the model inside, for its function"
            )
        found = self.model.predictive(
            state,
            action,
            context=context,
            history=history,
            of=of,
            worlds=worlds,
            particles=particles,
            generator=generator,
        )
        if not self.outcome_map.on_laws:
            found = _sampled(found, particles, generator)
        return self.outcome_map(found)

    @override
    def to_datatree(
        self,
        trajectories: Trajectories | None = None,
        *,
        prior: bool = False,
        draws: int | None = None,
        generator: torch.Generator | None = None,
    ) -> xr.DataTree:
        """Return the posterior of the model inside, which recalibration leaves as it is."""
        return self.model.to_datatree(trajectories, prior=prior, draws=draws, generator=generator)

    @override
    def state_dict(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        kind = type(self.outcome_map).__name__
        return {"model": self.model, "map": kind, "columns": list(self.outcome_map.columns)}, self.outcome_map.tensors

    @classmethod
    @override
    def from_state(
        cls, config: Mapping[str, Any], tensors: Mapping[str, Tensor], structure: Structure | None
    ) -> RecalibratedModel:
        return cls(config["model"], OutcomeMap.registry[config["map"]](config["columns"], tensors))


def _sampled(predictive: Predictive, particles: int, generator: torch.Generator | None) -> Predictive:
    """Return one step with particles: those that it has, or each law pushed by noise that all rows share."""
    law = predictive.laws[0]
    if not law.noise_size:
        state = law.push(law.mean.new_zeros(*law.mean.shape[:-1], 0))
    else:
        if generator is None:
            raise SpecError(
                "expected generator=torch.Generator, since this recalibration maps particles, which must be drawn"
            )
        count = law.mean.shape[1] if law.mean.shape[1] > 1 else particles
        worlds, batch = law.mean.shape[0], predictive.batch_shape
        shape = (worlds, count, *(1,) * len(batch), law.noise_size)
        noise = standard_normal(shape, generator, dtype=law.mean.dtype, device=law.mean.device)
        state = law.push(noise.expand(worlds, count, *batch, law.noise_size))
    state = state if predictive.view is None else predictive.view(state)
    return predictive.mapped(predictive.laws, particles=state[..., None, :])
