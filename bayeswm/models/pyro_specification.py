"""Bayesian dynamics whose laws and likelihood are a Pyro model of the user's."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any, override

from torch import Tensor
from torch.distributions import Distribution

from bayeswm.base.errors import SpecError
from bayeswm.base.trajectories import Trajectories, Transitions
from bayeswm.base.worlds import Worlds
from bayeswm.inference.joint import Joint
from bayeswm.inference.pyro_guide import closest
from bayeswm.inference.pyro_model import PyroJoint
from bayeswm.models.specification import NOISE, Specification, schema_of, transitions

PyroModel = Callable[[Transitions], Any]


@dataclass(frozen=True)
class PyroSpecification(Specification):
    """A specification whose joint density is that of a Pyro model; the structure only makes the worlds.

    Attributes
    ----------
    model : callable
        Takes the data's :class:`~bayeswm.base.trajectories.Transitions` in float64.
    """

    model: PyroModel | None = None

    @classmethod
    def of(cls, model: PyroModel, plain: Specification, trajectories: Trajectories) -> PyroSpecification:
        """Return the specification of a model, its sites checked.

        Parameters
        ----------
        model : callable
            The Pyro model.
        plain : Specification
            What holds without it.
        trajectories : Trajectories
            Training data.

        Raises
        ------
        SpecError
            If a site of an uncertain parameter or of the noise is missing or has another shape, or a site has the name
            of a parameter that is known.
        """
        if plain.levels:
            raise SpecError(
                f"{next(iter(plain.levels))}: a Pyro model cannot have parameters that differ between episodes"
            )
        given = {f.name: getattr(plain, f.name) for f in fields(plain)}
        joint = cls(**given, model=model).joint(trajectories)
        _check_sites(plain, {k: tuple(v.batch_shape + v.event_shape) for k, v in joint.laws.items()})
        return cls(**{**given, "noise": {}} if NOISE in joint.laws else given, model=model)

    @override
    def joint(self, trajectories: Trajectories) -> Joint:
        if self.model is None:
            raise SpecError("expected a Pyro model, got none")
        return PyroJoint(self.model, transitions(trajectories))

    @override
    def worlds(self, values: Mapping[str, Tensor]) -> Worlds:
        """Return worlds of the structure's parameters; other sites are known of the posterior only."""
        own = {NOISE, *self.structure.parameters()}
        plain = Specification(**{f.name: getattr(self, f.name) for f in fields(Specification)})
        return plain.worlds({k: v for k, v in values.items() if k in own})


def _check_sites(plain: Specification, found: Mapping[str, tuple[int, ...]]) -> None:
    wanted = {
        k: tuple(p.value.batch_shape + p.value.event_shape)
        for k, p in plain.structure.parameters().items()
        if isinstance(p.value, Distribution)
    }
    inferred = any(isinstance(law, Distribution) for law, _ in plain.noise.values())
    if inferred or NOISE in found:
        wanted[NOISE] = (schema_of(plain.structure).state.size,)
    missing = [k for k in wanted if k not in found]
    if missing:
        unknown = [k for k in found if k not in wanted]
        said = [f"{k} is missing{closest(k, unknown)}" for k in missing]
        hint = "; or give known numbers as noise=" if NOISE in missing else ""
        raise SpecError(f"expected the Pyro model to have the sites {', '.join(wanted)}: {'; '.join(said)}{hint}")
    known = [k for k in found if k in plain.structure.parameters() and k not in wanted]
    if known:
        raise SpecError(
            f"{known[0]}: the Pyro model infers it, but it is known in {plain.structure.name}: give it a law there, or "
            "rename the site"
        )
    for name, shape in wanted.items():
        if found[name] != shape:
            raise SpecError(f"the Pyro model, {name}: expected shape {shape}, got {found[name]}")
