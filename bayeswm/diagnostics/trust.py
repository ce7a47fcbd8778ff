"""How far intervals keep their level: the trust horizon."""

from __future__ import annotations

import numpy as np
import xarray as xr

from bayeswm.base.errors import SpecError

# standard errors between a coverage and its level, where the test of all steps together rejects and where it does not
_ERRORS, _ERRORS_ALONE = 2.0, 3.0


def trust_horizon(dataset: xr.Dataset, *, level: float = 0.9) -> xr.Dataset:
    """Return how many steps the intervals keep their level, before the first at which their coverage is off.

    A coverage is off where it is more than two standard errors from the level, if the test of calibration over all
    steps and variables rejects at 5 %, or three if it does not: one of many steps is two off by chance. The standard
    error is that of the cluster bootstrap, or that of as many independent windows where this is larger.

    Parameters
    ----------
    dataset : xarray.Dataset
        From :func:`bayeswm.diagnostics.calibration` or :func:`bayeswm.diagnostics.report`.
    level : float
        One of its levels.

    Returns
    -------
    xarray.Dataset
        ``steps`` and ``time`` (s) by ``variable``, and ``joint_steps`` and ``joint_time`` until the first variable is
        off. All steps of the data set mean that it may be further; NaN where no coverage has a standard error, as of a
        single recording.

    Raises
    ------
    SpecError
        For a level that the data set does not have.

    Examples
    --------
    >>> import bayeswm as bwm, torch
    >>> truth = bwm.KnownDynamics(structure=bwm.structures.Pendulum.gymnasium(), noise=0.05)
    >>> g = torch.Generator().manual_seed(0)
    >>> data = bwm.data.simulate(truth, torch.zeros(200, 2), torch.zeros(3, 1), generator=g)
    >>> found = trust_horizon(bwm.diagnostics.calibration(truth, data, horizon=3))
    >>> found.steps.values, found.joint_steps.item()
    (array([3., 3.]), 3.0)
    """
    off = coverage_is_off(dataset, level=level).transpose("variable", "horizon").values
    judged = at_level(dataset, level)["coverage_se"].notnull().any("horizon").values
    time = np.concatenate(([0.0], dataset["time"].values))
    steps = np.where(off.any(-1), off.argmax(-1), off.shape[-1])
    first = int(steps.min())
    every = bool(judged.all())
    text = f"before the coverage of {100 * level:g} % intervals is off"
    return xr.Dataset(
        {
            "steps": ("variable", np.where(judged, steps, np.nan), {"long_name": f"steps {text}"}),
            "time": ("variable", np.where(judged, time[steps], np.nan), {"long_name": f"time {text}", "units": "s"}),
            "joint_steps": ((), float(first) if every else np.nan, {"long_name": f"steps {text} of any variable"}),
            "joint_time": ((), time[first] if every else np.nan, {"long_name": f"time {text} of any variable"}),
        },
        coords={"variable": dataset["variable"].values},
        attrs={"level": level, "horizon": off.shape[-1], "better": "higher"},
    )


def coverage_is_off(dataset: xr.Dataset, *, level: float) -> xr.DataArray:
    """Return where the coverage is too far from its level, by horizon and variable: the rule of :func:`trust_horizon`.

    Examples
    --------
    >>> dims, steps = ("horizon", "variable", "level"), np.array([0.9, 0.7]).reshape(2, 1, 1)
    >>> found = xr.Dataset({"coverage": (dims, steps), "coverage_se": (dims, 0 * steps + 0.02)},
    ...                    coords={"level": [0.9]}, attrs={"windows": 400})
    >>> coverage_is_off(found, level=0.9).values[:, 0]
    array([False,  True])
    """
    at = at_level(dataset, level)
    least = float(np.sqrt(level * (1 - level) / dataset.attrs["windows"]))
    refuted = float(dataset.attrs.get("calibration_p_value", 1.0)) < 0.05
    far = _ERRORS if refuted else _ERRORS_ALONE
    # an error that is NaN shows nothing, and makes the comparison false
    return abs(at["coverage"] - level) > far * at["coverage_se"].clip(min=least)


def at_level(dataset: xr.Dataset, level: float) -> xr.Dataset:
    """Return a data set of diagnostics at one of its levels.

    Raises
    ------
    SpecError
        If it does not have it.

    Examples
    --------
    >>> at_level(xr.Dataset(coords={"level": [0.5, 0.9]}), 0.9).level.item()
    0.9
    """
    levels = dataset["level"].values
    nearest = int(np.abs(levels - level).argmin())
    if abs(levels[nearest] - level) > 1e-6:  # of a level kept in float32
        raise SpecError(f"expected one of the levels {levels.tolist()}, got {level}; pass levels= to calibration")
    return dataset.isel(level=nearest)
