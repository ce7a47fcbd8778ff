"""How what came scatters around what a structure says: Gaussian, with changing spread, with heavy tails."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, override

import torch
from torch import Tensor
from torch.distributions import Distribution, Gamma, Normal

from bayeswm.base.laws import Gaussian, Law
from bayeswm.base.priors import decode, encode
from bayeswm.base.schema import Schema
from bayeswm.base.trajectories import Transitions
from bayeswm.inference.student import StudentT

Inputs = tuple[Tensor, Tensor, Tensor]


class Likelihood(ABC):
    """The law of one step around a structure's mean, for many worlds: parameters (W, ...), means (W, P, *batch, S)."""

    registry: ClassVar[dict[str, type[Likelihood]]] = {}

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if cls.__module__.startswith("bayeswm."):
            Likelihood.registry[cls.__name__] = cls

    @abstractmethod
    def parameters(self, schema: Schema, data: Transitions) -> dict[str, Tensor | Distribution]:
        """Return what the likelihood adds to the parameters: laws of what is inferred, tensors of what is known."""

    @abstractmethod
    def law(
        self, mean: Tensor, scale: Tensor, *, schema: Schema, parameters: Mapping[str, Tensor], inputs: Inputs
    ) -> Law:
        """Return the law of the next state.

        Parameters
        ----------
        mean : Tensor, shape (W, P, *batch, S)
            The structure's next state.
        scale : Tensor, broadcastable to it
            Process noise.
        schema : Schema
            Variables.
        parameters : mapping of str to Tensor, shape (W, ...)
            Those of :meth:`parameters` among others.
        inputs : tuple of Tensor
            State, action and context, for a spread that depends on them.
        """

    def config(self) -> dict[str, Any]:
        """Return the settings as plain values for JSON."""
        return {}

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Likelihood:
        """Rebuild the likelihood from :meth:`config`."""
        return cls(**{k: decode(v) for k, v in config.items()})


@dataclass(frozen=True)
class GaussianLikelihood(Likelihood):
    """Gaussian noise of constant size.

    Examples
    --------
    >>> GaussianLikelihood().config()
    {}
    """

    @override
    def parameters(self, schema: Schema, data: Transitions) -> dict[str, Tensor | Distribution]:
        return {}

    @override
    def law(
        self, mean: Tensor, scale: Tensor, *, schema: Schema, parameters: Mapping[str, Tensor], inputs: Inputs
    ) -> Law:
        return Gaussian(mean, scale)


@dataclass(frozen=True)
class StudentTLikelihood(Likelihood):
    """Noise with heavy tails: outliers do not pull the parameters, and are expected again.

    The process noise is the scale of Student's t; each column of the state has degrees of freedom of its own to infer.

    Parameters
    ----------
    degrees_of_freedom : Distribution, optional
        Law of nu > 0; by default Gamma(2, 0.1), the usual weak choice (Juarez & Steel 2010).

    Examples
    --------
    >>> from bayeswm.structures import Pendulum
    >>> sorted(StudentTLikelihood().parameters(Pendulum().schema, None))
    ['degrees_of_freedom']
    """

    degrees_of_freedom: Distribution | None = None

    @override
    def parameters(self, schema: Schema, data: Transitions) -> dict[str, Tensor | Distribution]:
        two = torch.tensor(2.0, dtype=torch.float64)
        law = Gamma(two, 0.05 * two) if self.degrees_of_freedom is None else self.degrees_of_freedom
        return {"degrees_of_freedom": law.expand(torch.Size((schema.state.size,)))}

    @override
    def law(
        self, mean: Tensor, scale: Tensor, *, schema: Schema, parameters: Mapping[str, Tensor], inputs: Inputs
    ) -> Law:
        return StudentT(mean, scale, _along(parameters["degrees_of_freedom"], mean))

    @override
    def config(self) -> dict[str, Any]:
        return {"degrees_of_freedom": encode(self.degrees_of_freedom)}


@dataclass(frozen=True)
class HeteroscedasticLikelihood(Likelihood):
    """Gaussian noise whose size depends on state, action and context.

    The logarithm of the standard deviation is that of the process noise plus a linear function of the standardised
    inputs (angles as sine and cosine).

    Parameters
    ----------
    slope : Distribution, optional
        Law of each coefficient; Normal(0, 0.5) by default: one standard deviation of an input changes the noise by
        a factor of about 1.6.

    Examples
    --------
    >>> HeteroscedasticLikelihood().config()
    {'slope': None}
    """

    slope: Distribution | None = None

    @override
    def parameters(self, schema: Schema, data: Transitions) -> dict[str, Tensor | Distribution]:
        x = _features(schema, (data.state, data.action, data.context))
        spread = x.std(0, correction=0)
        zero = torch.zeros((), dtype=torch.float64)
        law = Normal(zero, zero + 0.5) if self.slope is None else self.slope
        return {
            "noise_slope": law.expand(torch.Size((schema.state.size, x.shape[-1]))),
            "noise_center": x.mean(0),
            "noise_spread": torch.where(spread > 0, spread, 1.0),
        }

    @override
    def law(
        self, mean: Tensor, scale: Tensor, *, schema: Schema, parameters: Mapping[str, Tensor], inputs: Inputs
    ) -> Law:
        x = _features(schema, inputs)
        x = (x - _along(parameters["noise_center"], mean)) / _along(parameters["noise_spread"], mean)
        slope = _along(parameters["noise_slope"], mean)
        return Gaussian(mean, scale * (slope @ x[..., None])[..., 0].exp())

    @override
    def config(self) -> dict[str, Any]:
        return {"slope": encode(self.slope)}


def _along(values: Tensor, mean: Tensor) -> Tensor:
    """Return parameters (W, ...) with axes for the particles and the batch of a mean (W, P, *batch, S)."""
    return values.view(len(values), *(1,) * (mean.ndim - 2), *values.shape[1:])


def _features(schema: Schema, inputs: Inputs) -> Tensor:
    groups = (schema.state, schema.action, schema.context)
    parts = [g.embed(v) for g, v in zip(groups, inputs, strict=True) if g.size]
    batch = torch.broadcast_shapes(*(p.shape[:-1] for p in parts))
    return torch.cat([p.expand(*batch, p.shape[-1]) for p in parts], -1)
