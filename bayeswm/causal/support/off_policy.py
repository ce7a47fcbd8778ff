"""Doubly robust estimates of a policy's value from what was logged, given weights and a model's forecasts."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Logged(NamedTuple):
    """Episodes of N x H steps under the logged policy.

    Attributes
    ----------
    reward : Tensor, shape (N, H)
        What each step earned, discounted.
    log_ratio : Tensor, shape (N, H)
        Log density of each action under the policy that is judged, minus that under the one that was logged.
    action_value : Tensor, shape (N, H)
        The model's forecast of what is earned from a step on, given what was done in it: Q(x[t], a[t]).
    state_value : Tensor, shape (N, H)
        The same, had the judged policy chosen: V(x[t]).
    """

    reward: Tensor
    log_ratio: Tensor
    action_value: Tensor
    state_value: Tensor


def log_weights(log_ratio: Tensor) -> Tensor:
    """Return the logarithm of the importance weights of everything up to each step, shape (N, H)."""
    return log_ratio.cumsum(1)


def effective_episodes(log_weight: Tensor) -> Tensor:
    """Return ``(sum w)^2 / sum w^2`` at each step, shape (H,); 0 where all weights are 0."""
    found = (2 * log_weight.logsumexp(0) - (2 * log_weight).logsumexp(0)).exp()
    return torch.where(log_weight.amax(0) > float("-inf"), found, 0.0)


def doubly_robust(logged: Logged) -> Tensor:
    """Return each episode's part in the doubly robust estimate, shape (N,); their mean is the estimate.

    ``sum_t w[t] (r[t] - Q[t]) + w[t-1] V[t]`` with w[-1] = 1: unbiased if the weights are right, whatever the model,
    and if the model is right, whatever the weights. With Q = V = 0 it is importance sampling, step by step.

    References
    ----------
    Jiang and Li (2016), Doubly robust off-policy value evaluation for reinforcement learning, equation 10.
    """
    weight = log_weights(logged.log_ratio).exp()
    before = torch.cat((torch.ones_like(weight[:, :1]), weight[:, :-1]), 1)
    return (weight * (logged.reward - logged.action_value) + before * logged.state_value).sum(1)


def weighted_doubly_robust(logged: Logged) -> Tensor:
    """Return each episode's part in the weighted doubly robust estimate, shape (N,).

    Weights are divided by their mean at each step: some bias, of the order 1 / N, for much less variance where they
    are large. The parts are linearised (the delta method), so that their mean is the estimate and their spread that
    of the estimate.

    References
    ----------
    Thomas and Brunskill (2016), Data-efficient off-policy policy evaluation for reinforcement learning, section 5.
    """
    log_weight = log_weights(logged.log_ratio)
    n = len(log_weight)
    weight = (log_weight - log_weight.logsumexp(0)).exp() * n
    before = torch.cat((torch.ones_like(weight[:, :1]), weight[:, :-1]), 1)
    total = torch.zeros_like(weight[:, 0])
    for scale, value in ((weight, logged.reward - logged.action_value), (before, logged.state_value)):
        center = (scale * value).mean(0)
        total = total + (scale * (value - center) + center).sum(1)
    return total
