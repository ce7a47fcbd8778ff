"""Actions of a counterfactual branch that the system cannot take."""

from __future__ import annotations

import warnings

import torch

from bayeswm.base.errors import DataWarning
from bayeswm.base.trajectories import Trajectories
from bayeswm.causal.interventions.intervened import IntervenedWorlds

_SLACK = 0.01  # of the width of the bounds: measurement noise at a limit is no violation


def warn_of_bounds(worlds: IntervenedWorlds, factual: Trajectories) -> None:
    """Count what interventions set outside the bounds of the schema, over the steps of all episodes.

    Parameters
    ----------
    worlds : IntervenedWorlds
        In which the branch ran.
    factual : Trajectories
        What happened.

    Warns
    -----
    DataWarning
        For each variable that is outside in at least one world or particle.
    """
    if not worlds.played:
        return
    played = torch.stack(torch.broadcast_tensors(*worlds.played.values()))
    for v in worlds.schema.action:
        if v.bounds is None:
            continue
        slack, value = _SLACK * (v.bounds[1] - v.bounds[0]), played[..., worlds.schema.action.slices[v.name]]
        outside = ((value < v.bounds[0] - slack) | (value > v.bounds[1] + slack)).any(-1)
        if not bool(outside.any()):
            continue
        # one value for all episodes has no axis of theirs
        outside = outside[:, None] if outside.ndim == 1 else outside
        outside = outside.expand(torch.broadcast_shapes(outside.shape, (len(factual),)))
        inside = factual.step_mask[:, list(worlds.played)].to(outside.device)
        count = int((outside.reshape(len(played), -1, len(factual)).any(1) & inside.mT).sum())
        if count:
            text = (
                f"{count} value(s) of action variable {v.name!r} outside its bounds {v.bounds} under the intervention"
            )
            warnings.warn(text, DataWarning, stacklevel=3)
