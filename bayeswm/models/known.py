"""The system itself as a model, or, with uncertain parameters, the prior over systems."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Self, override

import torch
from torch import Tensor
from torch.distributions import Normal

from bayeswm.base.errors import SpecError, UnknownVariableError
from bayeswm.base.model import DynamicsModel
from bayeswm.base.saving import plain
from bayeswm.base.schema import Schema
from bayeswm.base.structure import Structure
from bayeswm.base.trajectories import Trajectories
from bayeswm.base.worlds import StructureWorlds, Worlds
from bayeswm.inference.filtering import Filter
from bayeswm.models.sensed_worlds import SensedWorlds
from bayeswm.models.sensing import Sensing, SensorNoise

NoiseScale = float | Sequence[float] | Mapping[str, float] | Tensor


class KnownDynamics(DynamicsModel):
    """A structure taken as the truth: one world, nothing to learn.

    Where parameters of the structure are laws, worlds are draws from them: the prior before data.

    Parameters
    ----------
    structure : Structure
        With a schema.
    noise : float, sequence of float, or mapping of str to float, optional
        Standard deviation of the process noise, for all columns of the state, for each, or by name (0 elsewhere), in
        the variables' units; 0 is no noise. By default the structure's own, or none where it says nothing.
    sensor_noise : float, sequence of float, or mapping of str to float, optional
        Standard deviation of the sensors' noise: recorded values are then measurements, and the state is hidden. For
        all columns, for each, or by name, where columns that are not named are not measured at all. By default the
        state is measured as it is.
    belief : mapping of str to Normal, optional
        With sensor noise: what is known of the state at the start of an episode, by column. Needed for columns that are
        not measured; the others start at their first measurement.
    filtering : bayeswm.inference.Unscented, LinearGaussian or ParticleFilter, optional
        With sensor noise: how beliefs are moved; exact for a linear structure, unscented for others.
    dtype : torch.dtype
        Number format.

    Raises
    ------
    SpecError, UnknownVariableError
        If the structure has no schema, or the noise or belief does not fit it.

    Examples
    --------
    >>> from bayeswm.structures import Pendulum
    >>> truth = KnownDynamics(structure=Pendulum.gymnasium(), noise={"velocity": 0.05})
    >>> truth.draw(1).noise_size
    1

    An encoder reports the angle to 0.01 rad; the velocity is not measured.

    >>> from torch.distributions import Normal
    >>> seen = KnownDynamics(
    ...     structure=Pendulum(), noise=0.01, sensor_noise={"angle": 0.01}, belief={"velocity": Normal(0.0, 3.0)}
    ... )
    >>> seen.predictive(torch.zeros(2), torch.zeros(1), of="measurement", generator=torch.Generator()).variables.names
    ('angle',)
    """

    def __init__(
        self,
        *,
        structure: Structure,
        noise: NoiseScale | None = None,
        sensor_noise: SensorNoise | None = None,
        belief: Mapping[str, Normal] | None = None,
        filtering: Filter | None = None,
        dtype: torch.dtype = torch.float64,
    ) -> None:
        if structure.schema is None:
            raise SpecError(f"expected a structure with a schema, got {structure.name}, which learns its variables")
        self.structure = structure
        self.dtype = dtype
        self.noise = None if noise is None else _scales(noise, structure.schema)
        self.sensing: Sensing | None = None
        if sensor_noise is not None:
            self.sensing = Sensing.of(structure, sensor_noise, belief=belief, filtering=filtering)
        elif belief is not None or filtering is not None:
            raise SpecError("expected belief= and filtering= together with sensor_noise=, got them alone")

    @property
    @override
    def schema(self) -> Schema:
        if self.sensing is not None:
            return self.sensing.schema
        schema = self.structure.schema
        if schema is None:  # the constructor makes sure that it is there
            raise SpecError("expected a structure with a schema")
        return schema

    @property
    def uncertain(self) -> bool:
        """Whether any parameter is a law."""
        return any(p.uncertain for p in self.structure.parameters().values())

    @override
    def fit(self, trajectories: Trajectories, *, seed: int | None = None, progress: bool = True) -> Self:
        """Return the model itself: nothing is learned, but the variables must fit."""
        self.structure.bind(trajectories.schema)
        return self

    def draw(self, worlds: int, *, generator: torch.Generator | None = None) -> StructureWorlds | SensedWorlds:
        """Return the system, or that many systems drawn from the laws of its parameters."""
        dynamics = self._dynamics(worlds, generator)
        return dynamics if self.sensing is None else self.sensing.worlds(dynamics)

    @override
    def prior(self, worlds: int, *, generator: torch.Generator) -> Worlds:
        return self.draw(worlds, generator=generator)

    def _dynamics(self, worlds: int, generator: torch.Generator | None) -> StructureWorlds:
        if worlds < 1:
            raise SpecError(f"expected worlds >= 1, got {worlds}")
        count = worlds if self.uncertain else 1
        parameters = self.structure.sample(count, generator, self.dtype)
        noise = self.noise
        if noise is None:
            if self._structure_has_noise(parameters):
                equal = torch.zeros(count, dtype=torch.float64)
                exact = not self.uncertain
                return StructureWorlds(self.structure, self.schema, parameters, log_weight=equal, exhaustive=exact)
            noise = (0.0,) * self.schema.state.size
        scale = torch.tensor(noise, dtype=self.dtype)
        parameters["process_noise"] = scale.expand(count, -1).clone()
        noisy = tuple(i for i, s in enumerate(noise) if s > 0)
        return StructureWorlds(self.structure, self.schema, parameters, exhaustive=not self.uncertain, noisy=noisy)

    def _structure_has_noise(self, parameters: Mapping[str, Tensor]) -> bool:
        one = {k: v[0] for k, v in parameters.items()}
        blank = (
            torch.zeros(g.size, dtype=self.dtype) for g in (self.schema.state, self.schema.action, self.schema.context)
        )
        state, action, context = blank
        return self.structure.transition(one, state, action, context, 0)[1] is not None

    @override
    def condition(self, trajectories: Trajectories, *, in_training: bool = False) -> DynamicsModel:
        """Return the model itself: a known system learns nothing.

        Raises
        ------
        SpecError
            If parameters are uncertain: their posterior needs an inference method.
        """
        if in_training or not self.uncertain:
            return self
        raise SpecError("expected known parameters; to learn uncertain ones, fit a Bayesian model of this structure")

    @override
    def state_dict(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        noise = None if self.noise is None else list(self.noise)
        sensing = None if self.sensing is None else self.sensing.config()
        return plain({"noise": noise, "sensing": sensing, "dtype": str(self.dtype).removeprefix("torch.")}), {}

    @classmethod
    @override
    def from_state(
        cls, config: Mapping[str, Any], tensors: Mapping[str, Tensor], structure: Structure | None
    ) -> KnownDynamics:
        if structure is None:
            raise SpecError("expected a structure in the file, got none")
        dtype = getattr(torch, config["dtype"], None)
        if not isinstance(dtype, torch.dtype):
            raise SpecError(f"expected the name of a number format, got {config['dtype']!r}")
        model = cls(structure=structure, noise=config["noise"], dtype=dtype)
        if config.get("sensing") is not None:
            model.sensing = Sensing.from_config(structure, config["sensing"])
        return model


def _scales(noise: NoiseScale, schema: Schema) -> tuple[float, ...]:
    columns = schema.state.columns
    if isinstance(noise, Mapping):
        for name in noise:
            if name not in columns:
                raise UnknownVariableError.of(name, columns)
        values = [float(noise.get(name, 0.0)) for name in columns]
    else:
        given = torch.as_tensor(noise, dtype=torch.float64)
        values = given.expand(len(columns)).tolist() if given.ndim == 0 else given.flatten().tolist()
        if len(values) != len(columns):
            raise SpecError(f"expected {len(columns)} noise scales for {columns}, got {len(values)}")
    if any(not v >= 0 or v == float("inf") for v in values):
        raise SpecError(f"expected noise scales >= 0, got {values}")
    return tuple(values)
