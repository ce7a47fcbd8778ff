"""Linear systems with quadratic costs, and their optimum by dense algebra."""

from dataclasses import dataclass

import torch
from torch import Tensor

import bayeswm as bwm
from bayeswm.planning import Objective, quadratic


@dataclass(frozen=True)
class LinearProblem:
    A: Tensor
    B: Tensor
    c: Tensor
    Q: Tensor
    R: Tensor
    last: Tensor

    @property
    def objective(self) -> Objective:
        return quadratic(self.Q, self.R, terminal=self.last)

    def schema(self, bound: float) -> bwm.Schema:
        return bwm.Schema(
            state=[bwm.Variable(f"x{i}") for i in range(len(self.A))],
            action=[bwm.Variable(f"u{i}", bounds=(-bound, bound)) for i in range(self.B.shape[1])],
            time_step=0.1,
        )

    def model(self, bound: float = 1e3, noise: float = 0.0) -> bwm.KnownDynamics:
        structure = bwm.structures.Linear(self.schema(bound), A=self.A, B=self.B, c=self.c)
        return bwm.KnownDynamics(structure=structure, noise=noise)

    def condensed(self, x0: Tensor, horizon: int, *, push: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Return H, g and r of the cost ``u'H u + 2 g'u + r`` of stacked actions; ``push`` (H, S) moves states."""
        S, A = self.B.shape
        free, forced = x0.clone(), torch.zeros(S, horizon * A, dtype=torch.float64)
        H = torch.block_diag(*[torch.diag(self.R)] * horizon)
        g, r = torch.zeros(horizon * A, dtype=torch.float64), torch.zeros((), dtype=torch.float64)
        for t in range(horizon + 1):
            weight = torch.diag(self.last if t == horizon else self.Q)
            H = H + forced.T @ weight @ forced
            g = g + forced.T @ weight @ free
            r = r + free @ weight @ free
            if t < horizon:
                free, forced = self.A @ free + self.c, self.A @ forced
                forced[:, t * A : (t + 1) * A] += self.B
                if push is not None:
                    free = free + push[t]
        return H, g, r

    def optimum(self, x0: Tensor, horizon: int) -> tuple[Tensor, Tensor]:
        """Return the best actions (H, A) and their cost."""
        H, g, r = self.condensed(x0, horizon)
        u = -torch.linalg.solve(H, g)
        return u.view(horizon, -1), r + g @ u


def linear_problem(seed: int, *, states: int = 4, actions: int = 2, offset: float = 0.0) -> LinearProblem:
    g = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=g, dtype=torch.float64)

    return LinearProblem(
        A=torch.eye(states, dtype=torch.float64) + 0.1 * normal(states, states),
        B=0.3 * normal(states, actions),
        c=offset * normal(states),
        Q=0.1 + torch.rand(states, generator=g, dtype=torch.float64),
        R=0.1 + torch.rand(actions, generator=g, dtype=torch.float64),
        last=1.0 + torch.rand(states, generator=g, dtype=torch.float64),
    )


def starts(count: int, states: int = 4, seed: int = 0) -> Tensor:
    return torch.randn(count, states, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
