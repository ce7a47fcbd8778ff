"""Whether rollouts keep to the balance of energy, momentum or another quantity."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

import torch
import xarray as xr
from torch import Tensor

from bayeswm.base.errors import DataError, SpecError, UnknownVariableError
from bayeswm.base.predictive import Predictive
from bayeswm.diagnostics.forecast import Forecasts, parts_of
from bayeswm.diagnostics.summary import as_numpy, horizon_coords

Quantities = Mapping[str, Callable[[Tensor], Tensor]]
Rates = Mapping[str, Callable[[Tensor, Tensor], Tensor]]


def balance(
    rollouts: Predictive | Forecasts,
    quantities: Quantities,
    *,
    rates: Rates | None = None,
    actions: Tensor | None = None,
) -> xr.Dataset:
    r"""Return how far energy, momentum or another quantity strays from its balance along a rollout.

    .. math:: r_h = q(x_h) - q(x_0) - \sum_{t < h} \tfrac{\Delta t}{2} [\dot q(x_t, a_t) + \dot q(x_{t+1}, a_t)]

    is 0 for a system that keeps q, or exchanges it at the given rate, up to the error of the trapezium rule, which is
    of second order in the time step, and of the world's own integrator. A slope of the residual is energy from nowhere;
    its spread grows with process noise.

    Parameters
    ----------
    rollouts : Predictive, Forecast or iterable of Forecast
        A rollout, or forecasts of recordings, whose worlds are the same in all parts. Process noise is not part of the
        balance, so that rollouts without it show most.
    quantities : mapping of str to callable
        Each maps states (worlds, particles, *batch, H + 1, S) to values (worlds, particles, *batch, H + 1). Parameters
        of the worlds may enter with the shape (worlds, 1, ..., 1). Forecasts have one batch axis.
    rates : mapping of str to callable, optional
        The rate at which a quantity comes in from outside, per second, from states (worlds, particles, *batch, H, S)
        and actions (*batch, H, A): the power of an actuator less that of friction, or a force. Quantities without a
        rate are conserved.
    actions : Tensor, shape (*batch, H, A), optional
        What was done; needed with rates of a rollout. Forecasts that :func:`bayeswm.diagnostics.forecast` makes know
        theirs.

    Returns
    -------
    xarray.Dataset
        By quantity, world and step: ``residual``, the mean over particles and starts, and ``rms``, its root mean square
        there; ``drift``, the slope of the residual in units of the quantity a second. ``magnitude`` is the root mean
        square of the quantity itself, to compare with. Lower is better for all in absolute value.

    Raises
    ------
    SpecError, DataError, UnknownVariableError
        If values do not fit, there is no start, as of forecasts of measurements, or a rate belongs to no quantity.

    Examples
    --------
    A mass in free fall, whose energy per mass is v^2 / 2 + g z:

    >>> import bayeswm as bwm
    >>> schema = bwm.Schema(state=[bwm.Variable("z"), bwm.Variable("v")], time_step=0.1)
    >>> def move(x, u):
    ...     return torch.stack((x[..., 0] + 0.1 * x[..., 1] - 0.05, x[..., 1] - 1.0), -1)
    >>> fall = bwm.structures.FromFunction(move, schema=schema, name="fall")
    >>> r = bwm.rollout(bwm.KnownDynamics(structure=fall), torch.zeros(2), None, horizon=20, particles=1)
    >>> found = balance(r, {"energy": lambda x: x[..., 1] ** 2 / 2 + 10 * x[..., 0]})
    >>> bool(abs(found["residual"]).max() < 1e-9)
    True
    """
    rates = rates or {}
    for name in rates:
        if name not in quantities:
            raise UnknownVariableError.of(name, quantities)
    sums: dict[str, list[_Sums]] = {name: [] for name in quantities}
    head: Predictive | None = None
    for predictive, done in _with_actions(rollouts, actions):
        head = predictive
        for name, found in _sums(predictive, quantities, rates=rates, actions=done).items():
            sums[name].append(found)
    if head is None:
        raise DataError("expected at least one forecast, got none")
    rows: dict[str, list[Tensor]] = {"residual": [], "rms": [], "drift": [], "magnitude": []}
    for parts in sums.values():
        if len({len(part.there) for part in parts}) > 1:
            raise SpecError("expected forecasts of the same worlds in all parts, got different numbers of worlds")
        count, total, square, whole, size = (torch.stack(v).sum(0) for v in zip(*parts, strict=True))
        mean = total / count
        time = head.time_step * torch.arange(1, head.horizon + 1, dtype=mean.dtype, device=mean.device)
        rows["residual"].append(mean)
        rows["rms"].append((square / count).sqrt())
        rows["drift"].append((mean * time).sum(-1) / time.square().sum())  # through 0 at the start
        rows["magnitude"].append((whole / size).sqrt())
    by_step, by_world = ("quantity", "world", "horizon"), ("quantity", "world")
    coords = horizon_coords(head.variables, steps=head.horizon, time_step=head.time_step)
    return xr.Dataset(
        {k: (by_step if v[0].ndim == 2 else by_world, as_numpy(torch.stack(v))) for k, v in rows.items()},
        coords={"quantity": list(quantities), "horizon": coords["horizon"], "time": coords["time"]},
    )


class _Sums(NamedTuple):
    """Of residuals, (worlds, H): how many, sum, sum of squares; of values, (worlds,): sum of squares, how many."""

    there: Tensor
    residual: Tensor
    square: Tensor
    whole: Tensor
    size: Tensor


def _with_actions(
    rollouts: Predictive | Forecasts, actions: Tensor | None
) -> Iterator[tuple[Predictive, Tensor | None]]:
    if isinstance(rollouts, Predictive):
        yield rollouts, actions
        return
    if actions is not None:
        raise SpecError("expected no actions= with forecasts, which know theirs")
    for part in parts_of(rollouts):
        if part.past is not None:
            raise SpecError("expected forecasts of states, got measurements of a hidden one: ask without sensors")
        yield part.predictive, None if part.windows is None else part.windows.action


def _sums(predictive: Predictive, quantities: Quantities, *, rates: Rates, actions: Tensor | None) -> dict[str, _Sums]:
    if predictive.initial is None or predictive.horizon == 0:
        raise SpecError("expected a rollout of states of at least one step with its start, got none")
    if rates and (actions is None or actions.shape[-2] < predictive.horizon):
        raise SpecError("expected actions= of all steps with rates=, got none or too few")
    paths = predictive.particles
    start = predictive.initial.expand(*paths.shape[:-2], paths.shape[-1])
    x = torch.cat((start[..., None, :], paths), -2)
    alive = torch.cat((~predictive.diverged[..., :1], ~predictive.diverged), -1).expand(x.shape[:-1])
    x = torch.where(alive[..., None], x, 0.0)
    found: dict[str, _Sums] = {}
    for name, quantity in quantities.items():
        q = quantity(x)
        if q.shape != x.shape[:-1]:
            raise SpecError(f"{name}: expected values of shape {tuple(x.shape[:-1])}, got {tuple(q.shape)}")
        residual = q[..., 1:] - q[..., :1]
        if name in rates and actions is not None:
            done = actions[..., : predictive.horizon, :].to(x)
            flow = rates[name](x[..., :-1, :], done) + rates[name](x[..., 1:, :], done)
            residual = residual - (0.5 * predictive.time_step * flow).cumsum(-1)
        there = alive[..., 1:].flatten(1, -2)
        residual = torch.where(there, residual.flatten(1, -2), 0.0)
        whole = torch.where(alive, q, 0.0).flatten(1).square().sum(1)
        size = alive.flatten(1).to(whole).sum(1)
        found[name] = _Sums(there.to(residual).sum(1), residual.sum(1), residual.square().sum(1), whole, size)
    return found
