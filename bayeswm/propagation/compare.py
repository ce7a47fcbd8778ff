"""Methods of propagation laid against a large Monte Carlo reference."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from bayeswm.base.along import Policy
from bayeswm.base.counts import check_counts
from bayeswm.base.errors import SpecError, UndefinedWarning
from bayeswm.base.model import DynamicsModel, check_model
from bayeswm.base.predictive import Predictive, checked_generator
from bayeswm.base.random import make_generator, spawn_seeds
from bayeswm.base.worlds import Belief, Worlds
from bayeswm.propagation.linearized import Linearized
from bayeswm.propagation.moment_matching import MomentMatching
from bayeswm.propagation.moment_reset import MomentReset
from bayeswm.propagation.particles import FixedWorlds, FreshWorlds
from bayeswm.propagation.task import Method, Task
from bayeswm.propagation.unscented import Unscented

if TYPE_CHECKING:
    import xarray

# points at which two distribution functions are compared
_GRID = 400


def compare(
    model: DynamicsModel | Worlds,
    belief: Belief,
    actions: Tensor | Policy | None = None,
    *,
    generator: torch.Generator,
    methods: Sequence[Method] | Mapping[str, Method] | None = None,
    reference: FixedWorlds | None = None,
    horizon: int | None = None,
    context: Tensor | None = None,
    worlds: int = 64,
) -> xarray.Dataset:
    """Compare methods of propagation with many particles in the same worlds.

    Parameters
    ----------
    model, belief, actions, horizon, context, worlds
        As of :func:`bayeswm.propagate`. Worlds are drawn once, so that no difference between methods is one of worlds.
    generator : torch.Generator
        Source of all randomness; each method gets a stream of its own.
    methods : sequence of Method, or mapping of str to Method, optional
        What to compare, in a mapping by names of your own. By default one of each kind.
    reference : FixedWorlds, optional
        ``FixedWorlds(particles=1000)`` by default.

    Returns
    -------
    xarray.Dataset
        By ``methods``, ``horizon`` and ``variable``, averaged over the batch: ``mean_error`` and ``wasserstein`` (the
        distance of the marginal laws: the area between their distribution functions) in standard deviations of the
        reference, lower is better; ``sd_ratio`` to the reference, 1 is right; ``epistemic_share`` of the variance, NaN
        where a method has no split. By ``methods``: ``seconds`` of CPU. Of the reference: ``reference_sd`` and
        ``reference_epistemic_share``. A reference of N particles cannot tell distances below about 1 / sqrt(N) apart;
        where it has no spread at all, errors are in the variable's units and the ratio is NaN.

    Raises
    ------
    SpecError
        If no generator is given, or there is nothing to compare.

    Examples
    --------
    >>> import bayeswm as bwm
    >>> belief = bwm.structures.Pendulum(mass=torch.distributions.LogNormal(0.0, 0.2))
    >>> model = bwm.KnownDynamics(structure=belief, noise=0.01)
    >>> g = torch.Generator().manual_seed(0)
    >>> table = compare(model, torch.zeros(2), torch.ones(10, 1), generator=g, reference=FixedWorlds(particles=100))
    >>> dict(table["mean_error"].sizes)
    {'methods': 7, 'horizon': 10, 'variable': 2}
    """
    import numpy as np
    import xarray as xr

    if checked_generator(generator) is None:
        raise SpecError("expected generator=torch.Generator, since particles are drawn, got none")
    check_model(model)
    check_counts(worlds=worlds)
    named = _named(methods)
    drawn = model if isinstance(model, Worlds) else model.draw(worlds, generator=generator)
    seeds = spawn_seeds(generator, 1 + len(named))

    def answer(method: Method, seed: int) -> tuple[Predictive, float]:
        own = make_generator(seed, device=generator.device)
        task = Task(model, belief, actions, horizon, context, worlds, own, ready=drawn)
        begin = time.process_time()
        found = method.propagate(task)
        return found, time.process_time() - begin

    with torch.no_grad():
        base, _ = answer(FixedWorlds(particles=1000) if reference is None else reference, seeds[0])
        scale = torch.where(base.stddev > 0, base.stddev, 1.0)
        truth = _Marginals(base)
        rows: dict[str, list[Tensor]] = {k: [] for k in ("mean_error", "sd_ratio", "wasserstein", "epistemic_share")}
        seconds: list[float] = []
        for method, seed in zip(named.values(), seeds[1:], strict=True):
            found, spent = answer(method, seed)
            seconds.append(spent)
            ratio = torch.where(base.stddev > 0, found.stddev / scale, float("nan"))
            rows["mean_error"].append(_over_batch((found.mean - base.mean).abs() / scale))
            rows["sd_ratio"].append(_over_batch(ratio))
            rows["wasserstein"].append(_over_batch(truth.distance(_Marginals(found)) / scale))
            rows["epistemic_share"].append(_over_batch(_epistemic_share(found)))
    # not "method": Dataset.sel(method=) means something else, and would return everything
    dims = ("methods", "horizon", "variable")
    data = {k: (dims, torch.stack(v).cpu().numpy()) for k, v in rows.items()}
    of_reference = {"reference_sd": base.stddev, "reference_epistemic_share": _epistemic_share(base)}
    steps = np.arange(1, base.horizon + 1)
    return xr.Dataset(
        {
            **data,
            "seconds": ("methods", np.array(seconds)),
            **{k: (dims[1:], _over_batch(v).cpu().numpy()) for k, v in of_reference.items()},
        },
        coords={
            "methods": list(named),
            "horizon": steps,
            "time": ("horizon", steps * base.time_step, {"units": "s"}),
            "variable": list(base.variables.columns),
        },
    )


def _named(methods: Sequence[Method] | Mapping[str, Method] | None) -> dict[str, Method]:
    if methods is None:
        pooled = MomentMatching(pooled=True)
        methods = [FixedWorlds(), FreshWorlds(), MomentReset(), MomentMatching(), Unscented(), Linearized(), pooled]
    named = dict(methods) if isinstance(methods, Mapping) else {repr(m): m for m in methods}
    if not named:
        raise SpecError("expected at least one method to compare, got none")
    for method in named.values():
        if isinstance(method, type) or not isinstance(method, Method):
            raise SpecError(f"expected methods such as bayeswm.propagation.Unscented(), got {method!r}")
    return named


def _over_batch(values: Tensor) -> Tensor:
    """Return the mean over the batch axes, shape (H, S)."""
    return values.double().reshape(-1, *values.shape[-2:]).mean(0)


def _epistemic_share(predictive: Predictive) -> Tensor:
    with warnings.catch_warnings():  # NaN is the answer where there is no split
        warnings.simplefilter("ignore", UndefinedWarning)
        return torch.where(predictive.variance > 0, predictive.epistemic_variance / predictive.variance, float("nan"))


class _Marginals:
    """The distribution functions of a predictive: of its particles where it has some, else of its laws."""

    def __init__(self, predictive: Predictive) -> None:
        self.predictive = predictive
        mean, spread = predictive.mean, predictive.stddev
        self.low, self.high = mean - 6 * spread, mean + 6 * spread
        if predictive.sampled and predictive.horizon:
            paths, alive = predictive.particles.detach(), ~predictive.diverged
            weight = (predictive.weight.to(paths) / paths.shape[1]).view(-1, *(1,) * (alive.ndim - 1)) * alive
            self.values, order = torch.where(alive[..., None], paths, float("inf")).flatten(0, 1).sort(0)
            self.edges = weight[..., None].expand(paths.shape).flatten(0, 1).gather(0, order).cumsum(0)
            self.edges = self.edges / self.edges[-1]

    def __call__(self, x: Tensor) -> Tensor:
        """Return P(X <= x) for x of shape (k, *batch, H, S)."""
        if not self.predictive.sampled:
            return self.predictive.cdf(x)
        columns = x.flatten(1).mT.contiguous()
        index = torch.searchsorted(self.values.flatten(1).mT.contiguous(), columns, right=True)
        edges = torch.nn.functional.pad(self.edges.flatten(1).mT, (1, 0))
        return edges.gather(1, index).mT.reshape(x.shape)

    def distance(self, other: _Marginals) -> Tensor:
        """Return the area between the distribution functions, shape (*batch, H, S)."""
        if math.prod(self.low.shape) == 0:
            return torch.zeros_like(self.low)
        low, high = torch.minimum(self.low, other.low), torch.maximum(self.high, other.high)
        share = (torch.arange(_GRID, dtype=low.dtype, device=low.device) + 0.5) / _GRID
        x = low + (high - low) * share.view(-1, *(1,) * low.ndim)
        return (self(x) - other(x)).abs().mean(0) * (high - low)
