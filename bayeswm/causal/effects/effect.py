"""Effects: what one intervention does that another does not, over a horizon."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from bayeswm.base.along import Policy
from bayeswm.base.errors import SpecError
from bayeswm.base.model import DynamicsModel
from bayeswm.base.predictive import Predictive
from bayeswm.base.trajectories import Trajectories, check_trajectories
from bayeswm.base.worlds import Belief, Worlds
from bayeswm.causal.effects.branches import Branches
from bayeswm.causal.interventions.intervention import Intervention

if TYPE_CHECKING:
    import xarray


def effect(
    model: DynamicsModel | Worlds,
    treatment: Intervention,
    control: Intervention,
    *,
    state: Belief,
    horizon: int | None = None,
    actions: Tensor | Policy | None = None,
    context: Tensor | None = None,
    worlds: int = 64,
    particles: int = 20,
    level: float = 0.9,
    logged: Trajectories | None = None,
    generator: torch.Generator | None = None,
) -> xarray.Dataset:
    """Return the average effect of an intervention against another, by horizon and variable.

    Both branches run in the same worlds with the same noise (common random numbers), so that what is left is the
    effect. Each row of a batch of states has its own, conditional on where it starts.

    Parameters
    ----------
    model : DynamicsModel or Worlds
        A fitted model, or worlds drawn from one.
    treatment, control : Intervention
        Made by :func:`do`.
    state : Tensor of shape (*batch, S), Law or Trajectories
        Where it starts.
    horizon : int, optional
        Steps; the length of ``actions`` by default.
    actions : Tensor of shape (*batch, H, A), or callable, optional
        What is done otherwise: a plan or a policy. Not needed where both interventions set every action.
    context : Tensor of shape (*batch, C) or (*batch, H, C), optional
        Environment factors.
    worlds, particles : int
        How many worlds are drawn, and sampled trajectories in each.
    level : float
        Of the credible interval, between 0 and 1.
    logged : Trajectories, optional
        The data that the model was fitted to: both branches are held against them (:func:`positivity`).
    generator : torch.Generator, optional
        Needed where worlds or noise are drawn.

    Returns
    -------
    xarray.Dataset
        Dimensions batch_0, ..., horizon (x[1..H]) and variable. ``effect`` is the mean over worlds, ``lower`` and
        ``upper`` the central interval of the worlds' own effects (with one world they are its effect),
        ``probability_positive`` the weight of worlds whose effect is above 0, ``treatment`` and ``control`` the means
        of the branches, ``standard_error`` that of ``effect`` from finitely many particles. The attribute
        ``positivity`` says whether the branches stay inside the support of the log, or that it was not checked; with
        ``logged`` there are ``inside``, ``effective_rows`` and ``supported`` by branch and horizon.

    Raises
    ------
    SpecError, DataError, UnknownVariableError
        For arguments that do not fit, unknown names, steps beyond the horizon.

    Warns
    -----
    SupportWarning
        With ``logged``, if a branch leaves the support of the log.

    Examples
    --------
    >>> import bayeswm as bwm
    >>> pendulum = bwm.KnownDynamics(structure=bwm.structures.Pendulum.gymnasium())
    >>> found = effect(pendulum, bwm.do(torque=1.0), bwm.do(torque=0.0), state=torch.zeros(2), horizon=5)
    >>> found.effect.sel(horizon=1, variable="velocity").round(3).item()
    0.15
    """
    check_level(level)
    if logged is not None:  # before anything runs
        check_trajectories(logged)
    branches = Branches(
        model,
        state,
        actions,
        horizon=horizon,
        context=context,
        worlds=worlds,
        particles=particles,
        generator=generator,
    )
    treated, untreated = branches.run(treatment), branches.run(control)
    first, second = path_means(treated), path_means(untreated)
    found = summarised("effect", first - second, treated, level=level)
    found |= {"treatment": pooled(first, treated), "control": pooled(second, untreated)}
    effects = labelled(found, treated, attributes={"level": level, "worlds": treated.worlds, "particles": particles})
    return branches.with_positivity(effects, logged, treatment=treatment, control=control)


def check_level(level: float) -> None:
    """Refuse a level that is none.

    Raises
    ------
    SpecError
        Outside (0, 1).
    """
    if not 0 < level < 1:
        raise SpecError(f"expected level= between 0 and 1, got {level!r}")


def check_finite(predictive: Predictive) -> None:
    """Refuse a branch of which a particle left the finite numbers.

    Raises
    ------
    SpecError
        If one did.
    """
    if bool(predictive.diverged.any()):
        raise SpecError("expected branches that stay finite, got particles that diverged; shorten the horizon")


def path_means(predictive: Predictive) -> Tensor:
    """Return the mean of each particle's one-step law, shape (worlds, particles, *batch, H, S).

    It has the expectation of the particle and less variance. Particles that diverged are refused.
    """
    check_finite(predictive)
    shape = predictive.particles.shape[:-2]
    return torch.stack([law.mean.expand(*shape, law.mean.shape[-1]) for law in predictive.laws], -2)


def pooled(values: Tensor, predictive: Predictive) -> Tensor:
    """Return the mean over particles and worlds, shape (*batch, H, S)."""
    return torch.einsum("w,w...->...", predictive.weight.to(values), values.mean(1))


def summarised(name: str, values: Tensor, predictive: Predictive, *, level: float) -> dict[str, Tensor]:
    """Return the mean, its standard error, the interval and the sign of effects (worlds, particles, *batch, H, S)."""
    weight, by_world = predictive.weight.to(values), values.mean(1)
    count = values.shape[1]
    noise = values.var(1) / count if count > 1 else torch.full_like(by_world, float("nan"))
    if bool((values == values[:, :1]).all()):
        noise = torch.zeros_like(by_world)
    lower, upper = (_quantile(by_world, weight, p) for p in ((1 - level) / 2, (1 + level) / 2))
    return {
        name: pooled(values, predictive),
        "lower": lower,
        "upper": upper,
        "probability_positive": torch.einsum("w,w...->...", weight, (by_world > 0).to(values)),
        "standard_error": torch.einsum("w,w...->...", weight.square(), noise).sqrt(),
    }


def labelled(values: dict[str, Tensor], predictive: Predictive, *, attributes: dict[str, float]) -> xarray.Dataset:
    """Return tensors (*batch, H, S) as labelled data."""
    import xarray as xr

    dims = (*(f"batch_{i}" for i in range(len(predictive.batch_shape))), "horizon", "variable")
    steps = np.arange(1, predictive.horizon + 1)
    coordinates = {
        "horizon": steps,
        "variable": list(predictive.variables.columns),
        "time": ("horizon", steps * predictive.time_step),
    }
    arrays = {name: (dims, v.detach().cpu().numpy()) for name, v in values.items()}
    return xr.Dataset(arrays, coords=coordinates, attrs=attributes)


def _quantile(values: Tensor, weight: Tensor, probability: float) -> Tensor:
    """Return a weighted quantile along the first axis, interpolated between midpoints of the weights."""
    ordered, index = values.sort(0)
    w = weight[index]
    place = w.cumsum(0) - 0.5 * w
    above = (place < probability).sum(0, keepdim=True).clamp(max=len(values) - 1)
    below = (above - 1).clamp(min=0)
    low, high = ordered.gather(0, below), ordered.gather(0, above)
    left, right = place.gather(0, below), place.gather(0, above)
    gap = (right - left).clamp(min=torch.finfo(values.dtype).tiny)
    share = ((probability - left) / gap).clamp(0, 1)
    return (low + share * (high - low))[0]
