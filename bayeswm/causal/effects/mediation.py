"""Direct and indirect effects, by nested counterfactuals."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from bayeswm.base.along import Policy
from bayeswm.base.errors import SpecError
from bayeswm.base.model import DynamicsModel
from bayeswm.base.predictive import Predictive
from bayeswm.base.trajectories import Trajectories
from bayeswm.base.worlds import Belief, Worlds
from bayeswm.causal.effects.branches import Branches
from bayeswm.causal.effects.effect import check_finite, labelled, pooled, summarised
from bayeswm.causal.graphs.names import as_names
from bayeswm.causal.interventions.intervention import Intervention, do

if TYPE_CHECKING:
    import xarray


def mediation(
    model: DynamicsModel | Worlds,
    treatment: Intervention,
    control: Intervention,
    *,
    mediator: str | Sequence[str],
    state: Belief,
    horizon: int | None = None,
    actions: Tensor | Policy | None = None,
    context: Tensor | None = None,
    worlds: int = 64,
    particles: int = 1000,
    logged: Trajectories | None = None,
    generator: torch.Generator | None = None,
) -> xarray.Dataset:
    """Split a total effect into what goes through mediators and what does not.

    Four branches with the same noise: each intervention by itself, and each with the mediators held along the horizon
    at the values that they take under the other, particle by particle.

    Parameters
    ----------
    model : DynamicsModel or Worlds
        The system. Within a slice paths count only in a :class:`StructuralModel`; elsewhere a mediator acts from the
        next step on.
    treatment, control : Intervention
        Made by :func:`do`.
    mediator : str or sequence of str
        Columns of the state.
    state, horizon, actions, context, worlds, logged, generator
        As of :func:`effect`.
    particles : int
        Sampled trajectories in each world.

    Returns
    -------
    xarray.Dataset
        By horizon and variable, with a standard error ``..._error`` from finitely many particles each: ``total``,
        ``natural_direct`` (mediators as under control), ``natural_indirect`` (control, but mediators as under
        treatment) and ``total_indirect`` (total minus natural direct). Means over worlds. The controlled direct effect
        is :func:`effect` of interventions that both set the mediators.

    Raises
    ------
    SpecError, DataError, UnknownVariableError
        As of :func:`effect`; also if a mediator is not of the state, or an intervention sets it.

    References
    ----------
    Pearl (2001), Direct and indirect effects.

    Examples
    --------
    Y = X + 0.5 M + 0.25 X M with M = 1 + 2 X: of the total effect 2.75, 1.25 is direct.

    >>> import bayeswm as bwm
    >>> from bayeswm.causal import Mechanism, StructuralModel
    >>> scm = StructuralModel({
    ...     "X": Mechanism(lambda: 0.0),
    ...     "M": Mechanism(lambda X: 1 + 2 * X),
    ...     "Y": Mechanism(lambda X, M: X + 0.5 * M + 0.25 * X * M),
    ... })
    >>> x0, x1 = (bwm.do(X=value) for value in (0.0, 1.0))
    >>> found = mediation(scm, x1, x0, mediator="M", state=torch.zeros(3), horizon=1, particles=1)
    >>> found.sel(variable="Y", horizon=1)[["total", "natural_direct", "natural_indirect"]].to_array().values.tolist()
    [2.75, 1.25, 1.0]
    """
    names = as_names(mediator)
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
    columns = branches.worlds.schema.state
    where = {name: columns.column(name) for name in names}
    for one in (a for i in (treatment, control) for a in i.assignments):
        if one.name in where:
            raise SpecError(f"expected mediators that the interventions leave alone, got {one}")

    def run(*interventions: Intervention) -> Predictive:
        found = branches.run(*interventions)
        check_finite(found)
        return found

    def held(given: Intervention, other: Predictive) -> Predictive:
        values = {name: other.particles[..., column] for name, column in where.items()}
        return run(given, do(values, steps=slice(1, branches.horizon + 1)))

    treated, untreated = run(treatment), run(control)
    direct, indirect = held(treatment, untreated), held(control, treated)
    # particles, not means of laws: what the noise adds is the same on both sides and cancels
    y1, y0, y10, y01 = (branch.particles for branch in (treated, untreated, direct, indirect))
    parts = {
        "total": y1 - y0,
        "natural_direct": y10 - y0,
        "natural_indirect": y01 - y0,
        "total_indirect": y1 - y10,
    }
    found: dict[str, Tensor] = {}
    for name, values in parts.items():
        found[name] = pooled(values, treated)
        found[f"{name}_error"] = summarised(name, values, treated, level=0.9)["standard_error"]
    data = labelled(found, treated, attributes={"worlds": treated.worlds, "particles": particles})
    return branches.with_positivity(data, logged, treatment=treatment, control=control)
