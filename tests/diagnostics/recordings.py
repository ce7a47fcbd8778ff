"""A linear-Gaussian system, its recordings, and the exact law of its future."""

from typing import NamedTuple

import torch
from torch import Tensor

import bayeswm as bwm
from bayeswm.structures import FromFunction

TRANSITION = torch.tensor([[0.9, 0.2], [-0.3, 0.8]], dtype=torch.float64)
CONTROL = torch.tensor([[0.0], [0.5]], dtype=torch.float64)
NOISE = (0.3, 0.7)


class Linear(NamedTuple):
    """The truth, and what it did in independent episodes."""

    truth: bwm.KnownDynamics
    data: bwm.Trajectories

    def model(self, share: float) -> bwm.KnownDynamics:
        """Return the truth with another amount of noise."""
        return bwm.KnownDynamics(structure=self.truth.structure, noise=[share * s for s in NOISE])

    def variance(self, horizon: int) -> Tensor:
        """Return the exact variance of each variable after 1..horizon steps, shape (horizon, 2)."""
        covariance, rows = torch.zeros(2, 2, dtype=torch.float64), []
        for _ in range(horizon):
            covariance = TRANSITION @ covariance @ TRANSITION.T + torch.diag(torch.tensor(NOISE).double().square())
            rows.append(covariance.diagonal())
        return torch.stack(rows)


def linear_system() -> bwm.KnownDynamics:
    schema = bwm.Schema(
        state=[bwm.Variable("x", unit="m"), bwm.Variable("v", unit="m/s")],
        action=[bwm.Variable("force", unit="N")],
        time_step=0.1,
    )
    structure = FromFunction(lambda x, u: x @ TRANSITION.T + u @ CONTROL.T, schema=schema, name="linear")
    return bwm.KnownDynamics(structure=structure, noise=NOISE)


def record(truth: bwm.KnownDynamics, *, episodes: int, steps: int, seed: int) -> bwm.Trajectories:
    g = torch.Generator().manual_seed(seed)
    start = torch.randn(episodes, 2, generator=g, dtype=torch.float64)
    action = torch.randn(episodes, steps, 1, generator=g, dtype=torch.float64)
    path = bwm.rollout(truth, start, action, particles=1, generator=g).particles[0, 0]
    return bwm.Trajectories(truth.schema, state=torch.cat((start[:, None], path), 1), action=action)
