"""Adaptive conformal inference: a level that is kept online, whatever comes."""

from __future__ import annotations

import torch
from torch import Tensor

from bayeswm.base.errors import DataError, SpecError
from bayeswm.base.model import DynamicsModel
from bayeswm.base.predictive import Predictive
from bayeswm.diagnostics.levels import check_level
from bayeswm.diagnostics.maps import NormalScores
from bayeswm.diagnostics.pointwise import pit
from bayeswm.diagnostics.recalibrated import RecalibratedModel

# the highest level that a recalibrated model is given; the interval of level 1 would be infinite
_HIGHEST = 0.9999


class AdaptiveConformal:
    r"""Levels of central intervals for each horizon and variable, moved after every outcome so that coverage is kept.

    After a miss the level rises, after a hit it falls: with a the miss rate asked for,

    .. math:: a_{t+1} = a_t + \gamma (a - \text{miss}_t), \qquad \text{level}_t = 1 - a_t.

    A level of 1 or more always holds what comes, a level below 0 never does. Then, for any sequence whatever, after T
    outcomes

    .. math:: \Bigl|\frac1T \sum_t \text{miss}_t - a\Bigr| \le \frac{\max(a, 1 - a) + d \gamma}{T \gamma},

    where d is the delay in steps with which outcomes arrive: 1, or h for overlapping forecasts h steps ahead (pass the
    level that the forecast was issued with, as ``issued``).

    Parameters
    ----------
    level : float
        Coverage to keep.
    rate : float
        The step gamma: larger follows changes faster, and scatters more.
    shape : tuple of int
        Of the levels: (H, S) for a model's forecasts.

    References
    ----------
    Gibbs and Candes (2021), Adaptive conformal inference under distribution shift, proposition 4.1.

    Examples
    --------
    >>> adaptive = AdaptiveConformal(level=0.9, rate=0.05)
    >>> round(adaptive.update(torch.tensor(0.97)).item(), 3)  # only an interval of level 0.97 would have held it
    0.945
    """

    def __init__(self, *, level: float = 0.9, rate: float = 0.01, shape: tuple[int, ...] = ()) -> None:
        check_level(level)
        if not 0 < rate < float("inf"):
            raise SpecError(f"expected rate > 0, got {rate}")
        self.target, self.rate = level, rate
        self._alpha = torch.full(shape, 1 - level, dtype=torch.float64)
        self.count = torch.zeros(shape, dtype=torch.int64)
        self._misses = torch.zeros(shape, dtype=torch.float64)

    @property
    def level(self) -> Tensor:
        """Levels to use next; 1 or more asks for everything, below 0 for nothing."""
        return 1 - self._alpha

    @property
    def coverage(self) -> Tensor:
        """Share of the outcomes so far that was held; NaN before the first."""
        return 1 - self._misses / self.count

    def bound(self, *, delay: int = 1) -> Tensor:
        """Return how far the share of misses can be from the one asked for, after the outcomes so far."""
        most = max(self.target, 1 - self.target)
        return (most + delay * self.rate) / (self.count.double() * self.rate)

    def update(self, needed: Tensor, *, issued: Tensor | None = None) -> Tensor:
        """Take in an outcome, and return the levels to use next.

        Parameters
        ----------
        needed : Tensor, of the shape of the levels
            The smallest level whose interval holds the outcome, as :func:`needed_level` gives it; NaN for an outcome
            that is missing, which changes nothing.
        issued : Tensor, of the same shape, optional
            The levels that the forecast was issued with; those of now by default.

        Raises
        ------
        DataError
            If shapes do not fit, or a value is not between 0 and 1.
        """
        issued = self.level if issued is None else issued
        if needed.shape != self._alpha.shape or issued.shape != self._alpha.shape:
            raise DataError(f"expected values of shape {tuple(self._alpha.shape)}, got {tuple(needed.shape)}")
        there = ~needed.isnan()
        if bool((((needed < 0) | (needed > 1)) & there).any()):
            raise DataError("expected levels between 0 and 1, or NaN where the outcome is missing")
        missed = (needed > issued).to(self._alpha)
        self._alpha = torch.where(there, self._alpha + self.rate * (1 - self.target - missed), self._alpha)
        self._misses = self._misses + torch.where(there, missed, 0.0)
        self.count = self.count + there
        return self.level

    def recalibrated(self, model: DynamicsModel) -> RecalibratedModel:
        """Return a model whose central intervals of the level to keep are those of the levels to use next.

        Particles move along their windows' quantile curves: normal scores are multiplied by a factor for each horizon
        and variable. Levels are held below 0.9999, where the guarantee's interval would be infinite, and above 0.01.

        Raises
        ------
        SpecError
            If the levels are not of shape (H, S).
        """
        if self._alpha.ndim != 2 or self._alpha.shape[1] != model.schema.measured.size:
            raise SpecError(
                f"expected levels of shape (H, {model.schema.measured.size}), got {tuple(self._alpha.shape)}; pass "
                "shape=(H, S)"
            )
        used = self.level.clamp(0.01, _HIGHEST)
        factor = torch.special.ndtri(0.5 + used / 2) / torch.special.ndtri(torch.tensor(0.5 + self.target / 2).double())
        nothing = torch.zeros_like(factor)[..., None]
        tensors = {"knots": nothing, "moved": nothing, "slope": factor}
        return RecalibratedModel(model, NormalScores(model.schema.measured.columns, tensors))


def needed_level(predictive: Predictive, outcomes: Tensor) -> Tensor:
    """Return the smallest level whose central interval holds each outcome, shape (*batch, H, S); NaN for missing ones.

    Examples
    --------
    >>> import bayeswm as bwm
    >>> model = bwm.KnownDynamics(structure=bwm.structures.Pendulum.gymnasium(), noise=1.0)
    >>> p = model.predictive(torch.zeros(2), torch.zeros(1))
    >>> needed_level(p, torch.tensor([[1.6449, 0.0]])).numpy().round(3)
    array([[0.9, 0. ]])
    """
    return (2 * (pit(predictive, outcomes) - 0.5).abs()).clamp(0, 1)
