"""A linear-quadratic problem whose best policy is a constant gain: the last cost is that of going on for ever."""

import torch
from torch import Tensor

import bayeswm as bwm
from bayeswm.base import Schema, Variable
from bayeswm.planning import LinearPolicy, Objective, quadratic
from bayeswm.structures import FromFunction
from tests.planning.systems import A, B

SCHEMA = Schema(state=[Variable("x"), Variable("v")], action=[Variable("u")], time_step=0.1)
Q, R = torch.eye(2, dtype=torch.float64), torch.tensor([[0.1]], dtype=torch.float64)
STARTS = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-0.5, 2.0]], dtype=torch.float64)


def riccati() -> tuple[Tensor, Tensor]:
    """Cost-to-go P and gain K, u = K x, of the infinite horizon, by iteration."""
    P = Q
    for _ in range(2000):
        K = -torch.linalg.solve(R + B.T @ P @ B, B.T @ P @ A)
        P = Q + A.T @ P @ (A + B @ K)
    return P, K


def objective() -> Objective:
    return quadratic(Q, R, terminal=riccati()[0])


def model(noise: float = 0.0) -> bwm.KnownDynamics:
    return bwm.KnownDynamics(structure=FromFunction(lambda x, u: x @ A.T + u @ B.T, schema=SCHEMA), noise=noise)


def best_policy() -> LinearPolicy:
    return LinearPolicy(SCHEMA).replace(gain=riccati()[1])


def optimum(horizon: int, *, noise: float = 0.0) -> float:
    """Expected cost of the best policy, averaged over starts: x'P x and what the noise of each step adds."""
    P = riccati()[0]
    return float(torch.einsum("ni,ij,nj->n", STARTS, P, STARTS).mean() + horizon * noise**2 * P.trace())
