"""What calibrated forecasts would look like: data sets drawn from their own joint law of trajectories."""

from __future__ import annotations

import torch
from torch import Tensor

from bayeswm.base.errors import DataError
from bayeswm.base.predictive import Predictive
from bayeswm.base.random import make_generator, systematic
from bayeswm.diagnostics.calibration_test import (
    CalibrationTest,
    NormalSums,
    independent_test,
    normal_sums,
    sums_of_scores,
    sums_test,
)
from bayeswm.diagnostics.forecast import Forecast
from bayeswm.diagnostics.pointwise import observed, pit, rounding_reach
from bayeswm.diagnostics.row_sort import sorted_rows

SIMULATIONS = 999
_POOL = 128  # simulated trajectories a window, at least one in each world
_WORK = 2**22  # values in work at one time


class JointNull:
    """Collects, forecast by forecast, what :func:`bayeswm.diagnostics.calibration_test` needs.

    A simulated data set comes from one world: in every window it takes one of that world's particles, with its whole
    path. So the windows depend on each other as they do where one true world, unknown to the model, made all of them.
    The transform of what came is its rank among the particles. That of a simulated path is its rank among the others
    and what came; where worlds are draws from a posterior, among the particles of the other worlds, since the true
    world is not among those drawn either.

    Windows that do not overlap are taken as independent given the world and where they start: of overlapping ones only
    the first counts, and one a recording where it is unknown where they start, or where a recording has noise of its
    own that the windows share.

    With W drawn worlds that differ much, a p-value below 1 / (W + 1) says no more than that.

    Parameters
    ----------
    seed : int
        Of the simulations.

    Examples
    --------
    >>> import bayeswm as bwm
    >>> from bayeswm.diagnostics.forecast import forecast_of
    >>> model = bwm.KnownDynamics(structure=bwm.structures.Pendulum.gymnasium(), noise=0.1)
    >>> g = torch.Generator().manual_seed(0)
    >>> made = bwm.rollout(model, torch.zeros(30, 2), torch.zeros(30, 4, 1), particles=100, generator=g)
    >>> null = JointNull(seed=0)
    >>> null.add(forecast_of(made, made.mean + 3 * made.stddev))
    >>> float(null.result().p_value), null.windows
    (0.001, 30)
    """

    def __init__(self, *, seed: int) -> None:
        self.windows = 0
        self.simulated = True
        self._generator = make_generator(seed)
        self._world: Tensor | None = None
        self._weight: Tensor | None = None
        self._observed: NormalSums | None = None
        self._simulated: NormalSums | None = None
        self._free: dict[int, float] = {}

    def add(self, part: Forecast) -> None:
        """Take in one forecast; those that follow are of the same worlds.

        Raises
        ------
        DataError
            If the worlds are others.
        """
        rows = self._independent(part)
        self.windows += len(rows)
        if len(rows) == 0:
            return
        predictive, outcomes = part.predictive[rows], part.outcomes[rows]
        if not predictive.sampled:
            self.simulated = False
            self._observed = _plus(self._observed, normal_sums(pit(predictive, outcomes)))
            return
        came, drawn = rank_scores(predictive, outcomes)
        self._observed = _plus(self._observed, sums_of_scores(came, dim=0))
        self._simulated = _plus(self._simulated, self._data_sets(drawn, self._worlds(predictive)))

    def result(self) -> CalibrationTest:
        """Return the test of all forecasts so far; by the Cauchy combination where there are no trajectories."""
        if self._observed is None:
            raise DataError("expected at least one forecast, got none")
        if self._simulated is None or not self.simulated:
            return independent_test(self._observed)
        return sums_test(self._observed, self._simulated)

    def _independent(self, part: Forecast) -> Tensor:
        """Return which windows neither overlap nor share a recording's own noise."""
        known = part.windows is not None and part.worlds is not None
        alone = not known or (part.past is None and part.worlds is not None and part.worlds.episode_noise_size > 0)
        start = part.windows.start.tolist() if part.windows is not None else [0] * len(part.recording)
        rows = list[int]()
        for row, (recording, begin) in enumerate(zip(part.recording.tolist(), start, strict=True)):
            if begin >= self._free.get(recording, float("-inf")):
                rows.append(row)
                self._free[recording] = float("inf") if alone else begin + part.predictive.horizon
        return torch.tensor(rows, dtype=torch.long, device=part.outcomes.device)

    def _worlds(self, predictive: Predictive) -> Tensor:
        if self._world is None or self._weight is None:
            self._weight = predictive.log_weight
            self._world = systematic(predictive.log_weight, SIMULATIONS, self._generator)
        elif not torch.equal(self._weight, predictive.log_weight):
            raise DataError("expected forecasts of one and the same worlds, got parts with other weights")
        return self._world

    def _data_sets(self, drawn: Tensor, world: Tensor) -> NormalSums:
        """Return sums over windows for each data set; ``drawn`` are scores (worlds, particles, n, H, S)."""
        count, each, n = drawn.shape[:3]
        flat = drawn.reshape(count * each, n, -1)
        at = torch.arange(n, device=drawn.device)
        found = list[NormalSums]()
        step = max(1, _WORK // max(flat[0].numel(), 1))
        for some in world.split(step):
            pick = torch.randint(each, (len(some), n), generator=self._generator, device=self._generator.device)
            path = some.to(drawn.device)[:, None] * each + pick.to(drawn.device)
            found.append(sums_of_scores(flat[path, at], dim=1))
        shape = (SIMULATIONS, *drawn.shape[3:])
        return NormalSums(*(torch.cat(parts).view(shape) for parts in zip(*found, strict=True)))


def rank_scores(predictive: Predictive, outcomes: Tensor) -> tuple[Tensor, Tensor]:
    """Return normal scores of the ranks of what came, and of simulated trajectories.

    Parameters
    ----------
    predictive : Predictive
        With particles and one batch axis, the windows.
    outcomes : Tensor, shape (n, H, S)
        What came; NaN where nothing was recorded.

    Returns
    -------
    tuple of Tensor
        Of shape (n, H, S), and (worlds, paths, n, H, S): those of some of the particles, 128 for each window or one a
        world. With a fresh world at each step the particles are one pool, and the axis of worlds still as they lie.

    Examples
    --------
    >>> import bayeswm as bwm
    >>> model = bwm.KnownDynamics(structure=bwm.structures.Pendulum.gymnasium(), noise=0.1)
    >>> g = torch.Generator().manual_seed(0)
    >>> made = bwm.rollout(model, torch.zeros(3, 2), torch.zeros(3, 4, 1), particles=100, generator=g)
    >>> came, drawn = rank_scores(made, made.mean)
    >>> came.shape, drawn.shape
    (torch.Size([3, 4, 2]), torch.Size([1, 100, 3, 4, 2]))
    """
    x, there = observed(predictive, outcomes)
    reach = rounding_reach(predictive, x)
    worlds, each = predictive.particles.shape[:2]
    some = min(each, -(-_POOL // worlds))
    came, drawn = x.new_empty(x.shape), x.new_empty(worlds, some, *x.shape)
    step = max(1, _WORK // max(worlds * each * x[0].numel(), 1))
    for at in range(0, len(x), step):
        rows = slice(at, at + step)
        paths, lost = predictive.particles[:, :, rows].detach(), predictive.diverged[:, :, rows]
        alive = None
        if bool(lost.any()):
            alive = ~lost[..., None].expand(worlds, each, *paths.shape[2:])
        came[rows], drawn[:, :, rows] = _ranks(predictive, paths, x[rows], reach=reach[rows], alive=alive, some=some)
    gap = float("nan")
    return torch.where(there, came, gap), torch.where(there, drawn, gap)


def _ranks(
    predictive: Predictive, paths: Tensor, x: Tensor, *, reach: Tensor, alive: Tensor | None, some: int
) -> tuple[Tensor, Tensor]:
    worlds, each = paths.shape[:2]
    values = paths.movedim((0, 1), (-2, -1)).contiguous()  # (n, H, S, worlds, particles)
    share = (predictive.weight.to(values) / each)[:, None].expand(worlds, each)
    weight = share.expand(values.shape)
    if alive is not None:
        living = alive.movedim((0, 1), (-2, -1))
        weight = torch.where(living, weight, 0.0)
        weight = weight / weight.sum((-2, -1), keepdim=True)
        values = torch.where(living, values, float("inf"))
    pool, own = values.flatten(-2), values[..., :some]
    ordered, below = _cumulated(pool, weight.flatten(-2))
    unit = 1 / (worlds * each)

    def mass(query: Tensor, *, upto: bool) -> Tensor:
        found = torch.searchsorted(ordered, query.contiguous(), right=upto)
        return below.gather(-1, found)

    low, high = (mass((x + sign * reach)[..., None], upto=sign > 0)[..., 0] for sign in (-1, 1))
    came = (0.5 * (low + high) + 0.5 * unit) / (1 + unit)
    query = own.flatten(-2)
    small, large = (mass(query, upto=upto).view(own.shape) for upto in (False, True))
    if predictive.exhaustive or worlds == 1 or predictive.fresh_worlds:
        mine = weight[..., :some]
        first, last = (x - reach)[..., None, None], (x + reach)[..., None, None]
        half = 0.5 * ((first < own).to(own) + (last <= own).to(own))  # 1 where it came below, a half where it ties
        half = torch.where((first <= own) & (own <= last), 0.5, half)
        drawn = (0.5 * (small + large - mine) + unit * half + 0.5 * mine) / (1 + unit)
    else:
        # the other worlds alone: what its own contributes is taken off
        pairs = weight[..., None, :]
        inside = values[..., None, :]
        less = (pairs * (inside < own[..., None])).sum(-1)
        upto = (pairs * (inside <= own[..., None])).sum(-1)
        rest = 1 - weight.sum(-1, keepdim=True)
        drawn = (0.5 * (small + large - less - upto) + 0.5 * unit) / (rest + unit)
    if alive is not None:
        drawn = torch.where(own.isfinite(), drawn, float("nan"))
    edge = 1e-7
    scores = (torch.special.ndtri(u.clamp(edge, 1 - edge)) for u in (came, drawn.movedim((-2, -1), (0, 1))))
    one, other = scores
    return one, other


def _cumulated(values: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Return sorted rows, and the weight of what lies below each place, with one place more."""
    start = torch.zeros_like(values[..., :1])
    if bool((weight == weight.flatten()[0]).all()):
        ordered = sorted_rows(values)
        count = values.shape[-1]
        below = torch.arange(count + 1, dtype=values.dtype, device=values.device) / count
        return ordered, below.expand(*values.shape[:-1], count + 1)
    ordered, order = values.sort(-1)
    return ordered, torch.cat((start, weight.gather(-1, order).cumsum(-1)), -1)


def _plus(sums: NormalSums | None, more: NormalSums) -> NormalSums:
    return more if sums is None else NormalSums(*(a + b for a, b in zip(sums, more, strict=True)))
