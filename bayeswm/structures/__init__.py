"""Structures: transition functions without inference, and the integrators that make them of rates."""

from bayeswm.structures.cart_pole import CartPole
from bayeswm.structures.from_function import FromFunction
from bayeswm.structures.integrators import RK4, Euler, Integrator, Leapfrog, SemiImplicitEuler
from bayeswm.structures.linear import Linear
from bayeswm.structures.mlp import MLP
from bayeswm.structures.pendulum import Pendulum

__all__ = [
    "MLP",
    "RK4",
    "CartPole",
    "Euler",
    "FromFunction",
    "Integrator",
    "Leapfrog",
    "Linear",
    "Pendulum",
    "SemiImplicitEuler",
]
