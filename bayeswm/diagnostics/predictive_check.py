"""Prior and posterior predictive checks: whether replicated trajectories look like the recorded ones."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from bayeswm.base.errors import DataError, SpecError
from bayeswm.base.model import DynamicsModel
from bayeswm.base.random import make_generator
from bayeswm.base.trajectories import Trajectories
from bayeswm.base.worlds import Worlds
from bayeswm.diagnostics.replicated import equally_weighted, measured_variables, recorded, replicate
from bayeswm.diagnostics.summary import as_numpy

Statistic = Callable[[Tensor], Tensor]


def _mean(paths: Tensor) -> Tensor:
    return paths.nanmean((1, 2))


def _deviation(paths: Tensor) -> Tensor:
    return (paths - paths.nanmean((1, 2), keepdim=True)).square().nanmean((1, 2)).sqrt()


def _largest(paths: Tensor) -> Tensor:
    return torch.where(paths.isnan(), -math.inf, paths).amax((1, 2))


STATISTICS: Mapping[str, Statistic] = {
    "mean": _mean,
    "stddev": _deviation,
    "minimum": lambda paths: -_largest(-paths),
    "maximum": _largest,
    "largest_step": lambda paths: _largest(paths.diff(dim=2).abs()),
}


def predictive_check(
    model: DynamicsModel | Worlds,
    trajectories: Trajectories,
    *,
    statistics: Mapping[str, Statistic] = STATISTICS,
    draws: int = 400,
    seed: int | torch.Generator = 0,
) -> xr.Dataset:
    """Compare statistics of the recorded trajectories with those of replications under the same starts and actions.

    Parameters
    ----------
    model : DynamicsModel or Worlds
        Each world makes one replication. Worlds of ``model.prior`` make a prior predictive check.
    trajectories : Trajectories
        What was recorded. Where it is what the model was fitted to, p-values are nearer to 1/2 than uniform ones.
    statistics : mapping of str to callable
        Each maps paths (n, episodes, T + 1, S), NaN where nothing was recorded, to one number for each variable (n, S).
        By default mean, standard deviation, minimum, maximum and the largest step, over all episodes.
    draws : int
        Replications.
    seed : int or torch.Generator
        Source of all randomness.

    Returns
    -------
    xarray.Dataset
        ``observed`` (statistic, variable), ``replicated`` (draw, statistic, variable), and ``p_value``: the share of
        replications whose statistic is larger than the observed one, ties counting half. Near 0 or 1 means that the
        model does not make such data. Attribute ``diverged`` counts replications that left the finite numbers, which
        are left out.

    Raises
    ------
    SpecError, DataError
        If the data do not fit or miss part of a start, a statistic has another shape, or nothing stays finite.

    References
    ----------
    Gelman, Meng and Stern (1996), Posterior predictive assessment of model fitness via realized discrepancies.

    Examples
    --------
    >>> import bayeswm as bwm
    >>> model = bwm.KnownDynamics(structure=bwm.structures.Pendulum(), noise=0.1)
    >>> still = bwm.Trajectories(model.schema, state=torch.zeros(3, 21, 2), action=torch.zeros(3, 20, 1))
    >>> found = predictive_check(model, still)
    >>> found["p_value"].sel(statistic="stddev").values  # every replication moves more
    array([1., 1.])
    """
    if draws < 2 or not statistics:
        raise SpecError(f"expected draws >= 2 and a statistic, got {draws} and {len(statistics)}")
    generator = make_generator(seed)
    worlds = model if isinstance(model, Worlds) else model.draw(draws, generator=generator)
    worlds = equally_weighted(worlds, draws, generator=generator)
    seen = recorded(worlds, trajectories)
    shape = (seen.shape[-1],)
    observed = {name: _checked(name, f(seen[None]), shape=(1, *shape)) for name, f in statistics.items()}
    parts: list[Tensor] = []
    diverged = 0
    for paths in replicate(worlds, trajectories, generator=generator):
        kept = paths[~paths.isinf().any(-1).flatten(1).any(1)]
        diverged += len(paths) - len(kept)
        if len(kept):
            kept = torch.where(seen.to(kept).isnan(), math.nan, kept)
            made = [_checked(name, f(kept), shape=(len(kept), *shape)) for name, f in statistics.items()]
            parts.append(torch.stack(made, 1))
    if not parts:
        raise DataError("expected replications, all left the finite numbers")
    made, true = torch.cat(parts).double().cpu(), torch.cat([*observed.values()]).double().cpu()
    p = (made > true).double().mean(0) + 0.5 * (made == true).double().mean(0)
    p = torch.where(made.isnan().any(0) | true.isnan(), math.nan, p)
    dims, variables = ("statistic", "variable"), measured_variables(worlds)
    return xr.Dataset(
        {
            "observed": (dims, as_numpy(true)),
            "replicated": (("draw", *dims), as_numpy(made)),
            "p_value": (dims, as_numpy(p), {"long_name": "share of replications with a larger statistic"}),
        },
        coords={"statistic": [*statistics], "variable": list(variables.columns), "draw": np.arange(len(made))},
        attrs={"diverged": diverged},
    )


def _checked(name: str, values: Tensor, *, shape: tuple[int, ...]) -> Tensor:
    if tuple(values.shape) != shape:
        raise SpecError(f"{name}: expected a statistic of shape {shape} (paths, variables), got {tuple(values.shape)}")
    return values
