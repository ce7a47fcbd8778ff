"""What is to be propagated, and what a method of propagation is."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from bayeswm.base.along import Policy
from bayeswm.base.model import DynamicsModel
from bayeswm.base.moments import Moments
from bayeswm.base.predictive import Predictive
from bayeswm.base.worlds import Belief, Worlds


@dataclass(frozen=True)
class Task:
    """The arguments of :func:`bayeswm.propagate`, as it was called.

    Attributes
    ----------
    model : DynamicsModel or Worlds
        What moves.
    belief : Tensor, Law or Trajectories
        Where it starts.
    actions : Tensor or callable, optional
        A plan or a policy.
    horizon : int, optional
        Steps.
    context : Tensor, optional
        Environment factors.
    worlds : int
        How many to draw.
    generator : torch.Generator, optional
        Source of all randomness.
    ready : Worlds, optional
        Worlds of the model that are drawn already.
    split : bool
        Whether the epistemic and the aleatoric part will be asked for. Pooled moments take about half the time without.
    """

    model: DynamicsModel | Worlds
    belief: Belief
    actions: Tensor | Policy | None
    horizon: int | None
    context: Tensor | None
    worlds: int
    generator: torch.Generator | None
    ready: Worlds | None = None
    split: bool = True

    @cached_property
    def drawn(self) -> Worlds:
        """The worlds, drawn once."""
        if self.ready is not None:
            return self.ready
        if isinstance(self.model, Worlds):
            return self.model
        return self.model.draw(self.worlds, generator=self.generator)


@runtime_checkable
class Method(Protocol):
    """A way to get from a belief to the law of each later state; a small object that holds its own settings."""

    def propagate(self, task: Task) -> Predictive:
        """Return the law of the states to come."""
        ...


@runtime_checkable
class GaussianPolicy(Protocol):
    """A policy that knows its own moments, as PILCO's do; others are passed by cubature."""

    def __call__(self, state: Tensor, step: int, /) -> Tensor:
        """Return actions, as any policy."""
        ...

    def moments(self, mean: Tensor, covariance: Tensor, step: int) -> Moments:
        """Return moments of the action from a Gaussian belief about the state.

        Parameters
        ----------
        mean : Tensor, shape (W or 1, *batch, S)
            Mean of the state.
        covariance : Tensor, shape (W or 1, *batch, S, S)
            Its covariance.
        step : int
            Index of the step.

        Returns
        -------
        Moments
            ``mean`` (W or 1, *batch, A), ``covariance`` (W or 1, *batch, A, A) and ``cross`` (W or 1, *batch, S, A) are
            read.
        """
        ...
