"""Energy scores of forecasts from the draws of their worlds."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from bayeswm.base.predictive import Predictive
from bayeswm.diagnostics.forecast import Forecast
from bayeswm.diagnostics.multivariate_scores import energy_score, pair_norm
from bayeswm.diagnostics.pointwise import mean_distance_of_worlds, observed, spread_out

_DRAWS = 400  # of a single step that was not sampled


class Samples(NamedTuple):
    """Draws of every window and which of them do not count.

    ``values`` have shape (worlds, particles, windows, H, S), ``lost`` the same without the last axis, ``weight``
    (worlds,); from the step ``pooled`` on all are draws of the mixture, whatever their world.
    """

    values: Tensor
    lost: Tensor
    weight: Tensor
    pooled: int

    def scaled(self, unit: Tensor) -> Samples:
        """Return them in these units (S,)."""
        return self._replace(values=self.values / unit)

    def few(self, draws: int, *, exhaustive: bool) -> Samples:
        """Return about so many a window, at least 2 of each world; of more drawn worlds than that, the first."""
        worlds = len(self.weight) if exhaustive else max(2, min(len(self.weight), draws // 2))
        each = max(2, -(-draws // worlds))
        weight = self.weight[:worlds]
        return Samples(
            self.values[:worlds, :each], self.lost[:worlds, :each], weight / weight.sum(), pooled=self.pooled
        )


def samples_of(predictive: Predictive, generator: torch.Generator) -> Samples:
    """Return the draws of a predictive with one batch axis; of a single step without particles, new ones.

    Examples
    --------
    >>> import bayeswm as bwm
    >>> model = bwm.KnownDynamics(structure=bwm.structures.Pendulum.gymnasium(), noise=1.0)
    >>> samples_of(model.predictive(torch.zeros(3, 2), torch.zeros(3, 1)), torch.Generator()).values.shape
    torch.Size([1, 400, 3, 1, 2])
    """
    if not predictive.sampled:
        values = predictive.sample(_DRAWS, generator=generator)[None]
        lost = torch.zeros(values.shape[:-1], dtype=torch.bool, device=values.device)
        return Samples(values, lost, torch.ones_like(predictive.weight[:1]), 0)
    values = predictive.particles
    lost = predictive.diverged | ~values.isfinite().all(-1)
    return Samples(values, lost, predictive.weight, 1 if predictive.fresh_worlds else predictive.horizon)


def outcome_scale(outcomes: Tensor) -> Tensor:
    """Return the standard deviation of each variable over windows and steps, 1 where it does not vary.

    Examples
    --------
    >>> outcome_scale(torch.tensor([[[0.0, 5.0]], [[2.0, 5.0]]]))
    tensor([1., 1.])
    """
    x = outcomes.flatten(0, -2)
    spread = (x - x.nanmean(0)).square().nanmean(0).sqrt()
    return torch.where(spread > 1e-12 * x.nan_to_num().abs().amax(0), spread, 1.0) if len(x) else spread.fill_(1.0)


def window_energies(part: Forecast, *, scale: Tensor, generator: torch.Generator, draws: int) -> Tensor:
    """Return the fair energy score of each window and step from about ``draws`` draws, shape (windows, H).

    Unbiased for what all draws would score; the time grows with the square of their number, the error of the mean over
    many windows hardly at all. NaN where a value is missing.

    Examples
    --------
    >>> import bayeswm as bwm
    >>> from bayeswm.diagnostics import forecast_of
    >>> model = bwm.KnownDynamics(structure=bwm.structures.Pendulum.gymnasium(), noise=1.0)
    >>> part = forecast_of(model.predictive(torch.zeros(3, 2), torch.zeros(3, 1)), torch.zeros(3, 1, 2))
    >>> window_energies(part, scale=torch.ones(2), generator=torch.Generator().manual_seed(0), draws=100).shape
    torch.Size([3, 1])
    """
    p = part.predictive
    x, there = observed(p, part.outcomes)
    unit = scale.to(x)
    samples = samples_of(p, generator).few(draws, exhaustive=p.exhaustive).scaled(unit)
    found = energy_by_step(samples, x / unit, exhaustive=p.exhaustive)
    return torch.where(there.all(-1), found.to(x.dtype), float("nan"))


def energy_by_step(samples: Samples, came: Tensor, *, exhaustive: bool) -> Tensor:
    """Return the fair energy score of each step, shape (windows, H), for outcomes (windows, H, S)."""
    values, lost, weight, pooled = samples
    steps = [
        energy_of_worlds(
            values[..., h, :], came[:, h], weight=weight, exhaustive=exhaustive, lost=lost[..., h], pooled=h >= pooled
        )
        for h in range(came.shape[1])
    ]
    return by_step(steps, came)


def energy_of_worlds(
    samples: Tensor, observed: Tensor, *, weight: Tensor, exhaustive: bool, lost: Tensor, pooled: bool = False
) -> Tensor:
    """Return the fair energy score of samples from several worlds; lower is better. See :func:`crps_worlds`.

    Parameters
    ----------
    samples : Tensor, shape (W, P, ..., d)
        Draws in each world.
    observed : Tensor, shape (..., d)
        What came.
    weight : Tensor, shape (W,)
        Weights of the worlds.
    exhaustive : bool
        Whether the worlds are the posterior, or draws from it.
    lost : Tensor, shape (W, P, ...)
        Samples not to count.
    pooled : bool
        The samples are draws of the mixture, of equal weight, whatever their world.

    Returns
    -------
    Tensor, shape (...)

    Examples
    --------
    >>> draws, kept = torch.tensor([[[0.0], [1.0]], [[0.0], [1.0]]]), torch.zeros(2, 2, dtype=torch.bool)
    >>> half = torch.tensor([0.5, 0.5])
    >>> float(energy_of_worlds(draws, torch.tensor([0.5]), weight=half, exhaustive=True, lost=kept))
    0.125
    """
    samples = torch.where(lost[..., None], observed, samples)  # finite, of no weight
    if pooled:
        return energy_score(samples.flatten(0, 1), observed, weight=pool(lost, like=samples).flatten(0, 1))
    each = shares(weight, lost, like=samples)
    offset = samples - observed
    near = (each * torch.linalg.vector_norm(offset, dim=-1)).sum((0, 1))
    count, share = (~lost).sum(1).to(offset), each.sum(1)
    every = pair_norm(offset.flatten(0, 1), each.flatten(0, 1))
    if len(samples) == 1:
        return near - mean_distance_of_worlds(every, every[None], share=share, count=count, exhaustive=exhaustive) / 2
    own = pair_norm(offset.movedim(1, 0), ((~lost) / count.clamp(min=1)[:, None]).movedim(1, 0))
    return near - mean_distance_of_worlds(every, own, share=share, count=count, exhaustive=exhaustive) / 2


def shares(weight: Tensor, lost: Tensor, *, like: Tensor) -> Tensor:
    """Return the weight of each particle, shape (W, P, ...); NaN where all are lost."""
    count = (~lost).sum(1).to(like)
    share = torch.where(count > 0, spread_out(weight.to(like), count), 0.0)
    share = share / share.sum(0)
    return (share / count.clamp(min=1))[:, None] * ~lost


def pool(lost: Tensor, *, like: Tensor) -> Tensor:
    """Return equal weights of all particles that are left."""
    kept = (~lost).to(like)
    return kept / kept.sum((0, 1))


def by_step(steps: list[Tensor], like: Tensor) -> Tensor:
    """Return values of each step (windows,) together, shape (windows, H), also for no step."""
    return torch.stack(steps, -1) if steps else like[..., 0]
