"""The best of what was tried, and a normal law fitted to it."""

from __future__ import annotations

from typing import NamedTuple, Self

import torch
from torch import Tensor

from bayeswm.planning.problem import Problem, broken_from


class Elites(NamedTuple):
    """Action sequences (k, *starts, H, A) with their keys (k, *starts), the best first."""

    actions: Tensor
    key: Tensor

    @classmethod
    def of(cls, tried: Tensor, key: Tensor, count: int) -> Self:
        """Return the best of the candidates (n, *starts, H, A) with keys (n, *starts)."""
        ranked = key.topk(count, dim=0, largest=False)
        index = ranked.indices[..., None, None].expand(*ranked.indices.shape, *tried.shape[-2:])
        return cls(tried.gather(0, index), ranked.values)

    def moments(self, mean: Tensor, sd: Tensor, *, momentum: float) -> tuple[Tensor, Tensor]:
        """Return mean and standard deviation of those that can be used, mixed with the old ones.

        Parameters
        ----------
        mean, sd : Tensor, shape (*starts, H, A)
            The law that they were drawn from; it stays where none can be used.
        momentum : float
            Share of the old values that stays.
        """
        # what diverged is no elite
        usable = self.key.isfinite()
        count = usable.sum(0)[..., None, None]
        weight = usable[..., None, None].to(mean) / count.clamp(min=1)
        center = (weight * self.actions).sum(0)
        wide = (weight * (self.actions - center).square()).sum(0).sqrt()
        some = count > 0
        return (
            torch.where(some, torch.lerp(center, mean, momentum), mean),
            torch.where(some, torch.lerp(wide, sd, momentum), sd),
        )


class Best(NamedTuple):
    """The best action sequence so far (*starts, H, A) and its key (*starts)."""

    actions: Tensor
    key: Tensor

    @classmethod
    def none(cls, like: Tensor) -> Self:
        """Return that there is none yet."""
        return cls(like, like.new_full(like.shape[:-2], float("inf")))

    def or_better(self, elites: Elites) -> Best:
        """Return the first of the elites where it is better."""
        better = elites.key[0] < self.key
        return Best(
            torch.where(better[..., None, None], elites.actions[0], self.actions),
            torch.where(better, elites.key[0], self.key),
        )


def settle(problem: Problem, mean: Tensor, best: Best, *, diverged: Tensor) -> tuple[Tensor, Tensor]:
    """Return the fitted mean, or the best that was tried where the mean cannot be used, and the key of it.

    A mean of candidates none of which diverged is taken without another look, unless there are constraints: one more
    rollout for a single candidate would cost nearly as much as one for all.

    Parameters
    ----------
    problem : Problem
        What is planned.
    mean : Tensor, shape (*starts, H, A)
        What was fitted.
    best : Best
        The best that was tried.
    diverged : Tensor, shape (*starts)
        Share of the particles that diverged in the search.

    Returns
    -------
    tuple of Tensor, shapes (*starts, H, A) and (*starts)
    """
    doubtful = torch.ones_like(diverged, dtype=torch.bool) if problem.constraints else diverged > 0
    if not bool(doubtful.any()):
        return mean, best.key
    key = problem.score(mean[None]).key[0]
    big = broken_from(key.dtype)
    unusable = doubtful & (~key.isfinite() | ((key >= big) & (best.key < key)))
    key = torch.where(unusable | ~doubtful, best.key, key)
    return torch.where(unusable[..., None, None], best.actions, mean), key
