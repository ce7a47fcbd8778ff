"""A driven oscillator with a cubic spring."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self, override

import torch
from torch import Tensor

from bayeswm.base.schema import Schema, Variable
from bayeswm.base.structure import Parameter, Parameters, Structure
from bayeswm.structures.integrators import RK4, Integrator
from bayeswm.structures.mechanics import Value, arguments, described

_UNITS = {"damping": "1/s", "stiffness": "1/s^2", "cubic": "1/(m^2 s^2)", "gain": "1/kg"}


class DuffingOscillator(Structure):
    r"""A mass on a spring that stiffens, softens or buckles, driven by an input.

    .. math:: \ddot x = -\delta \dot x - \alpha x - \beta x^3 + \gamma u

    State: position (m), velocity (m/s). Action: input (N), held over the step as a digital controller does. A recorded
    input that moved between its samples is better described by a straight line: with ``linear_input`` the action has
    two columns, input and next_input, the samples at both ends of the step. An electronic oscillator has volts in place
    of metres and newtons.

    Parameters
    ----------
    damping : float or Distribution
        delta, in 1/s.
    stiffness : float or Distribution
        alpha, in 1/s^2; below 0 the spring has two wells.
    cubic : float or Distribution
        beta, in 1/(m^2 s^2).
    gain : float or Distribution
        gamma, in 1/kg.
    linear_input : bool
        The input goes from input to next_input in a straight line (first-order hold) instead of being held.
    integrator : Integrator
        RK4 by default.
    time_step : float
        Seconds between two states.

    Examples
    --------
    An input recorded at the times of the states, ``u`` of shape (T + 1,), as actions of shape (T, 2):

    >>> u = torch.tensor([0.0, 0.5, 0.7])
    >>> torch.stack((u[:-1], u[1:]), -1)
    tensor([[0.0000, 0.5000],
            [0.5000, 0.7000]])
    >>> DuffingOscillator(linear_input=True).schema.action.names
    ('input', 'next_input')
    """

    def __init__(
        self,
        *,
        damping: Value = 0.2,
        stiffness: Value = 1.0,
        cubic: Value = 1.0,
        gain: Value = 1.0,
        linear_input: bool = False,
        integrator: Integrator | None = None,
        time_step: float = 0.05,
    ) -> None:
        self.values: dict[str, Value] = {"damping": damping, "stiffness": stiffness, "cubic": cubic, "gain": gain}
        self.linear_input = bool(linear_input)
        self.integrator = RK4() if integrator is None else integrator
        self._schema = Schema(
            state=[Variable("position", unit="m"), Variable("velocity", unit="m/s")],
            action=[Variable(name, unit="N") for name in ("input", "next_input")[: 1 + self.linear_input]],
            time_step=time_step,
        )
        self.check_parameters()

    @property
    @override
    def schema(self) -> Schema:
        return self._schema

    @override
    def parameters(self) -> dict[str, Parameter]:
        return {k: Parameter(v, unit=_UNITS[k]) for k, v in self.values.items()}

    @override
    def transition(
        self, parameters: Parameters, state: Tensor, action: Tensor, context: Tensor, step: int | Tensor
    ) -> tuple[Tensor, None]:
        p, time_step = parameters, self._schema.time_step

        def acceleration(position: Tensor, velocity: Tensor, force: Tensor) -> Tensor:
            spring = (p["stiffness"] + p["cubic"] * position.square()) * position
            return p["gain"] * force - p["damping"] * velocity - spring

        if not self.linear_input:
            held = action[..., 0]

            def field(x: Tensor) -> Tensor:
                position, velocity = x.unbind(-1)
                return torch.stack(torch.broadcast_tensors(velocity, acceleration(position, velocity, held)), -1)

            return self.integrator(field, state, time_step, ((0, 1),)), None

        # the input and its slope are two more states, so that any integrator sees the input move
        def moving(x: Tensor) -> Tensor:
            position, velocity, force, slope = x.unbind(-1)
            rates = (velocity, acceleration(position, velocity, force), slope, torch.zeros_like(slope))
            return torch.stack(torch.broadcast_tensors(*rates), -1)

        drive = torch.stack((action[..., 0], (action[..., 1] - action[..., 0]) / time_step), -1)
        batch = torch.broadcast_shapes(state.shape[:-1], drive.shape[:-1])
        start = torch.cat((state.expand(*batch, 2), drive.to(state.dtype).expand(*batch, 2)), -1)
        return self.integrator(moving, start, time_step, ((0, 1), (2, 3)))[..., :2], None

    @override
    def config(self) -> dict[str, Any]:
        return described(self.values, self.integrator, linear_input=self.linear_input, time_step=self._schema.time_step)

    @classmethod
    @override
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        return cls(**arguments(config))
