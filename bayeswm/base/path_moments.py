"""Moments of a mixture at many steps: those in a row that have one shape are one more axis of a tensor."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby

import torch
from torch import Tensor

from bayeswm.base.mixture import Split, Step, pooled_mean, split_moments

# values up to which steps are put together: beyond, the copy costs more than the calls
_MOST = 2**17


def path_mean(steps: Sequence[Step], *, fresh_worlds: bool = False) -> list[Tensor]:
    """Return the means of steps, in parts of shape (*batch, h, S) whose h add up to the number of steps.

    ``fresh_worlds`` says that after the first step particles belong to no world.
    """
    found: list[Tensor] = []
    for run, merged in _runs(steps, fresh_worlds=fresh_worlds):
        mean = torch.stack([step.law.mean for step in run], 2)
        found.append(pooled_mean(mean, run[0].weight(mean), valid=_valid(run), merged=merged).movedim(0, -2))
    return found


def path_moments(steps: Sequence[Step], *, fresh_worlds: bool = False) -> list[Split]:
    """Return the moments of steps, in parts of shape (*batch, h, S): see :func:`path_mean`, :func:`split_moments`."""
    found: list[Split] = []
    for run, merged in _runs(steps, fresh_worlds=fresh_worlds):
        # steps behind the particles: each is then copied as a whole
        mean, variance = (torch.stack(v, 2) for v in zip(*((s.law.mean, s.law.variance) for s in run), strict=True))
        split = split_moments(
            mean,
            variance,
            run[0].weight(mean),
            exhaustive=run[0].exhaustive,
            resolved=run[0].resolved,
            valid=_valid(run),
            merged=merged,
        )
        found.append(Split(*(v.movedim(0, -2) for v in split)))
    return found


def _runs(steps: Sequence[Step], *, fresh_worlds: bool) -> Iterator[tuple[list[Step], bool]]:
    """Return steps in a row that differ in their numbers only, and whether particles there belong to no world."""

    def kind(numbered: tuple[int, Step]) -> tuple[object, ...]:
        h, step = numbered
        return fresh_worlds and h > 0, step.law.mean.shape, step.resolved, step.valid is None

    for (merged, *_), group in groupby(enumerate(steps), kind):
        run = [step for _, step in group]
        rows = max(1, _MOST // max(1, run[0].law.mean.numel()))
        for first in range(0, len(run), rows):
            yield run[first : first + rows], bool(merged)


def _valid(run: Sequence[Step]) -> Tensor | None:
    masks = [step.valid for step in run if step.valid is not None]
    return torch.stack(masks, 2) if masks else None
