"""Small systems that the tests of planners share."""

from collections.abc import Callable

import torch
from torch import Tensor

import bayeswm as bwm
from bayeswm.base import Schema, Variable
from bayeswm.base.worlds import StructureWorlds
from bayeswm.planning import Constraint, Imagined, Objective
from bayeswm.structures import FromFunction

A = torch.tensor([[1.0, 0.2], [-0.1, 0.9]], dtype=torch.float64)
B = torch.tensor([[0.0], [0.3]], dtype=torch.float64)
SCHEMA = Schema(state=[Variable("x"), Variable("v")], action=[Variable("u", bounds=(-2.0, 2.0))], time_step=0.1)


def spring(x: Tensor, u: Tensor, c: Tensor, p: dict[str, Tensor]) -> Tensor:
    pull = p["stiffness"] * x[..., 0] + p["damping"] * x[..., 1]
    return torch.stack((x[..., 0] + 0.2 * x[..., 1], x[..., 1] + 0.2 * (u[..., 0] - pull)), -1)


def spring_worlds(worlds: int = 3, *, noise: float = 0.05, weights: tuple[float, ...] | None = None) -> StructureWorlds:
    """Springs of different stiffness, with process noise on the velocity."""
    structure = FromFunction(spring, schema=SCHEMA, parameters={"stiffness": 1.0, "damping": 0.2}, name="spring")
    parameters = {
        "stiffness": torch.linspace(0.5, 2.0, worlds, dtype=torch.float64),
        "damping": torch.full((worlds,), 0.2, dtype=torch.float64),
        "process_noise": torch.tensor([0.0, noise], dtype=torch.float64).expand(worlds, 2).clone(),
    }
    log_weight = None if weights is None else torch.tensor(weights, dtype=torch.float64).log()
    noisy = (1,) if noise else ()
    return StructureWorlds(structure, SCHEMA, parameters, log_weight=log_weight, exhaustive=True, noisy=noisy)


def linear_model(*, bounds: float = 50.0) -> bwm.KnownDynamics:
    """x' = A x + B u without noise."""
    schema = Schema(
        state=[Variable("x"), Variable("v")], action=[Variable("u", bounds=(-bounds, bounds))], time_step=0.1
    )
    return bwm.KnownDynamics(structure=FromFunction(lambda x, u: x @ A.T + u @ B.T, schema=schema, name="linear"))


def explosive_model(growth: Callable[[Tensor, Tensor], Tensor] | None = None) -> bwm.KnownDynamics:
    """Diverges at once where the action is above 0; everywhere, with another ``growth``."""

    def step(x: Tensor, u: Tensor) -> Tensor:
        factor = 0.5 + 1e160 * (u > 0).to(x) if growth is None else growth(x, u)
        return (x + 0.1 * u) * factor

    schema = Schema(state=[Variable("x")], action=[Variable("u", bounds=(-1.0, 1.0))], time_step=0.1)
    return bwm.KnownDynamics(structure=FromFunction(step, schema=schema, name="explosive"))


class NotAbove(Constraint):
    """No action above a limit; broken by the excess of the largest one."""

    def __init__(self, limit: float, penalty: float | None = None) -> None:
        self.limit, self.penalty = limit, penalty

    def excess(self, imagined: Imagined) -> Tensor:
        return (imagined.actions.amax((-1, -2)) - self.limit).clamp(min=0.0)

    def broken(self, imagined: Imagined) -> Tensor:
        return (imagined.actions.amax(-1) > self.limit).expand(imagined.reached.shape[:-1])


def squares() -> Objective:
    return Objective(
        stage=lambda x, u, c, t: x.square().sum(-1) + 0.1 * u.square().sum(-1),
        terminal=lambda x, c: 5 * x.square().sum(-1),
    )


def least_squares(start: Tensor, horizon: int) -> float:
    """Lowest cost of :func:`squares` on :func:`linear_model` without bounds, by one batch least-squares problem."""
    powers = [torch.linalg.matrix_power(A, t) for t in range(horizon + 1)]
    rows, target = [], []
    for t in range(horizon + 1):
        effect = torch.zeros(2, horizon, dtype=torch.float64)
        for s in range(t):
            effect[:, s] = (powers[t - 1 - s] @ B)[:, 0]
        scale = 5.0**0.5 if t == horizon else 1.0
        rows.append(scale * effect)
        target.append(-scale * powers[t] @ start)
    rows.append(0.1**0.5 * torch.eye(horizon, dtype=torch.float64))
    target.append(torch.zeros(horizon, dtype=torch.float64))
    matrix, right = torch.cat(rows), torch.cat(target)
    solution = torch.linalg.lstsq(matrix, right[:, None]).solution[:, 0]
    return float((matrix @ solution - right).square().sum())
