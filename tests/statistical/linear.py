"""Linear-Gaussian systems with exact answers: x' = A x + B a + noise."""

from collections.abc import Callable, Mapping
from typing import Self

import torch
from torch import Tensor

from bayeswm.base import MarkovWorlds, MultivariateGaussian, Schema, Variable

A = torch.tensor([[1.0, 0.1], [-0.3, 0.9]], dtype=torch.float64)
B = torch.tensor([0.0, 0.2], dtype=torch.float64)
START = torch.tensor([1.0, -0.5], dtype=torch.float64)
SCHEMA = Schema(state=[Variable("x"), Variable("y")], action=[Variable("u")], time_step=0.1)
LINE = Schema(state=[Variable("x")], time_step=1.0)


class LinearWorlds(MarkovWorlds):
    """Worlds with matrices A (W, 2, 2) and a full noise covariance, given by its factor (W, 2, 2)."""

    schema, noise_size = SCHEMA, 2

    def __init__(self, parameters: Mapping[str, Tensor], *, log_weight: Tensor | None = None, exhaustive: bool) -> None:
        self.parameters, self.exhaustive = dict(parameters), exhaustive
        count = len(self.parameters["A"])
        self.log_weight = torch.log_softmax(torch.zeros(count).double() if log_weight is None else log_weight, 0)

    def _with(self, *, parameters: Mapping[str, Tensor], log_weight: Tensor, exhaustive: bool) -> Self:
        return type(self)(parameters, log_weight=log_weight, exhaustive=exhaustive)

    def transition(
        self, carry: Tensor, action: Tensor, context: Tensor | None = None, *, step: int | Tensor = 0
    ) -> MultivariateGaussian:
        lead = (len(self), *(1,) * (carry.ndim - 2), 2, 2)
        mean = (self.parameters["A"].view(lead) @ carry[..., None])[..., 0] + B.to(carry) * action
        return MultivariateGaussian(mean, self.parameters["factor"].view(lead))


def joint_moments(matrix: Tensor, noise: Tensor, actions: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and covariance of the whole trajectory x[1..H], flattened, from START."""
    mean, factor, means, factors = START, torch.zeros(2, 2 * len(actions), dtype=torch.float64), [], []
    for t, u in enumerate(actions[:, 0]):
        mean, factor = matrix @ mean + B * u, matrix @ factor
        factor = torch.cat((factor[:, : 2 * t], noise, factor[:, 2 * t + 2 :]), 1)
        means.append(mean)
        factors.append(factor)
    stacked = torch.cat(factors)
    return torch.cat(means), stacked @ stacked.mT


def quadrature(f: Callable[[Tensor], Tensor], low: float, high: float, *, points: int = 2000) -> Tensor:
    """Mean of f over the uniform law on [low, high]; f maps (points,) to (points, ...)."""
    edges = torch.linspace(low, high, points + 1, dtype=torch.float64)
    # midpoint rule: error O(1 / points^2)
    return f(0.5 * (edges[1:] + edges[:-1])).mean(0)
