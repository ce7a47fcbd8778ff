"""Where a search by derivatives begins."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from bayeswm.base.errors import SpecError
from bayeswm.base.random import standard_normal, uniform
from bayeswm.planning.problem import Problem


def first_guesses(
    problem: Problem, memory: Mapping[str, Tensor], *, count: int, generator: torch.Generator | None
) -> Tensor:
    """Return action sequences to begin with: what is remembered, or rest, and random ones from slow to fast.

    Parameters
    ----------
    problem : Problem
        What is planned.
    memory : mapping of str to Tensor
        What remains of the last plan, ``actions`` (*starts, H, A) and perhaps ``others`` (k, *starts, H, A), or
        nothing.
    count : int
        How many.
    generator : torch.Generator, optional
        Needed for more than one.

    Returns
    -------
    Tensor, shape (count, *starts, H, A)
        The random ones are the same for all starts.
    """
    limits, starts = problem.limits, problem.starts
    shape = (*starts, problem.horizon, len(limits.low))
    known = (memory["actions"] if memory else torch.zeros_like(limits.low).expand(shape))[None]
    if "others" in memory:
        known = torch.cat((known, memory["others"]))[:count]
    known = limits.apply(known, problem.previous)
    count = count - len(known)
    if not count:
        return known
    if generator is None:
        raise SpecError("expected generator=torch.Generator to draw restarts, got none")
    alike = (count, *(1,) * len(starts))
    kind = {"dtype": known.dtype, "device": known.device}
    drawn = standard_normal((*alike, *shape[-2:]), generator, **kind)
    # a first-order process of unit variance: its memory differs from draw to draw
    keep = uniform((*alike, 1), generator, **kind)
    values = [drawn[..., 0, :]]
    for t in range(1, shape[-2]):
        values.append(keep * values[-1] + (1 - keep.square()).sqrt() * drawn[..., t, :])
    wild = limits.center + limits.radius * torch.stack(values, -2)
    wild = limits.apply(wild.expand(count, *shape), problem.previous)
    return torch.cat((known, wild))
