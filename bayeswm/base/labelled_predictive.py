"""Predictives as labelled data: xarray for people and files, a tree in ArviZ's layout for its plots."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
import xarray as xr

from bayeswm.base.errors import SpecError
from bayeswm.base.random import systematic

if TYPE_CHECKING:
    from bayeswm.base.predictive import Predictive

LEVELS = (0.05, 0.25, 0.5, 0.75, 0.95)


def predictive_to_xarray(predictive: Predictive) -> xr.Dataset:
    """Return mean, variance, its parts and quantiles of a predictive.

    Parameters
    ----------
    predictive : Predictive
        One step or a horizon.

    Returns
    -------
    xarray.Dataset
        Dimensions batch_0, ..., horizon (integer steps from 1, with the time in s as a coordinate), variable, and
        quantile. The parts of the variance are left out where they are undefined.

    Examples
    --------
    >>> import bayeswm as bwm
    >>> model = bwm.KnownDynamics(structure=bwm.structures.Pendulum.gymnasium(), noise=0.01)
    >>> dict(predictive_to_xarray(model.predictive(torch.zeros(2), torch.zeros(1))).sizes)
    {'horizon': 1, 'variable': 2, 'quantile': 5}
    """
    batch = tuple(f"batch_{i}" for i in range(len(predictive.batch_shape)))
    dims = (*batch, "horizon", "variable")
    split = predictive._split
    values = {"mean": split.mean, "variance": split.total, "aleatoric_variance": split.aleatoric}
    values["epistemic_variance"] = split.between.clamp(min=0)
    arrays = {k: (dims, _numpy(v)) for k, v in values.items() if k in ("mean", "variance") or not bool(v.isnan().any())}
    if predictive.horizon:
        arrays["quantiles"] = (
            ("quantile", *dims),
            _numpy(predictive.quantile(torch.tensor(LEVELS, dtype=torch.float64))),
        )
    return xr.Dataset(arrays, coords={**_coordinates(predictive), "quantile": list(LEVELS)})


def predictive_to_datatree(predictive: Predictive, *, generator: torch.Generator | None = None) -> xr.DataTree:
    """Return the particles in ArviZ's layout.

    Parameters
    ----------
    predictive : Predictive
        A rollout.
    generator : torch.Generator, optional
        Needed where worlds have different weights: they are resampled.

    Returns
    -------
    xarray.DataTree
        Group ``posterior_predictive`` with one array for each column, dimensions chain (1), draw (world), particle,
        batch_0, ..., horizon.

    Raises
    ------
    SpecError
        If worlds are weighted and there is no generator.
    """
    paths = predictive.particles
    weight = predictive.log_weight
    if bool((weight - weight[0]).abs().max() > 1e-9):
        if generator is None:
            raise SpecError("expected generator=torch.Generator to resample weighted worlds, got none")
        paths = paths[systematic(weight, predictive.worlds, generator)]
    batch = tuple(f"batch_{i}" for i in range(len(predictive.batch_shape)))
    dims = ("chain", "draw", "particle", *batch, "horizon")
    columns = predictive.variables.columns
    arrays = {name: (dims, _numpy(paths[..., i])[None]) for i, name in enumerate(columns)}
    coords = {k: v for k, v in _coordinates(predictive).items() if k != "variable" and k != "unit"}
    group = xr.Dataset(arrays, coords=coords)
    for v in predictive.variables:
        for column in v.columns:
            group[column].attrs["units"] = v.unit
    return xr.DataTree.from_dict({"posterior_predictive": group})


def _coordinates(predictive: Predictive) -> dict[str, object]:
    steps = np.arange(1, predictive.horizon + 1)
    units = [v.unit for v in predictive.variables for _ in v.columns]
    return {
        "horizon": steps,
        "time": ("horizon", steps * predictive.time_step, {"units": "s"}),
        "variable": list(predictive.variables.columns),
        "unit": ("variable", units),
    }


def _numpy(values: torch.Tensor) -> np.ndarray:
    return values.detach().cpu().numpy()
