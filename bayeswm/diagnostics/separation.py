"""Whether long rollouts stay finite, and how fast nearby ones part."""

from __future__ import annotations

import math

import torch
import xarray as xr
from torch import Tensor

from bayeswm.base.errors import SpecError
from bayeswm.base.random import make_generator, spawn_seeds, standard_normal
from bayeswm.base.rollout import rollout
from bayeswm.diagnostics.forecast import Forecast, Forecasts, Windows, gather, known
from bayeswm.diagnostics.sensitivity import check_states, checked_scale
from bayeswm.diagnostics.summary import Summary


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
    return summarise_stability(found, bootstrap=bootstrap, seed=seed)


def summarise_stability(found: Windows, *, bootstrap: int, seed: int) -> xr.Dataset:
    """Return :func:`stability` of what :func:`window_stability` gave of each window.

    Examples
    --------
    See :func:`stability`.
    """
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


def _slope(values: Tensor) -> Tensor:
    """Return least-squares slopes along the last axis per step; NaN values are left out, one alone has no slope."""
    there = ~values.isnan()
    count = there.sum(-1, keepdim=True)
    step = torch.arange(values.shape[-1], device=values.device).to(values).expand_as(values)
    x = torch.where(there, step - (step * there).sum(-1, keepdim=True) / count, 0.0)
    y = torch.where(there, values - values.nanmean(-1, keepdim=True), 0.0)
    return torch.where(count[..., 0] > 1, (x * y).sum(-1) / x.square().sum(-1), float("nan"))
