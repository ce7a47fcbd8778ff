"""Recalibration: a fitted model made as wide, at each horizon, as recorded trajectories show that it must be."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import override

import torch
from torch import Tensor

from bayeswm.base.errors import DataError, SpecError
from bayeswm.base.model import DynamicsModel
from bayeswm.base.trajectories import Trajectories
from bayeswm.diagnostics.forecast import Forecast, Forecasts, Windows, forecast, gather
from bayeswm.diagnostics.intervals import quantiles
from bayeswm.diagnostics.levels import check_level
from bayeswm.diagnostics.maps import NormalScores, OutcomeMap, Stretch
from bayeswm.diagnostics.pointwise import observed
from bayeswm.diagnostics.ranks import ranked, scores_of, weight_of_each
from bayeswm.diagnostics.recalibrated import RecalibratedModel

# outcomes of a horizon and variable below which a map would be a guess
LEAST = 10
_KNOTS = 65
_LEAST_FACTOR = 1e-6


class Recalibration(ABC):
    """A way of recalibration: its settings, and how a map of outcomes is fitted to forecasts and what came."""

    @abstractmethod
    def fit(self, forecasts: Forecasts) -> OutcomeMap:
        """Fit the map.

        Parameters
        ----------
        forecasts : Forecast or iterable of Forecast
            Of trajectories that the model was not fitted to, as :func:`forecast` makes them.

        Returns
        -------
        OutcomeMap

        Raises
        ------
        DataError
            If there are too few outcomes, or no map can reach them since the prediction has no spread.
        """


def recalibrate(
    model: DynamicsModel,
    trajectories: Trajectories,
    *,
    horizon: int,
    method: Recalibration,
    stride: int | None = None,
    worlds: int = 64,
    particles: int | None = None,
    seed: int = 0,
    history: int | None = None,
) -> RecalibratedModel:
    """Return a model whose forecasts are calibrated on trajectories.

    The particles of its rollouts are mapped, for each horizon and variable, with their worlds and ranks kept. So events
    over trajectories, chance constraints, tubes and planners see the change. Recalibrated models can be recalibrated
    again, on other trajectories: first :class:`Scale`, then :class:`SplitConformal`, gives a tube with a guarantee and
    a shape of its own.

    Parameters
    ----------
    model : DynamicsModel
        A fitted model.
    trajectories : Trajectories
        Recordings that it was not fitted to, of the kind that it will meet: the same policy, the same starts.
    horizon : int
        Steps of the forecasts; the result answers for no more.
    method : Scale, Isotonic, SplitConformal or ConformalisedQuantile
        What is fitted.
    stride : int, optional
        Steps between the starts of two windows; ``horizon`` by default, so that none overlap.
    worlds : int
        As in :func:`bayeswm.rollout`. A forecast of few draws is rough, which the fit makes up for: later rollouts
        should have about as many.
    particles : int, optional
        In each world; by default as in :func:`forecast`.
    seed : int
        Of the forecasts.
    history : int, optional
        With a hidden state: steps before each window whose measurements the model filters. The map is then one of
        measurements.

    Returns
    -------
    RecalibratedModel
        It can be saved, and read by :func:`bayeswm.load`.

    Raises
    ------
    SpecError, DataError
        If data and model do not fit, or there is too little to fit.

    Examples
    --------
    A model that expects half of the noise:

    >>> import bayeswm as bwm
    >>> truth = bwm.KnownDynamics(structure=bwm.structures.Pendulum.gymnasium(), noise=0.02)
    >>> model = bwm.KnownDynamics(structure=truth.structure, noise=0.01)
    >>> starts, g = torch.zeros(300, 2, dtype=torch.float64), torch.Generator().manual_seed(0)
    >>> paths = bwm.rollout(truth, starts, torch.zeros(3, 1), particles=1, generator=g).particles[0, 0]
    >>> states = torch.cat((starts[:, None], paths), 1)
    >>> data = bwm.Trajectories(truth.schema, state=states, action=torch.zeros(300, 3, 1))
    >>> wide = recalibrate(model, data, horizon=3, method=Scale())
    >>> (wide.outcome_map.tensors["factor"] - 2).abs().amax().item() < 0.2
    True
    """
    if not isinstance(method, Recalibration):
        raise SpecError(f"expected method=Scale() or another way of recalibration, got {method!r}")
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
    return RecalibratedModel(model, method.fit(parts))


@dataclass(frozen=True)
class Scale(Recalibration):
    """Stretches outcomes around their mean, by one factor (a temperature) for each horizon and variable.

    Means, and the shares of the epistemic and aleatoric variance, stay as they are.

    Parameters
    ----------
    level : float, optional
        The factor is the smallest that lets the central interval of this level hold that share of the outcomes: a
        quantile, which no outlier moves far. None takes the root mean square of (y - mean) / sd instead (spread-skill),
        which uses every outcome and is best where errors are Gaussian.

    Examples
    --------
    >>> import bayeswm as bwm
    >>> from bayeswm.diagnostics import forecast_of
    >>> model = bwm.KnownDynamics(structure=bwm.structures.Pendulum.gymnasium(), noise=0.01)
    >>> p = model.predictive(torch.zeros(100, 2), torch.zeros(1))
    >>> came = p.mean + 0.03 * torch.tensor([1.0, -1.0]).repeat(50)[:, None, None]
    >>> Scale(level=None).fit(forecast_of(p, came)).tensors["factor"]
    tensor([[3.0000, 3.0000]], dtype=torch.float64)
    """

    level: float | None = 0.9

    def __post_init__(self) -> None:
        if self.level is not None:
            check_level(self.level)

    @override
    def fit(self, forecasts: Forecasts) -> Stretch:
        found = gather(forecasts, self.needed)
        needed = found.values["needed"].double()
        count = (~needed.isnan()).sum(0)
        check_enough(count, found)
        if self.level is None:
            factor = needed.square().nanmean(0).sqrt()
        else:
            factor = torch.nanquantile(needed, self.level, dim=0, interpolation="higher")
        check_reached(factor, found)
        return Stretch(found.variables.columns, {"factor": factor.clamp(min=_LEAST_FACTOR)})

    def needed(self, part: Forecast) -> dict[str, Tensor]:
        """Return for each window by which factor its prediction would just reach what came, shape (windows, H, S)."""
        predictive = part.predictive
        x, there = observed(predictive, part.outcomes)
        center = predictive.mean
        if self.level is None:
            reach = predictive.stddev
        else:
            low, high = quantiles(predictive, [0.5 - self.level / 2, 0.5 + self.level / 2])
            reach = torch.where(x < center, center - low, high - center)
        return {"needed": torch.where(there, needed_factor(x - center, reach, size=x), float("nan"))}


@dataclass(frozen=True)
class Isotonic(Recalibration):
    r"""Replaces predicted probabilities by observed frequencies, monotonically, for each horizon and variable.

    With R(p) the share of outcomes below the predicted p-quantile, the recalibrated cdf is R(F(x)); a particle at
    F(x) = p moves to the quantile R^-1(p) of its own window. It repairs bias and skew where :class:`Scale` cannot. The
    split of the variance is lost.

    R is smoothed: the posterior mean under a Dirichlet process around a normal law of the outcomes' normal scores
    z = Phi^-1(F(y)), whose mean and deviation are theirs. Beyond the outermost outcomes the map is that normal law's.

    Parameters
    ----------
    smoothing : float
        How many outcomes the normal law is worth; 0 is the plain empirical map.

    References
    ----------
    Kuleshov, Fenner and Ermon (2018), Accurate uncertainties for deep learning using calibrated regression; Ferguson
    (1973), A Bayesian analysis of some nonparametric problems.

    Examples
    --------
    >>> import bayeswm as bwm
    >>> from bayeswm.diagnostics import forecast_of
    >>> model = bwm.KnownDynamics(structure=bwm.structures.Pendulum.gymnasium(), noise=0.01)
    >>> g = torch.Generator().manual_seed(0)
    >>> r = bwm.rollout(model, torch.zeros(400, 2), torch.zeros(1, 1), particles=200, generator=g)
    >>> fitted = Isotonic().fit(forecast_of(r, r.particles[0, 0] + 0.02))  # all outcomes come two deviations too high
    >>> fitted.moved(torch.zeros(2, 1, dtype=torch.float64), 0).round().flatten().tolist()
    [2.0, 2.0]
    """

    smoothing: float = 20.0

    def __post_init__(self) -> None:
        if not (self.smoothing >= 0 and math.isfinite(self.smoothing)):
            raise SpecError(f"expected smoothing >= 0, got {self.smoothing}")

    @override
    def fit(self, forecasts: Forecasts) -> NormalScores:
        found = gather(forecasts, self.scores)
        scores = found.values["score"].double()
        count = (~scores.isnan()).sum(0)
        check_enough(count, found)
        check_reached(torch.where(scores.isnan(), 0.0, scores.abs()).amax(0), found)
        size = min(_KNOTS, int(count.min()))
        curves = [[self._curve(column[~column.isnan()], size) for column in at.T] for at in scores.movedim(1, 0)]
        tensors = {
            name: torch.stack([torch.stack([curve[i] for curve in at]) for at in curves])
            for i, name in enumerate(("knots", "moved", "slope"))
        }
        return NormalScores(found.variables.columns, tensors)

    def _curve(self, scores: Tensor, size: int) -> tuple[Tensor, Tensor, Tensor]:
        """Return knots of the map of normal scores, where they go, and the slope beyond, for one column."""
        n = len(scores)
        ordered = scores.sort().values
        center, spread = ordered.mean(), ordered.std().clamp(min=1e-3)
        rank = torch.arange(n, dtype=ordered.dtype, device=ordered.device) + 0.5
        normal = torch.special.ndtr((ordered - center) / spread)
        share = (self.smoothing * normal + rank) / (self.smoothing + n)
        chosen = torch.linspace(0, n - 1, size, dtype=torch.float64).round().long()
        return torch.special.ndtri(share[chosen]), ordered[chosen], spread

    def scores(self, part: Forecast) -> dict[str, Tensor]:
        """Return the normal score of what came among the particles of each window, shape (windows, H, S)."""
        predictive = part.predictive
        x, there = observed(predictive, part.outcomes)
        paths = predictive.particles
        found: list[Tensor] = []
        for h in range(predictive.horizon):
            at = paths[..., h, :]
            valid = (at.isfinite() & ~predictive.diverged[..., h, None]).expand(at.shape)
            weight = weight_of_each(predictive.weight.to(at), valid)
            rows, share = (v.flatten(0, 1).movedim(0, -1) for v in (at, weight))
            found.append(scores_of(x[..., h, :, None], ranked(rows, share))[..., 0])
        return {"score": torch.where(there, torch.stack(found, -2), float("nan"))}


def needed_factor(distance: Tensor, reach: Tensor, *, size: Tensor) -> Tensor:
    """Return how often the reach goes into a distance; 0 / 0 within rounding of the size is 0, else x / 0 is infinite.

    Examples
    --------
    >>> needed_factor(torch.tensor([-3.0, 0.0, 1.0]), torch.tensor([2.0, 0.0, 0.0]), size=torch.ones(3))
    tensor([1.5000, 0.0000,    inf])
    """
    rounding = 1e-9 if distance.dtype == torch.float64 else 1e-5
    silent = reach <= rounding * 1e-3 * size.abs().clamp(min=1.0)
    met = distance.abs() <= rounding * size.abs().clamp(min=1.0)
    out = distance.abs() / torch.where(silent, 1.0, reach)
    return torch.where(silent, torch.where(met, 0.0, float("inf")), out)


def check_enough(count: Tensor, found: Windows) -> None:
    """Refuse to fit where a horizon and variable has too few outcomes; ``count`` has shape (H, S).

    Raises
    ------
    DataError

    Examples
    --------
    >>> import bayeswm as bwm
    >>> found = Windows({}, torch.zeros(0), None, bwm.Variables([bwm.Variable("x")]), horizon=1, time_step=1.0)
    >>> check_enough(torch.tensor([[30]]), found)
    """
    if bool((count < LEAST).any()):
        h, s = (count < LEAST).nonzero()[0].tolist()
        raise DataError(
            f"expected {LEAST} outcomes or more for each horizon and variable, got {int(count[h, s])} of "
            f"{found.variables.columns[s]!r}, {h + 1} step(s) ahead; record more, or pass a smaller stride="
        )


def check_reached(factor: Tensor, found: Windows) -> None:
    """Refuse a map that would have to be infinite; ``factor`` has shape (H, S).

    Raises
    ------
    DataError

    Examples
    --------
    >>> import bayeswm as bwm
    >>> found = Windows({}, torch.zeros(0), None, bwm.Variables([bwm.Variable("x")]), horizon=1, time_step=1.0)
    >>> check_reached(torch.tensor([[2.0]]), found)
    """
    if bool(factor.isinf().any()):
        h, s = factor.isinf().nonzero()[0].tolist()
        raise DataError(
            f"expected predictions with some spread, got none where {found.variables.columns[s]!r} came out "
            f"differently, {h + 1} step(s) ahead: no map of the outcomes reaches that; give the model process noise"
        )
