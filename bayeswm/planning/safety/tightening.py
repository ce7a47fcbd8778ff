"""Chance constraints on half-spaces by the tails of Gaussians: the mean keeps its distance in standard deviations."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, override

import torch
from torch import Tensor

from bayeswm.base.errors import SpecError
from bayeswm.base.laws import Law
from bayeswm.base.mixture import split_moments
from bayeswm.base.predictive import Predictive
from bayeswm.base.trajectories import Trajectories
from bayeswm.base.worlds import Worlds
from bayeswm.planning.safety.chance import Assessment, ChanceConstraint
from bayeswm.planning.safety.constraints import Imagined
from bayeswm.planning.safety.safe_sets import HalfSpaces, half_spaces

if TYPE_CHECKING:
    from bayeswm.base.worlds import Belief

Forecaster = Callable[..., Predictive]


@dataclass(frozen=True)
class GaussianTightening(Assessment):
    """Takes the margin to each half-space for Gaussian and adds up the probabilities of its being below 0.

    With one half-space at each step this is ``mean + z sd <= offset`` with the normal quantile z of 1 - probability.
    Several half-spaces, and the steps of a constraint on whole trajectories, share the probability (Boole's
    inequality). The shares are not fixed: each takes what it needs, as long as the sum is small enough, so that steps
    far from the edge cost nothing. It is exact for linear systems with Gaussian noise and one half-space at each step,
    an upper bound for several, and an approximation elsewhere.

    The excess is what the sum is too large by, and by how many standard deviations each mean is nearer to the edge than
    it may be even if it had all of the probability to itself.

    Parameters
    ----------
    forecast : callable, optional
        ``forecast(worlds, belief, actions, context=context)`` returns a :class:`Predictive` with a mean and a
        covariance of each step, such as ``bayeswm.propagate`` does, for moments without the error of a sample. The
        moments of the planner's particles by default, for which there must be two or more where there is noise.

    References
    ----------
    Blackmore and Ono (2009), Convex chance constrained predictive control without sampling.

    Examples
    --------
    >>> import bayeswm as bwm
    >>> schema = bwm.structures.Pendulum.swing_up().schema
    >>> safe = bwm.planning.HalfSpaces.between(schema, {"velocity": (None, 6.0)})
    >>> slow = ChanceConstraint(safe, probability=0.05, by=GaussianTightening())
    >>> slow.by.forecast is None
    True
    """

    forecast: Forecaster | None = None

    @override
    def check(self, chance: ChanceConstraint) -> None:
        half_spaces(chance.inside)

    @override
    def excess(self, chance: ChanceConstraint, imagined: Imagined) -> Tensor:
        safe = half_spaces(chance.inside)
        if self.forecast is None:
            mean, variance = margin_moments(safe, imagined)
        else:
            mean, variance = _forecast_moments(safe, imagined, self.forecast)
        return gaussian_excess(mean, variance, probability=chance.probability, jointly=chance.jointly)


def gaussian_excess(mean: Tensor, variance: Tensor, *, probability: float, jointly: bool) -> Tensor:
    """Return the excess of Gaussian margins over what the tails below 0 may add up to.

    Parameters
    ----------
    mean, variance : Tensor, shape (*batch, H, n)
        Of the margin to n half-spaces; a mean that is not finite breaks any promise.
    probability : float
        At each step, or of all steps if ``jointly``.
    jointly : bool
        Whether the steps share the probability.

    Returns
    -------
    Tensor, shape (*batch), infinite where a mean is not finite

    Examples
    --------
    >>> one = torch.ones(1, 1, dtype=torch.float64)
    >>> near, far = (gaussian_excess(m * one, one, probability=0.05, jointly=False) for m in (1.6448, 1.6449))
    >>> bool(near > 0), bool(far > 0)
    (True, False)
    """
    tiny = torch.finfo(mean.dtype).eps
    sd = variance.clamp(min=0.0).sqrt()
    known = mean.isfinite() & sd.isfinite()
    away = torch.where(known, mean, 0.0) / torch.where(known, sd, 1.0).clamp(min=tiny)
    tails = torch.special.ndtr(-away)
    needed = -float(torch.special.ndtri(torch.tensor(probability, dtype=torch.float64)))
    total = tails.sum((-2, -1)) if jointly else tails.sum(-1)
    # rounding at the edge itself is no excess
    over = (total - probability * (1 + 1e-9)).clamp(min=0.0)
    near = (needed * (1 - 1e-9) - away).clamp(min=0.0).sum((-2, -1))
    excess = (over if jointly else over.sum(-1)) + near
    return torch.where(known.all(-1).all(-1), excess, float("inf"))


def margin_moments(safe: HalfSpaces, imagined: Imagined) -> tuple[Tensor, Tensor]:
    """Return mean and variance of the margins over particles and worlds, each of shape (*batch, H, n).

    Not finite where a particle diverged.
    """
    margins = safe.margins(imagined.reached)
    weight = imagined.log_weight.exp().to(margins).view(-1, *(1,) * (margins.ndim - 2))
    single = margins.shape[0] * margins.shape[1] == 1
    mean, _, _, total = split_moments(
        margins,
        torch.zeros_like(margins),
        weight,
        exhaustive=imagined.worlds.exhaustive,
        resolved=single,
        merged=imagined.fresh_worlds,
    )
    return mean, total


def _forecast_moments(safe: HalfSpaces, imagined: Imagined, forecast: Forecaster) -> tuple[Tensor, Tensor]:
    actions, belief, worlds = imagined.actions, imagined.belief, imagined.worlds
    batch = actions.shape[:-2]
    context = imagined.context.expand(*batch, *imagined.context.shape[-2:])
    found = forecast(worlds, _spread(belief, batch, worlds), actions, context=context)
    normal = safe.normal.to(found.mean)
    mean = safe.margins(found.mean)
    variance = torch.einsum("...ij,ni,nj->...n", found.covariance, normal, normal)
    shape = (*batch, actions.shape[-2], len(normal))
    if mean.shape != shape:
        raise SpecError(f"expected a forecast over the batch and steps {shape[:-1]}, got {tuple(mean.shape[:-1])}")
    return mean, variance


def _spread(belief: Belief, batch: tuple[int, ...], worlds: Worlds) -> Belief:
    """Return a belief with the axis of candidates in front of its starts."""
    if isinstance(belief, Trajectories):
        raise SpecError("expected a state or a law for forecast=, got a history; leave forecast= out")
    if isinstance(belief, Law):
        lead = 2

        def wider(v: Tensor) -> Tensor:
            v = v.unsqueeze(lead)
            return v.expand(*v.shape[:lead], batch[0], *v.shape[lead + 1 :])

        return belief.map(wider)
    return torch.as_tensor(belief).to(worlds.device, worlds.dtype).expand(*batch, -1)
