"""The driven pendulum, with the constants that people use."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Self, override

import torch
from torch import Tensor

from bayeswm.base.schema import Schema, Variable
from bayeswm.base.structure import Parameter, Parameters, Structure, Trigonometric
from bayeswm.structures.integrators import RK4, Euler, Integrator, SemiImplicitEuler
from bayeswm.structures.mechanics import Value, arguments, described

# Coulomb friction acts as tanh(speed / this), in rad/s, so that it has a derivative at rest
_STICTION_SPEED = 0.05


class Pendulum(Structure):
    r"""A rigid body on a pivot, driven by a torque.

    .. math:: J \ddot\theta = u + m g l \sin(\theta - \theta_{up}) - b \dot\theta - f \tanh(\dot\theta / 0.05)

    State: angle (rad), velocity (rad/s). Action: torque (N m). Each parameter is a number or a law.

    Parameters
    ----------
    mass : float or Distribution
        m, in kg.
    length : float or Distribution
        l, from the pivot to the centre of mass, in m.
    inertia : float or Distribution, optional
        J, about the pivot, in kg m^2; mass * length^2 by default (a point mass).
    damping : float or Distribution
        b, viscous, in N m s/rad.
    friction : float or Distribution
        f, Coulomb, in N m.
    gravity : float or Distribution
        g, in m/s^2.
    upright : float
        The angle at which it stands, in rad; with the default pi, 0 hangs.
    torque_limit, speed_limit : float, optional
        The torque (N m) and the speed (rad/s) are clipped there.
    integrator : Integrator
        RK4 by default.
    time_step : float
        Seconds between two states.

    Examples
    --------
    >>> schema = Pendulum(time_step=0.02).schema
    >>> schema.state.names, schema.action.names
    (('angle', 'velocity'), ('torque',))
    """

    elementwise = True

    def __init__(
        self,
        *,
        mass: Value = 1.0,
        length: Value = 1.0,
        inertia: Value | None = None,
        damping: Value = 0.0,
        friction: Value = 0.0,
        gravity: Value = 9.81,
        upright: float = math.pi,
        torque_limit: float | None = None,
        speed_limit: float | None = None,
        integrator: Integrator | None = None,
        time_step: float = 0.05,
    ) -> None:
        self.values: dict[str, Value] = {"mass": mass, "length": length, "damping": damping, "friction": friction}
        self.values["gravity"] = gravity
        if inertia is not None:
            self.values["inertia"] = inertia
        self.upright, self.torque_limit, self.speed_limit = float(upright), torque_limit, speed_limit
        self.integrator = RK4() if integrator is None else integrator
        bounds = None if torque_limit is None else (-torque_limit, torque_limit)
        speed = None if speed_limit is None else (-speed_limit, speed_limit)
        self._schema = Schema(
            state=[Variable("angle", unit="rad", kind="angle"), Variable("velocity", unit="rad/s", bounds=speed)],
            action=[Variable("torque", unit="N m", bounds=bounds)],
            time_step=time_step,
        )
        self.check_parameters()

    @classmethod
    def gymnasium(cls) -> Self:
        """Gymnasium's ``Pendulum-v1``: a rod of 1 kg and 1 m, upright at 0, g 10, 0.05 s, torque 2, speed 8.

        Examples
        --------
        >>> Pendulum.gymnasium().schema.time_step
        0.05
        """
        return cls(
            mass=1.0,
            length=0.5,
            inertia=1.0 / 3.0,
            gravity=10.0,
            upright=0.0,
            torque_limit=2.0,
            speed_limit=8.0,
            integrator=SemiImplicitEuler(),
            time_step=0.05,
        )

    @classmethod
    def swing_up(cls) -> Self:
        """The swing-up benchmark of PILCO (Deisenroth & Rasmussen 2011): a rod of 1 kg and 1 m, 0.1 s, torque 2.5."""
        return cls(
            mass=1.0,
            length=0.5,
            inertia=1.0 / 3.0,
            damping=0.01,
            gravity=9.82,
            torque_limit=2.5,
            integrator=RK4(substeps=20),
            time_step=0.1,
        )

    @property
    @override
    def schema(self) -> Schema:
        return self._schema

    @override
    def parameters(self) -> dict[str, Parameter]:
        units = {"mass": "kg", "length": "m", "damping": "N m s/rad", "friction": "N m", "gravity": "m/s^2"}
        units["inertia"] = "kg m^2"
        positive = {"mass", "length", "inertia"}
        return {k: Parameter(v, unit=units[k], positive=k in positive) for k, v in self.values.items()}

    @override
    def transition(
        self, parameters: Parameters, state: Tensor, action: Tensor, context: Tensor, step: int | Tensor
    ) -> tuple[Tensor, None]:
        torque = action[..., 0]
        if self.torque_limit is not None:
            torque = torque.clamp(-self.torque_limit, self.torque_limit)
        moment = parameters["mass"] * parameters["length"]
        inertia = parameters["inertia"] if "inertia" in parameters else moment * parameters["length"]
        weight = moment * parameters["gravity"]

        def field(x: Tensor) -> Tensor:
            angle, speed = x.unbind(-1)
            tilt = angle - self.upright if self.upright else angle
            force = torch.addcmul(torque, weight, torch.sin(tilt))
            force = torch.addcmul(force, parameters["damping"], speed, value=-1)
            force = torch.addcmul(force, parameters["friction"], torch.tanh(speed / _STICTION_SPEED), value=-1)
            return torch.stack(torch.broadcast_tensors(speed, force / inertia), -1)

        limits = () if self.speed_limit is None else ((1, self.speed_limit),)
        return self.integrator(field, state, self._schema.time_step, ((0, 1),), limits), None

    @override
    def trigonometric(self, parameters: Parameters) -> Trigonometric | None:
        """Return the step of one of Euler's methods, or None with substeps, limits or Coulomb friction."""
        one_step = isinstance(self.integrator, Euler | SemiImplicitEuler) and self.integrator.substeps == 1
        limited = self.torque_limit is not None or self.speed_limit is not None
        if not one_step or limited or bool(parameters["friction"] != 0):
            return None
        h, moment = self._schema.time_step, parameters["mass"] * parameters["length"]
        inertia = parameters["inertia"] if "inertia" in parameters else moment * parameters["length"]
        weight, none = h * moment * parameters["gravity"] / inertia, torch.zeros_like(inertia)
        # what a step adds to the velocity, by angle, velocity and torque
        linear = torch.stack((none, -h * parameters["damping"] / inertia, h / inertia))
        sine = torch.stack((weight * math.cos(self.upright), none, none))
        cosine = torch.stack((-weight * math.sin(self.upright), none, none))
        angle, velocity = torch.eye(3, dtype=linear.dtype, device=linear.device)[:2]
        # the new velocity moves the angle, or the old one
        new = float(isinstance(self.integrator, SemiImplicitEuler))
        rows = torch.stack((angle + h * (velocity + new * linear), velocity + linear))
        share = torch.stack((new * h + none, 1 + none))[:, None]
        return Trigonometric(rows, share * sine, share * cosine, torch.zeros_like(rows[:, 0]))

    @override
    def config(self) -> dict[str, Any]:
        return described(
            self.values,
            self.integrator,
            upright=self.upright,
            torque_limit=self.torque_limit,
            speed_limit=self.speed_limit,
            time_step=self._schema.time_step,
        )

    @classmethod
    @override
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        return cls(**arguments(config))
