"""What a model would have predicted of data it was fitted to: leave-one-out by ArviZ, and leave-future-out."""

from __future__ import annotations

import copy
import math
import warnings
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from bayeswm.base.errors import DataError, EstimateWarning, SpecError, UndefinedWarning
from bayeswm.base.model import DynamicsModel
from bayeswm.base.predictive import warn_caller
from bayeswm.base.random import make_generator, spawn_seeds
from bayeswm.base.trajectories import Trajectories
from bayeswm.base.worlds import Worlds
from bayeswm.diagnostics.bootstrap import cluster_error, warn_of_few
from bayeswm.diagnostics.replicated import equally_weighted, recorded
from bayeswm.diagnostics.summary import as_numpy

_BY_RECORDING = "standard error of elpd, recordings counted as independent"


def loo(
    model: DynamicsModel, trajectories: Trajectories | None = None, *, whole_recordings: bool = False
) -> xr.Dataset:
    """Estimate the log density of each transition given all others, by ArviZ's Pareto-smoothed importance sampling.

    Transitions are independent given the parameters, so that leaving out one is sound; it asks how well the model
    knows a system that it goes on observing. A recording of another day is another question: leave out whole ones.

    Parameters
    ----------
    model : DynamicsModel
        Fitted, with a posterior held as draws.
    trajectories : Trajectories, optional
        The training data, for models that do not keep them.
    whole_recordings : bool
        Leave out each recording as a whole instead of single transitions.

    Returns
    -------
    xarray.Dataset
        By variable, with ``joint`` for all columns together: ``elpd``, the expected log pointwise predictive density
        in nats (higher is better), ``se``, its standard error, which treats the recording as the unit (see
        :func:`bayeswm.diagnostics.cluster_error`), ``se_parts``, which counts the parts as independent, as ArviZ does,
        ``p``, the effective number of parameters, and for each part ``elpd_i`` and ``pareto_k``. Parts are transitions,
        with coordinates episode and step, or episodes. Without the recordings of the parts, as of windows, or from a
        single one, ``se`` is NaN.

    Raises
    ------
    SpecError
        If the model gives no log likelihood of parts of the data, or none by recording.

    Warns
    -----
    EstimateWarning
        Where some Pareto k is above ArviZ's limit: these parts rest on few draws; see ``az.reloo``, or refit. For
        ``se`` of fewer than 5 recordings.
    UndefinedWarning
        For ``se`` of a single recording, or of parts whose recording is not known.

    References
    ----------
    Vehtari, Gelman and Gabry (2017), Practical Bayesian model evaluation using leave-one-out cross-validation and WAIC.

    Examples
    --------
    >>> import bayeswm as bwm
    >>> from torch.distributions import Normal
    >>> schema = bwm.Schema(state=[bwm.Variable("x")], time_step=1.0)
    >>> drift = bwm.structures.Linear(schema, A=torch.eye(1), c=Normal(torch.zeros(1), 1.0))
    >>> steps = torch.tensor([0.0, *(0.4, 0.7, 0.2, 0.7) * 5])
    >>> data = bwm.Trajectories(schema, state=steps.cumsum(0).view(1, -1, 1).expand(5, -1, 1))
    >>> model = bwm.BayesianDynamics(structure=drift, noise=0.5, inference=bwm.inference.Conjugate())
    >>> found = loo(model.fit(data, seed=0))
    >>> found["elpd_i"].dims, round(float(found["elpd"].sel(variable="x")), 1)
    (('variable', 'transition'), -32.2)
    """
    import arviz as az

    tree = model.to_datatree(trajectories)
    if "log_likelihood" not in tree.children:
        raise SpecError(f"expected a log likelihood of parts of the data, {type(model).__name__} gives none")
    group = tree["log_likelihood"].to_dataset()
    if len(group.data_vars) > 1:
        group = group.assign(joint=group.to_array("column").sum("column"))
    if whole_recordings:
        if "episode" not in group.coords:
            raise SpecError("expected a log likelihood of transitions to add up by recording, got one of windows")
        group = group.groupby("episode").sum()
    given = xr.DataTree.from_dict({"posterior": tree["posterior"].to_dataset(), "log_likelihood": group})
    found: dict[str, Any] = {}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Estimated shape parameter")  # said below, for all variables at once
        for name in group.data_vars:
            found[str(name)] = az.loo(given, var_name=name, pointwise=True)
    # a plain index by name: what else ArviZ attaches to single columns stays out
    parts = xr.Dataset(
        {
            key: xr.concat([getattr(v, key).rename(key) for v in found.values()], "variable")
            for key in ("elpd_i", "pareto_k")
        }
    ).assign_coords(variable=list(found))
    limit = next(iter(found.values())).good_k
    bad = int((parts["pareto_k"] > limit).sum())
    if bad:
        warn_caller(
            f"{bad} of {parts['pareto_k'].size} Pareto k are above {limit:.2f}: these estimates rest on few draws; fit "
            "without those parts, or leave out smaller ones",
            EstimateWarning,
        )
    notes = {
        "elpd": ("elpd", "expected log pointwise predictive density, higher is better"),
        "se_parts": ("se", "standard error of elpd, parts counted as independent"),
        "p": ("p", "effective number of parameters"),
    }
    totals: dict[str, Any] = {
        name: ("variable", [float(getattr(v, key)) for v in found.values()], {"long_name": text})
        for name, (key, text) in notes.items()
    }
    each = torch.tensor(parts["elpd_i"].transpose(..., "variable").values)
    totals["se"] = ("variable", as_numpy(_error_of_sum(each, _recordings(parts))), {"long_name": _BY_RECORDING})
    return parts.assign(totals).assign_attrs(good_k=float(limit), above_good_k=bad)


def leave_future_out(
    model: DynamicsModel,
    trajectories: Trajectories,
    *,
    first: int,
    ahead: int = 1,
    draws: int = 1000,
    largest_k: float = 0.7,
    seed: int | torch.Generator = 0,
) -> xr.Dataset:
    """Estimate how well each next piece of recordings is predicted from what came before it.

    The model is fitted to the first steps of all episodes; its draws are then reweighted as steps come in, and it is
    fitted again as soon as the weights can no longer be relied on.

    Parameters
    ----------
    model : DynamicsModel
        Not changed: copies of it are fitted.
    trajectories : Trajectories
        All recordings; the same step of each is left out together.
    first : int
        Steps that the first fit is given.
    ahead : int
        Steps that are predicted together.
    draws : int
        Worlds of each posterior.
    largest_k : float
        Pareto k of the weights above which the model is fitted again; with ``-math.inf`` at every step, which is
        leave-future-out without approximation.
    seed : int or torch.Generator
        Source of all randomness.

    Returns
    -------
    xarray.Dataset
        By ``step``, the number of steps that were known: ``elpd_i`` (step, episode), the log density of the ``ahead``
        steps that followed, in nats, NaN where an episode has ended; ``elpd``, its sum over episodes; ``pareto_k`` of
        the weights, and ``refitted``. Attributes ``elpd``, the sum over all, higher is better; ``se``, its standard
        error, which treats the episode as the unit (see :func:`bayeswm.diagnostics.cluster_error`), NaN for a single
        one; ``se_steps``, which counts steps as independent; and ``fits``.

    Raises
    ------
    SpecError, DataError
        If no episode is longer than ``first``, or numbers make no sense.

    Warns
    -----
    UndefinedWarning, EstimateWarning
        For ``se`` of a single episode, and of fewer than 5.

    References
    ----------
    Buerkner, Gabry and Vehtari (2020), Approximate leave-future-out cross-validation for Bayesian time series models.

    Examples
    --------
    >>> import bayeswm as bwm
    >>> from torch.distributions import Normal
    >>> schema = bwm.Schema(state=[bwm.Variable("x")], time_step=1.0)
    >>> drift = bwm.structures.Linear(schema, A=torch.eye(1), c=Normal(torch.zeros(1), 1.0))
    >>> data = bwm.Trajectories(schema, state=[[[0.0], [0.4], [1.1], [1.3], [2.0]]] * 5)
    >>> model = bwm.BayesianDynamics(structure=drift, noise=0.5, inference=bwm.inference.Conjugate())
    >>> found = leave_future_out(model, data, first=1)
    >>> found["step"].values.tolist(), found.attrs["fits"], round(found.attrs["elpd"], 1)
    ([1, 2, 3], 1, -6.9)
    """
    if first < 1 or ahead < 1 or draws < 2:
        raise SpecError(f"expected first >= 1, ahead >= 1 and draws >= 2, got {first}, {ahead} and {draws}")
    steps = list(range(first, trajectories.horizon - ahead + 1))
    if not steps:
        raise DataError(
            f"expected an episode of at least {first + ahead} steps, the longest has {trajectories.horizon}"
        )
    generator = make_generator(seed)
    each = ratio = log_weight = torch.empty(0)
    rows, ks, refitted = list[Tensor](), list[float](), list[bool]()
    begun = -1
    for t in steps:
        k = -math.inf
        if begun >= 0:
            log_weight, k = _smoothed(ratio + each[:, :, begun:t].sum((1, 2)))
        if begun < 0 or k > largest_k:
            known = trajectories._slices(torch.zeros_like(trajectories.lengths), trajectories.lengths.clamp(max=t))
            fit_seed = spawn_seeds(generator, 1)[0] % 2**31
            fitted = copy.deepcopy(model).fit(known, seed=fit_seed, progress=False)
            worlds = fitted.draw(draws, generator=generator)
            if not worlds.exhaustive:
                worlds = equally_weighted(worlds, draws, generator=generator)
            each, ratio, begun = stepwise_log_likelihood(worlds, trajectories), worlds.log_weight.double().cpu(), t
            log_weight, k = ratio, -math.inf
        refitted.append(begun == t)
        ks.append(k if begun < t else float("nan"))
        later = each[:, :, t : t + ahead].sum(-1)
        alive = trajectories.lengths.cpu() >= t + ahead
        rows.append(torch.where(alive, torch.logsumexp(log_weight[:, None] + later, 0), float("nan")))
    elpd_i = torch.stack(rows)
    elpd = elpd_i.nansum(1)
    total, spread = float(elpd.sum()), float(elpd.std()) if len(elpd) > 1 else float("nan")
    each, episode = elpd_i.flatten(), trajectories.episode.cpu().repeat(len(elpd_i))
    return xr.Dataset(
        {
            "elpd_i": (("step", "episode"), as_numpy(elpd_i), {"long_name": "log density of what followed"}),
            "elpd": ("step", as_numpy(elpd)),
            "pareto_k": ("step", np.array(ks), {"long_name": "of the weights; NaN after a fit"}),
            "refitted": ("step", np.array(refitted)),
        },
        coords={
            "step": ("step", steps, {"long_name": "steps that were known"}),
            "episode": ("episode", as_numpy(trajectories.episode)),
        },
        attrs={
            "elpd": total,
            "se": float(_error_of_sum(each, episode)),
            "se_steps": spread * math.sqrt(len(elpd)),
            "fits": sum(refitted),
            "ahead": ahead,
        },
    )


def stepwise_log_likelihood(worlds: Worlds, trajectories: Trajectories) -> Tensor:
    """Return the log density of each recorded step given those before it, shape (worlds, episodes, T), in float64.

    Steps after the end of an episode count 0.
    """
    nothing = torch.zeros_like(trajectories.lengths)
    seen = recorded(worlds, trajectories).to(worlds.device, worlds.dtype)
    start = seen[:, 0] if worlds.state_is_measured else trajectories._slices(nothing, nothing)
    inside = trajectories.step_mask[..., None]
    action, context = (torch.where(inside, v, 0.0).to(seen) for v in (trajectories.action, trajectories.step_context()))
    with torch.no_grad():
        each = worlds.log_likelihood(worlds.start(start), seen[:, 1:], action, context)[:, 0]
        return torch.where(inside[..., 0], each, 0.0).double().cpu()


def _recordings(parts: xr.Dataset) -> Tensor | None:
    """Return the recording of each part, where it is known."""
    if "episode" not in parts.coords:
        return None
    return torch.tensor(parts["episode"].values)


def _error_of_sum(each: Tensor, recording: Tensor | None) -> Tensor:
    """Return the standard error by recording of sums over the first axis, NaN left out, and warn where it is rough."""
    if recording is None:
        warn_caller("se is undefined and is NaN: nothing says which recording a part is of", UndefinedWarning)
        return torch.full(each.shape[1:], float("nan"), dtype=torch.float64)
    there = ~each.isnan()
    warn_of_few(len(torch.unique(recording[there.flatten(1).any(-1) if each.ndim > 1 else there])))
    return there.sum(0) * cluster_error(each, recording)


def _smoothed(log_ratio: Tensor) -> tuple[Tensor, float]:
    """Return normalised Pareto-smoothed log weights and Pareto k."""
    from arviz_stats.base.array import array_stats

    if float(log_ratio.max() - log_ratio.min()) < 1e-12:
        return torch.log_softmax(log_ratio, 0), -math.inf  # equal weights have no tail
    smoothed, k = array_stats.psislw(-log_ratio.numpy())
    return torch.log_softmax(torch.as_tensor(smoothed, dtype=torch.float64), 0), float(k)
