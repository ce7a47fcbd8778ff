"""Whether worlds keep to physics step by step: how far a step stretches, and symmetries."""

from __future__ import annotations

from collections.abc import Callable

import torch
import xarray as xr
from torch import Tensor

from bayeswm.base.errors import DataError, SpecError
from bayeswm.base.model import DynamicsModel, finite
from bayeswm.base.worlds import StructureWorlds, Worlds
from bayeswm.diagnostics.jacobians import markov_worlds, step_jacobian
from bayeswm.diagnostics.summary import as_numpy

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
