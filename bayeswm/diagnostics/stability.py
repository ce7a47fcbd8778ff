"""Whether long rollouts stay in bounds, and how fast neighbouring ones part."""

from __future__ import annotations

import warnings

import torch
import xarray as xr
from torch import Tensor

from bayeswm.base.errors import DivergenceWarning, SpecError
from bayeswm.base.model import DynamicsModel
from bayeswm.base.random import make_generator
from bayeswm.base.rollout import rollout
from bayeswm.base.worlds import Worlds
from bayeswm.diagnostics.jacobians import markov_worlds, step_jacobian
from bayeswm.diagnostics.summary import as_numpy, horizon_coords


def stability(
    model: DynamicsModel | Worlds,
    state: Tensor,
    actions: Tensor | None,
    *,
    horizon: int | None = None,
    context: Tensor | None = None,
    discard: int = 0,
    worlds: int = 16,
    particles: int = 1,
    seed: int | torch.Generator = 0,
) -> xr.Dataset:
    """Roll worlds out for long: the share that diverges, and the Lyapunov exponents along the way.

    An exponent is the rate at which a small difference of the start grows, per second: e-fold in 1 / exponent. The
    derivative of each step's mean is taken along the path with its noise, and an orthonormal frame is carried along
    (the QR method). The largest exponent above 0 makes forecasts of a state impossible beyond a few times 1 / exponent,
    however good the model; in a model of a damped system it is a fault of the model.

    Parameters
    ----------
    model : DynamicsModel or Worlds
        Whose state is not hidden.
    state : Tensor, shape (n, S)
        Starts.
    actions : Tensor, shape (n, H, A) or (H, A), optional
        A plan; not needed where the system has no action. The exponents are those under this plan: of a policy, put it
        into the structure.
    horizon : int, optional
        Steps; needed without a plan.
    context : Tensor, shape (n, C), optional
        Context.
    discard : int
        Steps before the frame counts, in which it turns to the directions that grow.
    worlds, particles : int
        How many to draw.
    seed : int or torch.Generator
        Source of all randomness.

    Returns
    -------
    xarray.Dataset
        ``diverged`` (horizon), the share of particles that have left the finite numbers by then; ``exponent`` (world,
        index), from the largest to the smallest, with its standard error ``exponent_se`` over starts and particles
        (NaN for a single path); their sum is the rate at which volume grows, exact at any horizon. Paths that diverge
        are left out of the exponents.

    Raises
    ------
    SpecError, DataError
        If the state is hidden, ``discard`` leaves no step, or values do not fit.

    References
    ----------
    Benettin, Galgani, Giorgilli and Strelcyn (1980), Lyapunov characteristic exponents for smooth dynamical systems.

    Examples
    --------
    >>> import bayeswm as bwm
    >>> schema = bwm.Schema(state=[bwm.Variable("x"), bwm.Variable("y")], time_step=0.5)
    >>> A = torch.tensor([[1.1, 0.0], [0.3, 0.8]])
    >>> model = bwm.KnownDynamics(structure=bwm.structures.Linear(schema, A=A, c=0.0), noise=0.1)
    >>> found = stability(model, torch.zeros(3, 2), None, horizon=300, discard=100)
    >>> (0.5 * found["exponent"][0]).values.round(4).tolist()  # the logarithms of 1.1 and 0.8
    [0.0953, -0.2231]
    """
    drawn = markov_worlds(model, worlds, seed=(generator := make_generator(seed)))
    if state.ndim != 2:
        raise SpecError(f"expected starts of shape (n, {drawn.schema.state.size}), got {tuple(state.shape)}")
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore", DivergenceWarning)  # their share is the answer
        run = rollout(drawn, state, actions, horizon=horizon, particles=particles, generator=generator, context=context)
    steps = run.horizon
    if not 0 <= discard < steps:
        raise SpecError(f"expected discard >= 0 and below the horizon of {steps}, got {discard}")
    lost = run.diverged.expand(run.particles.shape[:-1])
    start = state.to(run.particles).expand(*run.particles.shape[:2], *state.shape)
    x = torch.cat((start[..., None, :], run.particles[..., :-1, :]), -2)
    x = torch.where(torch.cat((torch.zeros_like(lost[..., :1]), lost[..., :-1]), -1)[..., None], 0.0, x)
    plan = x.new_empty(steps, 0) if actions is None else actions.to(x)
    given = None if context is None else context.to(x)
    size = x.shape[-1]
    frame = torch.eye(size, dtype=x.dtype, device=x.device).expand(*x.shape[:-2], size, size)
    grown = x.new_zeros(*x.shape[:-2], size)
    for t in range(steps):
        _, jacobian = step_jacobian(drawn, x[..., t, :], plan[..., t, :].expand(len(state), -1), given, t)
        frame, triangle = torch.linalg.qr(jacobian.nan_to_num(0.0, 0.0, 0.0) @ frame)
        if t >= discard:
            grown = grown + triangle.diagonal(dim1=-2, dim2=-1).abs().log()
    rate = grown / ((steps - discard) * drawn.schema.time_step)
    rate = torch.where(lost[..., -1:], float("nan"), rate).flatten(1, 2).sort(-1, descending=True).values
    count = (~rate.isnan()).sum(1)
    mean = rate.nanmean(1)
    spread = ((rate - mean[:, None]).square().nansum(1) / (count - 1).clamp(min=1) / count).sqrt()
    error = torch.where(count > 1, spread, float("nan"))
    coords = horizon_coords(drawn.schema.state, steps=steps, time_step=drawn.schema.time_step)
    dims, attrs = ("world", "index"), {"units": "1/s"}
    return xr.Dataset(
        {
            "diverged": ("horizon", as_numpy(_share(lost, drawn.weight)), {"long_name": "share diverged by then"}),
            "exponent": (dims, as_numpy(mean), {**attrs, "long_name": "Lyapunov exponent"}),
            "exponent_se": (dims, as_numpy(error), {**attrs, "long_name": "standard error over starts and particles"}),
        },
        coords={"horizon": coords["horizon"], "time": coords["time"]},
        attrs={"discarded": discard},
    )


def _share(lost: Tensor, weight: Tensor) -> Tensor:
    each = lost.double().flatten(1, -2).mean(1)
    return (weight.to(each)[:, None] * each).sum(0)
