"""Weights of worlds from held-out densities."""

from __future__ import annotations

import torch
from torch import Tensor


def stack(log_prob: Tensor, *, steps: int = 1000, tolerance: float = 1e-9) -> Tensor:
    """Return the weights that maximise the held-out log score of the mixture (Yao et al. 2018).

    The objective is concave; its expectation-maximisation steps never leave the simplex and never get worse.

    Parameters
    ----------
    log_prob : Tensor, shape (members, n)
        Log density of each held-out outcome under each member.
    steps : int
        At most.
    tolerance : float
        Stop once the mean log score grows by less.

    Returns
    -------
    Tensor, shape (members,)
        Log weights.

    Examples
    --------
    >>> good, bad = torch.zeros(50), torch.full((50,), -3.0)
    >>> stack(torch.stack((good, bad))).exp().numpy().round(3).tolist()
    [1.0, 0.0]
    """
    log_prob = log_prob.detach().double()
    log_weight = torch.full(
        (len(log_prob),), -torch.log(torch.tensor(float(len(log_prob)))).item(), dtype=torch.float64
    )
    score = torch.tensor(float("-inf"), dtype=torch.float64)
    for _ in range(steps):
        joint = log_weight[:, None] + log_prob
        total = torch.logsumexp(joint, 0)
        if float(total.mean() - score) < tolerance:
            break
        score = total.mean()
        log_weight = torch.logsumexp(joint - total, 1) - torch.log(torch.tensor(float(log_prob.shape[1])))
    return torch.log_softmax(log_weight, 0)
