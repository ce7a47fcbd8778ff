"""Labelled data sets (xarray) for what the library computes with plain tensors.

Steps are integer coordinates, since float stamps join wrongly; the time in seconds stands beside them.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from bayeswm.base.arrays import check_values
from bayeswm.base.errors import DataError, DataWarning
from bayeswm.base.schema import Schema, Variables
from bayeswm.base.trajectories import Trajectories

if TYPE_CHECKING:
    import xarray

FORMAT = "bayeswm trajectories 1"
GROUPS = ("state", "observation", "action", "context")
ROWS = {"lengths": torch.int64, "terminated": torch.bool, "truncated": torch.bool, "start": torch.int64}


def trajectories_to_xarray(trajectories: Trajectories) -> xarray.Dataset:
    """Return the trajectories as a labelled data set that netCDF can hold.

    Dimensions: ``row`` (an episode or window), ``state_step`` (0..T) for states and observations, ``step`` (0..T-1) for
    actions, rewards and contexts of each step, and one of variable names for each group (``state_variable``, ...).
    NaN means not recorded or after the end. Attributes hold the schema as JSON.

    Raises
    ------
    ImportError
        If xarray is missing.

    Examples
    --------
    >>> from bayeswm.base.schema import Variable
    >>> schema = Schema(state=[Variable("x", unit="m")], time_step=0.1)
    >>> labelled = trajectories_to_xarray(Trajectories(schema, state=[[[0.0], [1.0], [2.0]]]))
    >>> labelled.state.sel(state_variable="x", state_step=2).values.tolist(), labelled.time.values.tolist()
    ([2.0], [0.0, 0.1, 0.2])
    """
    import xarray

    schema, steps = trajectories.schema, trajectories.horizon
    data: dict[str, Any] = {}
    coords: dict[str, Any] = {
        "row": np.arange(len(trajectories)),
        "step": np.arange(steps),
        "state_step": np.arange(steps + 1),
        "time": ("state_step", np.arange(steps + 1) * schema.time_step, {"units": "s"}),
        "action_time": ("step", np.arange(steps) * schema.time_step, {"units": "s", "long_name": "start of the step"}),
        "episode": (
            "row",
            trajectories.episode.cpu().numpy().copy(),
            {"long_name": "recording that the row comes from"},
        ),
    }
    for group in GROUPS:
        values, variables = getattr(trajectories, group), getattr(schema, group)
        if values is None or not variables:  # netCDF has no empty dimension; the schema knows that there is nothing
            continue
        data[group] = ((*_dims(group, values), f"{group}_variable"), _numpy(values))
        coords |= variable_coordinates(group, variables)
    if trajectories.reward is not None:
        data["reward"] = (("row", "step"), _numpy(trajectories.reward))
    for name in ROWS:
        data[name] = ("row", getattr(trajectories, name).cpu().numpy().copy())
    attrs = {
        "format": FORMAT,
        "schema": json.dumps(schema.to_dict()),
        "dtype": str(trajectories.dtype).removeprefix("torch."),
        "time_step": schema.time_step,
    }
    return xarray.Dataset(data, coords=coords, attrs=attrs)


def trajectories_from_xarray(dataset: xarray.Dataset) -> Trajectories:
    """Return the trajectories that :func:`trajectories_to_xarray` labelled, bit for bit, on the CPU.

    Rows may have been chosen in between (``dataset.isel(row=[2, 0])``), steps not.

    Raises
    ------
    DataError
        If the data set is no such data set, or its values were changed into something that cannot be data.

    Examples
    --------
    >>> from bayeswm.base.schema import Variable
    >>> schema = Schema(state=[Variable("x", unit="m")], time_step=0.1)
    >>> data = Trajectories(schema, state=[[[0.0], [1.0], [2.0]]])
    >>> trajectories_from_xarray(data.to_xarray())
    Trajectories(1 episodes, 2 transitions, state=(x), 0.1 s, float64)
    """
    if dataset.attrs.get("format") != FORMAT:
        raise DataError(
            f"expected a data set of {FORMAT!r}, as to_xarray makes it, got format {dataset.attrs.get('format')!r}; "
            "build Trajectories from its arrays instead"
        )
    schema = Schema.from_dict(json.loads(dataset.attrs["schema"]))
    dtype = getattr(torch, str(dataset.attrs["dtype"]))
    sizes = {"row": dataset.sizes["row"], "step": dataset.sizes["step"], "state_step": dataset.sizes["state_step"]}
    arrays: dict[str, Tensor | None] = {"state": None, "observation": None, "reward": None}
    arrays["action"] = torch.empty(sizes["row"], sizes["step"], 0, dtype=dtype)
    arrays["context"] = torch.empty(sizes["row"], 0, dtype=dtype)
    for group in GROUPS:
        variables = getattr(schema, group)
        if variables and (group in dataset or group in ("action", "context")):
            arrays[group] = _read(dataset, group, last=(f"{group}_variable",), dtype=dtype)
            names = tuple(str(c) for c in dataset[f"{group}_variable"].values)
            if names != variables.columns:
                raise DataError(f"expected the columns {variables.columns} in {group}, got {names}; keep their order")
    if schema.reward:
        arrays["reward"] = _read(dataset, "reward", dtype=dtype)
    for name, kind in {**ROWS, "episode": torch.int64}.items():
        arrays[name] = torch.from_numpy(np.array(_found(dataset, name).values)).to(kind)
    _check(schema, arrays, sizes)
    new = object.__new__(Trajectories)
    new._set(schema, arrays)
    return new._trim()  # rows may have been chosen in xarray


def variable_coordinates(group: str, variables: Variables, dimension: str | None = None) -> dict[str, Any]:
    """Return coordinates that name the columns of a group and their units.

    Examples
    --------
    >>> from bayeswm.base.schema import Variable
    >>> names, units = variable_coordinates("state", Variables([Variable("x", unit="m")])).values()
    >>> names.tolist(), units[1].tolist()
    (['x'], ['m'])
    """
    dimension = dimension or f"{group}_variable"
    units = [v.unit for v in variables for _ in v.columns]
    return {dimension: np.array(variables.columns), f"{group}_unit": (dimension, np.array(units, dtype=np.str_))}


def _dims(group: str, values: Tensor) -> tuple[str, ...]:
    if values.ndim == 2:
        return ("row",)
    return ("row", "state_step" if group in ("state", "observation") else "step")


def _numpy(values: Tensor) -> np.ndarray:
    # NumPy has no bfloat16 and netCDF no float16; float32 holds both exactly
    wide = values if values.dtype in (torch.float32, torch.float64) else values.float()
    return wide.detach().cpu().numpy().copy()


def _found(dataset: xarray.Dataset, name: str) -> xarray.DataArray:
    if name not in dataset.variables:
        raise DataError(f"expected {name!r} in the data set, got {sorted(map(str, dataset.variables))}")
    return dataset[name]


def _read(dataset: xarray.Dataset, name: str, *, last: tuple[str, ...] = (), dtype: torch.dtype) -> Tensor:
    found = _found(dataset, name)
    first = "state_step" if name in ("state", "observation") else "step"
    dims = ("row", *((first,) if first in found.dims else ()), *last)
    if set(found.dims) != set(dims):
        raise DataError(f"expected {name} with the dimensions {dims}, got {found.dims}")
    return torch.from_numpy(np.array(found.transpose(*dims).values)).to(dtype)


def _check(schema: Schema, arrays: Mapping[str, Tensor | None], sizes: Mapping[str, int]) -> None:
    lengths = arrays["lengths"]
    if lengths is None or bool(((lengths < 1) | (lengths > sizes["step"])).any()):
        raise DataError(f"expected lengths from 1 to {sizes['step']}, got {lengths}; choose rows only, and whole ones")
    if sizes["state_step"] != sizes["step"] + 1:
        raise DataError(f"expected {sizes['step'] + 1} states for {sizes['step']} steps, got {sizes['state_step']}")
    for name, extra in {"state": 1, "observation": 1, "action": 0, "reward": 0, "context": 0}.items():
        values = arrays[name]
        if values is None or (name == "context" and values.ndim == 2):
            continue
        after = torch.arange(values.shape[1]) >= (lengths + extra)[:, None]
        if not bool(values[after].isnan().all()):
            raise DataError(f"expected NaN in {name} after each episode's end, got values; they would leak")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DataWarning)  # said when the trajectories were made
        check_values(schema, arrays, allow_missing=True)
