"""Whether worlds keep to physics: how far a step stretches, balances along rollouts, and symmetries."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
import xarray as xr
from torch import Tensor

from bayeswm.base.errors import DataError, SpecError, UnknownVariableError
from bayeswm.base.model import DynamicsModel, finite
from bayeswm.base.predictive import Predictive
from bayeswm.base.worlds import StructureWorlds, Worlds
from bayeswm.diagnostics.jacobians import markov_worlds, step_jacobian
from bayeswm.diagnostics.summary import as_numpy, horizon_coords

_CHUNK = 4096  # states whose derivatives are held at once


def lipschitz(
    model: DynamicsModel | Worlds,
    state: Tensor,
    action: Tensor,
    *,
    context: Tensor | None = None,
    scale: Tensor | None = None,
    worlds: int = 64,
    seed: int | torch.Generator = 0,
) -> xr.Dataset:
    """Estimate how much the mean of a step stretches the distance of two states under the same action.

    The largest spectral norm of the step's derivative over the given states is a lower bound of the Lipschitz constant.
    Where the structure knows one (exact for ``Linear``, the product of the layers' norms for ``MLP``), there is an
    upper bound too. Above 1, neighbouring states may be driven apart, step by step.

    Parameters
    ----------
    model : DynamicsModel or Worlds
        Whose state is not hidden.
    state : Tensor, shape (n, S)
        Where to look, for instance states of the training data.
    action : Tensor, shape (n, A)
        What is done there.
    context : Tensor, shape (n, C), optional
        Context.
    scale : Tensor, shape (S,), optional
        What distances are measured in, by column; by default one unit of each. The norm depends on it: a metre and a
        metre a second have no length in common.
    worlds : int
        How many to draw.
    seed : int or torch.Generator
        Source of the worlds.

    Returns
    -------
    xarray.Dataset
        By world: ``lower_bound``, the state ``at`` which it is attained, and ``upper_bound``, NaN where none is known.

    Raises
    ------
    SpecError, DataError
        If the state is hidden, or values do not fit.

    Examples
    --------
    >>> import bayeswm as bwm
    >>> schema = bwm.Schema(state=[bwm.Variable("x"), bwm.Variable("y")], time_step=1.0)
    >>> shear = bwm.structures.Linear(schema, A=torch.tensor([[0.5, 3.0], [0.0, 0.5]]), c=0.0)
    >>> found = lipschitz(bwm.KnownDynamics(structure=shear, noise=0.1), torch.zeros(1, 2), torch.zeros(1, 0))
    >>> round(float(found["lower_bound"][0]), 3), round(float(found["upper_bound"][0]), 3)
    (3.081, 3.081)
    """
    drawn = markov_worlds(model, worlds, seed=seed)
    x, action, context = _inputs(drawn, state, action, context=context)
    unit = torch.ones(x.shape[-1]) if scale is None else torch.as_tensor(scale)
    unit = unit.to(x)
    if unit.shape != x.shape[-1:] or not bool((unit > 0).all()):
        raise SpecError(f"expected a positive scale of shape ({x.shape[-1]},), got {scale}")
    norms = list[Tensor]()
    for rows in torch.arange(len(x), device=x.device).split(_CHUNK):
        given = None if context is None else context[rows]
        jacobian = step_jacobian(drawn, drawn.start(x[rows]), action[rows], given)[1][:, 0]
        norms.append(torch.linalg.matrix_norm(jacobian * unit / unit[:, None], 2))
    lower, where = torch.cat(norms, 1).max(1)
    upper = torch.full_like(lower, float("nan"))
    if isinstance(drawn, StructureWorlds):
        known = drawn.structure.lipschitz_bound(drawn.parameters, unit)
        upper = upper if known is None else known.to(upper)
    variables = drawn.schema.state
    return xr.Dataset(
        {
            "lower_bound": ("world", as_numpy(lower), {"long_name": "largest norm of the derivative at the states"}),
            "upper_bound": ("world", as_numpy(upper), {"long_name": "upper bound of the Lipschitz constant"}),
            "at": (("world", "variable"), as_numpy(x[where])),
        },
        coords={"variable": list(variables.columns)},
        attrs={"scale": as_numpy(unit), "states": len(x)},
    )


def balance(
    predictive: Predictive,
    quantities: Mapping[str, Callable[[Tensor], Tensor]],
    *,
    rates: Mapping[str, Callable[[Tensor, Tensor], Tensor]] | None = None,
    actions: Tensor | None = None,
) -> xr.Dataset:
    r"""Return how far energy, momentum or another quantity strays from its balance along a rollout.

    .. math:: r_h = q(x_h) - q(x_0) - \sum_{t < h} \tfrac{\Delta t}{2} [\dot q(x_t, a_t) + \dot q(x_{t+1}, a_t)]

    is 0 for a system that keeps q, or exchanges it at the given rate, up to the error of the trapezium rule, which is
    of second order in the time step, and of the world's own integrator. A slope of the residual is energy from nowhere;
    its spread grows with process noise.

    Parameters
    ----------
    predictive : Predictive
        A rollout; its process noise is not part of the balance, so that a rollout without it shows most.
    quantities : mapping of str to callable
        Each maps states (worlds, particles, *batch, H + 1, S) to values (worlds, particles, *batch, H + 1). Parameters
        of the worlds may enter with the shape (worlds, 1, ..., 1).
    rates : mapping of str to callable, optional
        The rate at which a quantity comes in from outside, per second, from states (worlds, particles, *batch, H, S)
        and actions (*batch, H, A): the power of an actuator less that of friction, or a force. Quantities without a
        rate are conserved.
    actions : Tensor, shape (*batch, H, A), optional
        What was done; needed with rates.

    Returns
    -------
    xarray.Dataset
        By quantity, world and step: ``residual``, the mean over particles and starts, and ``rms``, its root mean square
        there; ``drift``, the slope of the residual in units of the quantity a second. ``magnitude`` is the root mean
        square of the quantity itself, to compare with. Lower is better for all in absolute value.

    Raises
    ------
    SpecError, DataError, UnknownVariableError
        If values do not fit, there is no start, or a rate belongs to no quantity.

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
    if predictive.initial is None or predictive.horizon == 0:
        raise SpecError("expected a rollout of at least one step with its start, got none")
    paths = predictive.particles
    start = predictive.initial.expand(*paths.shape[:-2], paths.shape[-1])
    x = torch.cat((start[..., None, :], paths), -2)
    rates = rates or {}
    for name in rates:
        if name not in quantities:
            raise UnknownVariableError.of(name, quantities)
    if rates and (actions is None or actions.shape[-2] < predictive.horizon):
        raise SpecError("expected actions= of all steps with rates=, got none or too few")
    alive = torch.cat((~predictive.diverged[..., :1], ~predictive.diverged), -1).expand(x.shape[:-1])
    x = torch.where(alive[..., None], x, 0.0)
    rows: dict[str, list[Tensor]] = {"residual": [], "rms": [], "drift": [], "magnitude": []}
    time = predictive.time_step * torch.arange(1, predictive.horizon + 1, dtype=x.dtype, device=x.device)
    for name, quantity in quantities.items():
        q = quantity(x)
        if q.shape != x.shape[:-1]:
            raise SpecError(f"{name}: expected values of shape {tuple(x.shape[:-1])}, got {tuple(q.shape)}")
        residual = q[..., 1:] - q[..., :1]
        if name in rates and actions is not None:
            done = actions[..., : predictive.horizon, :].to(x)
            flow = rates[name](x[..., :-1, :], done) + rates[name](x[..., 1:, :], done)
            residual = residual - (0.5 * predictive.time_step * flow).cumsum(-1)
        residual = torch.where(alive[..., 1:], residual, float("nan")).flatten(1, -2)
        mean = residual.nanmean(1)
        rows["residual"].append(mean)
        rows["rms"].append(residual.square().nanmean(1).sqrt())
        rows["drift"].append((mean * time).sum(-1) / time.square().sum())  # through 0 at the start
        rows["magnitude"].append(torch.where(alive, q, float("nan")).flatten(1).square().nanmean(1).sqrt())
    by_step, by_world = ("quantity", "world", "horizon"), ("quantity", "world")
    coords = horizon_coords(predictive.variables, steps=predictive.horizon, time_step=predictive.time_step)
    return xr.Dataset(
        {k: (by_step if v[0].ndim == 2 else by_world, as_numpy(torch.stack(v))) for k, v in rows.items()},
        coords={"quantity": list(quantities), "horizon": coords["horizon"], "time": coords["time"]},
    )


def symmetry(
    model: DynamicsModel | Worlds,
    state: Tensor,
    action: Tensor,
    *,
    of_state: Callable[[Tensor], Tensor],
    of_action: Callable[[Tensor], Tensor] | None = None,
    context: Tensor | None = None,
    worlds: int = 64,
    seed: int | torch.Generator = 0,
) -> xr.Dataset:
    r"""Return how far the mean of a step is from having a symmetry: F(T x, T a) = T F(x, a).

    Parameters
    ----------
    model : DynamicsModel or Worlds
        Whose state is not hidden.
    state : Tensor, shape (n, S)
        Where to look.
    action : Tensor, shape (n, A)
        What is done there.
    of_state, of_action : callable
        The transformation T of states (..., S) and of actions (..., A), which stay as they are by default: a mirror
        image is ``torch.neg``, a shift along x adds to one column.
    context : Tensor, shape (n, C), optional
        Context.
    worlds : int
        How many to draw.
    seed : int or torch.Generator
        Source of the worlds.

    Returns
    -------
    xarray.Dataset
        By world and variable: ``residual``, the root mean square over the states of F(T x, T a) - T F(x, a) in the
        variable's unit (the shorter way around for angles), ``worst``, the largest, and ``relative``, the residual as
        a share of the root mean square change in the step. 0 is exact; lower is better.

    Raises
    ------
    SpecError, DataError
        If the state is hidden, or values do not fit.

    Examples
    --------
    >>> import bayeswm as bwm
    >>> g = torch.Generator().manual_seed(0)
    >>> x, torque = torch.randn(50, 2, generator=g), torch.randn(50, 1, generator=g)
    >>> model = bwm.KnownDynamics(structure=bwm.structures.Pendulum(), noise=0.1)
    >>> mirror = symmetry(model, x, torque, of_state=torch.neg, of_action=torch.neg)
    >>> bool(mirror["residual"].max() < 1e-12)
    True
    """
    drawn = markov_worlds(model, worlds, seed=seed)
    x, action, context = _inputs(drawn, state, action, context=context)
    image, done = of_state(x), action if of_action is None else of_action(action)
    if image.shape != x.shape or done.shape != action.shape:
        raise SpecError(
            f"expected transformations that keep the shapes {tuple(x.shape)} and {tuple(action.shape)}, got "
            f"{tuple(image.shape)} and {tuple(done.shape)}"
        )
    with torch.no_grad():
        before = drawn.transition(drawn.start(x), action, context).mean[:, 0]
        after = drawn.transition(drawn.start(image), done, context).mean[:, 0]
    variables = drawn.schema.state
    gap = variables.difference(after, of_state(before))
    moved = variables.difference(before, x.expand_as(before)).square().mean(1).sqrt()
    residual = gap.square().mean(1).sqrt()
    dims = ("world", "variable")
    # other kinds of variables have fewer numbers to differ in than columns
    labels = list(variables.columns) if variables.flat else list(range(gap.shape[-1]))
    return xr.Dataset(
        {
            "residual": (dims, as_numpy(residual), {"better": "lower"}),
            "worst": (dims, as_numpy(gap.abs().amax(1)), {"better": "lower"}),
            "relative": (dims, as_numpy(residual / moved), {"better": "lower"}),
        },
        coords={"variable": labels},
        attrs={"states": len(x)},
    )


def _inputs(
    worlds: Worlds, state: Tensor, action: Tensor, *, context: Tensor | None
) -> tuple[Tensor, Tensor, Tensor | None]:
    schema = worlds.schema
    x = finite("state", state, schema.state.columns, worlds=worlds)
    if x.ndim != 2 or len(x) == 0:
        raise DataError(f"expected states of shape (n, {schema.state.size}) with n >= 1, got {tuple(x.shape)}")
    action = finite("action", action, schema.action.columns, worlds=worlds).expand(len(x), -1)
    if context is not None or schema.context.size:
        context = finite("context", context, schema.context.columns, worlds=worlds).expand(len(x), -1)
    return x, action, context
