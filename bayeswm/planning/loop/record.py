"""What happens in a control loop, as it is recorded."""

from __future__ import annotations

import torch
from torch import Tensor

from bayeswm.base.trajectories import Trajectories
from bayeswm.planning.loop.plant import Plant, Shown


class Record:
    """An episode of several rows as it grows; a row that ended stays where it was.

    Parameters
    ----------
    first : Shown
        What the systems showed at the start.

    Examples
    --------
    >>> still = torch.zeros(2, dtype=torch.bool)
    >>> record = Record(Shown(torch.zeros(2, 1), None, torch.zeros(2), still, still))
    >>> record.take(torch.ones(2, 1), Shown(torch.ones(2, 1), None, torch.ones(2), ~still, still))
    >>> record.take(torch.ones(2, 1), Shown(2 * torch.ones(2, 1), None, torch.ones(2), still, still))
    >>> record.length.tolist(), record.shown.measured.flatten().tolist()
    ([1, 1], [1.0, 1.0])
    """

    def __init__(self, first: Shown) -> None:
        self.shown = first
        self.over = torch.zeros_like(first.terminated)
        self.terminated, self.truncated = self.over, self.over
        self.length = torch.zeros(len(self.over), dtype=torch.int64, device=self.over.device)
        self.measured, self.states = [first.measured], [first.state]
        self.actions: list[Tensor] = []
        self.rewards: list[Tensor] = []

    def take(self, action: Tensor, shown: Shown) -> None:
        """Add a step: what was done, shape (rows, A), and what it led to."""
        over, last = self.over[:, None], self.shown
        measured = torch.where(over, last.measured, shown.measured)
        state = None
        if shown.state is not None and last.state is not None:
            state = torch.where(over, last.state, shown.state)
        self.shown = shown._replace(measured=measured, state=state)
        self.measured.append(measured)
        self.states.append(state)
        self.actions.append(action.to(measured))
        self.rewards.append(torch.where(self.over, 0.0, shown.reward).to(measured))
        self.length = torch.where(self.over, self.length, len(self.actions))
        self.terminated = torch.where(self.over, self.terminated, shown.terminated)
        self.truncated = torch.where(self.over, self.truncated, shown.truncated)
        self.over = self.over | shown.terminated | shown.truncated

    def trajectories(self, plant: Plant) -> Trajectories:
        """Return the episodes, one for each row; those that went on to the end count as truncated."""
        group = "state" if plant.schema.observation is None else "observation"
        arrays: dict[str, Tensor] = {group: torch.stack(self.measured, 1)}
        states = [v for v in self.states if v is not None]
        if group == "observation" and len(states) == len(self.states):
            arrays["state"] = torch.stack(states, 1)
        return Trajectories(
            plant.schema,
            **arrays,
            action=torch.stack(self.actions, 1),
            reward=torch.stack(self.rewards, 1),
            context=plant.context if plant.schema.context else None,
            lengths=self.length,
            terminated=self.terminated,
            truncated=self.truncated | ~self.over,
            allow_missing=True,
        )
