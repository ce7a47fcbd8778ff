"""Prior and posterior predictive checks: does the model make data that look like those recorded."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
import xarray as xr
from torch import Tensor

from bayeswm.base.errors import DataError, DivergenceWarning, SpecError
from bayeswm.base.model import DynamicsModel
from bayeswm.base.predictive import warn_caller
from bayeswm.base.random import make_generator
from bayeswm.base.trajectories import Trajectories
from bayeswm.diagnostics.replicated import equally_weighted, measured_variables, recorded, replicate
from bayeswm.diagnostics.summary import as_numpy

Statistic = Callable[[Tensor], Tensor]


def predictive_check(
    model: DynamicsModel,
    trajectories: Trajectories,
    *,
    statistics: Mapping[str, Statistic] | None = None,
    prior: bool = False,
    worlds: int = 400,
    seed: int | torch.Generator = 0,
) -> xr.Dataset:
    """Compare statistics of recorded data with those of data that the model makes from the same starts and actions.

    Each world runs every episode once, freely, from its recorded start under its recorded actions. Actions that were
    fed back from the recorded states do not answer to the replicated ones: such recordings are better judged by
    forecasts of a few steps.

    Parameters
    ----------
    model : DynamicsModel
        Fitted, for a posterior predictive check; with a prior, for a prior one.
    trajectories : Trajectories
        For a posterior predictive check usually the training data: then p-values lean to the middle, and an extreme
        one tells of something that the model cannot make even after having seen it.
    statistics : mapping of str to callable, optional
        Each maps states (replications, episodes, T + 1, S), NaN after an episode's end, to a number a replication
        (replications,), or one a column (replications, S). By default ``mean``, ``stddev``, ``minimum`` and ``maximum``
        of each column, and ``roughness``, the root mean square change in one step.
    prior : bool
        Draw worlds from the model's prior instead of its posterior.
    worlds : int
        Replications.
    seed : int or torch.Generator
        Source of all randomness.

    Returns
    -------
    xarray.Dataset
        ``replicated`` (draw, quantity), ``observed``, and ``p_value``, the probability of a replicated value at least
        as large as the observed one (ties count half), with its Monte Carlo error ``p_value_se``; ``lower`` and
        ``upper`` hold 90 % of the replications. Quantities are named ``mean[angle]``. Near 0 or 1: the model does not
        make such data.

    Raises
    ------
    SpecError, DataError
        If data or statistics do not fit, or the model has no prior.

    Warns
    -----
    DivergenceWarning
        If replications left the finite numbers; their statistics are NaN and left out.

    References
    ----------
    Gelman, Meng and Stern (1996), Posterior predictive assessment of model fitness via realized discrepancies.

    Examples
    --------
    >>> import bayeswm as bwm
    >>> truth = bwm.KnownDynamics(structure=bwm.structures.Pendulum(), noise=0.1)
    >>> g = torch.Generator().manual_seed(0)
    >>> data = bwm.data.simulate(truth, torch.zeros(5, 2), torch.zeros(20, 1), generator=g)
    >>> calm = bwm.KnownDynamics(structure=bwm.structures.Pendulum(), noise=0.01)
    >>> p = [predictive_check(m, data).p_value.sel(quantity="roughness[velocity]") for m in (truth, calm)]
    >>> [bool(0.05 < v < 0.95) for v in p]
    [True, False]
    """
    if worlds < 2:
        raise SpecError(f"expected worlds >= 2, got {worlds}")
    generator = make_generator(seed)
    drawn = (model.prior if prior else model.draw)(worlds, generator=generator)
    drawn = equally_weighted(drawn, worlds, generator=generator)
    columns = measured_variables(drawn).columns
    functions = DEFAULT if statistics is None else statistics
    seen = recorded(drawn, trajectories).to(drawn.device, drawn.dtype)
    gaps = seen.isnan()
    observed, names = _values(functions, seen[None], columns)
    parts: list[Tensor] = []
    for states in replicate(drawn, trajectories, generator=generator):
        lost = states.isinf().flatten(1).any(1)
        # what was not recorded is not counted in the replications either
        values = _values(functions, torch.where(gaps | lost.view(-1, 1, 1, 1), float("nan"), states), columns)[0]
        parts.append(torch.where(lost[:, None], float("nan"), values))
    replicated, observed = torch.cat(parts), observed[0]
    diverged = int(replicated.isnan().all(1).sum())
    if diverged == worlds:
        raise DataError("expected replications to compare with, all left the finite numbers or have no statistic")
    if diverged:
        warn_caller(f"{diverged} of {worlds} replications diverged and are left out", DivergenceWarning)
    known = ~replicated.isnan()
    count = known.sum(0)
    above = ((replicated > observed).double() + 0.5 * (replicated == observed).double()).sum(0)
    p = torch.where(observed.isnan() | (count == 0), float("nan"), above / count)
    ends = torch.tensor([0.05, 0.95], dtype=replicated.dtype, device=replicated.device)
    lower, upper = replicated.nanquantile(ends, 0)
    attrs = {"long_name": "probability of a value at least as large as the observed one"}
    return xr.Dataset(
        {
            "replicated": (("draw", "quantity"), as_numpy(replicated)),
            "observed": ("quantity", as_numpy(observed)),
            "p_value": ("quantity", as_numpy(p), attrs),
            "p_value_se": ("quantity", as_numpy((p * (1 - p) / count).sqrt())),
            "lower": ("quantity", as_numpy(lower), {"long_name": "5 % quantile of the replications"}),
            "upper": ("quantity", as_numpy(upper), {"long_name": "95 % quantile of the replications"}),
        },
        coords={"quantity": names},
        attrs={"worlds": worlds, "diverged": diverged, "drawn_from": "prior" if prior else "posterior"},
    )


def _values(functions: Mapping[str, Statistic], states: Tensor, columns: tuple[str, ...]) -> tuple[Tensor, list[str]]:
    """Return the statistics of each replication, shape (replications, quantities), and their names."""
    found, names = list[Tensor](), list[str]()
    for name, function in functions.items():
        value = torch.as_tensor(function(states)).double()
        if value.shape == (len(states),):
            value, labels = value[:, None], [name]
        elif value.shape == (len(states), len(columns)):
            labels = [f"{name}[{column}]" for column in columns]
        else:
            raise SpecError(
                f"{name}: expected a statistic of shape ({len(states)},) or ({len(states)}, {len(columns)}) for "
                f"{len(states)} replication(s), got {tuple(value.shape)}"
            )
        found.append(value)
        names += labels
    return torch.cat(found, 1), names


def _pooled(states: Tensor) -> Tensor:
    return states.flatten(1, 2)


def _stddev(states: Tensor) -> Tensor:
    x = _pooled(states)
    return (x - x.nanmean(1, keepdim=True)).square().nanmean(1).sqrt()


def _extreme(states: Tensor, sign: int) -> Tensor:
    x = sign * _pooled(states)
    missing = x.isnan()
    most = torch.where(missing, float("-inf"), x).amax(1)
    return sign * torch.where(missing.all(1), float("nan"), most)


def _roughness(states: Tensor) -> Tensor:
    return (states[:, :, 1:] - states[:, :, :-1]).square().nanmean((1, 2)).sqrt()


DEFAULT: dict[str, Statistic] = {
    "mean": lambda states: _pooled(states).nanmean(1),
    "stddev": _stddev,
    "minimum": lambda states: _extreme(states, -1),
    "maximum": lambda states: _extreme(states, 1),
    "roughness": _roughness,
}
