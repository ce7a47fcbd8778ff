"""The cart-pole: a cart on a track with a pole on a pivot."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Self, override

import torch
from torch import Tensor

from bayeswm.base.errors import SpecError
from bayeswm.base.schema import Schema, Variable
from bayeswm.base.structure import Parameter, Parameters, Structure
from bayeswm.structures.integrators import RK4, Euler, Integrator
from bayeswm.structures.mechanics import Value, arguments, described


class CartPole(Structure):
    r"""A pole that turns on a cart that is pushed.

    With M the cart's mass, m the pole's, l from pivot to its centre of mass, J its inertia about the pivot, s and c the
    sine and cosine of the angle from upright, w its speed, F the force minus friction:

    .. math::
        T = (F + m l w^2 s) / (M + m), \quad
        \dot w = (g s - c T) / (J / (m l) - m l c^2 / (M + m)), \quad
        \ddot x = T - m l \dot w c / (M + m)

    State: position (m), velocity (m/s), angle (rad), angular_velocity (rad/s). Action: force (N). A positive angle
    moves the pole's tip towards positive positions.

    Parameters
    ----------
    cart_mass, pole_mass : float or Distribution
        In kg.
    length : float or Distribution
        From the pivot to the pole's centre of mass, in m (half of a uniform rod).
    inertia : float or Distribution, optional
        About the pivot, in kg m^2; that of a uniform rod, 4/3 pole_mass length^2, by default.
    friction : float or Distribution
        Viscous friction of the cart, in N s/m.
    gravity : float or Distribution
        In m/s^2.
    upright : float
        0 where the angle counts from upright, pi where it counts from hanging.
    force_limit : float, optional
        The force is clipped there, in N.
    integrator : Integrator
        RK4 by default.
    time_step : float
        Seconds between two states.

    Raises
    ------
    SpecError
        If ``upright`` is neither 0 nor pi, or a mass or length is not positive.

    Examples
    --------
    >>> CartPole.gymnasium().schema.state.names
    ('position', 'velocity', 'angle', 'angular_velocity')
    """

    elementwise = True

    def __init__(
        self,
        *,
        cart_mass: Value = 1.0,
        pole_mass: Value = 0.1,
        length: Value = 0.5,
        inertia: Value | None = None,
        friction: Value = 0.0,
        gravity: Value = 9.81,
        upright: float = 0.0,
        force_limit: float | None = None,
        integrator: Integrator | None = None,
        time_step: float = 0.02,
    ) -> None:
        if upright not in (0.0, math.pi):
            raise SpecError(f"expected upright=0 (angle from upright) or math.pi (from hanging), got {upright}")
        self.values: dict[str, Value] = {"cart_mass": cart_mass, "pole_mass": pole_mass, "length": length}
        self.values |= {"friction": friction, "gravity": gravity}
        if inertia is not None:
            self.values["inertia"] = inertia
        self.upright, self.force_limit = float(upright), force_limit
        self.integrator = RK4() if integrator is None else integrator
        self._schema = Schema(
            state=[
                Variable("position", unit="m"),
                Variable("velocity", unit="m/s"),
                Variable("angle", unit="rad", kind="angle"),
                Variable("angular_velocity", unit="rad/s"),
            ],
            action=[Variable("force", unit="N", bounds=None if force_limit is None else (-force_limit, force_limit))],
            time_step=time_step,
        )
        self.check_parameters()

    @classmethod
    def gymnasium(cls) -> Self:
        """The physics of Gymnasium's ``CartPole-v1`` with a continuous force up to 10 N; Euler, 0.02 s, g 9.8."""
        return cls(gravity=9.8, force_limit=10.0, integrator=Euler(), time_step=0.02)

    @classmethod
    def swing_up(cls) -> Self:
        """The swing-up task of PILCO (Deisenroth & Rasmussen 2011): 0.5 kg each, a 0.5 m rod, 0.1 s, hanging at 0."""
        return cls(
            cart_mass=0.5,
            pole_mass=0.5,
            length=0.25,
            friction=0.1,
            gravity=9.82,
            upright=math.pi,
            force_limit=10.0,
            integrator=RK4(substeps=20),
            time_step=0.1,
        )

    @property
    @override
    def schema(self) -> Schema:
        return self._schema

    @override
    def parameters(self) -> dict[str, Parameter]:
        units = {"cart_mass": "kg", "pole_mass": "kg", "length": "m", "inertia": "kg m^2", "friction": "N s/m"}
        units["gravity"] = "m/s^2"
        positive = {"cart_mass", "pole_mass", "length", "inertia"}
        return {k: Parameter(v, unit=units[k], positive=k in positive) for k, v in self.values.items()}

    @override
    def transition(
        self, parameters: Parameters, state: Tensor, action: Tensor, context: Tensor, step: int | Tensor
    ) -> tuple[Tensor, None]:
        force = action[..., 0]
        if self.force_limit is not None:
            force = force.clamp(-self.force_limit, self.force_limit)
        moment = parameters["pole_mass"] * parameters["length"]
        inertia = parameters["inertia"] if "inertia" in parameters else 4.0 / 3.0 * moment * parameters["length"]
        total = parameters["cart_mass"] + parameters["pole_mass"]
        # counted from hanging, the angle is pi minus the one from upright: cosine and acceleration change sign
        sense = 1.0 if self.upright == 0.0 else -1.0

        def field(x: Tensor) -> Tensor:
            _, speed, angle, turn = x.unbind(-1)
            sine, cosine = torch.sin(angle), sense * torch.cos(angle)
            push = (force - parameters["friction"] * speed + moment * turn.square() * sine) / total
            swing = (parameters["gravity"] * sine - cosine * push) / (
                inertia / moment - moment * cosine.square() / total
            )
            rates = torch.broadcast_tensors(speed, push - moment * swing * cosine / total, turn, sense * swing)
            return torch.stack(rates, -1)

        return self.integrator(field, state, self._schema.time_step, ((0, 1), (2, 3))), None

    @override
    def config(self) -> dict[str, Any]:
        return described(
            self.values,
            self.integrator,
            upright=self.upright,
            force_limit=self.force_limit,
            time_step=self._schema.time_step,
        )

    @classmethod
    @override
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        return cls(**arguments(config))
