"""A model of the logged actions, for controllers that are not linear: what it leaves is the hidden cause."""

from __future__ import annotations

import copy
import warnings

import torch
from torch import Tensor

from bayeswm.base.arrays import bounds_were_checked
from bayeswm.base.errors import DataWarning
from bayeswm.base.model import DynamicsModel
from bayeswm.base.schema import Schema, Variables
from bayeswm.base.trajectories import Trajectories


def fit_action_model(
    prototype: DynamicsModel,
    public: Trajectories,
    recorded: Tensor,
    *,
    actions: tuple[str, ...],
    instruments: Variables,
    seed: int | None,
) -> DynamicsModel:
    """Return a copy of a model that has learned the logged actions from state, context and instruments.

    To the model, an action is the state that follows from 0, and all that it depends on is context: each step of the
    log is an episode of one step.

    Parameters
    ----------
    prototype : DynamicsModel
        Of any family whose structure takes its variables from the data, such as a deep ensemble.
    public : Trajectories
        The log without what was recorded only.
    recorded : Tensor, shape (N, T, R)
        Instruments.
    actions : tuple of str
        Which actions.
    instruments : Variables
        What the columns of ``recorded`` are.
    seed : int, optional
        Of the fit.
    """
    s = public.schema
    schema = Schema(
        state=[s.action[a] for a in actions], context=[*s.state, *s.context, *instruments], time_step=s.time_step
    )
    inside = public.step_mask & public.state_mask.all(-1)[:, :-1]
    context = _inputs(public, recorded)[inside]
    index = [s.action.column(a) for a in actions]
    after = public.action[inside][:, index]
    rows = torch.stack((torch.zeros_like(after), after), 1)
    with bounds_were_checked():
        log = Trajectories(schema, state=rows, context=context)
    with warnings.catch_warnings():
        # the state before is 0 on purpose
        warnings.filterwarnings("ignore", "constant input column", DataWarning)
        return copy.deepcopy(prototype).fit(log, seed=seed, progress=False)


def residual(model: DynamicsModel, public: Trajectories, recorded: Tensor, *, actions: tuple[str, ...]) -> Tensor:
    """Return what a model of the logged actions leaves of them, shape (N, T, actions)."""
    inside = public.step_mask & public.state_mask.all(-1)[:, :-1]
    context = _inputs(public, recorded)[inside]
    nothing = context.new_zeros(len(context), len(actions))
    generator = torch.Generator().manual_seed(0)
    found = model.predictive(nothing, nothing[:, :0], context=context, of="function", generator=generator)
    index = [public.schema.action.column(a) for a in actions]
    left = public.action[..., index].clone()
    left[inside] -= found.mean[:, 0].to(left)
    return left


def _inputs(public: Trajectories, recorded: Tensor) -> Tensor:
    return torch.cat((public.states()[:, :-1], public.step_context(), recorded), -1)
