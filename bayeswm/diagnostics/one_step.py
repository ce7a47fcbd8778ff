"""Teacher-forced against free-running calibration: each step from what was recorded before it, or from the start."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
import xarray as xr
from torch import Tensor

from bayeswm.base.laws import Law
from bayeswm.base.predictive import Predictive
from bayeswm.base.random import make_generator, standard_normal
from bayeswm.base.rollout import rollout
from bayeswm.base.trajectories import Trajectories
from bayeswm.diagnostics.calibration import LEVELS
from bayeswm.diagnostics.forecast import Forecast, Forecasts, gather, known, parts_of
from bayeswm.diagnostics.intervals import interval_widths
from bayeswm.diagnostics.levels import check_levels
from bayeswm.diagnostics.pointwise import central, pit
from bayeswm.diagnostics.summary import Summary, as_numpy, window_coords


def one_step(forecasts: Forecasts) -> Iterator[Forecast]:
    """Forecast the same outcomes one step at a time: each from the recorded state before it (teacher forcing).

    Where the state is hidden, from all measurements up to the one before. Every diagnostic of single steps takes what
    this yields; diagnostics of whole trajectories do not, since there are none.

    Parameters
    ----------
    forecasts : Forecast or iterable of Forecast
        From :func:`forecast`, which know their worlds and data.

    Yields
    ------
    Forecast
        The outcome is NaN where the state before it was not recorded.

    Raises
    ------
    SpecError
        For a forecast of a predictive alone.

    Examples
    --------
    >>> import bayeswm as bwm
    >>> model = bwm.KnownDynamics(structure=bwm.structures.Pendulum.gymnasium(), noise=0.01)
    >>> data = bwm.Trajectories(model.schema, state=torch.zeros(9, 6, 2), action=torch.zeros(9, 5, 1))
    >>> (part,) = one_step(bwm.diagnostics.forecast(model, data, horizon=5))
    >>> part.predictive.stddev[0, :, 0].numpy().round(3).tolist()  # it does not grow
    [0.01, 0.01, 0.01, 0.01, 0.01]
    """
    for part in parts_of(forecasts):
        windows, worlds = known(part)
        with torch.no_grad():
            if part.past is None:
                laws, seen = _from_states(part)
            else:
                laws, seen = _from_measurements(part, part.past), torch.ones_like(part.outcomes[..., :1]).bool()
        predictive = Predictive(
            part.predictive.variables,
            laws,
            worlds.log_weight,
            exhaustive=worlds.exhaustive,
            time_step=windows.schema.time_step,
            # known given the worlds; a filter's belief is drawn from
            resolved=[part.past is None] * len(laws),
        )
        yield part._replace(predictive=predictive, outcomes=torch.where(seen, part.outcomes, float("nan")))


def teacher_forcing(
    forecasts: Forecasts, *, levels: Sequence[float] = LEVELS, bootstrap: int = 1000, seed: int = 0
) -> xr.Dataset:
    """Compare calibration one step at a time with that of the free run.

    A model whose single steps are calibrated and whose free run is not misjudges how errors add up: they belong
    together along a trajectory (a wrong world stays wrong), or grow faster than it believes.

    Parameters
    ----------
    forecasts : Forecast or iterable of Forecast
        From :func:`forecast`.
    levels : sequence of float
        Of the central intervals.
    bootstrap, seed : int
        Resamples and seed of the cluster bootstrap.

    Returns
    -------
    xarray.Dataset
        By ``horizon`` and ``variable``, the same outcomes in both:

        * ``coverage`` and ``one_step_coverage`` (by ``level``): closest to the level is best;
        * ``width`` and ``one_step_width`` (by ``level``), in the variable's unit; lower is sharper;
        * each with ``_se``, ``_lower`` and ``_upper`` (95 %) from the cluster bootstrap over recordings;
        * ``pit`` and ``one_step_pit`` by ``window``: uniform if calibrated, one horizon at a time.

    Raises
    ------
    SpecError
        For forecasts of a predictive alone, or levels out of range.

    Examples
    --------
    >>> import bayeswm as bwm
    >>> model = bwm.KnownDynamics(structure=bwm.structures.Pendulum.gymnasium(), noise=0.01)
    >>> data = bwm.Trajectories(model.schema, state=torch.zeros(9, 6, 2), action=torch.zeros(9, 5, 1))
    >>> found = teacher_forcing(bwm.diagnostics.forecast(model, data, horizon=5))
    >>> found.one_step_width.sel(level=0.9, variable="angle").values.round(3)
    array([0.033, 0.033, 0.033, 0.033, 0.033])
    """
    levels = check_levels(levels)
    found = gather(forecasts, lambda part: window_teacher_forcing(part, levels))
    summary = Summary(found.recording, resamples=bootstrap, seed=seed)
    plain = ("horizon", "variable")
    for prefix, kind in (("", "running freely"), ("one_step_", "one step at a time")):
        attrs = {"long_name": f"coverage of central intervals, {kind}"}
        summary.add(f"{prefix}coverage", found.values[f"{prefix}coverage"], (*plain, "level"), attrs=attrs)
        attrs = {"long_name": f"width of central intervals, {kind}", "better": "lower"}
        summary.add(f"{prefix}width", found.values[f"{prefix}width"], (*plain, "level"), attrs=attrs)
        attrs = {"long_name": f"probability integral transform, {kind}"}
        summary.arrays[f"{prefix}pit"] = (("window", *plain), as_numpy(found.values[f"{prefix}pit"]), attrs)
    coords = {"level": ("level", list(levels), {"long_name": "nominal level"})}
    return summary.dataset(found, coords={**coords, **window_coords(found)})


def window_teacher_forcing(part: Forecast, levels: Sequence[float]) -> dict[str, Tensor]:
    """Return PIT, coverage and width of both kinds of forecast, of each window.

    Examples
    --------
    >>> import bayeswm as bwm
    >>> model = bwm.KnownDynamics(structure=bwm.structures.Pendulum.gymnasium(), noise=0.01)
    >>> data = bwm.Trajectories(model.schema, state=torch.zeros(9, 6, 2), action=torch.zeros(9, 5, 1))
    >>> sorted(window_teacher_forcing(next(bwm.diagnostics.forecast(model, data, horizon=5)), (0.9,)))
    ['coverage', 'one_step_coverage', 'one_step_pit', 'one_step_width', 'pit', 'width']
    """
    found: dict[str, Tensor] = {}
    (step,) = one_step(part)
    for prefix, one in (("", part), ("one_step_", step)):
        # where the state before was not recorded neither kind counts, so that the outcomes are the same
        value = pit(one.predictive, step.outcomes)
        found[f"{prefix}pit"] = value
        found[f"{prefix}coverage"] = central(value, torch.tensor(list(levels)).to(value))
        found[f"{prefix}width"] = interval_widths(one.predictive, levels)
    return found


def _from_states(part: Forecast) -> tuple[list[Law], Tensor]:
    """Return the law of each step from the recorded state before it, and where that was recorded."""
    windows, worlds = known(part)
    before = windows.states()[:, :-1]
    seen = ~before.isnan().any(-1, keepdim=True)
    # the law of one step needs no noise before it: one particle tells everything, and what it draws is not used
    made = rollout(
        worlds,
        torch.where(seen, before, 0.0),
        windows.action[:, :, None],
        particles=1,
        generator=torch.Generator(device=worlds.device).manual_seed(0),
        context=windows.step_context()[:, :, None] if windows.schema.context.size else None,
    )
    size = before.shape[:2]

    def at(h: int) -> Law:
        return made.laws[0].map(lambda v: v.expand(*v.shape[:2], *size, *v.shape[4:])[:, :, :, h])

    return [at(h) for h in range(windows.horizon)], seen.to(part.outcomes.device)


def _from_measurements(part: Forecast, past: Trajectories) -> list[Law]:
    """Return the law of each measurement given those before it."""
    windows, worlds = known(part)
    measured, action, context = (
        v.to(worlds.device, worlds.dtype)
        for v in (windows.measured_as(worlds.schema), windows.action, windows.step_context())
    )
    # pairs of opposite noise: the mean is exact where noise and sensors are linear, as they are in most systems
    shape = (len(worlds), 10, len(windows), worlds.noise_size)
    half = standard_normal(shape, make_generator(0), dtype=worlds.dtype, device=worlds.device)
    noise = torch.cat((half, -half), 1)
    carry, laws = worlds.start(past, context[:, 0]), list[Law]()
    for t in range(windows.horizon):
        law = worlds.transition(carry, action[:, t], context[:, t], step=t)
        laws.append(worlds.measurement(law.push(noise)))
        seen = ~measured[:, t + 1].isnan()
        carry, _ = worlds.filter(carry, action[:, t], context[:, t], measured[:, t + 1], seen, step=t)
    return laws
