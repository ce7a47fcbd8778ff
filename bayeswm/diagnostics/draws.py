"""Whole trajectories of a predictive with their weights, and quantiles that are honest about how few they are."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from bayeswm.base.errors import SpecError
from bayeswm.base.predictive import Predictive
from bayeswm.base.random import make_generator, standard_normal
from bayeswm.diagnostics.ranks import weight_of_each
from bayeswm.diagnostics.row_sort import order_of_rows

_DRAWS = 4096  # of one step that was not sampled
_WORK = 2**22  # numbers of the windows that are in work at one time


class Draws(NamedTuple):
    """Trajectories of a predictive, by the unit that is exchangeable with what will come.

    ``paths`` have shape (units, members, windows, H, S), ``weight`` (units, members, windows), which sums to 1 over the
    first two axes and is 0 for particles that diverged. Drawn worlds are units, since what comes is from one more world
    and all particles of a world share its error. Where the worlds are the posterior, or met afresh at each step, every
    particle is a unit.
    """

    paths: Tensor
    weight: Tensor


def draws_of(predictive: Predictive) -> Iterator[Draws]:
    """Yield the trajectories of some windows at a time, in double precision.

    Parameters
    ----------
    predictive : Predictive
        A rollout with any batch shape, flattened here; one step that was not sampled is, from a fixed seed.

    Yields
    ------
    Draws

    Raises
    ------
    SpecError
        For several steps without trajectories.

    Examples
    --------
    >>> import bayeswm as bwm
    >>> model = bwm.KnownDynamics(structure=bwm.structures.Pendulum.gymnasium(), noise=0.1)
    >>> p = bwm.rollout(model, torch.zeros(3, 2), torch.zeros(5, 1), generator=torch.Generator().manual_seed(0))
    >>> [tuple(some.paths.shape) for some in draws_of(p)]
    [(20, 1, 3, 5, 2)]
    """
    paths = _paths(predictive)
    worlds, particles = paths.shape[:2]
    windows = paths.shape[2:-2].numel()
    flat = paths.reshape(worlds, particles, windows, *paths.shape[-2:])
    alive = ~predictive.diverged[..., -1].expand(worlds, particles, *predictive.batch_shape)
    alive = alive.reshape(worlds, particles, windows)
    clustered = worlds > 1 and not predictive.exhaustive and not predictive.fresh_worlds
    step = max(1, _WORK // max(1, flat[:, :, 0].numel()))
    for at in range(0, windows, step):
        some, there = flat[:, :, at : at + step].double(), alive[:, :, at : at + step]
        weight = weight_of_each(predictive.weight.double(), there)
        weight = weight / weight.sum((0, 1))  # 0 / 0 = NaN where every particle diverged
        some = torch.where(there[..., None, None], some, some.nan_to_num(0.0, 0.0, 0.0))
        if not clustered:
            some, weight = some.flatten(0, 1)[:, None], weight.flatten(0, 1)[:, None]
        yield Draws(some, weight)


def _paths(predictive: Predictive) -> Tensor:
    if predictive.horizon == 0:
        raise SpecError("expected a predictive over at least 1 step, got horizon 0; there is nothing to hold")
    if predictive.sampled:
        return predictive.particles
    if predictive.horizon > 1:
        raise SpecError(
            "expected a rollout with whole trajectories, got steps one by one; a tube of teacher-forced "
            "forecasts is not defined"
        )
    law, worlds = predictive.laws[0], predictive.worlds
    shape = (worlds, -(-_DRAWS // worlds), *predictive.batch_shape, law.noise_size)
    noise = standard_normal(shape, make_generator(0), dtype=law.mean.dtype, device=law.mean.device)
    pushed, view = law.push(noise), predictive.view
    return (pushed if view is None else view(pushed))[..., None, :]


def upper_quantile(scores: Tensor, weight: Tensor, level: float, *, units: Tensor) -> Tensor:
    """Return the score that one more unit exceeds with a probability of at most 1 - level.

    The new unit, whose score may be anything, takes 1 / (units + 1) of the probability and is put at infinity. For
    n units of equal weight and one score each this is the ceil((n + 1) level)-th smallest score.

    Parameters
    ----------
    scores : Tensor, shape (n, ...)
        Scores, each made without the help of its own unit.
    weight : Tensor, broadcastable to (n, ...)
        Weights that sum to 1 over the first axis; 0 for what does not count.
    level : float
        Probability.
    units : Tensor, shape (...)
        How many exchangeable units there are; 1 / sum w^2 where they are weighted.

    Returns
    -------
    Tensor, shape (...)
        Infinite where the units are too few for the level; NaN where a weight is.

    References
    ----------
    Lee, Barber and Willett (2023), Distribution-free inference with hierarchical data.

    Examples
    --------
    >>> even, nine = torch.full((9,), 1 / 9, dtype=torch.float64), torch.tensor(9.0, dtype=torch.float64)
    >>> [float(upper_quantile(torch.arange(1.0, 10.0), even, v, units=nine)) for v in (0.5, 0.9, 0.91)]
    [5.0, 9.0, inf]
    """
    rows = scores.movedim(0, -1)
    order = order_of_rows(rows.detach())
    reached = weight.expand_as(scores).movedim(0, -1).gather(-1, order).cumsum(-1)
    enough = reached >= (level * (1 + 1 / units.double()) - 1e-10)[..., None]
    first = enough.to(torch.int8).argmax(-1)
    found = rows.gather(-1, order.gather(-1, first[..., None]))[..., 0]
    found = torch.where(enough.any(-1), found, float("inf"))
    return torch.where(reached[..., -1].isnan(), float("nan"), found)


def draw_quantile(scores: Tensor, weight: Tensor, level: float) -> Tensor:
    """Return :func:`upper_quantile` of the scores of draws.

    Parameters
    ----------
    scores : Tensor, shape (units, members, windows, groups)
        A score of each draw.
    weight : Tensor, shape (units, members, windows)
        As of :class:`Draws`.
    level : float
        Probability.

    Returns
    -------
    Tensor, shape (windows, groups)

    Examples
    --------
    Two worlds of five particles are two units: of one more world they say little.

    >>> scores = torch.arange(10.0).view(2, 5, 1, 1)
    >>> weight = torch.full((2, 5, 1), 0.1, dtype=torch.float64)
    >>> [float(draw_quantile(scores, weight, level)) for level in (0.6, 0.7)]
    [8.0, inf]
    """
    units = 1 / weight.sum(1).square().sum(0)
    return upper_quantile(scores.flatten(0, 1), weight.flatten(0, 1)[..., None], level, units=units[..., None])


def recording_quantile(scores: Tensor, level: float, *, recording: Tensor) -> Tensor:
    """Return :func:`upper_quantile` of scores of windows, with the recording as the unit: its windows share its weight.

    Parameters
    ----------
    scores : Tensor, shape (windows, groups)
        NaN for windows that do not count.
    level : float
        Probability.
    recording : Tensor, shape (windows,)
        Which recording a window is of.

    Returns
    -------
    Tensor, shape (groups,)
        Infinite where recordings are too few.

    Examples
    --------
    >>> scores = torch.arange(1.0, 20.0)[:, None]
    >>> recording_quantile(scores, 0.9, recording=torch.arange(19)), recording_quantile(scores[:8], 0.9,
    ...     recording=torch.arange(8))
    (tensor([18.]), tensor([inf]))
    """
    there = ~scores.isnan()
    weight, units = recording_weights(there, recording)
    # what has no score has no weight either: its place does not matter
    return upper_quantile(torch.where(there, scores, 0.0), weight, level, units=units)


def recording_weights(there: Tensor, recording: Tensor) -> tuple[Tensor, Tensor]:
    """Return the weight of each window, (windows, groups), equal for recordings, and how many recordings there are.

    Examples
    --------
    >>> weight, units = recording_weights(torch.ones(3, 1).bool(), torch.tensor([7, 7, 9]))
    >>> weight[:, 0].tolist(), units.tolist()
    ([0.25, 0.25, 0.5], [2.0])
    """
    row = torch.unique(recording, return_inverse=True)[1].to(there.device)
    size = int(row.max()) + 1 if len(row) else 1
    count = torch.zeros(size, there.shape[1], dtype=torch.float64, device=there.device).index_add(
        0, row, there.double()
    )
    units = (count > 0).sum(0).double()
    return there.double() / count[row].clamp(min=1) / units, units
