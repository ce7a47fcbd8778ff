"""Calibration of some of the windows: known groups, and the worst of many random ones."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from bayeswm.base.errors import DataError, SpecError
from bayeswm.base.random import make_generator, uniform
from bayeswm.base.trajectories import Trajectories
from bayeswm.diagnostics.forecast import Forecast, Forecasts, gather, known
from bayeswm.diagnostics.pointwise import central
from bayeswm.diagnostics.reliability import window_spread
from bayeswm.diagnostics.summary import Summary, as_numpy, horizon_coords

Group = Callable[[Forecast], Tensor]


def conditional_calibration(
    forecasts: Forecasts,
    group: Group,
    *,
    bins: int | None = None,
    level: float = 0.9,
    bootstrap: int = 1000,
    seed: int = 0,
) -> xr.Dataset:
    """Measure calibration apart by group: a region of state space, a regime, a distance from the training data.

    What tells the groups apart must be known when the forecast is made: grouped by what came, even a perfect forecast
    looks wrong.

    Parameters
    ----------
    forecasts : Forecast or iterable of Forecast
        From :func:`forecast` or :func:`forecast_of`.
    group : callable
        Maps a forecast to a number for each window, shape (windows,): a label, or a quantity such as
        :func:`distance_from` gives.
    bins : int, optional
        Cut the quantity into so many groups of equal size; without it each value is a group.
    level : float
        Of the central interval.
    bootstrap, seed
        Resamples of recordings, and their seed.

    Returns
    -------
    xarray.Dataset
        By ``group`` (the label, or the mean of the quantity), ``horizon`` and ``variable``: ``coverage`` and
        ``spread_skill`` as of :func:`reliability`, with ``_se``, ``_lower``, ``_upper``; ``count`` windows a group.

    Raises
    ------
    SpecError, DataError
        For arguments out of range, values of another shape, or more than 100 groups.

    Examples
    --------
    >>> import bayeswm as bwm
    >>> from bayeswm.diagnostics import forecast_of
    >>> model = bwm.KnownDynamics(structure=bwm.structures.Pendulum.gymnasium(), noise=1.0)
    >>> one = forecast_of(model.predictive(torch.zeros(40, 2), torch.zeros(40, 1)), torch.ones(40, 1, 2))
    >>> found = conditional_calibration(one, lambda part: torch.arange(40) % 2)
    >>> found["count"].values.tolist(), found.coverage.sel(group=1).values.tolist()
    ([20, 20], [[1.0, 1.0]])
    """
    if not 0 < level < 1 or (bins is not None and bins < 1):
        raise SpecError(f"expected 0 < level < 1 and bins >= 1, got {level} and {bins}")

    def values(part: Forecast) -> dict[str, Tensor]:
        label = torch.as_tensor(group(part)).to(part.outcomes.device).double()
        if label.shape != part.recording.shape or not bool(label.isfinite().all()):
            raise DataError(
                f"expected a finite number for each of {len(part.recording)} windows, got shape {tuple(label.shape)}"
                + ("" if bool(label.isfinite().all()) else " with NaN or infinity")
            )
        return {"group": label, **window_spread(part)}

    found = gather(forecasts, values)
    label = found.values["group"]
    if bins is None:
        names, place = torch.unique(label, return_inverse=True)
    else:
        place = label.argsort(stable=True).argsort() * min(bins, len(label)) // len(label)
        names = torch.stack([label[place == k].mean() for k in range(int(place.max()) + 1)])
    if len(names) > 100:
        raise DataError(f"expected at most 100 groups, got {len(names)}; pass bins= to cut a quantity into groups")
    mine = (place[:, None] == torch.arange(len(names), device=place.device))[..., None, None]
    u, variance, error = (found.values[name].double()[:, None] for name in ("pit", "variance", "squared_error"))

    def apart(values: Tensor) -> Tensor:
        return torch.where(mine, values, float("nan"))

    inside = central(u, torch.tensor([level], dtype=u.dtype, device=u.device))[..., 0]
    summary = Summary(found.recording, resamples=bootstrap, seed=seed)
    dims = ("group", "horizon", "variable")
    summary.add("coverage", apart(inside), dims, attrs={"long_name": f"coverage of {level:.0%} intervals"})
    pair = torch.stack((apart(variance), apart(error)), 1)
    attrs = {"long_name": "root mean predicted variance over root mean squared error, 1 is best"}
    summary.add("spread_skill", pair, dims, statistic=lambda mean: (mean[:, 0] / mean[:, 1]).sqrt(), attrs=attrs)
    summary.arrays["count"] = ("group", as_numpy(mine.flatten(1).sum(0)), {"long_name": "windows in the group"})
    return summary.dataset(found, coords={"group": as_numpy(names)}).assign_attrs(level=level)


def distance_from(trajectories: Trajectories) -> Group:
    """Return a function of forecasts: how far each window starts from the nearest state of the training data.

    In standard deviations of the training states, all together (Euclidean). For :func:`conditional_calibration`.

    Parameters
    ----------
    trajectories : Trajectories
        Data that the model was fitted to; states that were recorded.

    Examples
    --------
    >>> import bayeswm as bwm
    >>> model = bwm.KnownDynamics(structure=bwm.structures.Pendulum.gymnasium(), noise=0.1)
    >>> states = torch.randn(9, 6, 2, generator=torch.Generator().manual_seed(0))
    >>> data = bwm.Trajectories(model.schema, state=states, action=torch.zeros(9, 5, 1))
    >>> group = distance_from(data)
    >>> group(next(bwm.diagnostics.forecast(model, data, horizon=5))).tolist()
    [0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]
    """
    states = trajectories.states().flatten(0, 1)
    states = states[~states.isnan().any(-1)].double()
    if len(states) < 2:
        raise DataError(f"expected at least 2 recorded states, got {len(states)}")
    scale = states.std(0)
    scale = torch.where(scale > 0, scale, 1.0)

    def distance(part: Forecast) -> Tensor:
        start = known(part)[0].states()[:, 0].double()
        rows = [_nearest(some / scale.to(some), states.to(some) / scale.to(some)) for some in start.split(256)]
        return torch.cat(rows)

    return distance


def _nearest(points: Tensor, states: Tensor) -> Tensor:
    # without matrix products, whose cancellation would hide distances below 1e-7
    parts = [torch.cdist(points, s, compute_mode="donot_use_mm_for_euclid_dist").amin(-1) for s in states.split(2**13)]
    return torch.stack(parts).amin(0)


def adversarial_groups(
    forecasts: Forecasts,
    *,
    shares: Sequence[float] = (0.1, 0.2, 0.5, 1.0),
    groups: int = 100,
    points: int = 19,
    seed: int = 0,
) -> xr.Dataset:
    """Return the largest calibration error among many random groups of recordings.

    Small groups look worse by chance: ``expected`` is what as many perfectly calibrated independent windows give.

    Parameters
    ----------
    forecasts : Forecast or iterable of Forecast
        From :func:`forecast` or :func:`forecast_of`.
    shares : sequence of float
        Sizes of the groups, as shares of the recordings.
    groups : int
        Random groups of each size.
    points : int
        Levels of the error, as of :func:`reliability`.
    seed : int
        Of the groups.

    Returns
    -------
    xarray.Dataset
        ``worst_ece`` and ``expected`` by ``share``, ``horizon`` and ``variable``; lower is better.

    Raises
    ------
    SpecError
        For arguments out of range.

    References
    ----------
    Zhao, Ma and Ermon (2020), Individual calibration with randomized forecasting.

    Examples
    --------
    >>> import bayeswm as bwm
    >>> from bayeswm.diagnostics import forecast_of
    >>> model = bwm.KnownDynamics(structure=bwm.structures.Pendulum.gymnasium(), noise=1.0)
    >>> one = forecast_of(model.predictive(torch.zeros(40, 2), torch.zeros(40, 1)), torch.zeros(40, 1, 2))
    >>> adversarial_groups(one).worst_ece.sel(share=1.0).values.round(4).tolist()
    [[0.5, 0.5]]
    """
    shares = tuple(float(s) for s in shares)
    if not shares or not all(0 < s <= 1 for s in shares) or groups < 1 or points < 1:
        raise SpecError(f"expected shares in (0, 1], groups >= 1 and points >= 1, got {shares}, {groups}, {points}")
    found = gather(forecasts, window_spread)
    u = found.values["pit"].double()
    generator = make_generator(seed)
    perfect = uniform(tuple(u.shape), generator, dtype=torch.float64, device=u.device)
    perfect = torch.where(u.isnan(), float("nan"), perfect)
    names, place = torch.unique(found.recording, return_inverse=True)
    place = place.to(u.device)
    level = torch.arange(1, points + 1, dtype=torch.float64, device=u.device) / (points + 1)
    sums = [_sums(central(values, level), place, len(names)) for values in (u, perfect)]
    worst = list[list[Tensor]]()
    for share in shares:
        size = max(1, round(share * len(names)))
        order = uniform((groups, len(names)), generator, dtype=torch.float64, device=u.device).argsort(-1)
        member = torch.zeros_like(order, dtype=torch.float64).scatter_(1, order[:, :size], 1.0)
        worst.append([_worst(member, pair, level) for pair in sums])
    dims = ("share", "horizon", "variable")
    arrays = {
        name: (dims, as_numpy(torch.stack([w[k] for w in worst])), {"long_name": text, "better": "lower"})
        for k, (name, text) in enumerate(
            {"worst_ece": "largest calibration error of a group", "expected": "the same if calibrated"}.items()
        )
    }
    coords = horizon_coords(found.variables, steps=found.horizon, time_step=found.time_step)
    return xr.Dataset(arrays, coords={"share": np.array(shares), **coords}, attrs={"groups": groups})


def _sums(inside: Tensor, place: Tensor, clusters: int) -> tuple[Tensor, Tensor]:
    there = ~inside.isnan()
    empty = inside.new_zeros(clusters, *inside.shape[1:])
    total = empty.index_add(0, place, torch.where(there, inside, 0.0))
    return total, empty[..., 0].index_add(0, place, there[..., 0].to(inside))


def _worst(member: Tensor, sums: tuple[Tensor, Tensor], level: Tensor) -> Tensor:
    total, count = sums
    mean = torch.einsum("gc,c...->g...", member, total) / torch.einsum("gc,c...->g...", member, count)[..., None]
    error = (mean - level).abs().mean(-1)
    return error.nan_to_num(-1.0).amax(0)  # a group without an outcome says nothing
