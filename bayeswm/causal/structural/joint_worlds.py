"""Worlds of several regressions that are independent given the data, put together."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from bayeswm.base.errors import SpecError
from bayeswm.base.random import systematic
from bayeswm.base.worlds import Worlds

# at most so many worlds are all combinations of the members of ensembles; of more, some are drawn
_COMBINATIONS = 128


class JointWorlds(NamedTuple):
    """World i of each regression together makes world i of the whole."""

    regressions: dict[str, Worlds]
    log_weight: Tensor
    exhaustive: bool


def joint_worlds(
    drawn: Mapping[str, Worlds], count: int, *, exhaustive: bool, generator: torch.Generator | None
) -> JointWorlds:
    """Return worlds of all regressions together.

    Posteriors of mechanisms are independent given the data, so that draws of each are put together as they come. Where
    every posterior is a few worlds (members of ensembles), the joint one is all combinations of them with the products
    of their weights, as long as there are at most 128; otherwise combinations are drawn.

    Parameters
    ----------
    drawn : mapping of str to Worlds
        Of each regression: ``count`` draws, or its whole posterior.
    count : int
        How many worlds are wanted where they are drawn.
    exhaustive : bool
        Whether nothing else is uncertain.
    generator : torch.Generator, optional
        Needed where combinations are drawn.

    Raises
    ------
    SpecError
        If a regression's state is hidden, differs between episodes or is a single draw; without a generator.
    """
    for name, worlds in drawn.items():
        if not worlds.state_is_measured or worlds.episode_noise_size:
            raise SpecError(
                f"{name}: expected a model of a measured state without numbers of episodes for a learned mechanism, "
                f"got {type(worlds).__name__}"
            )
        if not worlds.exhaustive and len(worlds) != count:
            raise SpecError(
                f"{name}: expected {count} draws from the posterior of its mechanism, got {len(worlds)}: how sure a "
                "single network is cannot be told; use at least 2 members"
            )
    # of all regressions the first says where; known mechanisms alone are anywhere
    device = next((w.device for w in drawn.values()), None)
    sizes = [len(w) for w in drawn.values()]
    if exhaustive and all(w.exhaustive for w in drawn.values()) and math.prod(sizes) <= _COMBINATIONS:
        index = torch.cartesian_prod(torch.arange(1), *(torch.arange(n) for n in sizes)).view(-1, 1 + len(sizes))[:, 1:]
        parts = {k: w[i.to(w.device)] for (k, w), i in zip(drawn.items(), index.unbind(-1), strict=True)}
        log_weight = torch.zeros(len(index), dtype=torch.float64, device=device)
        for w, i in zip(drawn.values(), index.unbind(-1), strict=True):
            log_weight = log_weight + w.log_weight[i.to(w.device)].to(device)
        return JointWorlds(parts, log_weight, True)
    parts, log_weight = dict[str, Worlds](), torch.zeros(count, dtype=torch.float64, device=device)
    for name, worlds in drawn.items():
        if not worlds.exhaustive:
            parts[name], log_weight = worlds, log_weight + worlds.log_weight.to(device)
        elif len(worlds) == 1:
            parts[name] = worlds[torch.zeros(count, dtype=torch.int64, device=worlds.device)]
        elif generator is None:
            raise SpecError("expected generator=torch.Generator to draw combinations of members, got none")
        else:
            parts[name] = worlds[systematic(worlds.log_weight, count, generator).to(worlds.device)]
    return JointWorlds(parts, log_weight, False)
