"""Predictives made of given trajectories or exact laws, and processes whose law is known."""

import torch
from torch import Tensor

import bayeswm as bwm
from bayeswm.base.laws import Gaussian
from bayeswm.base.schema import Variables


def variables(size: int) -> Variables:
    return Variables([bwm.Variable(f"x{i}") for i in range(size)])


def of_paths(paths: Tensor, *, exhaustive: bool = True, weight: Tensor | None = None) -> bwm.Predictive:
    """Return the predictive of trajectories of shape (worlds, particles, *batch, H, S): its laws are points."""
    worlds, steps, size = len(paths), paths.shape[-2], paths.shape[-1]
    weight = torch.full((worlds,), 1 / worlds, dtype=paths.dtype) if weight is None else weight
    return bwm.Predictive(
        variables(size),
        [Gaussian(paths[..., h, :], torch.zeros_like(paths[..., h, :])) for h in range(steps)],
        weight.log(),
        exhaustive=exhaustive,
        time_step=0.1,
        particles=paths.movedim(-2, 0),
        diverged=(~paths.isfinite()).any(-1).movedim(-1, 0),
    )


def of_moments(mean: Tensor, stddev: Tensor) -> bwm.Predictive:
    """Return the predictive of exact Gaussian steps, mean and standard deviation of shape (*batch, H, S)."""
    laws = [Gaussian(mean[None, None, ..., h, :], stddev[None, None, ..., h, :]) for h in range(mean.shape[-2])]
    return bwm.Predictive(
        variables(mean.shape[-1]),
        laws,
        torch.zeros(1, dtype=mean.dtype),
        exhaustive=True,
        time_step=0.1,
        resolved=[True] * len(laws),
    )


def autoregressive(coefficient: float, count: int, *, steps: int, seed: int) -> tuple[Tensor, Tensor]:
    """Return paths x[t + 1] = a x[t] + N(0, 1) from 0, shape (count, steps, 1), and their exact sd, (steps, 1).

    White noise for a = 0, a random walk for a = 1.
    """
    noise = torch.randn(count, steps, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    x, paths, variance, spread = torch.zeros(count).double(), [], 0.0, []
    for t in range(steps):
        x = coefficient * x + noise[:, t]
        variance = coefficient**2 * variance + 1
        paths.append(x)
        spread.append(variance**0.5)
    return torch.stack(paths, -1)[..., None], torch.tensor(spread, dtype=torch.float64)[:, None]
