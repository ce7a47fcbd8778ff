"""Predictives as labelled data: xarray for people and files, a tree in ArviZ's layout for its plots."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from bayeswm.base.errors import DataError, SpecError
from bayeswm.base.random import systematic

if TYPE_CHECKING:
    from bayeswm.base.predictive import Predictive

Layout = Literal["per_column", "per_variable"]
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


def predictive_to_datatree(
    predictive: Predictive,
    *,
    layout: Layout = "per_column",
    outcomes: Tensor | None = None,
    generator: torch.Generator | None = None,
) -> xr.DataTree:
    """Return the particles in ArviZ's layout.

    Parameters
    ----------
    predictive : Predictive
        A rollout.
    layout : {"per_column", "per_variable"}
        ``per_column`` keeps all axes: one array for each column, dimensions chain (1), draw (world), particle, batch_0,
        ..., horizon. ``per_variable`` is what ArviZ's checks take, whose variables are vectors of like observations:
        one array for each column and step, named ``angle[5]``, dimensions chain (1), draw (particles of all worlds) and
        window (the batch).
    outcomes : Tensor, shape (*batch, H, S), optional
        What came, for a group ``observed_data`` of the same layout.
    generator : torch.Generator, optional
        Needed where worlds have different weights: they are resampled.

    Returns
    -------
    xarray.DataTree
        Group ``posterior_predictive``, and ``observed_data`` where outcomes are given.

    Raises
    ------
    SpecError
        If worlds are weighted and there is no generator, or the layout is unknown.
    DataError
        If outcomes do not fit; for ``per_variable``, if particles diverged or outcomes are missing: ArviZ would count
        them as numbers.

    Examples
    --------
    >>> import bayeswm as bwm
    >>> model = bwm.KnownDynamics(structure=bwm.structures.Pendulum.gymnasium(), noise=0.01)
    >>> g = torch.Generator().manual_seed(0)
    >>> p = bwm.rollout(model, torch.zeros(7, 2), torch.zeros(2, 1), particles=10, generator=g)
    >>> tree = predictive_to_datatree(p, layout="per_variable")
    >>> {k: v.shape for k, v in tree["posterior_predictive"].data_vars.items()}
    {'angle[1]': (1, 10, 7), 'angle[2]': (1, 10, 7), 'velocity[1]': (1, 10, 7), 'velocity[2]': (1, 10, 7)}
    """
    if layout not in ("per_column", "per_variable"):
        raise SpecError(f"expected layout 'per_column' or 'per_variable', got {layout!r}")
    paths, weight = predictive.particles, predictive.log_weight
    expected = tuple(paths.shape[2:])
    if outcomes is not None and tuple(outcomes.shape) != expected:
        raise DataError(f"expected outcomes of shape {expected} (*batch, H, S), got {tuple(outcomes.shape)}")
    if layout == "per_variable" and bool(predictive.diverged.any()):
        raise DataError("expected finite particles, some diverged; shorten the horizon or leave those windows out")
    if layout == "per_variable" and outcomes is not None and bool(outcomes.isnan().any()):
        raise DataError("expected outcomes of all windows and steps, got NaN; leave out windows that miss some")
    if bool((weight - weight[0]).abs().max() > 1e-9):
        if generator is None:
            raise SpecError("expected generator=torch.Generator to resample weighted worlds, got none")
        paths = paths[systematic(weight, predictive.worlds, generator)]
    if layout == "per_column":
        batch = tuple(f"batch_{i}" for i in range(len(predictive.batch_shape)))
        dims, seen = ("chain", "draw", "particle", *batch, "horizon"), (*batch, "horizon")
        coords = {k: v for k, v in _coordinates(predictive).items() if k != "variable" and k != "unit"}
    else:
        dims, seen, coords = ("chain", "draw", "window"), ("window",), {}
        paths = paths.reshape(-1, math.prod(predictive.batch_shape), *expected[-2:])
        outcomes = None if outcomes is None else outcomes.reshape(-1, *expected[-2:])
    groups = {"posterior_predictive": xr.Dataset(_arrays(predictive, paths[None], dims=dims), coords=coords)}
    if outcomes is not None:
        groups["observed_data"] = xr.Dataset(_arrays(predictive, outcomes, dims=seen), coords=coords)
    return xr.DataTree.from_dict(groups)


def _arrays(predictive: Predictive, values: Tensor, *, dims: tuple[str, ...]) -> dict[str, xr.Variable]:
    """Return values (..., H, S) by column, or by column and step where the horizon is no dimension."""
    found: dict[str, xr.Variable] = {}
    for i, (column, unit) in enumerate(zip(predictive.variables.columns, _units(predictive), strict=True)):
        if "horizon" in dims:
            found[column] = xr.Variable(dims, _numpy(values[..., i]), {"units": unit})
            continue
        for h in range(predictive.horizon):
            attrs = {"units": unit, "time": (h + 1) * predictive.time_step}
            found[f"{column}[{h + 1}]"] = xr.Variable(dims, _numpy(values[..., h, i]), attrs)
    return found


def _units(predictive: Predictive) -> list[str]:
    return [v.unit for v in predictive.variables for _ in v.columns]


def _coordinates(predictive: Predictive) -> dict[str, object]:
    steps = np.arange(1, predictive.horizon + 1)
    return {
        "horizon": steps,
        "time": ("horizon", steps * predictive.time_step, {"units": "s"}),
        "variable": list(predictive.variables.columns),
        "unit": ("variable", _units(predictive)),
    }


def _numpy(values: Tensor) -> np.ndarray:
    return values.detach().cpu().numpy()
