"""The statistical model of Bayesian dynamics: which parameters have which laws, and how data depend on them."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution, HalfNormal

from bayeswm.base.errors import DataWarning, SpecError
from bayeswm.base.one_step import log_prob_by_column
from bayeswm.base.schema import Schema
from bayeswm.base.structure import Structure
from bayeswm.base.trajectories import Trajectories, Transitions
from bayeswm.base.worlds import StructureWorlds
from bayeswm.inference.joint import Joint
from bayeswm.inference.likelihoods import GaussianLikelihood, Likelihood

NoiseLaw = float | Distribution
NOISE = "process_noise"

# the noise never falls below this share of the data's own steps: where they are noise-free the density has no bound
_NOISE_FLOOR = 1e-5


@dataclass(frozen=True)
class Specification:
    """Laws of what is inferred, values of what is known, and the likelihood that joins them to data.

    Attributes
    ----------
    structure : Structure
        Bound to variables.
    likelihood : Likelihood
        Of one step around the structure's mean.
    noise : mapping of str to tuple of (float or Distribution, float)
        Of each column of the state: the standard deviation of its process noise or its law, and what is added to it;
        empty where the structure predicts its noise.
    laws : mapping of str to Distribution
        Of every parameter that is inferred; the noise of a column is ``process_noise.<column>``.
    known : mapping of str to Tensor
        Values of the other parameters, without an axis for worlds.
    """

    structure: Structure
    likelihood: Likelihood
    noise: Mapping[str, tuple[NoiseLaw, float]]
    laws: Mapping[str, Distribution]
    known: Mapping[str, Tensor]

    @classmethod
    def of(
        cls, structure: Structure, data: Transitions, *, noise: Mapping[str, NoiseLaw], likelihood: Likelihood
    ) -> Specification:
        """Take scales from training data.

        Parameters
        ----------
        structure : Structure
            Bound to the data's variables.
        data : Transitions
            In float64.
        noise : mapping of str to float or Distribution
            What is said of the noise of some columns; the others get the default law unless the structure has noise.
        likelihood : Likelihood
            Of one step.

        Warns
        -----
        DataWarning
            For a column that never changes.
        """
        parameters = structure.parameters()
        values = {k: _central(p.value)[None] for k, p in parameters.items()}
        values = {k: v[0] for k, v in structure.standardise(values, data).items()}
        columns = {} if not noise and _own_noise(structure, values) else _noise(schema_of(structure), data, noise)
        known = {k: v for k, v in values.items() if not parameters[k].uncertain}
        return cls.restored(structure, data, columns=columns, likelihood=likelihood, known=known)

    @classmethod
    def restored(
        cls,
        structure: Structure,
        data: Transitions,
        *,
        columns: Mapping[str, tuple[NoiseLaw, float]],
        likelihood: Likelihood,
        known: Mapping[str, Tensor],
    ) -> Specification:
        """Return the specification with these scales instead of those of the data."""
        laws = {k: p.value for k, p in structure.parameters().items() if isinstance(p.value, Distribution)}
        laws |= {f"{NOISE}.{k}": law for k, (law, _) in columns.items() if isinstance(law, Distribution)}
        added = likelihood.parameters(schema_of(structure), data)
        laws |= {k: v for k, v in added.items() if isinstance(v, Distribution)}
        return cls(
            structure, likelihood, columns, laws, {k: v for k, v in added.items() if isinstance(v, Tensor)} | {**known}
        )

    @property
    def schema(self) -> Schema:
        """Variables."""
        return schema_of(self.structure)

    def parameters(self, values: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return what worlds need, (W, ...), from what is inferred: columns' noise as one, known values beside."""
        first = next(iter(values.values()))
        found = {k: v for k, v in values.items() if not k.startswith(f"{NOISE}.")}
        if self.noise:
            columns = [
                values[f"{NOISE}.{k}"] + floor if isinstance(law, Distribution) else first.new_full((len(first),), law)
                for k, (law, floor) in self.noise.items()
            ]
            found[NOISE] = torch.stack(columns, -1)
        return {k: v.expand(len(first), *v.shape) for k, v in self.known.items()} | found

    def worlds(self, values: Mapping[str, Tensor]) -> StructureWorlds:
        """Return worlds of inferred parameters (W, ...)."""
        law = None if isinstance(self.likelihood, GaussianLikelihood) else self._law
        return StructureWorlds(self.structure, self.schema, self.parameters(values), exhaustive=False, law=law)

    def joint(self, trajectories: Trajectories) -> Joint:
        """Return the joint density of the parameters and all steps of the trajectories; a row is one transition."""
        data = transitions(trajectories)

        def predict(values: Mapping[str, Tensor], rows: Tensor | None) -> tuple[Tensor, Tensor]:
            mean, scale, *_ = self._step(values, data, rows)
            return mean[:, 0], scale.expand(mean.shape)[:, 0]

        def log_likelihood(values: Mapping[str, Tensor], rows: Tensor | None) -> Tensor:
            mean, scale, parameters, inputs = self._step(values, data, rows)
            law = self.likelihood.law(mean, scale, schema=self.schema, parameters=parameters, inputs=inputs)
            return law.log_prob(data.next_state if rows is None else data.next_state[rows])[:, 0]

        exact = isinstance(self.likelihood, GaussianLikelihood)
        columns = list(self.noise)
        return Joint(
            self.laws,
            log_likelihood,
            terms=len(data.state),
            predict=predict if exact else None,
            target=data.next_state if exact else None,
            noise={f"{NOISE}.{k}": (columns.index(k), self.noise[k][1]) for k in columns},
        )

    def _step(
        self, values: Mapping[str, Tensor], data: Transitions, rows: Tensor | None
    ) -> tuple[Tensor, Tensor, dict[str, Tensor], tuple[Tensor, Tensor, Tensor]]:
        part = data if rows is None else Transitions(*(v[rows] for v in data))
        parameters = self.parameters(values)
        own = {k: parameters[k] for k in self.structure.parameters()}
        inputs = (part.state[None, None], part.action, part.context)
        mean, scale = self.structure.batched(own, *inputs, part.step)
        if NOISE in parameters:
            scale = parameters[NOISE][:, None, None]
        if scale is None:  # the constructor of the model makes sure that it is there
            raise SpecError(f"expected noise from {self.structure.name} or the model, got none")
        return mean, scale, parameters, inputs

    def _law(self, mean: Tensor, scale: Tensor, **given: Any) -> Any:
        return self.likelihood.law(mean, scale, schema=self.schema, **given)

    def pointwise(self, values: Mapping[str, Tensor], trajectories: Trajectories) -> dict[str, Tensor]:
        """Return the log likelihood of each part of the data, (W, n) by name: of each column of each transition."""
        return log_prob_by_column(self.worlds(values), transitions(trajectories))


def schema_of(structure: Structure) -> Schema:
    """Return the variables of a bound structure.

    Raises
    ------
    SpecError
        If it takes those of the data and has not seen any.
    """
    if structure.schema is None:
        raise SpecError(f"expected a structure with a schema, got {structure.name}, which learns its variables: fit it")
    return structure.schema


def transitions(trajectories: Trajectories) -> Transitions:
    """Return all steps in float64 on the CPU."""
    on_cpu = trajectories.to(torch.device("cpu"))
    return Transitions(*(v.double() if v.is_floating_point() else v for v in on_cpu.transitions()))


def _central(value: float | Tensor | Distribution) -> Tensor:
    """Return a value, or of a law its mean or, where it has none, its value at 0 in unconstrained coordinates."""
    if not isinstance(value, Distribution):
        return torch.as_tensor(value, dtype=torch.float64)
    try:
        mean = value.mean.double()
    except NotImplementedError:
        mean = torch.full(value.batch_shape + value.event_shape, torch.nan)
    if bool(mean.isfinite().all()):
        return mean
    return torch.distributions.biject_to(value.support)(torch.zeros(mean.shape, dtype=torch.float64))


def _own_noise(structure: Structure, values: Mapping[str, Tensor]) -> bool:
    """Whether the structure predicts its noise itself."""
    schema = schema_of(structure)
    groups = (schema.state, schema.action, schema.context)
    state, action, context = (torch.zeros(g.size, dtype=torch.float64) for g in groups)
    return structure.transition(values, state, action, context, 0)[1] is not None


def _noise(schema: Schema, data: Transitions, named: Mapping[str, NoiseLaw]) -> dict[str, tuple[NoiseLaw, float]]:
    size = (data.next_state - data.state).square().mean(0).sqrt().tolist()
    found: dict[str, tuple[NoiseLaw, float]] = {}
    for name, s in zip(schema.state.columns, size, strict=True):
        if name in named:
            found[name] = (named[name], 0.0)
            continue
        if s == 0:
            warnings.warn(f"{name} never changes: its noise has the prior of scale 1", DataWarning, stacklevel=4)
        s = s or 1.0
        found[name] = (HalfNormal(torch.tensor(s, dtype=torch.float64)), _NOISE_FLOOR * s)
    return found
