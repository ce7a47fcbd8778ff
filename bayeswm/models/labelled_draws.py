"""Posterior draws of Bayesian dynamics as labelled data: the chains as sampled, and all that belongs to each draw."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor
from torch.distributions import Distribution

from bayeswm.base.labelled_posterior import labelled_draws, labelled_rows, observed_data
from bayeswm.base.one_step import in_blocks, predict_by_column
from bayeswm.base.trajectories import Trajectories
from bayeswm.inference.constraints import Unconstrained
from bayeswm.inference.joint import Inferred, Values
from bayeswm.models.specification import NOISE, SENSORS, Specification


def inferred_to_datatree(
    specification: Specification,
    inferred: Inferred,
    trajectories: Trajectories,
    *,
    prior: bool,
    draws: int | None,
    generator: torch.Generator,
) -> xr.DataTree:
    """Return a posterior held as draws as an ArviZ tree.

    Parameters
    ----------
    specification : Specification
        The statistical model.
    inferred : Inferred
        Its posterior.
    trajectories : Trajectories
        Data, those that the posterior is given.
    prior : bool
        Add ``prior`` and ``prior_predictive``, of as many draws as the posterior has in one chain.
    draws : int, optional
        Draws of each chain to keep, evenly spaced.
    generator : torch.Generator
        Draws process noise, and the prior.

    Returns
    -------
    xarray.DataTree
        As :meth:`bayeswm.base.DynamicsModel.to_datatree` says.
    """
    count = next(iter(inferred.values.values())).shape[1]
    kept = torch.arange(count) if draws is None or draws >= count else torch.linspace(0, count - 1, draws).long()
    values, draw = {k: v[:, kept] for k, v in inferred.values.items()}, kept.numpy()
    flat, space = {k: v.flatten(0, 1) for k, v in values.items()}, Unconstrained(specification.laws)
    columns = specification.schema.state.columns
    size = trajectories.transition_count * len(columns)

    def by_row(answer: Callable[[Values], dict[str, Tensor]], flat: Values, draw: np.ndarray) -> xr.Dataset:
        found = in_blocks(lambda p: answer({k: v[p] for k, v in flat.items()}), len(next(iter(flat.values()))), size)
        return labelled_rows(found, trajectories, draw=draw)

    def predicted(values: Values) -> dict[str, Tensor]:
        return predict_by_column(specification.transition_law(values, trajectories), columns, generator)

    with torch.no_grad():
        sensed = specification.sensing is not None
        log_prior = {k: _total(law, values[k]) for k, law in space.laws.items()}
        groups = {
            "posterior": _parameters(specification, values, draw),
            "log_likelihood": by_row(lambda v: specification.pointwise(v, trajectories), flat, draw),
            "log_prior": labelled_draws(log_prior, draw=draw),
            "observed_data": observed_data(trajectories, measured_state=not sensed),
        }
        if not sensed:
            groups["posterior_predictive"] = by_row(predicted, flat, draw)
        if inferred.sample_stats:
            groups["sample_stats"] = labelled_draws(
                {k: v[:, kept] for k, v in inferred.sample_stats.items()}, draw=draw
            ).assign_attrs(inferred.statistics)
        if prior:
            before = space.constrain(space.sample(len(kept), generator))[0]
            groups["prior"] = _parameters(specification, {k: v[None] for k, v in before.items()}, np.arange(len(kept)))
            if not sensed:
                groups["prior_predictive"] = by_row(predicted, before, np.arange(len(kept)))
    return xr.DataTree.from_dict(groups)


def _parameters(specification: Specification, values: Values, draw: np.ndarray) -> xr.Dataset:
    """Return what is inferred, (chains, draws, ...), as users think of it; of the noises those that are not known."""
    chains, draws = next(iter(values.values())).shape[:2]
    found = specification.named({k: v.flatten(0, 1) for k, v in values.items()})
    labels: dict[str, dict[str, Sequence[Any]]] = {k: {"episode": specification.episodes} for k in specification.levels}
    # one value for each column of the state
    labels |= {k: {"state_variable": specification.schema.state.columns} for k in specification.added}
    for name, axis, columns in (
        (NOISE, "noise_variable", specification.noise),
        (SENSORS, "sensor_variable", specification.sensor_noise),
    ):
        unknown = [k for k in columns if f"{name}.{k}" in values]
        if unknown:
            found[name] = found[name][:, [list(columns).index(k) for k in unknown]]
            labels[name] = {axis: unknown}
    structure = specification.structure.parameters()
    units = {k: structure[k.split(".")[0]].unit for k in found if k.split(".")[0] in structure}
    return labelled_draws(
        {k: v.unflatten(0, (chains, draws)) for k, v in found.items()}, draw=draw, units=units, labels=labels
    )


def _total(law: Distribution, values: Tensor) -> Tensor:
    """Return the log density of values (chains, draws, ...), shape (chains, draws)."""
    each = law.log_prob(values)
    return each.reshape(*each.shape[:2], -1).sum(-1)
