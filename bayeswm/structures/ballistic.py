"""A body in free flight."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self, override

import torch
from torch import Tensor

from bayeswm.base.errors import SpecError
from bayeswm.base.schema import Schema, Variable
from bayeswm.base.structure import Parameter, Parameters, Structure
from bayeswm.structures.integrators import RK4, Integrator
from bayeswm.structures.mechanics import Value, arguments, described


class Ballistic(Structure):
    r"""A body that falls through a medium at rest.

    .. math:: \dot{\mathbf v} = -g \mathbf e_z - k |\mathbf v| \mathbf v

    State: x, y, z (m), velocity_x, velocity_y, velocity_z (m/s), z upward; in two dimensions without y. No action.
    Without drag RK4 is exact to rounding.

    Parameters
    ----------
    gravity : float or Distribution
        g, in m/s^2.
    drag : float or Distribution
        k, of quadratic drag, in 1/m: density * drag coefficient * area / (2 mass); 0 in vacuum.
    dimensions : int
        2 or 3.
    integrator : Integrator
        RK4 by default.
    time_step : float
        Seconds between two states.

    Raises
    ------
    SpecError
        If there are neither 2 nor 3 dimensions.

    Examples
    --------
    >>> ball = Ballistic(dimensions=2, time_step=1.0)
    >>> values = {k: torch.as_tensor(p.value) for k, p in ball.parameters().items()}
    >>> start = torch.tensor([0.0, 10.0, 3.0, 0.0])
    >>> ball.transition(values, start, torch.empty(0), torch.empty(0), 0)[0]
    tensor([ 3.0000,  5.0950,  3.0000, -9.8100])
    """

    elementwise = True

    def __init__(
        self,
        *,
        gravity: Value = 9.81,
        drag: Value = 0.0,
        dimensions: int = 3,
        integrator: Integrator | None = None,
        time_step: float = 0.01,
    ) -> None:
        if dimensions not in (2, 3):
            raise SpecError(f"expected dimensions=2 or 3, got {dimensions!r}")
        self.values: dict[str, Value] = {"gravity": gravity, "drag": drag}
        self.dimensions = dimensions
        self.integrator = RK4() if integrator is None else integrator
        axes = "xyz" if dimensions == 3 else "xz"
        self._schema = Schema(
            state=[
                *(Variable(axis, unit="m") for axis in axes),
                *(Variable(f"velocity_{axis}", unit="m/s") for axis in axes),
            ],
            time_step=time_step,
        )
        self.check_parameters()

    @property
    @override
    def schema(self) -> Schema:
        return self._schema

    @override
    def parameters(self) -> dict[str, Parameter]:
        units = {"gravity": "m/s^2", "drag": "1/m"}
        return {k: Parameter(v, unit=units[k]) for k, v in self.values.items()}

    @override
    def transition(
        self, parameters: Parameters, state: Tensor, action: Tensor, context: Tensor, step: int | Tensor
    ) -> tuple[Tensor, None]:
        n = self.dimensions

        def field(x: Tensor) -> Tensor:
            velocity = x[..., n:]
            # the tiny term gives the speed a derivative at rest
            speed = (velocity.square().sum(-1) + torch.finfo(x.dtype).tiny).sqrt()
            *level, upward = (-(parameters["drag"] * speed)[..., None] * velocity).unbind(-1)
            rates = (*velocity.unbind(-1), *level, upward - parameters["gravity"])
            return torch.stack(torch.broadcast_tensors(*rates), -1)

        pairs = tuple((i, n + i) for i in range(n))
        return self.integrator(field, state, self._schema.time_step, pairs), None

    @override
    def config(self) -> dict[str, Any]:
        return described(self.values, self.integrator, dimensions=self.dimensions, time_step=self._schema.time_step)

    @classmethod
    @override
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        return cls(**arguments(config))
