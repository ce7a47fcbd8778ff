"""How much one step of each world stretches differences of states: Lipschitz estimates."""

from __future__ import annotations

from typing import Any

import torch
import xarray as xr
from torch import Tensor

from bayeswm.base.errors import DataError, SpecError
from bayeswm.base.worlds import Worlds
from bayeswm.diagnostics.forecast import Forecast
from bayeswm.diagnostics.summary import as_numpy

_CHUNK = 4096  # states whose Jacobians are held at once


def lipschitz(
    worlds: Worlds, states: Tensor, actions: Tensor, *, context: Tensor | None = None, scale: Tensor | None = None
) -> xr.Dataset:
    """Estimate the Lipschitz constant of each world: the largest spectral norm of its Jacobian over some states.

    The Jacobian is that of the mean of the next state by the state. The largest norm seen is a lower bound of the
    Lipschitz constant, and equal to it for a linear system. A constant below 1 means that one step brings all states
    closer to each other; one far above that of the data's own steps, that long rollouts magnify errors.

    Parameters
    ----------
    worlds : Worlds
        What to judge, as ``model.draw(64, generator=...)``.
    states, actions : Tensor, shapes (n, S) and (n, A)
        Where: states of the data, or of rollouts.
    context : Tensor, shape (n, C), optional
        Context.
    scale : Tensor, shape (S,), optional
        The norm is that of states divided by this, as their standard deviation; by default 1 in every column's unit,
        which means little where units differ.

    Returns
    -------
    xarray.Dataset
        By ``world``: ``lipschitz``, the largest norm; ``norm``, the mean norm over the states; ``where``, the row of
        the state with the largest. The coordinate ``weight`` has the worlds' weights.

    Raises
    ------
    DataError, SpecError
        If shapes or scale do not fit, or the worlds need more than a state to start from.

    Examples
    --------
    >>> import bayeswm as bwm
    >>> schema = bwm.Schema(state=[bwm.Variable("x"), bwm.Variable("v")], time_step=0.1)
    >>> structure = bwm.structures.Linear(schema, A=torch.tensor([[0.5, 2.0], [0.0, 0.5]]))
    >>> worlds = bwm.KnownDynamics(structure=structure, noise=0.1).draw(1)
    >>> found = lipschitz(worlds, torch.zeros(1, 2), torch.zeros(1, 0), scale=torch.tensor([2.0, 1.0]))
    >>> round(float(found.lipschitz[0]), 3), round((1 + 2**0.5) / 2, 3)
    (1.207, 1.207)
    """
    carry, actions, context = known_carry(worlds, states, actions, context=context)
    unit = checked_scale(scale, carry.shape[-1], like=carry)
    norms = list[Tensor]()
    for rows in torch.arange(carry.shape[2], device=carry.device).split(_CHUNK):
        with torch.enable_grad():
            x = carry[:, :, rows].detach().requires_grad_()
            mean = worlds.transition(x, actions[rows], context[rows]).mean
            # rows and worlds do not touch each other, so that one pass gives a row of all their Jacobians
            parts = [
                torch.autograd.grad(y.sum(), x, retain_graph=True, materialize_grads=True)[0] for y in mean.unbind(-1)
            ]
        jacobian = torch.stack(parts, -2).detach() * unit / unit[:, None]
        norms.append(torch.linalg.matrix_norm(jacobian[:, 0].double(), 2))
    norm = torch.cat(norms, 1)
    largest, where = norm.max(1)
    text = "largest norm of the Jacobian, a lower bound of the Lipschitz constant"
    return xr.Dataset(
        {
            "lipschitz": ("world", as_numpy(largest), {"long_name": text}),
            "norm": ("world", as_numpy(norm.mean(1)), {"long_name": "mean norm of the Jacobian"}),
            "where": ("world", as_numpy(where), {"long_name": "row of the state with the largest norm"}),
        },
        coords=world_coords(worlds),
        attrs={"states": norm.shape[1]},
    )


def known_carry(
    worlds: Worlds, states: Tensor, actions: Tensor, *, context: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Return states as carries (worlds, 1, n, S), with actions (n, A) and context (n, C), checked.

    Examples
    --------
    >>> import bayeswm as bwm
    >>> worlds = bwm.KnownDynamics(structure=bwm.structures.Pendulum.gymnasium(), noise=0.1).draw(1)
    >>> [tuple(v.shape) for v in known_carry(worlds, torch.zeros(5, 2), torch.zeros(5, 1), context=None)]
    [(1, 1, 5, 2), (5, 1), (5, 0)]
    """
    schema, n = worlds.schema, len(states)
    context = states.new_empty(n, 0) if context is None else context
    given = {
        "states": (states, schema.state),
        "actions": (actions, schema.action),
        "context": (context, schema.context),
    }
    for name, (values, variables) in given.items():
        if tuple(values.shape) != (n, variables.size) or n == 0 or not bool(values.isfinite().all()):
            raise DataError(
                f"expected finite {name} of shape (n, {variables.size}) for {variables.columns}, with n >= 1 the same "
                f"for all, got {tuple(values.shape)}"
            )
    states, actions, context = (v.to(worlds.device, worlds.dtype) for v in (states, actions, context))
    carry = worlds.start(states, context)
    if not isinstance(carry, Tensor):
        raise SpecError("expected worlds that go on from a state alone, got some that keep more than it")
    return carry.expand(len(worlds), 1, *carry.shape[2:]), actions, context


def check_states(part: Forecast) -> None:
    """Refuse forecasts of measurements, from a history of them.

    Examples
    --------
    >>> import bayeswm as bwm
    >>> model = bwm.KnownDynamics(structure=bwm.structures.Pendulum.gymnasium(), noise=1.0)
    >>> one = model.predictive(torch.zeros(2, 2), torch.zeros(2, 1))
    >>> check_states(bwm.diagnostics.forecast_of(one, torch.zeros(2, 1, 2)))
    """
    if part.past is not None:
        raise SpecError(
            "expected forecasts of a state that is measured, got some of measurements, from a history of them; roll "
            "out the model without its sensors"
        )


def checked_scale(scale: Tensor | None, size: int, *, like: Tensor) -> Tensor:
    """Return the scale of each column, 1 by default, in the number format of ``like``.

    Examples
    --------
    >>> checked_scale(None, 2, like=torch.zeros(1))
    tensor([1., 1.])
    """
    if scale is None:
        return like.new_ones(size)
    if tuple(scale.shape) != (size,) or not bool((scale.isfinite() & (scale > 0)).all()):
        raise SpecError(f"expected a positive scale of shape ({size},), got {scale}")
    return scale.to(like)


def world_coords(worlds: Worlds) -> dict[str, Any]:
    """Return the coordinates of worlds: their number and weight.

    Examples
    --------
    >>> import bayeswm as bwm
    >>> sorted(world_coords(bwm.KnownDynamics(structure=bwm.structures.Pendulum.gymnasium(), noise=0.1).draw(1)))
    ['weight', 'world']
    """
    return {"world": range(len(worlds)), "weight": ("world", as_numpy(worlds.weight), {"long_name": "weight"})}
