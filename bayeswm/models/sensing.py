"""What a model knows of its sensors: which columns they measure, how well, and what is believed before they do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor
from torch.distributions import Normal

from bayeswm.base.errors import SpecError, UnknownVariableError
from bayeswm.base.laws import Gaussian
from bayeswm.base.priors import decode, encode
from bayeswm.base.schema import Schema
from bayeswm.base.structure import Structure
from bayeswm.base.worlds import MarkovWorlds
from bayeswm.inference.filtering import Filter
from bayeswm.inference.gaussian_filter import LinearGaussian, Unscented
from bayeswm.inference.particle_filter import ParticleFilter
from bayeswm.models.sensed_worlds import SensedWorlds
from bayeswm.structures.linear import Linear

SensorNoise = float | Sequence[float] | Mapping[str, float] | Tensor


@dataclass(frozen=True, eq=False)
class Sensing:
    """Sensors of a system, as a model's ``sensor_noise=``, ``belief=`` and ``filtering=`` describe them.

    Attributes
    ----------
    schema : Schema
        The system's, with the measured columns as its observation where they are not the whole state.
    scale : tuple of float
        Standard deviation of each sensor.
    belief : Gaussian
        What is believed of the start of an episode, shape (1, 1, S); an infinite scale says nothing.
    method : Unscented, LinearGaussian or ParticleFilter
        How beliefs are moved.

    Examples
    --------
    >>> from bayeswm.structures import Pendulum
    >>> sensing = Sensing.of(Pendulum(), {"angle": 0.01}, belief={"velocity": Normal(0.0, 5.0)})
    >>> sensing.schema.measured.names, sensing.method
    (('angle',), Unscented())
    """

    schema: Schema
    scale: tuple[float, ...]
    belief: Gaussian
    method: Filter

    @classmethod
    def of(
        cls,
        structure: Structure,
        sensor_noise: SensorNoise,
        *,
        belief: Mapping[str, Normal] | None = None,
        filtering: Filter | None = None,
    ) -> Self:
        """Read what a user wrote.

        Parameters
        ----------
        structure : Structure
            With a schema; a :class:`~bayeswm.structures.Linear` one is filtered exactly.
        sensor_noise : float, sequence of float, or mapping of str to float
            For all measured columns, for each, or by name: then those that are not named are not measured. Measured
            are the columns of the schema's observation where it has one, of the state otherwise.
        belief : mapping of str to Normal, optional
            By state column; needed for those that are not measured.
        filtering : Unscented, LinearGaussian or ParticleFilter, optional
            By default what fits the structure.

        Raises
        ------
        SpecError, UnknownVariableError
            If the numbers make no sense, or names are no columns.
        """
        schema = structure.schema
        if schema is None:
            raise SpecError(f"expected a structure with a schema, got {structure.name}, which learns its variables")
        columns = schema.state.columns
        for name in schema.measured.columns:
            if name not in columns:
                raise SpecError(
                    f"expected an observation of variables of the state ({', '.join(columns)}), got {name!r}; "
                    "a sensor of something else needs worlds of your own"
                )
        scales = _scales(sensor_noise, schema.measured.columns)
        schema = with_measured(schema, tuple(scales))
        return cls(
            schema,
            tuple(scales.values()),
            start_belief(schema, {} if belief is None else belief),
            (LinearGaussian() if isinstance(structure, Linear) else Unscented()) if filtering is None else filtering,
        )

    def worlds(self, dynamics: MarkovWorlds, sensor_noise: Tensor | None = None) -> SensedWorlds:
        """Return worlds seen through the sensors; their noise (worlds, M) as given, where it differs between worlds."""
        if sensor_noise is None:
            known = torch.tensor(self.scale, dtype=dynamics.dtype, device=dynamics.device)
            sensor_noise = known.expand(len(dynamics), -1).clone()
        return SensedWorlds(
            dynamics, schema=self.schema, sensor_noise=sensor_noise, belief=self.belief, method=self.method
        )

    def named_belief(self) -> dict[str, Normal]:
        """Return what is known at the start of an episode, by column of the state."""
        law = self.belief
        pairs = zip(self.schema.state.columns, law.mean[0, 0], law.spread[0, 0], strict=True)
        return {name: Normal(m, s) for name, m, s in pairs if bool(s.isfinite())}

    def config(self) -> dict[str, Any]:
        """Return what :meth:`from_config` needs, as plain values for JSON."""
        method: dict[str, Any] = {"method": type(self.method).__name__}
        if isinstance(self.method, ParticleFilter):
            method |= {"particles": self.method.particles, "seed": self.method.seed}
        return {
            "sensor_noise": dict(zip(self.schema.measured.columns, self.scale, strict=True)),
            "belief": {name: encode(law) for name, law in self.named_belief().items()},
            "filtering": method,
        }

    @classmethod
    def from_config(cls, structure: Structure, config: Mapping[str, Any]) -> Self:
        """Rebuild the sensors from :meth:`config`.

        Raises
        ------
        SpecError
            For an unknown method.
        """
        methods: dict[str, type[Filter]] = {c.__name__: c for c in (Unscented, LinearGaussian, ParticleFilter)}
        rest = {k: v for k, v in config["filtering"].items() if k != "method"}
        name = config["filtering"]["method"]
        if name not in methods:
            raise SpecError(f"expected a filter among {', '.join(methods)}, got {name!r}")
        belief = {k: decode(v) for k, v in config["belief"].items()}
        return cls.of(structure, config["sensor_noise"], belief=belief, filtering=methods[name](**rest))


def with_measured(schema: Schema, names: tuple[str, ...]) -> Schema:
    """Return the schema with these state columns as its observation, or without one where they are the whole state.

    Examples
    --------
    >>> from bayeswm.structures import Pendulum
    >>> with_measured(Pendulum().schema, ("angle",)).observation.names
    ('angle',)
    """
    if names == schema.measured.columns:
        return schema
    return Schema(
        state=schema.state,
        action=schema.action,
        context=schema.context,
        observation=[schema.state[name] for name in names],
        reward=schema.reward,
        time_step=schema.time_step,
    )


def start_belief(schema: Schema, belief: Mapping[str, Normal]) -> Gaussian:
    """Return what is believed of the start of an episode, shape (1, 1, S); nothing of measured columns left out.

    Raises
    ------
    SpecError, UnknownVariableError
        If a law is no Normal, a name no column, or nothing is said of a column that is not measured.
    """
    columns = schema.state.columns
    mean = torch.zeros(1, 1, len(columns), dtype=torch.float64)
    scale = torch.full_like(mean, float("inf"))
    for name, law in belief.items():
        if name not in columns:
            raise UnknownVariableError.of(name, columns)
        if type(law) is not Normal or law.batch_shape:
            raise SpecError(f"expected belief={{{name!r}: Normal(mean, sd)}} of one number, got {law}")
        mean[..., columns.index(name)] = law.loc.double()
        scale[..., columns.index(name)] = law.scale.double()
    for i, name in enumerate(columns):
        if name not in schema.measured.columns and bool(scale[..., i].isinf()):
            raise SpecError(
                f"expected belief={{{name!r}: Normal(mean, sd)}}, what is known of {name!r} at the start of an "
                "episode, since no sensor measures it, got none"
            )
    return Gaussian(mean, scale)


def _scales(noise: SensorNoise, columns: tuple[str, ...]) -> dict[str, float]:
    if isinstance(noise, Mapping):
        for name in noise:
            if name not in columns:
                raise UnknownVariableError.of(name, columns)
        scales = {name: float(noise[name]) for name in columns if name in noise}
    else:
        given = torch.as_tensor(noise, dtype=torch.float64).flatten().tolist()
        given = given * len(columns) if torch.as_tensor(noise).ndim == 0 else given
        if len(given) != len(columns):
            raise SpecError(f"expected {len(columns)} scales of sensor noise for {columns}, got {len(given)}")
        scales = dict(zip(columns, given, strict=True))
    if not scales or any(not 0 < v < float("inf") for v in scales.values()):
        raise SpecError(
            f"expected scales of sensor noise > 0 of at least one column, got {scales}; leave out columns that no "
            "sensor measures"
        )
    return scales
