"""Fixed-step integrators: from a rate of change to the next state. Batched, differentiable, vmap-safe.

Each is a frozen object called as ``integrator(field, state, time_step, pairs)``. ``field`` maps states to rates, both
of shape (*batch, S). ``pairs`` lists (position column, velocity column); the methods that treat positions and
velocities differently need it. ``limits`` lists (column, largest magnitude).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, override

import torch
from torch import Tensor

from bayeswm.base.errors import SpecError

Field = Callable[[Tensor], Tensor]
Pairs = tuple[tuple[int, int], ...]
Limits = tuple[tuple[int, float], ...]


@dataclass(frozen=True)
class Integrator(ABC):
    """A fixed-step method.

    Parameters
    ----------
    substeps : int
        Equal steps that one time step is divided into.

    Examples
    --------
    >>> decay = lambda x: -x
    >>> exact = torch.exp(torch.tensor(-0.1, dtype=torch.float64))
    >>> float((RK4()(decay, torch.ones(1, dtype=torch.float64), 0.1, ()) - exact).abs()) < 1e-7
    True
    """

    substeps: int = 1

    def __post_init__(self) -> None:
        if self.substeps < 1:
            raise SpecError(f"expected substeps >= 1, got {self.substeps}")

    def __call__(  # noqa: PLR0917 (hot path)
        self, field: Field, state: Tensor, time_step: float, pairs: Pairs = (), limits: Limits = ()
    ) -> Tensor:
        """Return the state one time step (in s) later, speeds clipped at their limits after each substep."""
        h = time_step / self.substeps
        for _ in range(self.substeps):
            state = self.advance(field, state, h, pairs, limits)
        return state

    @abstractmethod
    def advance(  # noqa: PLR0917 (hot path)
        self, field: Field, state: Tensor, h: float, pairs: Pairs, limits: Limits
    ) -> Tensor:
        """Return the state one substep of h seconds later."""


@dataclass(frozen=True)
class Euler(Integrator):
    """Explicit Euler, order 1."""

    @override
    def advance(self, field: Field, state: Tensor, h: float, pairs: Pairs, limits: Limits) -> Tensor:
        return _clip(torch.add(state, field(state), alpha=h), limits)


@dataclass(frozen=True)
class SemiImplicitEuler(Integrator):
    """Velocities first, then positions with the new velocities; order 1, symplectic without friction."""

    @override
    def advance(self, field: Field, state: Tensor, h: float, pairs: Pairs, limits: Limits) -> Tensor:
        _need(pairs)
        columns = list(torch.add(state, field(state), alpha=h).unbind(-1))
        for column, limit in limits:
            columns[column] = columns[column].clamp(-limit, limit)
        before = state.unbind(-1)
        for position, rate in pairs:
            columns[position] = torch.add(before[position], columns[rate], alpha=h)
        return torch.stack(columns, -1)


@dataclass(frozen=True)
class RK4(Integrator):
    """The classical Runge-Kutta method, order 4."""

    @override
    def advance(self, field: Field, state: Tensor, h: float, pairs: Pairs, limits: Limits) -> Tensor:
        k1 = field(state)
        k2 = field(state + 0.5 * h * k1)
        k3 = field(state + 0.5 * h * k2)
        k4 = field(state + h * k3)
        return _clip(state + (h / 6) * (k1 + 2 * (k2 + k3) + k4), limits)


@dataclass(frozen=True)
class Leapfrog(Integrator):
    """Half a kick, a drift, half a kick; order 2 and symplectic where forces depend on positions only."""

    @override
    def advance(self, field: Field, state: Tensor, h: float, pairs: Pairs, limits: Limits) -> Tensor:
        _need(pairs)
        columns, rates = list(state.unbind(-1)), field(state).unbind(-1)
        for position, rate in pairs:
            columns[rate] = columns[rate] + 0.5 * h * rates[rate]
            columns[position] = columns[position] + h * columns[rate]
        drifted = torch.stack(columns, -1)
        rates = field(drifted).unbind(-1)
        for _, rate in pairs:
            columns[rate] = columns[rate] + 0.5 * h * rates[rate]
        return _clip(torch.stack(columns, -1), limits)


INTEGRATORS: dict[str, type[Integrator]] = {c.__name__: c for c in (Euler, SemiImplicitEuler, RK4, Leapfrog)}


def _clip(state: Tensor, limits: Limits) -> Tensor:
    if not limits:
        return state
    columns = list(state.unbind(-1))
    for column, limit in limits:
        columns[column] = columns[column].clamp(-limit, limit)
    return torch.stack(columns, -1)


def _need(pairs: Pairs) -> None:
    if not pairs:
        raise SpecError("expected pairs=((position column, velocity column), ...) for this integrator; or use RK4")


def encode(integrator: Integrator) -> dict[str, int | str]:
    """Return an integrator as plain values for JSON."""
    return {"method": type(integrator).__name__, "substeps": integrator.substeps}


def decode(config: dict[str, Any] | Integrator) -> Integrator:
    """Return the integrator that :func:`encode` was given.

    Raises
    ------
    SpecError
        For an unknown method.
    """
    if isinstance(config, Integrator):
        return config
    if config.get("method") not in INTEGRATORS:
        raise SpecError(f"expected an integrator among {', '.join(INTEGRATORS)}, got {config.get('method')!r}")
    return INTEGRATORS[config["method"]](substeps=int(config["substeps"]))
