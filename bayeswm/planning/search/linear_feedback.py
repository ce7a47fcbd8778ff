"""Linear feedback around what was planned: a policy for rollouts and control."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from bayeswm.planning.limits import Limits


class LinearFeedback(NamedTuple):
    """The policy ``u = actions[t] + gains[t] (x - states[t])``, within limits; the last entry holds for ever after.

    It is called as policies of :func:`bayeswm.rollout` are. Deviations of angles are taken on their lift.

    The axes of starts may be missing: then it is the same for all states.

    Attributes
    ----------
    gains : Tensor, shape (*starts, H, A, S)
        What is added to the action for each unit that the state is off.
    states : Tensor, shape (*starts, H, S)
        Where the state is meant to be at each step.
    actions : Tensor, shape (*starts, H, A)
        What is done there.
    limits : Limits, optional
        Lowest and highest action. A largest change is not looked at: the policy does not know what was done before.

    Examples
    --------
    >>> policy = LinearFeedback(torch.tensor([[[-2.0, -1.0]]]), torch.zeros(1, 2), torch.zeros(1, 1))
    >>> policy(torch.tensor([0.5, 0.1]), 7)
    tensor([-1.1000])
    """

    gains: Tensor
    states: Tensor
    actions: Tensor
    limits: Limits | None = None

    def __call__(self, state: Tensor, step: int) -> Tensor:
        """Return actions (..., *starts, A) for states (..., *starts, S) at a step."""
        t = min(step, self.actions.shape[-2] - 1)
        away = state - self.states[..., t, :]
        action = self.actions[..., t, :] + (self.gains[..., t, :, :] @ away[..., None]).squeeze(-1)
        if self.limits is None:
            return action
        return torch.minimum(torch.maximum(action, self.limits.low), self.limits.high)

    def where(self, usable: Tensor, otherwise: Tensor) -> LinearFeedback:
        """Return the feedback for some starts, (*starts), and fixed actions (*starts, H, A) for the others."""
        keep = usable[..., None, None]
        gains = torch.where(keep[..., None], self.gains, 0.0)
        return self._replace(
            gains=gains,
            states=torch.where(keep, self.states, 0.0),
            actions=torch.where(keep, self.actions, otherwise),
        )
