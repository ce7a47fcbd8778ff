"""Structures: transition functions without inference, and the integrators that make them of rates."""

from bayeswm.structures.ballistic import Ballistic
from bayeswm.structures.cart_pole import CartPole
from bayeswm.structures.double_pendulum import DoublePendulum
from bayeswm.structures.duffing_oscillator import DuffingOscillator
from bayeswm.structures.from_function import FromFunction
from bayeswm.structures.integrators import RK4, Euler, Integrator, Leapfrog, SemiImplicitEuler
from bayeswm.structures.linear import Linear
from bayeswm.structures.lotka_volterra import LotkaVolterra
from bayeswm.structures.mlp import MLP
from bayeswm.structures.pendulum import Pendulum
from bayeswm.structures.pretrained import frozen_network
from bayeswm.structures.residual import Residual

__all__ = [
    "MLP",
    "RK4",
    "Ballistic",
    "CartPole",
    "DoublePendulum",
    "DuffingOscillator",
    "Euler",
    "FromFunction",
    "Integrator",
    "Leapfrog",
    "Linear",
    "LotkaVolterra",
    "Pendulum",
    "Residual",
    "SemiImplicitEuler",
    "frozen_network",
]
