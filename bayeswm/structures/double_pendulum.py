"""Two links in a vertical plane: double pendulum, acrobot, pendubot."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Self, override

import torch
from torch import Tensor

from bayeswm.base.errors import SpecError
from bayeswm.base.schema import Schema, Variable
from bayeswm.base.structure import Parameter, Parameters, Structure
from bayeswm.structures.integrators import RK4, Integrator
from bayeswm.structures.mechanics import Value, arguments, described

_JOINTS = ("shoulder", "elbow")
_UNITS = {
    **{f"{name}_{i}": unit for i in (1, 2) for name, unit in (("mass", "kg"), ("length", "m"), ("center", "m"))},
    **{f"{name}_{i}": unit for i in (1, 2) for name, unit in (("inertia", "kg m^2"), ("damping", "N m s/rad"))},
    "gravity": "m/s^2",
}


class DoublePendulum(Structure):
    r"""Two links on a pivot, with motors at the shoulder, the elbow, both or neither.

    With q the angles (the shoulder's from hanging, the elbow's from the first link), w their speeds, m the masses, l
    the length of the first link, r the distances from joint to centre of mass, J the inertias about the centres of
    mass and h = m2 l r2 (Spong, Hutchinson and Vidyasagar 2006, section 7.4):

    .. math::
        (J_1 + J_2 + m_1 r_1^2 + m_2 (l^2 + r_2^2) + 2 h \cos q_2) \dot w_1 + (J_2 + m_2 r_2^2 + h \cos q_2) \dot w_2
            &= u_1 - b_1 w_1 + h \sin q_2 (2 w_1 w_2 + w_2^2) - g (m_1 r_1 + m_2 l) \sin q_1 - g m_2 r_2 \sin(q_1 + q_2)
        \\
        (J_2 + m_2 r_2^2 + h \cos q_2) \dot w_1 + (J_2 + m_2 r_2^2) \dot w_2
            &= u_2 - b_2 w_2 - h \sin q_2 w_1^2 - g m_2 r_2 \sin(q_1 + q_2)

    State: shoulder, elbow (rad), shoulder_velocity, elbow_velocity (rad/s). Actions: shoulder_torque, elbow_torque
    (N m), those that are actuated.

    Parameters
    ----------
    actuated : sequence of str
        The joints with a motor: ``"shoulder"``, ``"elbow"``, both or none.
    mass_1, mass_2 : float or Distribution
        Of the links, in kg.
    length_1, length_2 : float or Distribution
        Of the links, in m; the second one matters through the two defaults that follow only.
    center_1, center_2 : float or Distribution, optional
        From the link's joint to its centre of mass, in m; half of its length by default.
    inertia_1, inertia_2 : float or Distribution, optional
        Of the links about their centres of mass, in kg m^2; mass * length^2 / 12, a uniform rod, by default.
    damping_1, damping_2 : float or Distribution
        Of shoulder and elbow, viscous, in N m s/rad.
    gravity : float or Distribution
        In m/s^2.
    torque_limit : float, optional
        Torques are clipped there, in N m.
    speed_limits : tuple of float, optional
        Speeds of shoulder and elbow are clipped there, in rad/s.
    integrator : Integrator
        RK4 by default.
    time_step : float
        Seconds between two states.

    Raises
    ------
    SpecError
        If a joint is unknown, or a mass, length or inertia is not positive.

    Examples
    --------
    >>> from torch.distributions import LogNormal
    >>> arm = DoublePendulum(actuated=("elbow",), mass_2=LogNormal(0.0, 0.1))
    >>> arm.schema.action.names, arm.parameters()["mass_2"].uncertain
    (('elbow_torque',), True)
    """

    elementwise = True

    def __init__(
        self,
        *,
        actuated: Sequence[str] = _JOINTS,
        mass_1: Value = 1.0,
        mass_2: Value = 1.0,
        length_1: Value = 1.0,
        length_2: Value = 1.0,
        center_1: Value | None = None,
        center_2: Value | None = None,
        inertia_1: Value | None = None,
        inertia_2: Value | None = None,
        damping_1: Value = 0.0,
        damping_2: Value = 0.0,
        gravity: Value = 9.81,
        torque_limit: float | None = None,
        speed_limits: tuple[float, float] | None = None,
        integrator: Integrator | None = None,
        time_step: float = 0.02,
    ) -> None:
        if isinstance(actuated, str) or not set(actuated) <= set(_JOINTS):
            raise SpecError(f"expected actuated= a tuple of joints among {_JOINTS}, got {actuated!r}")
        given = {"mass_1": mass_1, "mass_2": mass_2, "length_1": length_1, "length_2": length_2}
        given |= {"damping_1": damping_1, "damping_2": damping_2, "gravity": gravity}
        optional = {"center_1": center_1, "center_2": center_2, "inertia_1": inertia_1, "inertia_2": inertia_2}
        self.values: dict[str, Value] = {**given, **{k: v for k, v in optional.items() if v is not None}}
        self.actuated = tuple(joint for joint in _JOINTS if joint in actuated)
        self.torque_limit = torque_limit
        self.speed_limits = None if speed_limits is None else (float(speed_limits[0]), float(speed_limits[1]))
        self.integrator = RK4() if integrator is None else integrator
        speeds = (None, None) if self.speed_limits is None else tuple((-s, s) for s in self.speed_limits)
        bounds = None if torque_limit is None else (-torque_limit, torque_limit)
        self._schema = Schema(
            state=[
                *(Variable(joint, unit="rad", kind="angle") for joint in _JOINTS),
                *(Variable(f"{j}_velocity", unit="rad/s", bounds=s) for j, s in zip(_JOINTS, speeds, strict=True)),
            ],
            action=[Variable(f"{joint}_torque", unit="N m", bounds=bounds) for joint in self.actuated],
            time_step=time_step,
        )
        self.check_parameters()

    @classmethod
    def acrobot(cls) -> Self:
        """The acrobot of Spong (1995, The swing up control problem for the acrobot, table 1): a motor at the elbow."""
        return cls(
            actuated=("elbow",),
            length_2=2.0,
            center_1=0.5,
            center_2=1.0,
            inertia_1=0.083,
            inertia_2=0.33,
            gravity=9.8,
        )

    @classmethod
    def pendubot(cls) -> Self:
        """Two uniform rods of 1 kg and 1 m with a motor at the shoulder."""
        return cls(actuated=("shoulder",))

    @classmethod
    def gymnasium(cls) -> Self:
        """The physics of Gymnasium's ``Acrobot-v1`` with a continuous torque up to 1 N m; RK4, 0.2 s, g 9.8.

        Examples
        --------
        >>> DoublePendulum.gymnasium().schema.time_step
        0.2
        """
        return cls(
            actuated=("elbow",),
            inertia_1=1.0,
            inertia_2=1.0,
            gravity=9.8,
            torque_limit=1.0,
            speed_limits=(4 * math.pi, 9 * math.pi),
            time_step=0.2,
        )

    @property
    @override
    def schema(self) -> Schema:
        return self._schema

    @override
    def parameters(self) -> dict[str, Parameter]:
        signed = ("damping_1", "damping_2", "gravity")
        return {k: Parameter(v, unit=_UNITS[k], positive=k not in signed) for k, v in self.values.items()}

    @override
    def transition(
        self, parameters: Parameters, state: Tensor, action: Tensor, context: Tensor, step: int | Tensor
    ) -> tuple[Tensor, None]:
        if self.torque_limit is not None:
            action = action.clamp(-self.torque_limit, self.torque_limit)
        torques = dict(zip(self.actuated, action.unbind(-1), strict=True))
        p = parameters
        m1, m2, l1, l2, g = p["mass_1"], p["mass_2"], p["length_1"], p["length_2"], p["gravity"]
        r1 = p.get("center_1", l1 / 2)
        r2 = p.get("center_2", l2 / 2)
        j1 = p.get("inertia_1", m1 * l1.square() / 12)
        j2 = p.get("inertia_2", m2 * l2.square() / 12)
        coupling, inner = m2 * l1 * r2, j2 + m2 * r2.square()
        outer = j1 + m1 * r1.square() + inner + m2 * l1.square()

        def field(x: Tensor) -> Tensor:
            q1, q2, w1, w2 = x.unbind(-1)
            bent, turning = coupling * torch.cos(q2), coupling * torch.sin(q2)
            tip = g * m2 * r2 * torch.sin(q1 + q2)
            f1 = torques.get("shoulder", 0.0) - p["damping_1"] * w1 + turning * (2 * w1 + w2) * w2 - tip
            f1 = f1 - g * (m1 * r1 + m2 * l1) * torch.sin(q1)
            f2 = torques.get("elbow", 0.0) - p["damping_2"] * w2 - turning * w1.square() - tip
            m11, m12 = outer + 2 * bent, inner + bent
            determinant = m11 * inner - m12.square()
            rates = (w1, w2, (inner * f1 - m12 * f2) / determinant, (m11 * f2 - m12 * f1) / determinant)
            return torch.stack(torch.broadcast_tensors(*rates), -1)

        limits = () if self.speed_limits is None else ((2, self.speed_limits[0]), (3, self.speed_limits[1]))
        return self.integrator(field, state, self._schema.time_step, ((0, 2), (1, 3)), limits), None

    @override
    def config(self) -> dict[str, Any]:
        return described(
            self.values,
            self.integrator,
            actuated=list(self.actuated),
            torque_limit=self.torque_limit,
            speed_limits=None if self.speed_limits is None else list(self.speed_limits),
            time_step=self._schema.time_step,
        )

    @classmethod
    @override
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        return cls(**arguments(config))
