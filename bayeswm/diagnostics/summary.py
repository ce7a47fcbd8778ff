"""Averages over windows as labelled data, with errors by recording."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from bayeswm.base.errors import BayeswmWarning
from bayeswm.base.random import make_generator
from bayeswm.base.schema import Variables
from bayeswm.diagnostics.bootstrap import cluster_bootstrap
from bayeswm.diagnostics.forecast import Windows

CONFIDENCE = 0.95


class Summary:
    """Collects statistics, each with its standard error and interval, into one data set.

    Every statistic is bootstrapped with the same resamples of recordings.

    Parameters
    ----------
    cluster : Tensor, shape (windows,)
        The recording of each window.
    resamples : int
        Of the bootstrap.
    seed : int
        Of the bootstrap.

    Examples
    --------
    >>> summary = Summary(torch.arange(6) // 2, resamples=100, seed=0)
    >>> summary.add("mse", torch.arange(6.0).view(6, 1, 1), ("horizon", "variable"), attrs={"better": "lower"})
    >>> sorted(summary.arrays)
    ['mse', 'mse_lower', 'mse_se', 'mse_upper']
    """

    def __init__(self, cluster: Tensor, *, resamples: int, seed: int) -> None:
        self.cluster, self.resamples, self.seed = cluster, resamples, seed
        self.arrays: dict[str, Any] = {}
        self._notes: dict[tuple[type[Warning], str], None] = {}

    def add(
        self,
        name: str,
        values: Tensor,
        dims: tuple[str, ...],
        *,
        statistic: Callable[[Tensor], Tensor] | None = None,
        attrs: dict[str, str],
    ) -> None:
        """Average values of shape (windows, ...) and add the statistic of the averages, of dimensions ``dims``."""
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", BayeswmWarning)
            found = cluster_bootstrap(
                values,
                self.cluster.to(values.device),
                generator=make_generator(self.seed),
                statistic=statistic,
                resamples=self.resamples,
                confidence=CONFIDENCE,
            )
        self._notes |= {(c.category, str(c.message)): None for c in caught}
        self.arrays[name] = (dims, as_numpy(found.value), attrs)
        what = {"se": "standard error", "lower": "lower end of the interval", "upper": "upper end of the interval"}
        for key, value in zip(what, found[1:], strict=True):
            self.arrays[f"{name}_{key}"] = (dims, as_numpy(value), {"long_name": f"{what[key]} of {name}"})

    def dataset(self, found: Windows, *, coords: Mapping[str, Any]) -> xr.Dataset:
        """Return the data set by horizon and variable, and warn once of what the errors lack."""
        for category, message in self._notes:
            warnings.warn(message, category, stacklevel=4)
        recordings = len(torch.unique(self.cluster))
        return xr.Dataset(
            self.arrays,
            coords={**horizon_coords(found.variables, steps=found.horizon, time_step=found.time_step), **coords},
            attrs={
                "windows": len(self.cluster),
                "recordings": recordings,
                "errors": f"cluster bootstrap over recordings, {self.resamples} resamples, {CONFIDENCE:.0%} intervals",
            },
        )


def horizon_coords(variables: Variables, *, steps: int, time_step: float) -> dict[str, Any]:
    """Return coordinates: integer steps from 1, their time in s, column names and units.

    Examples
    --------
    >>> from bayeswm.base.schema import Variable
    >>> horizon_coords(Variables([Variable("x", unit="m")]), steps=2, time_step=0.1)["time"][1]
    array([0.1, 0.2])
    """
    horizon = np.arange(1, steps + 1)
    return {
        "horizon": ("horizon", horizon, {"long_name": "steps ahead"}),
        "time": ("horizon", horizon * time_step, {"units": "s", "long_name": "time ahead"}),
        "variable": list(variables.columns),
        "unit": ("variable", [v.unit for v in variables for _ in v.columns]),
    }


def window_coords(found: Windows) -> dict[str, Any]:
    """Return the coordinates of the windows: their recordings, and where in them they start.

    Examples
    --------
    >>> import bayeswm as bwm
    >>> from bayeswm.diagnostics.forecast import forecast_of, gather
    >>> model = bwm.KnownDynamics(structure=bwm.structures.Pendulum.gymnasium(), noise=1.0)
    >>> one = forecast_of(model.predictive(torch.zeros(2, 2), torch.zeros(2, 1)), torch.zeros(2, 1, 2))
    >>> window_coords(gather(one, lambda part: {"outcome": part.outcomes}))
    {'recording': ('window', array([0, 1]))}
    """
    coords: dict[str, Any] = {"recording": ("window", as_numpy(found.recording))}
    if found.start is not None:
        text = "step of the recording where the window starts"
        coords["start"] = ("window", as_numpy(found.start), {"long_name": text})
    return coords


def as_numpy(values: Tensor) -> np.ndarray:
    """Return values as an array, off the graph and the device.

    Examples
    --------
    >>> as_numpy(torch.ones(2, requires_grad=True))
    array([1., 1.], dtype=float32)
    """
    return values.detach().cpu().numpy()
