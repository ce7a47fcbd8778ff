"""One call for how far a model can be trusted: calibration, errors, parts of the variance, tubes, and a verdict."""

from __future__ import annotations

import warnings

import torch
import xarray as xr
from torch import Tensor

from bayeswm.base.errors import UndefinedWarning
from bayeswm.base.model import DynamicsModel
from bayeswm.base.random import make_generator
from bayeswm.base.trajectories import Trajectories
from bayeswm.base.worlds import Worlds
from bayeswm.diagnostics.calibration import summarise_calibration, window_scores, with_test
from bayeswm.diagnostics.energy import outcome_scale, window_energies
from bayeswm.diagnostics.forecast import Forecast, Forecasts, Windows, forecast, gather
from bayeswm.diagnostics.horizon import summarise_errors, window_changes
from bayeswm.diagnostics.joint_null import JointNull
from bayeswm.diagnostics.levels import check_levels
from bayeswm.diagnostics.summary import Summary
from bayeswm.diagnostics.tube_coverage import window_inside
from bayeswm.diagnostics.tubes import SupT
from bayeswm.diagnostics.verdict import verdict

# of each window, for the energy score, whose time grows with their square
_ENERGY_DRAWS = 100


def report(
    model: DynamicsModel | Worlds,
    trajectories: Trajectories,
    *,
    horizon: int,
    level: float = 0.9,
    stride: int | None = None,
    worlds: int = 64,
    particles: int | None = None,
    seed: int = 0,
    bootstrap: int = 1000,
    history: int | None = None,
) -> xr.Dataset:
    """Say how far a model can be trusted: one data set, and a verdict in words.

    ``bayeswm.plot.report`` draws it on one page.

    Parameters
    ----------
    model : DynamicsModel or Worlds
        What to judge.
    trajectories : Trajectories
        Recordings that it was not fitted to.
    horizon : int
        Steps of each forecast.
    level : float
        Of the intervals and tubes that the verdict is about.
    stride, worlds, particles, seed, bootstrap, history
        As in :func:`bayeswm.diagnostics.calibration`.

    Returns
    -------
    xarray.Dataset
        As of :func:`bayeswm.diagnostics.calibration` at the levels 0.5 and ``level``, with

        * ``r2``, ``correlation``, ``one_step_rmse`` of :func:`bayeswm.diagnostics.errors`;
        * ``epistemic_sd``, ``aleatoric_sd``, ``total_sd``: roots of the mean variances between and within worlds, by
          horizon and variable, in the variable's unit; absent where the parts are undefined;
        * ``epistemic_share``: mean variance between worlds over mean total variance, between 0 and 1: what more data
          could remove; NaN where there is no variance;
        * ``tube_coverage``: share of whole trajectories inside the sup-t tube;
        * ``energy_score`` by horizon, over variables divided by ``energy_scale`` as in
          :func:`bayeswm.diagnostics.scores`, but from some 100 of the draws, which leaves it unbiased; lower is better;
        * the attribute ``verdict``: sentences with numbers.

    Raises
    ------
    SpecError, DataError
        If data and model do not fit, or no window is long enough.

    Examples
    --------
    A model that expects half of the noise:

    >>> import torch, bayeswm as bwm
    >>> truth = bwm.KnownDynamics(structure=bwm.structures.Pendulum.gymnasium(), noise=0.05)
    >>> model = bwm.KnownDynamics(structure=truth.structure, noise=0.025)
    >>> g = torch.Generator().manual_seed(0)
    >>> data = bwm.data.simulate(truth, torch.zeros(200, 2), torch.zeros(5, 1), generator=g)
    >>> print(bwm.diagnostics.report(model, data, horizon=5).attrs["verdict"].splitlines()[0])
    angle: 90 % intervals are too narrow from the first step on (58 % inside)...
    """
    parts = forecast(
        model,
        trajectories,
        horizon=horizon,
        stride=stride,
        worlds=worlds,
        particles=particles,
        seed=seed,
        history=history,
    )
    return report_of(parts, level=level, bootstrap=bootstrap, seed=seed)


def report_of(forecasts: Forecasts, *, level: float = 0.9, bootstrap: int = 1000, seed: int = 0) -> xr.Dataset:
    """Return :func:`report` of forecasts; of a predictive alone without the errors, which need the data.

    Examples
    --------
    >>> import torch, bayeswm as bwm
    >>> model = bwm.KnownDynamics(structure=bwm.structures.Pendulum.gymnasium(), noise=1.0)
    >>> r = bwm.rollout(model, torch.zeros(9, 2), torch.zeros(2, 1), generator=torch.Generator().manual_seed(0))
    >>> dict(report_of(bwm.diagnostics.forecast_of(r, torch.zeros(9, 2, 2))).total_sd.sizes)
    {'horizon': 2, 'variable': 2}
    """
    levels = check_levels((0.5, level))
    null, tube = JointNull(seed=seed), SupT()
    scale: list[Tensor] = []

    def values(part: Forecast) -> dict[str, Tensor]:
        null.add(part)
        if not scale:
            scale.append(outcome_scale(part.outcomes))
        energies = window_energies(part, scale=scale[0], generator=make_generator(seed), draws=_ENERGY_DRAWS)
        groups = {
            "calibration": window_scores(part.predictive, part.outcomes, levels),
            "tube": {"inside": window_inside(part, tube, level=level)},
            "energy": {"score": energies},
            "variance": window_variances(part),
            "errors": window_changes(part) if part.windows is not None else {},
        }
        return {f"{group}.{name}": value for group, made in groups.items() for name, value in made.items()}

    found = gather(forecasts, values)
    dataset = with_test(
        summarise_calibration(found.group("calibration."), levels=levels, bootstrap=bootstrap, seed=seed), null
    )
    more = [summarise_variances(found.group("variance."), bootstrap=bootstrap, seed=seed)]
    tubes = Summary(found.recording, resamples=bootstrap, seed=seed)
    attrs = {"long_name": "share of whole trajectories inside the tube"}
    tubes.add("tube_coverage", found.values["tube.inside"], (), attrs=attrs)
    more.append(tubes.dataset(found, coords={}))
    energies = Summary(found.recording, resamples=bootstrap, seed=seed)
    attrs = {"long_name": "energy score over scaled variables", "better": "lower"}
    energies.add("energy_score", found.values["energy.score"], ("horizon",), attrs=attrs)
    energies.arrays["energy_scale"] = ("variable", scale[0].tolist(), {"long_name": "unit of the energy score"})
    more.append(energies.dataset(found, coords={}))
    if any(name.startswith("errors.") for name in found.values):
        errors = summarise_errors(found.group("errors."), bootstrap=bootstrap, seed=seed)
        more.append(errors.drop_vars([name for name in errors.data_vars if name in dataset]))
    dataset = xr.merge([dataset, *more], join="exact", compat="equals", combine_attrs="override")
    dataset = dataset.assign_attrs(level=level)
    return dataset.assign_attrs(verdict=verdict(dataset, level=level))


def window_variances(part: Forecast) -> dict[str, Tensor]:
    """Return the parts of each window's variance, shape (windows, H, S); those that are defined.

    Examples
    --------
    >>> import torch, bayeswm as bwm
    >>> model = bwm.KnownDynamics(structure=bwm.structures.Pendulum.gymnasium(), noise=1.0)
    >>> p = model.predictive(torch.zeros(9, 2), torch.zeros(9, 1))
    >>> sorted(window_variances(bwm.diagnostics.forecast_of(p, torch.zeros(9, 1, 2))))
    ['aleatoric', 'epistemic', 'total']
    """
    p = part.predictive
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UndefinedWarning)  # what is undefined is left out
        found = {
            "total": p.variance,
            "epistemic": p.unclamped_epistemic_variance,  # unbiased: the average may be
            "aleatoric": p.aleatoric_variance,
        }
    return {name: value for name, value in found.items() if not bool(value.isnan().all())}


def summarise_variances(found: Windows, *, bootstrap: int, seed: int) -> xr.Dataset:
    """Return what :func:`window_variances` gave of each window as standard deviations by horizon and variable.

    Examples
    --------
    See :func:`report_of`.
    """
    summary = Summary(found.recording, resamples=bootstrap, seed=seed)
    kind = {"total": "all", "epistemic": "between worlds", "aleatoric": "within worlds"}
    for name, values in found.values.items():
        attrs = {"long_name": f"root of the mean variance, {kind[name]}"}
        dims = ("horizon", "variable")
        summary.add(f"{name}_sd", values, dims, statistic=lambda mean: mean.clamp(min=0).sqrt(), attrs=attrs)
    if "epistemic" in found.values and "total" in found.values:
        both = torch.stack([found.values[name] for name in ("epistemic", "total")], 1)
        attrs = {"long_name": "share of the mean variance that is between worlds"}
        summary.add("epistemic_share", both, ("horizon", "variable"), statistic=_share, attrs=attrs)
    return summary.dataset(found, coords={})


def _share(mean: Tensor) -> Tensor:
    total = torch.where(mean[:, 1] > 0, mean[:, 1], float("nan"))
    return (mean[:, 0] / total).clamp(0, 1)  # Monte Carlo error can make an estimate of a variance negative
