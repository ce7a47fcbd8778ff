"""How worlds stretch differences of states: Lipschitz estimates, growth along rollouts, and divergence."""

from __future__ import annotations

import math
from typing import Any

import torch
import xarray as xr
from torch import Tensor

from bayeswm.base.errors import DataError, SpecError
from bayeswm.base.random import make_generator, spawn_seeds, standard_normal
from bayeswm.base.rollout import rollout
from bayeswm.base.worlds import Worlds
from bayeswm.diagnostics.forecast import Forecast, Forecasts, gather, known
from bayeswm.diagnostics.summary import Summary, as_numpy

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


def stability(
    forecasts: Forecasts,
    *,
    displacement: float = 1e-5,
    scale: Tensor | None = None,
    particles: int = 1,
    bootstrap: int = 1000,
    seed: int = 0,
) -> xr.Dataset:
    """Count rollouts that diverge, and measure how fast nearby ones part: the finite-time Lyapunov exponent.

    Each window is rolled out twice in the same worlds with the same noise and actions, from its start and from a point
    beside it in a random direction. The growth is the least-squares slope of the log separation over time, start
    included: above 0 errors grow, below 0 they die out. The estimate is of the largest exponent if the horizon is long
    enough for the direction to settle, and short enough for the separation to stay small.

    Parameters
    ----------
    forecasts : Forecast or iterable of Forecast
        What :func:`~bayeswm.diagnostics.forecast` made of a system whose state is measured.
    displacement : float
        Distance of the two starts, in ``scale``.
    scale : Tensor, shape (S,), optional
        Distances are those of states divided by this (one entry for each column of a change); 1 by default.
    particles : int
        In each world, of the two rollouts.
    bootstrap, seed : int
        Resamples and seed of the cluster bootstrap; the seed also draws noise and directions.

    Returns
    -------
    xarray.Dataset
        * ``diverged`` by ``horizon``: weighted share of particles that left the finite numbers; lower is better;
        * ``growth``, in 1/s: mean over worlds, particles and windows;
        * each with ``_se``, ``_lower`` and ``_upper`` (95 %) from the cluster bootstrap over recordings.

        Steps at which the separation is lost in rounding or infinite do not count.

    Raises
    ------
    SpecError, DataError
        If a forecast does not know its worlds and data, its state is hidden, or displacement or scale do not fit.

    Examples
    --------
    >>> import bayeswm as bwm
    >>> schema = bwm.Schema(state=[bwm.Variable("x")], time_step=0.1)
    >>> structure = bwm.structures.Linear(schema, A=torch.tensor([[0.5]]))
    >>> model = bwm.KnownDynamics(structure=structure, noise=0.1)
    >>> data = bwm.Trajectories(schema, state=torch.zeros(9, 6, 1))
    >>> found = stability(bwm.diagnostics.forecast(model, data, horizon=5))
    >>> round(float(found.growth), 4), round(math.log(0.5) / 0.1, 4)
    (-6.9315, -6.9315)
    """
    if not 0 < displacement < math.inf:
        raise SpecError(f"expected displacement > 0, got {displacement}")
    generator = make_generator(seed)
    found = gather(
        forecasts,
        lambda part: window_stability(
            part, displacement=displacement, scale=scale, particles=particles, generator=generator
        ),
    )
    summary = Summary(found.recording, resamples=bootstrap, seed=seed)
    attrs = {"long_name": "share of diverged particles", "better": "lower"}
    summary.add("diverged", found.values["diverged"], ("horizon",), attrs=attrs)
    attrs = {"long_name": "growth rate of a small separation", "units": "1/s"}
    summary.add("growth", found.values["growth"], (), attrs=attrs)
    return summary.dataset(found, coords={}).drop_vars(["variable", "unit"])


def window_stability(
    part: Forecast, *, displacement: float, scale: Tensor | None, particles: int, generator: torch.Generator
) -> dict[str, Tensor]:
    """Return the share of diverged particles, shape (windows, H), and the growth rate (windows,) in 1/s.

    Examples
    --------
    See :func:`stability`.
    """
    windows, worlds = known(part)
    check_states(part)
    predictive, variables = part.predictive, worlds.schema.state
    weight = predictive.weight.double()
    diverged = torch.einsum("w,wnh->nh", weight, predictive.diverged.double().mean(1))
    worlds = worlds.to(torch.float64)  # a small separation is a difference of large numbers
    start = windows.states()[:, 0].to(worlds.device, torch.float64)
    unit = checked_scale(scale, variables.tangent_size, like=start)
    direction = standard_normal((len(start), len(unit)), generator, dtype=start.dtype, device=start.device)
    shift = displacement * direction / direction.norm(dim=-1, keepdim=True)
    (same,) = spawn_seeds(generator, 1)
    one, other = (
        rollout(
            worlds,
            begin,
            windows.action,
            particles=particles,
            generator=make_generator(same),
            context=windows.step_context() if windows.schema.context.size else None,
            fresh_worlds=predictive.fresh_worlds,
        ).particles
        for begin in (start, variables.add(start, shift * unit))
    )
    apart = (variables.difference(other, one) / unit).norm(dim=-1)
    # what rounding leaves of a separation is no separation
    floor = 1e4 * torch.finfo(torch.float64).eps * (one.abs().amax(-1) / unit.min())
    apart = torch.where(apart.isfinite() & (apart > floor), apart, float("nan"))
    first = torch.full_like(apart[..., :1], displacement)
    slope = _slope(torch.cat((first, apart), -1).log()) / predictive.time_step
    there = ~slope.isnan()
    share = weight[:, None, None] * there
    return {"diverged": diverged, "growth": (share * slope.nan_to_num(0.0)).sum((0, 1)) / share.sum((0, 1))}


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


def _slope(values: Tensor) -> Tensor:
    """Return least-squares slopes along the last axis per step; NaN values are left out, one alone has no slope."""
    there = ~values.isnan()
    count = there.sum(-1, keepdim=True)
    step = torch.arange(values.shape[-1], device=values.device).to(values).expand_as(values)
    x = torch.where(there, step - (step * there).sum(-1, keepdim=True) / count, 0.0)
    y = torch.where(there, values - values.nanmean(-1, keepdim=True), 0.0)
    return torch.where(count[..., 0] > 1, (x * y).sum(-1) / x.square().sum(-1), float("nan"))
