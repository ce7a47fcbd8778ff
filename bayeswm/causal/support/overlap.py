"""Positivity: whether an intervention stays where a log has been."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from bayeswm.base.along import Policy
from bayeswm.base.errors import SpecError
from bayeswm.base.model import DynamicsModel
from bayeswm.base.trajectories import Trajectories, check_trajectories
from bayeswm.base.worlds import Belief, Worlds
from bayeswm.causal.confounding.log import without_recorded
from bayeswm.causal.effects.branches import Branches
from bayeswm.causal.effects.effect import check_level
from bayeswm.causal.interventions.intervened import IntervenedWorlds
from bayeswm.causal.interventions.intervention import Intervention
from bayeswm.causal.structural.worlds import StructuralWorlds
from bayeswm.causal.support.positivity_report import Positivity, warn_of_thin_support
from bayeswm.causal.support.reference_rows import ReferenceRows
from bayeswm.causal.support.visited import (
    Points,
    Visit,
    WatchedWorlds,
    coordinates,
    epistemic_variance,
    points_of,
    thinned,
)

if TYPE_CHECKING:
    import xarray

# a step is thinly supported if the share inside falls this much below the level, or if fewer rows count effectively
_SHORT_OF_LEVEL, _LEAST_ROWS = 0.15, 20.0


def positivity(
    model: DynamicsModel | Worlds,
    logged: Trajectories,
    intervention: Intervention | None = None,
    *,
    state: Belief,
    horizon: int | None = None,
    actions: Tensor | Policy | None = None,
    context: Tensor | None = None,
    worlds: int = 64,
    particles: int = 20,
    level: float = 0.95,
    generator: torch.Generator | None = None,
) -> Positivity:
    """Say whether an intervention, a plan or a policy stays where the log has been: overlap, step by step.

    What a model says of states and actions that were never logged is extrapolation, whatever its intervals. The model
    is rolled out, and where it goes is held against the log: by the distance to its nearest row, by the effective
    sample size of the log's rows under importance weights (densities by Gaussian kernels, in place of the propensity,
    so that set actions and any behaviour have one), and by what the worlds do not know there.

    Parameters
    ----------
    model : DynamicsModel or Worlds
        Fitted to the log, without interventions.
    logged : Trajectories
        The log, of measured states.
    intervention : Intervention, optional
        Made by :func:`do`; none for a plan or a policy by itself.
    state, horizon, actions, context, worlds, particles, generator
        As of :func:`effect`. All starts of a batch are taken together.
    level : float
        Share of the log's own rows that counts as inside its support.

    Returns
    -------
    Positivity

    Raises
    ------
    SpecError, DataError, UnknownVariableError
        For arguments that do not fit, or a log of other variables.

    Warns
    -----
    SupportWarning
        If the share of a step's states and actions that are inside is more than 0.15 below the level, or fewer than 20
        rows count effectively.

    References
    ----------
    Petersen et al. (2012), Diagnosing and responding to violations in the positivity assumption; Kong (1992), A note on
    importance sampling using standardized weights (effective sample size).

    Examples
    --------
    >>> import bayeswm as bwm
    >>> schema = bwm.Schema(state=[bwm.Variable("s")], action=[bwm.Variable("a")], time_step=1.0)
    >>> model = bwm.KnownDynamics(structure=bwm.structures.Linear(schema, A=0.5, B=0.5), noise=0.5)
    >>> g = torch.Generator().manual_seed(0)
    >>> log = bwm.data.simulate(model, torch.zeros(200, 1), torch.randn(200, 5, 1, generator=g), generator=g)
    >>> positivity(model, log, bwm.do(a=0.5), state=torch.zeros(1), horizon=3, generator=g).supported
    True
    >>> import warnings
    >>> with warnings.catch_warnings(action="ignore", category=bwm.SupportWarning):
    ...     far = positivity(model, log, bwm.do(a=5.0), state=torch.zeros(1), horizon=3, generator=g)
    >>> far.dataset.inside.values
    array([0., 0., 0.])
    """
    drawn = model if isinstance(model, Worlds) else model.draw(worlds, generator=generator)
    found = held_against(
        reference_of(drawn, logged, level=level),
        drawn,
        () if intervention is None else (intervention,),
        state=state,
        horizon=horizon,
        actions=actions,
        context=context,
        particles=particles,
        level=level,
        generator=generator,
    )
    if not found.supported:
        warn_of_thin_support(found, "the intervention")
    return found


def with_positivity(
    found: xarray.Dataset, branches: Branches, *, logged: Trajectories, interventions: Mapping[str, Intervention]
) -> xarray.Dataset:
    """Return an effect with the positivity of its branches; see :meth:`Branches.with_positivity`."""
    level = 0.95
    reference = reference_of(branches.worlds, logged, level=level)
    reports = {
        name: held_against(
            reference,
            branches.worlds,
            (one,),
            state=branches.state,
            horizon=branches.horizon,
            actions=branches.plan if branches.given else None,
            context=branches.context,
            particles=branches.shape[1],
            level=level,
            generator=branches.generator,
        )
        for name, one in interventions.items()
    }
    for name, report in reports.items():
        if not report.supported:
            warn_of_thin_support(report, name)
    names, kept = list(reports), ("inside", "effective_rows", "supported")
    both = {k: (("branch", "horizon"), np.stack([r.dataset[k].values for r in reports.values()])) for k in kept}
    text = "; ".join(f"{name}: {report.text}" for name, report in reports.items())
    return found.assign(both).assign_coords(branch=names).assign_attrs(positivity=text)


def reference_of(worlds: Worlds, logged: Trajectories, *, level: float) -> tuple[ReferenceRows, Tensor | None]:
    """Return where a log lies, and what the worlds do not know there.

    Raises
    ------
    SpecError, DataError
        For worlds under interventions, and a log of other variables or of a single step.
    """
    check_level(level)
    check_trajectories(logged)
    if isinstance(worlds, IntervenedWorlds):
        raise SpecError("expected the system as it was logged, got one under interventions; give intervention=")
    logged = without_recorded(logged, worlds.schema)
    worlds.schema.check_same(logged.schema, who="the model")
    rows = logged.transitions()
    # what is set in a slice is part of the slice that it leads to
    state = rows.next_state if isinstance(worlds, StructuralWorlds) else rows.state
    log = Points(state, rows.action, rows.context, torch.ones(len(state), dtype=state.dtype, device=state.device))
    recording = logged.episode.to(rows.episode.device)[rows.episode]
    reference = ReferenceRows(coordinates(worlds, log), recording, level=level)
    return reference, epistemic_variance(worlds, thinned(log))


def held_against(
    reference: tuple[ReferenceRows, Tensor | None],
    worlds: Worlds,
    interventions: Sequence[Intervention],
    *,
    state: Belief,
    horizon: int | None,
    actions: Tensor | Policy | None,
    context: Tensor | None,
    particles: int,
    level: float,
    generator: torch.Generator | None,
) -> Positivity:
    """Return how far worlds under interventions stay inside the support of a log, without a warning."""
    sliced = isinstance(worlds, StructuralWorlds)
    seen: list[Visit] = []
    branches = Branches(
        worlds if sliced else WatchedWorlds(worlds, seen),
        state,
        actions,
        horizon=horizon,
        context=context,
        particles=particles,
        generator=generator,
    )
    found = branches.run(*interventions)
    if sliced:
        seen = [Visit(x, x[..., :0], None) for x in found.particles.unbind(-2)]
    steps = [points_of(worlds, one) for one in seen]
    rows, base = reference
    return Positivity(_dataset(worlds, steps, rows, base=base, level=level))


def _dataset(
    worlds: Worlds, steps: Sequence[Points], reference: ReferenceRows, *, base: Tensor | None, level: float
) -> xarray.Dataset:
    import xarray as xr

    inside, distance, rows, growth = (list[Any]() for _ in range(4))
    for points in steps:
        at = coordinates(worlds, points)
        away = reference.distance(at)
        weight = points.weight.to(away)
        inside.append(float((weight * (away <= reference.radius * (1 + 1e-9)).to(weight)).sum()))
        distance.append(float(away.median()) / reference.radius if reference.radius else float("nan"))
        rows.append(reference.effective_rows(at, weight))
        there = None if base is None else epistemic_variance(worlds, points)
        if base is None or there is None:
            growth.append(np.full(worlds.schema.state.size, np.nan))
        else:
            growth.append(torch.where(base > 0, there / base, float("nan")).cpu().numpy())
    found = {"inside": np.array(inside), "distance": np.array(distance), "effective_rows": np.array(rows)}
    found["supported"] = (found["inside"] >= level - _SHORT_OF_LEVEL) & (found["effective_rows"] >= _LEAST_ROWS)
    columns, numbers = list(worlds.schema.state.columns), np.arange(1, len(steps) + 1)
    shape = (len(steps), len(columns))
    return xr.Dataset(
        {k: ("horizon", v) for k, v in found.items()}
        | {"epistemic_growth": (("horizon", "variable"), np.array(growth).reshape(shape))},
        coords={
            "horizon": numbers,
            "variable": columns,
            "time": ("horizon", numbers * worlds.schema.time_step),
        },
        attrs={"level": level, "radius": reference.radius, "rows": reference.total},
    )
