"""Candidate causes of the next state, and the features of them that a regression sees."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations_with_replacement
from typing import NamedTuple

import torch
from torch import Tensor

from bayeswm.base.errors import DataError, SpecError
from bayeswm.base.trajectories import Trajectories, check_trajectories


class Design(NamedTuple):
    """Features of all candidates as unit columns around 0, and which candidates each is made of.

    ``columns`` has shape (n, F), ``owners`` (F, p); a feature that never varies is left out.
    """

    columns: Tensor
    owners: Tensor

    def check_rows(self) -> None:
        """Refuse fewer rows than a regression on all features needs.

        Raises
        ------
        DataError
            With both numbers.
        """
        count, size = self.columns.shape
        if count < size + 3:
            raise DataError(f"expected more steps than features, got {count} steps for {size} features; use degree=1")


@dataclass(frozen=True, eq=False)
class Candidates:
    """Values of candidate causes, and of the effects that came after them.

    Attributes
    ----------
    causes, effects : tuple of str
        Nodes such as ``"speed[t-1]"``, and ``"speed[t]"``.
    values : Tensor, shape (n, p)
        Of the causes; angles on their lift.
    outcomes : Tensor, shape (n, E)
        Of the effects; angles on the same lift.
    angles : tuple of bool
        Which causes are angles.
    own : tuple of tuple of int
        For each effect that is an angle the causes that are its own past; empty for others.
    """

    causes: tuple[str, ...]
    effects: tuple[str, ...]
    values: Tensor
    outcomes: Tensor
    angles: tuple[bool, ...]
    own: tuple[tuple[int, ...], ...]

    def design(self, effect: int, *, degree: int) -> Design:
        """Return the features for one effect: values, sine and cosine of angles, and products of two of these.

        An angle moves on from where it was, so that its own past also enters as it is.
        """
        columns, owners, cosines = list[Tensor](), list[set[int]](), set[int]()
        for i, angle in enumerate(self.angles):
            value = self.values[:, i]
            parts = (value.sin(), value.cos()) if angle else (value,)
            columns += [standardised(part) for part in parts]
            owners += [{i}] * len(parts)
            cosines |= {len(columns) - 1} if angle else set()
        if degree == 2:
            for a, b in combinations_with_replacement(range(len(columns)), 2):
                # the square of a cosine says what that of the sine says
                if a != b or a not in cosines:
                    columns.append(standardised(columns[a] * columns[b]))
                    owners.append(owners[a] | owners[b])
        for i in self.own[effect]:
            columns.append(standardised(self.values[:, i]))
            owners.append({i})
        kept = [j for j, column in enumerate(columns) if bool(column.any())]
        made = torch.tensor([[i in owners[j] for i in range(len(self.causes))] for j in kept], dtype=torch.bool)
        chosen = torch.stack([columns[j] for j in kept], -1) if kept else self.values[:, :0]
        return Design(chosen / len(chosen) ** 0.5, made.view(len(kept), len(self.causes)))


def standardised(values: Tensor) -> Tensor:
    """Return values around 0 with variance 1; zeros where they do not vary."""
    centred = values - values.mean(0)
    scale = centred.square().mean(0).sqrt()
    return torch.where(scale > 1e-12 * (1 + values.abs().amax(0)), centred / scale, 0.0)


def candidates(trajectories: Trajectories, *, lags: int) -> Candidates:
    """Return what may act on each next state: states, actions and context of the steps before.

    Raises
    ------
    SpecError, DataError
        For other lags than 1 and 2, for states that are neither numbers nor angles, or without a complete step.
    """
    if lags not in (1, 2) or isinstance(lags, bool):
        raise SpecError(f"expected lags=1 or lags=2, got {lags!r}")
    check_trajectories(trajectories)
    schema = trajectories.schema
    for group in (schema.state, schema.action, schema.context):
        if not group.flat:
            raise SpecError(f"expected real variables and angles, got {group}; leave the others out")
    states, actions, context = trajectories.states().double(), trajectories.action.double(), trajectories.step_context()
    known = trajectories.state_mask.all(-1)
    ends = trajectories.horizon - lags + 1
    complete = torch.ones(len(states), max(ends, 0), dtype=torch.bool, device=states.device)
    for back in range(lags + 1):
        complete = complete & known[:, lags - back : lags - back + ends]
    for back in range(1, lags + 1):
        complete = complete & trajectories.step_mask[:, lags - back : lags - back + ends]
    if not bool(complete.any()):
        raise DataError(f"expected at least one run of {lags + 1} recorded states, got none")
    parts: list[Tensor] = []
    causes: list[str] = []
    angles: list[bool] = []
    for back in range(1, lags + 1):
        first = lags - back
        groups = [(schema.state, states), (schema.action, actions)]
        groups += [(schema.context, context.double())] if back == 1 else []
        for variables, values in groups:
            parts.append(values[:, first : first + ends][complete])
            causes += [f"{name}[t-{back}]" for name in variables.columns]
            angles += [j in variables.angles for j in range(variables.size)]
    effects = tuple(f"{name}[t]" for name in schema.state.columns)
    own = tuple(
        tuple(causes.index(f"{name}[t-{back}]") for back in range(1, lags + 1)) if j in schema.state.angles else ()
        for j, name in enumerate(schema.state.columns)
    )
    outcomes = states[:, lags : lags + ends][complete]
    return Candidates(tuple(causes), effects, torch.cat(parts, -1), outcomes, tuple(angles), own)
