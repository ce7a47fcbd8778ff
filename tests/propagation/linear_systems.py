"""Weighted linear worlds x' = A x + B u + noise, and their moments by dense recursions."""

from typing import NamedTuple

import torch
from torch import Tensor

from bayeswm.base import Gaussian, Moments, MultivariateGaussian, Schema, StructureWorlds, Variable
from bayeswm.propagation import Linearized, MomentMatching, MomentReset, Unscented
from bayeswm.structures import Linear

F64 = torch.float64
IN_EACH = (MomentMatching(), Unscented(), Linearized(), MomentReset(particles=20))
POOLED = (
    MomentMatching(pooled=True),
    Unscented(pooled=True),
    Linearized(pooled=True),
    MomentReset(particles=20, pooled=True),
)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=generator(seed), dtype=F64)


def schema(state: int, action: int) -> Schema:
    return Schema(
        state=[Variable(f"x{i}") for i in range(state)],
        action=[Variable(f"u{i}") for i in range(action)],
        time_step=0.1,
    )


def linear_worlds(
    worlds: int, *, state: int = 2, action: int = 1, noise: float = 0.1, exhaustive: bool = True, seed: int = 0
) -> StructureWorlds:
    """Worlds with matrices of spectral norm below 1 and different weights; the last column has no noise."""
    A = normal(worlds, state, state, seed=seed)
    A = 0.95 * A / torch.linalg.matrix_norm(A, 2)[:, None, None]
    scale = noise * (1 + normal(worlds, state, seed=seed + 1).abs())
    scale[:, -1] = 0.0 if state > 1 else scale[:, -1]
    parameters = {"A": A, "B": normal(worlds, state, action, seed=seed + 2), "c": normal(worlds, state, seed=seed + 3)}
    variables = schema(state, action)
    return StructureWorlds(
        Linear(variables),
        variables,
        {**parameters, "process_noise": scale},
        log_weight=normal(worlds, seed=seed + 4),
        exhaustive=exhaustive,
    )


def start(state: int = 2, *, batch: int = 3, seed: int = 7) -> MultivariateGaussian:
    """A belief with a full covariance, shape (1, 1, batch, state)."""
    factor = normal(batch, state, state, seed=seed).tril(-1)
    factor = factor + torch.diag_embed(0.2 + normal(batch, state, seed=seed + 1).abs())
    return MultivariateGaussian(normal(1, 1, batch, state, seed=seed + 2), factor[None, None])


def as_belief(law: Gaussian | MultivariateGaussian) -> tuple[Tensor, Tensor]:
    return law.mean[0, 0], law.covariance[0, 0]


class Exact(NamedTuple):
    """Over the horizon: ``mean`` (*batch, H, S), the rest (*batch, H, S, S)."""

    mean: Tensor
    covariance: Tensor
    aleatoric: Tensor


def in_each_world(worlds: StructureWorlds, mean: Tensor, cover: Tensor, actions: Tensor) -> Exact:
    """Moments of the mixture of what each world makes of the belief (batch, S); actions (batch, H, A)."""
    w, p = worlds.weight, worlds.parameters
    means, covers, alone = [], [], []
    each = [(mean, cover)] * len(worlds)
    for t in range(actions.shape[1]):
        each = [
            (m @ A.mT + actions[:, t] @ B.mT + c, A @ C @ A.mT + s.square().diag())
            for (m, C), A, B, c, s in zip(each, p["A"], p["B"], p["c"], p["process_noise"], strict=True)
        ]
        centre = sum(wi * m for wi, (m, _) in zip(w, each, strict=True))
        within = sum(wi * C for wi, (_, C) in zip(w, each, strict=True))
        between = sum(wi * outer(m - centre) for wi, (m, _) in zip(w, each, strict=True))
        between = between if worlds.exhaustive else between / (1 - w.square().sum())
        means.append(centre)
        alone.append(within)
        covers.append(within + between)
    return Exact(torch.stack(means, -2), torch.stack(covers, -3), torch.stack(alone, -3))


def pooled(worlds: StructureWorlds, mean: Tensor, cover: Tensor, actions: Tensor) -> Exact:
    """Moments where each step meets a world anew, and those of the mean world alone."""
    w, p = worlds.weight, worlds.parameters
    A_mean, noise = torch.einsum("w,wij->ij", w, p["A"]), torch.einsum("w,wi->i", w, p["process_noise"].square())
    scale = 1.0 if worlds.exhaustive else 1 / (1 - float(w.square().sum()))
    alone = cover
    means, covers, parts = [], [], []
    for t in range(actions.shape[1]):
        moved = [mean @ A.mT + actions[:, t] @ B.mT + c for A, B, c in zip(p["A"], p["B"], p["c"], strict=True)]
        centre = sum(wi * m for wi, m in zip(w, moved, strict=True))
        between = sum(
            wi * (outer(m - centre) + (A - A_mean) @ cover @ (A - A_mean).mT)
            for wi, m, A in zip(w, moved, p["A"], strict=True)
        )
        mean, cover = centre, A_mean @ cover @ A_mean.mT + noise.diag() + scale * between
        alone = A_mean @ alone @ A_mean.mT + noise.diag()
        means.append(mean)
        covers.append(cover)
        parts.append(alone)
    return Exact(torch.stack(means, -2), torch.stack(covers, -3), torch.stack(parts, -3))


def outer(v: Tensor) -> Tensor:
    return v[..., :, None] * v[..., None, :]


def normal_moments(mean: float, sd: float, highest: int) -> list[float]:
    """E[A^n] of a normal number, n = 0..highest, by Stein's recursion."""
    found = [1.0, mean]
    for n in range(2, highest + 1):
        found.append(mean * found[-1] + (n - 1) * sd**2 * found[-2])
    return found


GAIN = torch.tensor([[-0.4, 0.3]], dtype=F64)


def feedback(state: Tensor, step: int) -> Tensor:
    return state @ GAIN.mT + 0.1 * step


class NoisyFeedback:
    """Acts as ``feedback`` with a noise of variance 0.04, and says so."""

    def __call__(self, state: Tensor, step: int) -> Tensor:
        return feedback(state, step)

    def moments(self, mean: Tensor, covariance: Tensor, step: int) -> Moments:
        spread = GAIN @ covariance @ GAIN.mT + 0.04
        return Moments(feedback(mean, step), spread, covariance @ GAIN.mT, spread)
