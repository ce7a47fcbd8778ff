"""A posterior as labelled draws in ArviZ's layout: groups with the dimensions chain and draw."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from bayeswm.base.one_step import in_blocks, log_prob_by_column, predict_transitions
from bayeswm.base.random import systematic
from bayeswm.base.schema import Schema
from bayeswm.base.trajectories import Trajectories, Transitions

if TYPE_CHECKING:
    from bayeswm.base.model import DynamicsModel


def model_to_datatree(
    model: DynamicsModel, trajectories: Trajectories | None, *, draws: int, generator: torch.Generator
) -> xr.DataTree:
    """Return a model as a tree with one chain, in which each draw is a world.

    Parameters
    ----------
    model : DynamicsModel
        A fitted one.
    trajectories : Trajectories, optional
        What the groups about data are of.
    draws : int
        Worlds, where the posterior is not a few worlds of equal weight.
    generator : torch.Generator
        Draws worlds and process noise.

    Returns
    -------
    xarray.DataTree
        As :meth:`DynamicsModel.to_datatree` says.

    Examples
    --------
    >>> import bayeswm as bwm
    >>> model = bwm.KnownDynamics(structure=bwm.structures.Pendulum(), noise=0.01)
    >>> tree = model_to_datatree(model, None, draws=10, generator=torch.Generator())
    >>> dict(tree["posterior"].sizes), tree["posterior"].mass.units
    ({'chain': 1, 'draw': 1, 'noise_variable': 2}, 'kg')
    """
    with torch.no_grad():
        worlds = model.draw(draws, generator=generator)
        weight = worlds.log_weight
        if bool((weight - weight[0]).abs().max() > 1e-9):
            worlds = worlds[systematic(weight, draws, generator)]
        structure, schema = getattr(model, "structure", None), worlds.schema
        units = {} if structure is None else {k: p.unit for k, p in structure.parameters().items()}
        labels = {"process_noise": {"noise_variable": schema.state.columns}}
        draw = np.arange(len(worlds))
        values = {k: v[None] for k, v in worlds.parameters.items()}
        groups = {"posterior": labelled_draws(values, draw=draw, units=units, labels=labels)}
        if trajectories is not None and worlds.state_is_measured:
            data = Transitions(*(v.to(worlds.device) for v in trajectories.transitions()))
            size = data.next_state.numel()
            found = {
                "log_likelihood": in_blocks(lambda p: log_prob_by_column(worlds[p], data), len(worlds), size),
                "posterior_predictive": in_blocks(
                    lambda p: predict_transitions(worlds[p], data, generator), len(worlds), size
                ),
            }
            groups |= {k: labelled_rows(v, data, draw=draw, schema=schema) for k, v in found.items()}
        if trajectories is not None:
            groups["observed_data"] = observed_data(trajectories, measured_state=worlds.state_is_measured)
    return xr.DataTree.from_dict(groups)


def labelled_draws(
    values: Mapping[str, Tensor],
    *,
    draw: np.ndarray,
    units: Mapping[str, str] | None = None,
    labels: Mapping[str, Mapping[str, Sequence[str]]] | None = None,
) -> xr.Dataset:
    """Return named draws as a data set.

    Parameters
    ----------
    values : mapping of str to Tensor, shape (chains, draws, ...)
        Draws.
    draw : ndarray, shape (draws,)
        Their numbers.
    units : mapping of str to str, optional
        Unit of each.
    labels : mapping of str to mapping of str to sequence of str, optional
        For draws that are vectors or matrices: the names of the further dimensions and of what stands along each. An
        axis that is not named here is ``<name>_dim_<i>``.

    Examples
    --------
    >>> labelled_draws({"drag": torch.ones(2, 3)}, draw=np.arange(3), units={"drag": "1/m"}).drag.dims
    ('chain', 'draw')
    """
    arrays: dict[str, Any] = {}
    coords: dict[str, Any] = {"draw": draw}
    for name, value in values.items():
        named = (labels or {}).get(name, {})
        rest = (f"{name}_dim_{i}" for i in range(len(named), value.ndim - 2))
        unit = (units or {}).get(name, "")
        arrays[name] = ("chain", "draw", *named, *rest), _numpy(value), {"units": unit} if unit else {}
        coords |= {"chain": np.arange(len(value)), **{k: list(v) for k, v in named.items()}}
    return xr.Dataset(arrays, coords=coords)


def labelled_rows(values: Mapping[str, Tensor], data: Transitions, *, draw: np.ndarray, schema: Schema) -> xr.Dataset:
    """Return values of each transition as a data set.

    Parameters
    ----------
    values : mapping of str to Tensor, shape (chains * draws, n)
        By column of the state or any other name. Where n is not the number of transitions they are of other parts of
        the data, and their dimension is row.
    data : Transitions
        Where the rows are from.
    draw : ndarray, shape (draws,)
        Numbers of the draws.
    schema : Schema
        Tells the units.
    """
    units, chains = _units(schema, measured_state=True), len(next(iter(values.values()))) // len(draw)
    arrays: dict[str, Any] = {}
    for name, value in values.items():
        row = "transition" if value.shape[-1] == len(data.state) else "row"
        attrs = {"units": units[name]} if name in units and value.is_floating_point() else {}
        arrays[name] = ("chain", "draw", row), _numpy(value).reshape(chains, len(draw), -1), attrs
    places = _places(data) if any("transition" in dims for dims, *_ in arrays.values()) else {}
    return xr.Dataset(arrays, coords={"chain": np.arange(chains), "draw": draw, **places})


def observed_data(trajectories: Trajectories, *, measured_state: bool = True) -> xr.Dataset:
    """Return what the groups about data refer to.

    Parameters
    ----------
    trajectories : Trajectories
        Data.
    measured_state : bool
        Whether the next state of each transition, with the dimension transition, or what the sensors reported, with the
        dimensions episode and state_step, NaN for what was not recorded.

    Examples
    --------
    >>> from bayeswm.base.schema import Variable
    >>> schema = Schema(state=[Variable("x", unit="m")], time_step=0.1)
    >>> observed_data(Trajectories(schema, state=[[[0.0], [1.0], [2.0]]])).x.values.tolist()
    [1.0, 2.0]
    """
    units = _units(trajectories.schema, measured_state=measured_state)
    if measured_state:
        data = trajectories.transitions()
        dims, seen, coords = ("transition",), data.next_state, _places(data)
    else:
        dims, seen, coords = ("episode", "state_step"), trajectories.measurement, {}
    columns = zip(units.items(), _numpy(seen.movedim(-1, 0)), strict=True)
    return xr.Dataset({k: (dims, v, {"units": unit}) for (k, unit), v in columns}, coords=coords)


def _units(schema: Schema, *, measured_state: bool) -> dict[str, str]:
    variables = schema.state if measured_state else schema.measured
    return {column: v.unit for v in variables for column in v.columns}


def _places(data: Transitions) -> dict[str, Any]:
    return {
        "transition": np.arange(len(data.state)),
        "episode": ("transition", _numpy(data.episode)),
        "step": ("transition", _numpy(data.step)),
    }


def _numpy(values: Tensor) -> np.ndarray:
    # NumPy has no bfloat16; float32 holds it exactly
    wide = values.float() if values.dtype in (torch.bfloat16, torch.float16) else values
    return wide.detach().cpu().numpy().copy()
