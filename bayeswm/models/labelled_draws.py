"""Posterior draws of Bayesian dynamics as labelled data: the chains as sampled, and all that belongs to each draw."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
import xarray as xr
from torch import Tensor
from torch.distributions import Distribution

from bayeswm.base.labelled_posterior import labelled_draws, labelled_rows, observed_data
from bayeswm.base.one_step import in_blocks, predict_transitions
from bayeswm.base.trajectories import Trajectories
from bayeswm.inference.constraints import Unconstrained
from bayeswm.inference.joint import Inferred
from bayeswm.models.specification import NOISE, Specification, transitions


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
    data, schema = transitions(trajectories), specification.schema
    size, n = data.next_state.numel(), len(next(iter(flat.values())))

    def part(values: Mapping[str, Tensor], where: slice) -> dict[str, Tensor]:
        return {k: v[where] for k, v in values.items()}

    def predicted(values: Mapping[str, Tensor]) -> xr.Dataset:
        paths = in_blocks(
            lambda p: predict_transitions(specification.worlds(part(values, p)), data, generator),
            len(next(iter(values.values()))),
            size,
        )
        return labelled_rows(paths, data, draw=draw, schema=schema)

    with torch.no_grad():
        density = in_blocks(lambda p: specification.pointwise(part(flat, p), trajectories), n, size)
        log_prior = {k: _total(law, values[k]) for k, law in space.laws.items()}
        groups = {
            "posterior": _parameters(specification, values, draw),
            "log_likelihood": labelled_rows(density, data, draw=draw, schema=schema),
            "log_prior": labelled_draws(log_prior, draw=draw),
            "posterior_predictive": predicted(flat),
            "observed_data": observed_data(trajectories),
        }
        if inferred.sample_stats:
            groups["sample_stats"] = labelled_draws(
                {k: v[:, kept] for k, v in inferred.sample_stats.items()}, draw=draw
            ).assign_attrs(inferred.statistics)
        if prior:
            before = space.constrain(space.sample(len(kept), generator))[0]
            draw = np.arange(len(kept))
            groups["prior"] = _parameters(specification, {k: v[None] for k, v in before.items()}, draw)
            groups["prior_predictive"] = predicted(before)
    return xr.DataTree.from_dict(groups)


def _parameters(specification: Specification, values: Mapping[str, Tensor], draw: np.ndarray) -> xr.Dataset:
    """Return what is inferred, (chains, draws, ...), with the noises of columns as one array."""
    chains, draws = next(iter(values.values())).shape[:2]
    structure = specification.structure.parameters()
    named = specification.parameters({k: v.flatten(0, 1) for k, v in values.items()})
    found = {k: named[k].unflatten(0, (chains, draws)) for k in values if not k.startswith(f"{NOISE}.")}
    columns = specification.schema.state.columns
    # one value for each column of the state
    labels: dict[str, dict[str, tuple[str, ...]]] = {
        k: {"state_variable": columns} for k in ("degrees_of_freedom", "noise_slope") if k in found
    }
    unknown = [i for i, k in enumerate(specification.noise) if f"{NOISE}.{k}" in values]
    if unknown:
        found[NOISE] = named[NOISE][:, unknown].unflatten(0, (chains, draws))
        labels[NOISE] = {"noise_variable": tuple(list(specification.noise)[i] for i in unknown)}
    units = {k: structure[k].unit for k in found if k in structure}
    return labelled_draws(found, draw=draw, units=units, labels=labels)


def _total(law: Distribution, values: Tensor) -> Tensor:
    """Return the log density of values (chains, draws, ...), shape (chains, draws)."""
    return law.log_prob(values).flatten(2).sum(-1) if law.batch_shape else law.log_prob(values)
