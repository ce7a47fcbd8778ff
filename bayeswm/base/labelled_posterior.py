"""A posterior as labelled draws in ArviZ's layout: groups with the dimensions chain and draw."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from bayeswm.base.one_step import in_blocks, log_prob_by_column, predict_by_column, transition_law
from bayeswm.base.random import systematic
from bayeswm.base.trajectories import Trajectories, Transitions
from bayeswm.base.worlds import Worlds

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
        structure = getattr(model, "structure", None)
        units = {} if structure is None else {k: p.unit for k, p in structure.parameters().items()}
        labels = {"process_noise": {"noise_variable": worlds.schema.state.columns}}
        draw = np.arange(len(worlds))
        values = {k: v[None] for k, v in worlds.parameters.items()}
        groups = {"posterior": labelled_draws(values, draw=draw, units=units, labels=labels)}
        if trajectories is not None and worlds.state_is_measured:
            groups |= _transition_groups(worlds, trajectories, draw=draw, generator=generator)
        if trajectories is not None:
            groups["observed_data"] = observed_data(trajectories, measured_state=worlds.state_is_measured)
    return xr.DataTree.from_dict(groups)


def _transition_groups(
    worlds: Worlds, trajectories: Trajectories, *, draw: np.ndarray, generator: torch.Generator
) -> dict[str, xr.Dataset]:
    data = Transitions(*(v.to(worlds.device) for v in trajectories.transitions()))
    columns, size = worlds.schema.state.columns, data.next_state.numel()

    def density(part: slice) -> dict[str, Tensor]:
        return log_prob_by_column(transition_law(worlds[part], data), data, columns)

    def predicted(part: slice) -> dict[str, Tensor]:
        return predict_by_column(transition_law(worlds[part], data), columns, generator)

    return {
        name: labelled_rows(in_blocks(answer, len(worlds), size), trajectories, draw=draw)
        for name, answer in (("log_likelihood", density), ("posterior_predictive", predicted))
    }


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


def labelled_rows(values: Mapping[str, Tensor], trajectories: Trajectories, *, draw: np.ndarray) -> xr.Dataset:
    """Return values of each transition as a data set.

    Parameters
    ----------
    values : mapping of str to Tensor, shape (chains * draws, n)
        By column of the state or any other name. Where n is not the number of transitions they are of other parts of
        the data, and their dimension is row.
    trajectories : Trajectories
        Where the rows are from.
    draw : ndarray, shape (draws,)
        Numbers of the draws.
    """
    n, chains = trajectories.transition_count, len(next(iter(values.values()))) // len(draw)
    arrays: dict[str, Any] = {}
    coords: dict[str, Any] = {"chain": np.arange(chains), "draw": draw}
    for name, value in values.items():
        row = "transition" if value.shape[-1] == n else "row"
        arrays[name] = ("chain", "draw", row), _numpy(value).reshape(chains, len(draw), -1)
        coords |= _places(trajectories) if row == "transition" else {row: np.arange(value.shape[-1])}
    return xr.Dataset(arrays, coords=coords)


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
    >>> from bayeswm.base.schema import Schema, Variable
    >>> schema = Schema(state=[Variable("x", unit="m")], time_step=0.1)
    >>> observed_data(Trajectories(schema, state=[[[0.0], [1.0], [2.0]]])).x.values.tolist()
    [1.0, 2.0]
    """
    variables = trajectories.schema.state if measured_state else trajectories.schema.measured
    if measured_state:
        dims, seen, coords = ("transition",), trajectories.transitions().next_state, _places(trajectories)
    else:
        dims, seen, coords = ("episode", "state_step"), trajectories.measurement, {}
    units = [(column, {"units": v.unit} if v.unit else {}) for v in variables for column in v.columns]
    columns = zip(units, _numpy(seen.movedim(-1, 0)), strict=True)
    return xr.Dataset({name: (dims, value, attrs) for (name, attrs), value in columns}, coords=coords)


def _places(trajectories: Trajectories) -> dict[str, Any]:
    """Return coordinates of the transitions: the recording that each is from, and its step there."""
    data = trajectories.transitions()
    return {
        "transition": np.arange(len(data.state)),
        "episode": ("transition", _numpy(trajectories.episode[data.episode])),
        "step": ("transition", _numpy(data.step + trajectories.start[data.episode])),
    }


def _numpy(values: Tensor) -> np.ndarray:
    # NumPy has no bfloat16; float32 holds it exactly
    wide = values.float() if values.dtype in (torch.bfloat16, torch.float16) else values
    return wide.detach().cpu().numpy().copy()
