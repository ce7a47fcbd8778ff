"""What an objective says of one step of a running system: its reward, and whether the episode ends."""

from __future__ import annotations

import torch
from torch import Tensor

from bayeswm.planning.objective import Objective


def step_reward(
    objective: Objective,
    state: Tensor,
    action: Tensor,
    *,
    context: Tensor,
    after: Tensor,
    step: int | Tensor,
    previous: Tensor | None = None,
    last: bool = False,
) -> Tensor:
    """Return the reward of a step: minus its cost, without the objective's discount.

    Along an episode that does not end early the rewards add up to minus the cost of the trajectory.

    Parameters
    ----------
    objective : Objective
        What things cost.
    state, after : Tensor, shape (..., S)
        States before and after the step.
    action : Tensor, shape (..., A)
        What was done.
    context : Tensor, shape (..., C)
        Environment factors.
    step : int or Tensor of shape (...)
        Index of the step.
    previous : Tensor, shape (..., A), optional
        The action before; a change costs nothing without it.
    last : bool
        Whether the episode's horizon is reached: the terminal cost of ``after`` is added.

    Returns
    -------
    Tensor, shape (...)

    Examples
    --------
    >>> from bayeswm.planning.costs import quadratic
    >>> objective = quadratic(torch.tensor([1.0]), torch.tensor([0.1]))
    >>> x, u, none = torch.tensor([2.0]), torch.tensor([1.0]), torch.zeros(0)
    >>> step_reward(objective, x, u, context=none, after=x, step=0)
    tensor(-4.1000)
    """
    cost = state.new_zeros(state.shape[:-1])
    if objective.stage is not None:
        at = torch.as_tensor(step, device=state.device)[..., None]
        given, factors = (v.expand(*state.shape[:-1], v.shape[-1])[..., None, :] for v in (action, context))
        cost = cost + objective.stage(state[..., None, :], given, factors, at)[..., 0]
    if objective.change and previous is not None:
        cost = cost + objective.change * (action - previous).square().sum(-1)
    if last and objective.terminal is not None:
        cost = cost + objective.terminal(after, context.expand(*after.shape[:-1], context.shape[-1]))
    return -cost


def ended(objective: Objective, state: Tensor, context: Tensor) -> Tensor:
    """Return whether an episode ends in a state, (..., S) to (...); never without a termination.

    Examples
    --------
    >>> fell = lambda state, context: state[..., 0].abs() > 1.0
    >>> objective = Objective(stage=lambda x, u, c, t: -torch.ones_like(x[..., 0]), termination=fell)
    >>> ended(objective, torch.tensor([[0.5], [1.5]]), torch.zeros(2, 0))
    tensor([False,  True])
    """
    if objective.termination is None:
        return torch.zeros(state.shape[:-1], dtype=torch.bool, device=state.device)
    context = context.expand(*state.shape[:-1], context.shape[-1])
    return objective.termination(state[..., None, :], context[..., None, :])[..., 0].expand(state.shape[:-1])
