"""Predators and prey."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self, override

import torch
from torch import Tensor

from bayeswm.base.schema import Schema, Variable
from bayeswm.base.structure import Parameter, Parameters, Structure
from bayeswm.structures.integrators import RK4, Integrator
from bayeswm.structures.mechanics import Value, arguments, described


class LotkaVolterra(Structure):
    r"""Two populations, one of which lives on the other.

    .. math:: \dot u = (a - b v) u, \qquad \dot v = (c u - d) v

    State: prey u and predators v. No action. The logarithms of the populations are integrated, relative to where the
    step begins: a population that is above 0 stays so, one that is 0 stays 0.

    Parameters
    ----------
    growth : float or Distribution
        a, the growth rate of prey alone, in 1/s.
    predation : float or Distribution
        b, in 1/s for each predator.
    conversion : float or Distribution
        c, in 1/s for each prey.
    death : float or Distribution
        d, the rate at which predators without prey die, in 1/s.
    integrator : Integrator
        RK4 by default; one for a rate of change as a whole (not Leapfrog, which needs positions and velocities).
    time_step : float
        Between two states, in the unit of time of the rates (years for hares and lynxes).

    Raises
    ------
    SpecError
        If a rate is not positive.

    Examples
    --------
    >>> from torch.distributions import LogNormal
    >>> pelts = LotkaVolterra(growth=LogNormal(-0.6, 0.3), predation=0.028, conversion=0.024, death=0.8, time_step=1.0)
    >>> pelts.schema.state.names, pelts.schema.action.names
    (('prey', 'predators'), ())
    """

    elementwise = True

    def __init__(
        self,
        *,
        growth: Value = 1.0,
        predation: Value = 1.0,
        conversion: Value = 1.0,
        death: Value = 1.0,
        integrator: Integrator | None = None,
        time_step: float = 0.1,
    ) -> None:
        self.values: dict[str, Value] = {"growth": growth, "predation": predation}
        self.values |= {"conversion": conversion, "death": death}
        self.integrator = RK4() if integrator is None else integrator
        self._schema = Schema(state=[Variable("prey"), Variable("predators")], time_step=time_step)
        self.check_parameters()

    @property
    @override
    def schema(self) -> Schema:
        return self._schema

    @override
    def parameters(self) -> dict[str, Parameter]:
        return {k: Parameter(v, unit="1/s", positive=True) for k, v in self.values.items()}

    @override
    def transition(
        self, parameters: Parameters, state: Tensor, action: Tensor, context: Tensor, step: int | Tensor
    ) -> tuple[Tensor, None]:
        p = parameters
        prey, predators = state.unbind(-1)

        def field(grown: Tensor) -> Tensor:
            u, v = (start * log.exp() for start, log in zip((prey, predators), grown.unbind(-1), strict=True))
            rates = (p["growth"] - p["predation"] * v, p["conversion"] * u - p["death"])
            return torch.stack(torch.broadcast_tensors(*rates), -1)

        return state * self.integrator(field, torch.zeros_like(state), self._schema.time_step).exp(), None

    @override
    def config(self) -> dict[str, Any]:
        return described(self.values, self.integrator, time_step=self._schema.time_step)

    @classmethod
    @override
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        return cls(**arguments(config))
