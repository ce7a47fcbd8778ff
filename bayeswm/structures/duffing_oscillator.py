"""A driven oscillator with a spring that is not linear."""

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

_UNITS = {
    "damping": "1/s",
    "stiffness": "1/s^2",
    "quadratic": "1/(m s^2)",
    "cubic": "1/(m^2 s^2)",
    "gain": "1/kg",
    "offset": "N",
}
# names of the action's columns, by how many samples of the input a step knows
_INPUTS = {1: ("input",), 2: ("input", "next_input"), 3: ("input", "middle_input", "next_input")}


class DuffingOscillator(Structure):
    r"""A mass on a spring that stiffens, softens or buckles, driven by an input.

    .. math:: \ddot x = -\delta \dot x - \alpha x - \kappa x^2 - \beta x^3 + \gamma (u + u_0)

    State: position (m), velocity (m/s). Action: input (N), held over the step as a digital controller does. A recorded
    input that moved between its samples is better described by more of them (``input_samples``): by a straight line
    between both ends of the step, or by a parabola that also knows its middle, where the input was sampled more often
    or its band was limited, so that it can be had there from the samples around. An electronic oscillator has volts in
    place of metres and newtons.

    Parameters
    ----------
    damping : float or Distribution
        delta, in 1/s.
    stiffness : float or Distribution
        alpha, in 1/s^2; below 0 the spring has two wells.
    quadratic : float or Distribution
        kappa, in 1/(m s^2): how much stiffer the spring is to one side.
    cubic : float or Distribution
        beta, in 1/(m^2 s^2).
    gain : float or Distribution
        gamma, in 1/kg.
    offset : float or Distribution
        u_0, in N: an input that acts beside the recorded one.
    input_samples : int
        1: the input is held; 2: columns input and next_input, a straight line between them (first-order hold);
        3: columns input, middle_input and next_input, the parabola through them.
    integrator : Integrator
        RK4 by default.
    time_step : float
        Seconds between two states.

    Raises
    ------
    SpecError
        For another number of samples.

    Examples
    --------
    An input recorded at the times of the states, ``u`` of shape (T + 1,), as actions of shape (T, 2):

    >>> u = torch.tensor([0.0, 0.5, 0.7])
    >>> torch.stack((u[:-1], u[1:]), -1)
    tensor([[0.0000, 0.5000],
            [0.5000, 0.7000]])
    >>> DuffingOscillator(input_samples=2).schema.action.names
    ('input', 'next_input')
    """

    elementwise = True

    def __init__(
        self,
        *,
        damping: Value = 0.2,
        stiffness: Value = 1.0,
        quadratic: Value = 0.0,
        cubic: Value = 1.0,
        gain: Value = 1.0,
        offset: Value = 0.0,
        input_samples: int = 1,
        integrator: Integrator | None = None,
        time_step: float = 0.05,
    ) -> None:
        if input_samples not in _INPUTS:
            raise SpecError(f"expected input_samples=1, 2 or 3, got {input_samples!r}")
        given = (damping, stiffness, quadratic, cubic, gain, offset)
        self.values: dict[str, Value] = dict(zip(_UNITS, given, strict=True))
        self.input_samples = int(input_samples)
        self.integrator = RK4() if integrator is None else integrator
        self._schema = Schema(
            state=[Variable("position", unit="m"), Variable("velocity", unit="m/s")],
            action=[Variable(name, unit="N") for name in _INPUTS[self.input_samples]],
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
            spring = (p["stiffness"] + (p["quadratic"] + p["cubic"] * position) * position) * position
            return p["gain"] * (force + p["offset"]) - p["damping"] * velocity - spring

        if self.input_samples == 1:
            held = action[..., 0]

            def field(x: Tensor) -> Tensor:
                position, velocity = x.unbind(-1)
                return torch.stack(torch.broadcast_tensors(velocity, acceleration(position, velocity, held)), -1)

            return self.integrator(field, state, time_step, ((0, 1),)), None

        # time within the step is a position with velocity 1, so that any integrator sees the input move
        if self.input_samples == 2:
            first, last = action.unbind(-1)
            slope, bend = (last - first) / time_step, None
        else:
            first, middle, last = action.unbind(-1)
            slope = (4 * middle - 3 * first - last) / time_step
            bend = (2 * first + 2 * last - 4 * middle) / time_step**2

        def moving(x: Tensor) -> Tensor:
            position, velocity, time, pace = x.unbind(-1)
            force = first + time * (slope if bend is None else slope + time * bend)
            rates = (velocity, acceleration(position, velocity, force), pace, torch.zeros_like(pace))
            return torch.stack(torch.broadcast_tensors(*rates), -1)

        batch = torch.broadcast_shapes(state.shape[:-1], first.shape)
        clock = state.new_tensor([0.0, 1.0]).expand(*batch, 2)
        start = torch.cat((state.expand(*batch, 2), clock), -1)
        return self.integrator(moving, start, time_step, ((0, 1), (2, 3)))[..., :2], None

    @override
    def config(self) -> dict[str, Any]:
        rest = {"input_samples": self.input_samples, "time_step": self._schema.time_step}
        return described(self.values, self.integrator, **rest)

    @classmethod
    @override
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        return cls(**arguments(config))
