"""For whom an effect is how large: averages over groups of starts."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from bayeswm.base.along import Policy
from bayeswm.base.errors import DataError
from bayeswm.base.model import DynamicsModel
from bayeswm.base.trajectories import Trajectories
from bayeswm.base.worlds import Worlds
from bayeswm.causal.effects.branches import Branches
from bayeswm.causal.effects.effect import check_level, labelled, path_means, summarised
from bayeswm.causal.interventions.intervention import Intervention

if TYPE_CHECKING:
    import xarray

By = ArrayLike | Callable[[Tensor], Tensor]


def group_effects(
    model: DynamicsModel | Worlds,
    treatment: Intervention,
    control: Intervention,
    *,
    by: By,
    state: Tensor,
    horizon: int | None = None,
    actions: Tensor | Policy | None = None,
    context: Tensor | None = None,
    worlds: int = 64,
    particles: int = 20,
    level: float = 0.9,
    logged: Trajectories | None = None,
    generator: torch.Generator | None = None,
) -> xarray.Dataset:
    """Return the average effect in each group of starts, such as slow ones and fast ones.

    The effect of each start is conditional on it, as in :func:`effect`; its average over a group is taken in each world
    and particle, so that the intervals are those of the averages.

    Parameters
    ----------
    model : DynamicsModel or Worlds
        A fitted model, or worlds drawn from one.
    treatment, control : Intervention
        Made by :func:`do`.
    by : array of shape (N,), or callable
        The group of each start, any labels that can be sorted; or what makes them of the states (N, S).
    state : Tensor, shape (N, S)
        Starts.
    horizon, actions, context, worlds, particles, level, logged, generator
        As of :func:`effect`.

    Returns
    -------
    xarray.Dataset
        Dimensions group, horizon (x[1..H]) and variable. ``effect`` is the average over the group and the worlds,
        ``lower``, ``upper``, ``probability_positive`` and ``standard_error`` as of :func:`effect`, ``count`` the number
        of starts in the group.

    Raises
    ------
    SpecError, DataError, UnknownVariableError
        As of :func:`effect`; for groups that do not fit the starts.

    Examples
    --------
    x' = x a: a push does to each start what the start is.

    >>> import bayeswm as bwm
    >>> schema = bwm.Schema(state=[bwm.Variable("x")], action=[bwm.Variable("a")], time_step=1.0)
    >>> model = bwm.KnownDynamics(structure=bwm.structures.FromFunction(lambda x, a: x * a, schema=schema))
    >>> starts = torch.tensor([[-2.0], [-1.0], [3.0]])
    >>> push, rest = bwm.do(a=1.0), bwm.do(a=0.0)
    >>> found = group_effects(model, push, rest, by=lambda x: x[:, 0] > 0, state=starts, horizon=1)
    >>> found.group.values.tolist(), found.effect.values.flatten().tolist(), found["count"].values.tolist()
    ([False, True], [-1.5, 3.0], [2, 1])
    """
    check_level(level)
    if not isinstance(state, Tensor) or state.ndim != 2 or not len(state):
        raise DataError(f"expected starts of shape (N, S), got {type(state).__name__} {getattr(state, 'shape', '')}")
    given = np.asarray(torch.as_tensor(by(state)).cpu() if callable(by) else by)
    if given.shape != (len(state),):
        raise DataError(f"expected by= to give one group for each of {len(state)} starts, got shape {given.shape}")
    groups, index, count = np.unique(given, return_inverse=True, return_counts=True)
    if np.issubdtype(given.dtype, np.floating) and np.isnan(given).any():
        raise DataError("expected a group for each start, got NaN")
    branches = Branches(
        model,
        state,
        actions,
        horizon=horizon,
        context=context,
        worlds=worlds,
        particles=particles,
        generator=generator,
    )
    treated, untreated = branches.run(treatment), branches.run(control)
    each = path_means(treated) - path_means(untreated)
    member = torch.zeros(len(groups), len(state), dtype=each.dtype, device=each.device)
    member[torch.from_numpy(index), torch.arange(len(state))] = 1.0
    share = member / member.sum(1, keepdim=True)
    found = summarised("effect", torch.einsum("gn,wpnhs->wpghs", share, each), treated, level=level)
    data = labelled(found, treated, attributes={"level": level, "worlds": treated.worlds, "particles": particles})
    data = data.rename(batch_0="group").assign_coords(group=groups).assign(count=("group", count))
    return branches.with_positivity(data, logged, treatment=treatment, control=control)
