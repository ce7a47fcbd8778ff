"""Policies with parameters: smooth functions of the state, within bounds."""

from __future__ import annotations

import copy
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Self

import torch
from torch import Tensor

from bayeswm.base.errors import DataError, SpecError
from bayeswm.base.kinds import Real
from bayeswm.base.schema import Schema
from bayeswm.planning.limits import Limits
from bayeswm.planning.policies.squashing import Squash


class ParametricPolicy(ABC):
    """A function of the state with parameters, ``center + radius squash(f(features) / radius)`` for each action.

    It is called as policies of :func:`bayeswm.rollout` and :func:`bayeswm.propagate` are. Features are those of
    ``schema.state.embed``, such as the sine and cosine of an angle, so that nothing jumps. An action without bounds is
    ``f(features)``. Objects are not changed: :meth:`replace` returns a new one.

    Parameters
    ----------
    schema : Schema
        Variables.
    scale : mapping of str to float, optional
        Typical size of real state variables, by which they are divided first; 1 by default.
    bounds : tuple of float or Tensor, optional
        Lowest and highest action; those of the schema by default.
    squash : callable
        Maps any number to [-1, 1], elementwise, with slope 1 at 0: ``torch.tanh`` or :func:`saturating_sine`.

    Attributes
    ----------
    parameters : dict of str to Tensor
        Plain tensors, which ``torch.save`` and ``replace(**torch.load(path))`` keep.

    Raises
    ------
    SpecError, UnknownVariableError
        Without actions, for bounds or scales that make no sense, and for names that are not in the schema.
    """

    parameters: dict[str, Tensor]

    def __init__(
        self,
        schema: Schema,
        *,
        scale: Mapping[str, float] | None = None,
        bounds: tuple[float | Tensor, float | Tensor] | None = None,
        squash: Squash = torch.tanh,
    ) -> None:
        if not schema.action.size:
            raise SpecError("expected a schema with actions for a policy, got one without")
        self.schema, self.squash = schema, squash
        self.center, self.radius = _range(schema, bounds)
        self.scale = _scale(schema, scale or {})

    @abstractmethod
    def initial(self, generator: torch.Generator) -> dict[str, Tensor]:
        """Return parameters to begin a search with, at random."""

    @abstractmethod
    def value(self, features: Tensor, step: int) -> Tensor:
        """Return ``f`` of features (..., E), relative to the middle of the bounds, in the actions' units, (..., A)."""

    def __call__(self, state: Tensor, step: int) -> Tensor:
        """Return actions (..., A) for states (..., S)."""
        center, radius = self.center.to(state), self.radius.to(state)
        bounded = radius.isfinite()
        value = self.value(self.schema.state.embed(state / self.scale.to(state)), step)
        if not bool(bounded.any()):
            return value
        safe = torch.where(bounded, radius, 1.0)
        return torch.where(bounded, center + safe * self.squash(value / safe), value)

    def replace(self, **parameters: Tensor) -> Self:
        """Return the policy with other parameters, some or all of them.

        Raises
        ------
        SpecError, DataError
            For unknown names, other shapes, and numbers that are not finite.
        """
        unknown = sorted(parameters.keys() - self.parameters.keys())
        if unknown:
            raise SpecError(f"expected parameters among {', '.join(self.parameters)}, got {', '.join(unknown)}")
        for name, values in parameters.items():
            wanted = tuple(self.parameters[name].shape)
            if tuple(values.shape) != wanted:
                raise SpecError(f"expected {name} of shape {wanted}, got {tuple(values.shape)}")
            if not bool(values.isfinite().all()):
                raise DataError(f"expected finite parameters, got NaN or infinity in {name}")
        other = copy.copy(self)
        other.parameters = {**self.parameters, **parameters}
        return other

    def _like(self, name: str, features: Tensor) -> Tensor:
        """Return a parameter in the number format of the features."""
        return self.parameters[name].to(features)

    @property
    def _unit(self) -> Tensor:
        """Half the distance of the bounds, and 1 where there are none, shape (A,)."""
        return torch.where(self.radius.isfinite(), self.radius, 1.0)


def _range(schema: Schema, bounds: tuple[float | Tensor, float | Tensor] | None) -> tuple[Tensor, Tensor]:
    """Return middle and half-width of the bounds in double precision; 0 and infinity where there are none."""
    like = torch.empty(schema.action.size, dtype=torch.float64)
    if bounds is not None:
        limits = Limits.between(*bounds, like=like)
        return limits.center.clone(), limits.radius.clone()
    given = [v.bounds or (-math.inf, math.inf) for v in schema.action for _ in v.columns]
    low, high = torch.tensor(given, dtype=torch.float64).unbind(-1)
    free = ~(low.isfinite() & high.isfinite())
    return torch.where(free, 0.0, (low + high) / 2), torch.where(free, math.inf, (high - low) / 2)


def _scale(schema: Schema, given: Mapping[str, float]) -> Tensor:
    scale = torch.ones(schema.state.size, dtype=torch.float64)
    for name, size in given.items():
        if not isinstance(schema.state[name].kind, Real) or not (math.isfinite(size) and size > 0):
            raise SpecError(f"expected a scale > 0 of a real variable, got {name}: {size}")
        scale[schema.state.slices[name]] = size
    return scale
