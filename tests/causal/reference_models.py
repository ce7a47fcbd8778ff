"""The systems of the exact reference answers."""

import torch
from torch import Tensor

import bayeswm as bwm
from bayeswm.causal import Mechanism, StructuralModel
from bayeswm.structures import Linear

EMPTY = torch.zeros(0)


def c1() -> StructuralModel:
    """Back-door: Z -> X, Z -> Y, X -> Y."""
    return StructuralModel(
        {
            "Y": Mechanism(lambda X, Z: 2 * X - 3 * Z, noise=0.5),
            "X": Mechanism(lambda Z: Z, noise=1.0),
            "Z": Mechanism(lambda: 0.0, noise=1.0),
        }
    )


def c2() -> StructuralModel:
    """A logged action with an iid confounder e."""
    return StructuralModel(
        {
            "e": Mechanism(lambda: 0.0, noise=1.0),
            "a": Mechanism(lambda s, e: -0.3 * s + e, ("s[t-1]", "e"), noise=1.0),
            "s": Mechanism(lambda s, a, e: 0.9 * s + 0.5 * a + e, ("s[t-1]", "a", "e"), noise=0.1),
        }
    )


def c5() -> StructuralModel:
    """A time-varying confounder affected by an earlier action, unrolled in one slice."""
    return StructuralModel(
        {
            "U": Mechanism(lambda: 0.0, noise=1.0),
            "A0": Mechanism(lambda: 0.0, noise=1.0),
            "L1": Mechanism(lambda A0, U: A0 + U, noise=1.0),
            "A1": Mechanism(lambda L1: L1, noise=1.0),
            "Y": Mechanism(lambda A1, L1, U: A1 + L1 + U, noise=1.0),
        }
    )


def c6() -> StructuralModel:
    """Mediation with an interaction."""
    return StructuralModel(
        {
            "X": Mechanism(lambda: 0.0, noise=1.0),
            "M": Mechanism(lambda X: 1 + 2 * X, noise=1.0),
            "Y": Mechanism(lambda X, M: X + 0.5 * M + 0.25 * X * M, noise=1.0),
        }
    )


def line() -> bwm.Schema:
    """One state and one action."""
    return bwm.Schema(state=[bwm.Variable("s")], action=[bwm.Variable("a")], time_step=1.0)


def c3(*, noise: float = 1.0) -> bwm.KnownDynamics:
    """s' = 0.8 s + 0.5 a + w."""
    structure = Linear(
        line(), A=torch.tensor([[0.8]], dtype=torch.float64), B=torch.tensor([[0.5]], dtype=torch.float64)
    )
    return bwm.KnownDynamics(structure=structure, noise=noise)


def observed(model: bwm.DynamicsModel, state: list[list[float]]) -> bwm.Trajectories:
    """Slices as an episode of a system without actions."""
    blank = [0.0] * len(state[0])
    return bwm.Trajectories(model.schema, state=[[blank, *state]])


def cart(*, noise: float = 0.1) -> bwm.KnownDynamics:
    """Position, velocity and an unrelated drift, one block, with a force and a context."""
    schema = bwm.Schema(
        state=[bwm.Variable("x"), bwm.Variable("v"), bwm.Variable("drift")],
        action=[bwm.Variable("force")],
        context=[bwm.Variable("wind")],
        time_step=1.0,
    )

    def step(x: Tensor, u: Tensor, c: Tensor, p: dict[str, Tensor]) -> Tensor:
        push = (u[..., 0] + c[..., 0]) / p["mass"]
        return torch.stack((x[..., 0] + x[..., 1], 0.9 * x[..., 1] + push, x[..., 2] + 0.5), -1)

    structure = bwm.structures.FromFunction(step, schema=schema, parameters={"mass": 2.0})
    return bwm.KnownDynamics(structure=structure, noise=noise)
