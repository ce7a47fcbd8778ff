"""Whether long rollouts stay in bounds, and how fast neighbouring ones part."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import torch
import xarray as xr
from torch import Tensor

from bayeswm.base.errors import DataError, DivergenceWarning, SpecError
from bayeswm.base.model import DynamicsModel
from bayeswm.base.predictive import Predictive
from bayeswm.base.random import make_generator
from bayeswm.base.rollout import rollout
from bayeswm.base.worlds import Worlds
from bayeswm.diagnostics.bootstrap import cluster_error
from bayeswm.diagnostics.forecast import Forecasts, known, parts_of
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
        index), from the largest to the smallest, with its standard error ``exponent_se`` over starts, or over the
        particles of a single one (NaN for a single path); their sum is the rate at which volume grows, exact at any
        horizon. Paths that diverge are left out of the exponents.

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
    plan = state.new_empty(steps, 0) if actions is None else actions
    given = None if context is None else context.expand(len(state), -1)[:, None].expand(-1, steps, -1)
    path = _Paths(drawn, run, plan.expand(len(state), -1, -1), given, torch.arange(len(state)))
    return _summary([path], discard)


def stability_of(forecasts: Forecasts, *, discard: int = 0) -> xr.Dataset:
    """Return :func:`stability` of forecasts of recordings, under their recorded actions.

    Parameters
    ----------
    forecasts : Forecast or iterable of Forecast
        From :func:`bayeswm.diagnostics.forecast`, of a state that is not hidden, each particle in one world.
    discard : int
        Steps before the frame counts.

    Returns
    -------
    xarray.Dataset
        As of :func:`stability`; the standard errors treat the recording as the unit, and are NaN for several windows of
        a single one.

    Raises
    ------
    SpecError, DataError
        If a forecast does not know its worlds and data, the state is hidden, worlds change along the way, ``discard``
        leaves no step, or there is no forecast.

    Examples
    --------
    >>> import bayeswm as bwm
    >>> model = bwm.KnownDynamics(structure=bwm.structures.Pendulum(damping=0.5), noise=0.0)
    >>> data = bwm.Trajectories(model.schema, state=torch.zeros(3, 201, 2), action=torch.zeros(3, 200, 1))
    >>> found = stability_of(bwm.diagnostics.forecast(model, data, horizon=200))
    >>> bool((found["exponent"] < 0).all())
    True
    """

    def paths() -> Iterator[_Paths]:
        for part in parts_of(forecasts):
            windows, worlds = known(part)
            if part.past is not None or part.predictive.fresh_worlds:
                raise SpecError("expected forecasts of states in worlds that stay, got a hidden state or fresh worlds")
            context = windows.step_context() if windows.schema.context.size else None
            yield _Paths(worlds, part.predictive, windows.action, context, part.recording)

    return _summary(paths(), discard)


class _Paths(NamedTuple):
    """A rollout of windows with what was done, actions (windows, H, A) and context (windows, H, C)."""

    worlds: Worlds
    run: Predictive
    action: Tensor
    context: Tensor | None
    recording: Tensor


def _summary(parts: Iterable[_Paths], discard: int) -> xr.Dataset:
    rates, recordings, lost = list[Tensor](), list[Tensor](), list[Tensor]()
    head: _Paths | None = None
    for head in parts:
        steps = head.run.horizon
        if not 0 <= discard < steps:
            raise SpecError(f"expected discard >= 0 and below the horizon of {steps}, got {discard}")
        gone = head.run.diverged.expand(head.run.particles.shape[:-1])
        if lost and len(gone) != len(lost[0]):
            raise SpecError("expected forecasts of the same worlds in all parts, got different numbers of worlds")
        rates.append(_exponents(head, gone, discard))
        lost.append(gone.double().mean(1))
        recordings.append(head.recording)
    if head is None:
        raise DataError("expected at least one forecast, got none")
    rate, recording = torch.cat(rates, 2), torch.cat(recordings)
    _, particles, windows, size = rate.shape
    # particles of a start share it; of a single one, they are what tells of the error
    unit = recording.cpu() if windows > 1 else torch.arange(particles)[:, None]
    mean = rate.flatten(1, 2).nanmean(1)
    error = cluster_error(
        rate.movedim(0, -1).reshape(-1, size, len(rate)), unit.expand(particles, windows).reshape(-1)
    ).mT
    share = (head.worlds.weight.to(lost[0])[:, None] * torch.cat(lost, 1).mean(1)).sum(0)
    coords = horizon_coords(head.worlds.schema.state, steps=head.run.horizon, time_step=head.run.time_step)
    dims, attrs = ("world", "index"), {"units": "1/s"}
    return xr.Dataset(
        {
            "diverged": ("horizon", as_numpy(share), {"long_name": "share diverged by then"}),
            "exponent": (dims, as_numpy(mean), {**attrs, "long_name": "Lyapunov exponent"}),
            "exponent_se": (dims, as_numpy(error), {**attrs, "long_name": "standard error over recordings or starts"}),
        },
        coords={"horizon": coords["horizon"], "time": coords["time"]},
        attrs={"discarded": discard},
    )


def _exponents(path: _Paths, lost: Tensor, discard: int) -> Tensor:
    """Return the exponents of each path in descending order, (worlds, particles, windows, S); NaN for lost ones."""
    worlds, run = path.worlds, path.run
    if run.initial is None:
        raise SpecError("expected a rollout with its start, got none")
    start = run.initial.to(run.particles).expand(*run.particles.shape[:-2], run.particles.shape[-1])
    x = torch.cat((start[..., None, :], run.particles[..., :-1, :]), -2)
    x = torch.where(torch.cat((torch.zeros_like(lost[..., :1]), lost[..., :-1]), -1)[..., None], 0.0, x)
    plan, given = path.action.to(x), None if path.context is None else path.context.to(x)
    steps, size = x.shape[-2:]
    frame = torch.eye(size, dtype=x.dtype, device=x.device).expand(*x.shape[:-2], size, size)
    grown = x.new_zeros(*x.shape[:-2], size)
    for t in range(steps):
        context = None if given is None else given[:, t]
        _, jacobian = step_jacobian(worlds, x[..., t, :], plan[:, t], context, t)
        frame, triangle = torch.linalg.qr(jacobian.nan_to_num(0.0, 0.0, 0.0) @ frame)
        if t >= discard:
            grown = grown + triangle.diagonal(dim1=-2, dim2=-1).abs().log()
    rate = grown / ((steps - discard) * worlds.schema.time_step)
    return torch.where(lost[..., -1:], float("nan"), rate).sort(-1, descending=True).values
