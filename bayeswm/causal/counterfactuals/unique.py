"""Correlated noise that changes with the state: a counterfactual that is not unique."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from bayeswm.base.errors import NotInvertible
from bayeswm.base.trajectories import Trajectories
from bayeswm.base.worlds import Worlds
from bayeswm.causal.counterfactuals.free_noise import slack


def check_unique(worlds: Worlds, factual: Trajectories, covariances: Mapping[int, Tensor]) -> None:
    """Refuse a counterfactual that hangs on which root of a covariance turns noise into states.

    With noise ``L(x) eps``, what replaces the residual r of the factual state x at the counterfactual state y is
    ``L(y) L(x)^-1 r``: the same for all roots L where the covariance is the same at both states, or diagonal at both,
    and another one for each root otherwise.

    Parameters
    ----------
    worlds : Worlds
        The system, with a state that is measured.
    factual : Trajectories
        What happened.
    covariances : mapping of int to Tensor, shape (worlds, particles, episodes, S, S)
        Of the noise in each step of the counterfactual branch.

    Raises
    ------
    NotInvertible
        If they differ from those of the factual, and not all are diagonal.
    """
    states = factual.states().to(worlds.device, worlds.dtype)
    action, context = (v.to(states).nan_to_num(0.0) for v in (factual.action, factual.step_context()))
    for t, second in covariances.items():
        inside = factual.step_mask[:, t].to(states.device)
        before = worlds.start(torch.where(inside[:, None], states[:, t], states[:, 0]))
        first = worlds.transition(before, action[:, t], context[:, t], step=t).covariance
        moved = ((first - second).abs() > slack(first.dtype) * first.abs().amax((-2, -1), keepdim=True)).any(-1).any(-1)
        correlated = (_off_diagonal(first) | _off_diagonal(second)) & inside
        if bool((moved & correlated).any()):
            raise NotInvertible(
                "expected noise that is independent or the same everywhere, got correlated noise that changes with the "
                f"state or the action (step {t}): the counterfactual depends on the order in which noise enters; say "
                "it by a StructuralModel"
            )


def _off_diagonal(covariance: Tensor) -> Tensor:
    diagonal = torch.diag_embed(covariance.diagonal(dim1=-2, dim2=-1))
    return (covariance != diagonal).any(-1).any(-1)
