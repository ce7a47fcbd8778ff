"""Probabilities of events over a trajectory, held against whether they came."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from bayeswm.base.errors import DataError, SpecError
from bayeswm.diagnostics.forecast import Forecast, Forecasts, gather
from bayeswm.diagnostics.summary import Summary

Event = Callable[[Tensor], Tensor]


def event_reliability(
    forecasts: Forecasts, event: Event, *, bins: int = 10, bootstrap: int = 1000, seed: int = 0
) -> xr.Dataset:
    r"""Hold the predicted probability of an event over a trajectory against how often it came.

    The Brier score splits (Murphy), exactly:

    .. math:: \overline{(p - o)^2} = \text{reliability} - \text{resolution} + \text{uncertainty} + \text{within bins}

    Parameters
    ----------
    forecasts : Forecast or iterable of Forecast
        Rollouts, from :func:`forecast` or :func:`forecast_of`.
    event : callable
        Maps paths (..., H, S) to booleans: shape (...), or (..., H) for an event by each step, such as a first passage
        ``lambda x: (x[..., 0].abs() > 1).cummax(-1).values``.
    bins : int
        Of the probability, equally wide.
    bootstrap, seed
        Resamples of recordings, and their seed.

    Returns
    -------
    xarray.Dataset
        ``brier`` (lower is better), ``reliability`` (lower), ``resolution`` (higher), ``uncertainty`` (what a constant
        forecast of the frequency scores), ``within_bins``, ``brier_skill`` (1 - brier / uncertainty, higher), and by
        ``bin`` ``probability`` (mean of the forecasts), ``frequency`` (how often it came) and ``count``; each but the
        count with ``_se``, ``_lower`` and ``_upper`` by the cluster bootstrap. By ``horizon`` if the event is. Windows
        with outcomes that were not recorded are left out. K particles add p (1 - p) / K to the Brier score.

    Raises
    ------
    SpecError, DataError
        If the event has another shape, or particles diverged.

    References
    ----------
    Murphy (1973), A new vector partition of the probability score; Stephenson, Coelho and Jolliffe (2008), Two extra
    components in the Brier score decomposition.

    Examples
    --------
    >>> import bayeswm as bwm
    >>> from bayeswm.diagnostics import forecast_of
    >>> model = bwm.KnownDynamics(structure=bwm.structures.Pendulum.gymnasium(), noise=0.1)
    >>> g = torch.Generator().manual_seed(0)
    >>> made, truth = (
    ...     bwm.rollout(model, torch.zeros(200, 2), torch.zeros(200, 9, 1), particles=n, generator=g) for n in (200, 1)
    ... )
    >>> found = event_reliability(
    ...     forecast_of(made, truth.particles[0, 0]), lambda x: (x[..., 0].abs() > 0.5).any(-1)
    ... )
    >>> bool(abs(found.brier - found.uncertainty) < 0.01)  # all start alike: nothing to resolve
    True
    """
    if bins < 1:
        raise SpecError(f"expected bins >= 1, got {bins}")
    found = gather(forecasts, lambda part: window_event(part, event))
    p, came = (found.values[name].double() for name in ("probability", "came"))
    by = ("horizon",) if p.ndim == 2 else ()
    place = (p.nan_to_num() * bins).long().clamp(max=bins - 1)
    mine = (place[..., None] == torch.arange(bins, device=p.device)) & ~p.isnan()[..., None]
    there = ~p.isnan()

    def among(values: Tensor) -> Tensor:
        """Return values within their bins, 0 in the others, so that means are shares of all windows."""
        part = torch.where(mine, values.nan_to_num()[..., None], 0.0)
        return torch.where(there[..., None], part, float("nan"))

    shares = torch.stack((among(torch.ones_like(p)), among(p), among(came)), -1)
    moments = torch.cat((shares.flatten(-2), (p - came).square()[..., None], came[..., None]), -1)

    def split(mean: Tensor) -> tuple[Tensor, ...]:
        share, forecast, frequency = mean[..., : 3 * bins].unflatten(-1, (bins, 3)).unbind(-1)
        brier, base = mean[..., -2], mean[..., -1]
        n = torch.where(share > 0, share, 1.0)
        unreliable = (n * (forecast / n - frequency / n).square()).sum(-1)
        resolved = (share * (frequency / n - base[..., None]).square()).sum(-1)
        unsure = base * (1 - base)
        return brier, unreliable, resolved, unsure, brier - unreliable + resolved - unsure, 1 - brier / unsure

    summary = Summary(found.recording, resamples=bootstrap, seed=seed)
    better = ("lower", "lower", "higher", "", "", "higher")
    names = ("brier", "reliability", "resolution", "uncertainty", "within_bins", "brier_skill")
    for k, (name, way) in enumerate(zip(names, better, strict=True)):
        attrs = {"better": way} if way else {}
        summary.add(name, moments, by, statistic=lambda mean, k=k: split(mean)[k], attrs=attrs)
    for name, values in {"probability": p, "frequency": came}.items():
        inside = torch.where(mine, values[..., None], float("nan"))
        summary.add(name, inside, (*by, "bin"), attrs={"long_name": f"{name} in the bin"})
    summary.arrays["count"] = ((*by, "bin"), mine.sum(0).cpu().numpy(), {"long_name": "windows in the bin"})
    made = summary.dataset(found, coords={"bin": (np.arange(bins) + 0.5) / bins}).drop_dims("variable", errors="ignore")
    return made if by else made.drop_dims("horizon", errors="ignore")


def window_event(part: Forecast, event: Event) -> dict[str, Tensor]:
    """Return the predicted probability and whether it came, shape (windows,) or (windows, H); NaN if not recorded.

    Examples
    --------
    >>> import bayeswm as bwm
    >>> from bayeswm.diagnostics import forecast_of
    >>> model = bwm.KnownDynamics(structure=bwm.structures.Pendulum.gymnasium(), noise=0.0)
    >>> made = bwm.rollout(model, torch.ones(3, 2), torch.zeros(3, 4, 1))
    >>> window_event(forecast_of(made, made.mean), lambda x: (x[..., 0] > 2).any(-1))["came"].tolist()
    [0.0, 0.0, 0.0]
    """
    outcomes, predictive = part.outcomes, part.predictive
    n, steps = outcomes.shape[:2]
    came = torch.as_tensor(event(outcomes))
    if tuple(came.shape) not in ((n,), (n, steps)):
        raise SpecError(
            f"expected an event of shape (...) or (..., horizon) for paths (..., horizon, variable), got "
            f"{tuple(came.shape)} for {tuple(outcomes.shape)}; reduce the last axes only, as in (x[..., 0] > 1).any(-1)"
        )
    if bool(((came != 0) & (came != 1)).any()):
        raise DataError("expected an event that is true or false, got other numbers")
    seen = ~outcomes.isnan().any(-1)
    known = seen.all(-1) if came.ndim == 1 else seen.cummin(-1).values
    values = {"probability": predictive.probability(event).value, "came": came.to(outcomes.dtype)}
    return {name: torch.where(known, value.to(known.device), float("nan")) for name, value in values.items()}
