"""Logs of the confounded system s' = 0.9 s + 0.5 a + e + w, a = -0.3 s + e + nu, and models of them."""

import torch
from torch import Tensor

import bayeswm as bwm
from bayeswm.structures import Linear
from tests.causal.reference_models import line

# what a regression on state and action tends to: 1.05 s + 1.00 a, with the variance 0.51
NAIVE = {"A": 1.05, "B": 1.0, "noise": 0.51**0.5}
TRUE = {"A": 0.9, "B": 0.5, "noise": 1.01**0.5}


def known(A: float, B: float, noise: float) -> bwm.KnownDynamics:
    """s' = A s + B a + noise."""
    return bwm.KnownDynamics(
        structure=Linear(
            line(), A=torch.tensor([[A]], dtype=torch.float64), B=torch.tensor([[B]], dtype=torch.float64)
        ),
        noise=noise,
    )


def confounded_log(
    episodes: int, steps: int, *, generator: torch.Generator, do: float | None = None
) -> bwm.Trajectories:
    """Episodes of the system as it was logged, or under a set action."""

    def draw() -> Tensor:
        return torch.randn(episodes, generator=generator, dtype=torch.float64)

    states, actions = [draw()], list[Tensor]()
    for _ in range(steps):
        s, e = states[-1], draw()
        actions.append(-0.3 * s + e + draw() if do is None else torch.full_like(s, do))
        states.append(0.9 * s + 0.5 * actions[-1] + e + 0.1 * draw())
    return bwm.Trajectories(line(), state=torch.stack(states, 1)[..., None], action=torch.stack(actions, 1)[..., None])
