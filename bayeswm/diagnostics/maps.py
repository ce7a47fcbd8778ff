"""Maps of a predictive's outcomes by horizon and variable: monotone, with world and particle identity kept."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Self, override

import torch
from torch import Tensor

from bayeswm.base.errors import NotInvertible, SpecError
from bayeswm.base.laws import Gaussian, Law, MultivariateGaussian
from bayeswm.base.predictive import Predictive
from bayeswm.diagnostics.intervals import quantiles
from bayeswm.diagnostics.ranks import ranked, values_at, weight_of_each


class OutcomeMap(ABC):
    """A monotone map of outcomes for each horizon and variable, fitted by one of the ways of recalibration.

    Attributes
    ----------
    columns : tuple of str
        The variables that it was fitted for.
    tensors : mapping of str to Tensor, each of shape (H, S) or (H, S, ...)
        What was fitted.
    on_laws : bool
        Whether it maps laws, so that one step needs no particles.
    """

    registry: dict[str, type[OutcomeMap]] = {}  # noqa: RUF012 (a ClassVar of the base, filled by its leaves)
    on_laws: bool = False

    def __init_subclass__(cls) -> None:
        OutcomeMap.registry[cls.__name__] = cls

    def __init__(self, columns: Sequence[str], tensors: Mapping[str, Tensor]) -> None:
        self.columns = tuple(columns)
        self.tensors = dict(tensors)
        shapes = {v.shape[:2] for v in self.tensors.values()}
        if len(shapes) != 1 or next(iter(shapes))[1] != len(self.columns):
            raise SpecError(f"expected maps of shape (H, {len(self.columns)}) for {self.columns}, got {shapes}")
        if not all(bool(v.isfinite().all()) for v in self.tensors.values()):
            raise SpecError("expected finite maps, got NaN or infinity")

    @property
    def horizon(self) -> int:
        """Number of steps that it was fitted for."""
        return next(iter(self.tensors.values())).shape[0]

    def __call__(self, predictive: Predictive) -> Predictive:
        """Return the predictive with its outcomes mapped.

        Raises
        ------
        SpecError
            For other variables, or more steps, than those of the fit.
        """
        if predictive.variables.columns != self.columns:
            raise SpecError(
                f"expected a predictive of ({', '.join(self.columns)}), for which the recalibration was fitted, got "
                f"({', '.join(predictive.variables.columns)}); with a hidden state pass of='measurement'"
            )
        if predictive.horizon > self.horizon:
            raise SpecError(
                f"expected at most the {self.horizon} steps that the recalibration was fitted for, got "
                f"{predictive.horizon}; recalibrate with horizon={predictive.horizon} or more"
            )
        return self._apply(predictive)

    @abstractmethod
    def _apply(self, predictive: Predictive) -> Predictive: ...

    def part(self, name: str, h: int, like: Tensor) -> Tensor:
        """Return one tensor's entry of a step in the number format of another."""
        return self.tensors[name][h].to(like)


class Stretch(OutcomeMap):
    """Stretches outcomes around their predictive mean by ``factor``, shape (H, S); the split of the variance stays.

    Examples
    --------
    >>> import bayeswm as bwm
    >>> model = bwm.KnownDynamics(structure=bwm.structures.Pendulum.gymnasium(), noise=0.01)
    >>> twice = Stretch(("angle", "velocity"), {"factor": torch.full((1, 2), 2.0)})
    >>> twice(model.predictive(torch.zeros(2), torch.zeros(1))).stddev
    tensor([[0.0200, 0.0200]], dtype=torch.float64)
    """

    on_laws = True

    @override
    def _apply(self, predictive: Predictive) -> Predictive:
        center = predictive.mean
        laws = [
            stretched(law, center[..., h, :], self.part("factor", h, center), view=predictive.view)
            for h, law in enumerate(predictive.laws)
        ]
        particles = None
        if predictive.sampled:
            factor = self.tensors["factor"][: predictive.horizon].to(center)
            particles = center + factor * (predictive.particles - center)
        return predictive.mapped(laws, particles=particles)


class TwoSided(OutcomeMap):
    """Stretches outcomes around their predictive median, by ``lower`` below and ``upper`` above, both (H, S).

    Examples
    --------
    >>> import bayeswm as bwm
    >>> model = bwm.KnownDynamics(structure=bwm.structures.Pendulum.gymnasium(), noise=0.01)
    >>> g = torch.Generator().manual_seed(0)
    >>> r = bwm.rollout(model, torch.zeros(2), torch.zeros(3, 1), particles=101, generator=g)
    >>> one, two = torch.ones(3, 2), torch.full((3, 2), 2.0)
    >>> wide = TwoSided(("angle", "velocity"), {"lower": one, "upper": two})(r)
    >>> bool((wide.particles.amin(1) == r.particles.amin(1)).all())
    True
    >>> bool((wide.particles.amax(1) > 1.5 * r.particles.amax(1)).all())
    True
    """

    @override
    def _apply(self, predictive: Predictive) -> Predictive:
        if predictive.horizon == 0:
            return as_points(predictive, has_split=False)
        center = quantiles(as_points(predictive), [0.5])[0]
        lower, upper = (self.tensors[name][: predictive.horizon].to(center) for name in ("lower", "upper"))
        distance = predictive.particles - center
        particles = predictive.particles + (torch.where(distance < 0, lower, upper) - 1) * distance
        return as_points(predictive, particles, has_split=False)


class NormalScores(OutcomeMap):
    """Moves each particle along its window's quantile curve: the normal score of its rank goes from knot to knot.

    ``knots`` and ``moved``, both (H, S, K) and rising along the last axis, give the score before and after; beyond the
    knots the line goes on with ``slope``, shape (H, S).

    Examples
    --------
    >>> import bayeswm as bwm
    >>> model = bwm.KnownDynamics(structure=bwm.structures.Pendulum.gymnasium(), noise=0.01)
    >>> g = torch.Generator().manual_seed(0)
    >>> r = bwm.rollout(model, torch.zeros(2), torch.zeros(1, 1), particles=1000, generator=g)
    >>> zero, two = torch.zeros(1, 2, 1), torch.full((1, 2), 2.0)
    >>> twice = NormalScores(("angle", "velocity"), {"knots": zero, "moved": zero, "slope": two})
    >>> (twice(r).stddev / r.stddev).round(decimals=1)
    tensor([[2., 2.]], dtype=torch.float64)
    """

    @override
    def _apply(self, predictive: Predictive) -> Predictive:
        paths, lost = predictive.particles, predictive.diverged
        count = paths.shape[0] * paths.shape[1]
        steps: list[Tensor] = []
        for h in range(predictive.horizon):
            x = paths[..., h, :]
            valid = (x.isfinite() & ~lost[..., h, None]).expand(x.shape)
            weight = weight_of_each(predictive.weight.to(x), valid)
            # rows (*batch, S) of all particles
            rows = x.flatten(0, 1).movedim(0, -1)
            among = ranked(rows, weight.flatten(0, 1).movedim(0, -1))
            place = scores_among(rows, among)
            moved = self.moved(place, h)
            found = torch.where(moved == place, rows, values_at(moved, among).to(x))
            found = torch.where(valid.flatten(0, 1).movedim(0, -1), found, rows)
            steps.append(found.movedim(-1, 0).reshape(x.shape))
        particles = torch.stack(steps, -2) if count and steps else paths
        return as_points(predictive, particles, has_split=False)

    def moved(self, scores: Tensor, h: int) -> Tensor:
        """Return where normal scores of a step go, shape (..., S, m) as they came."""
        knots, moved = self.tensors["knots"][h].to(scores), self.tensors["moved"][h].to(scores)
        slope = self.tensors["slope"][h].to(scores)[:, None]
        size, last = knots.shape[0], knots.shape[-1] - 1
        flat = scores.movedim(-2, 0).reshape(size, -1).contiguous()
        right = torch.searchsorted(knots.contiguous(), flat).clamp(min=min(1, last), max=last)
        left = (right - 1).clamp(min=0)
        z0, z1, t0, t1 = (v.gather(-1, i) for v in (knots, moved) for i in (left, right))
        rise = (t1 - t0) / torch.where(z1 > z0, z1 - z0, 1.0)
        inside = t0 + torch.where(z1 > z0, rise, 0.0) * (flat - z0)
        below, above = (moved[:, i, None] + slope * (flat - knots[:, i, None]) for i in (0, last))
        out = torch.where(flat <= knots[:, :1], below, torch.where(flat >= knots[:, -1:], above, inside))
        shape = scores.movedim(-2, 0).shape
        return out.view(shape).movedim(0, -2)


def scores_among(rows: Tensor, among: Any) -> Tensor:
    """Return the normal scores of the samples themselves, in their own order.

    Examples
    --------
    >>> rows = torch.tensor([3.0, 1.0, 2.0])
    >>> scores_among(rows, ranked(rows, torch.ones(3))).numpy().round(3)
    array([ 0.967, -0.967,  0.   ])
    """
    index = torch.searchsorted(among.values.detach().contiguous(), rows.detach().double().contiguous())
    return among.scores.gather(-1, index.clamp(max=rows.shape[-1] - 1))


def as_points(predictive: Predictive, particles: Tensor | None = None, *, has_split: bool = True) -> Predictive:
    """Return a predictive whose laws are its particles, or others in their places, and nothing else.

    Parameters
    ----------
    predictive : Predictive
        A rollout.
    particles : Tensor, shape (worlds, particles, *batch, H, S), optional
        By default its own.
    has_split : bool
        Whether the parts of the variance still mean something.

    Examples
    --------
    >>> import bayeswm as bwm
    >>> model = bwm.KnownDynamics(structure=bwm.structures.Pendulum.gymnasium(), noise=0.01)
    >>> r = bwm.rollout(model, torch.zeros(2), torch.zeros(3, 1), generator=torch.Generator().manual_seed(0))
    >>> float(as_points(r).laws[2].variance.max())
    0.0
    """
    particles = predictive.particles if particles is None else particles
    laws = [Gaussian(particles[..., h, :]) for h in range(predictive.horizon)]
    # where nothing was drawn, one particle still tells all about its world
    still = [
        clear and not bool((law.variance > 0).any())
        for clear, law in zip(predictive.resolved, predictive.laws, strict=True)
    ]
    return predictive.mapped(laws, particles=particles, resolved=still, has_split=has_split)


def stretched(law: Law, center: Tensor, factor: Tensor, *, view: Callable[[Any], Tensor] | None = None) -> Law:
    """Return the law of center + factor (X - center), where X follows a law.

    Parameters
    ----------
    law : Law
        Of mean shape (W, P, *batch, S).
    center : Tensor, shape (*batch, S)
        What stays where it is.
    factor : Tensor, shape (S,)
        Above 0.
    view : callable, optional
        Maps what the law pushes to the variables' values.

    Examples
    --------
    >>> law = stretched(Gaussian(torch.ones(1, 1, 1), torch.ones(1, 1, 1)), torch.zeros(1), torch.tensor([3.0]))
    >>> law.mean.item(), law.variance.item()
    (3.0, 9.0)
    """
    if type(law) is Gaussian:
        mean = center + factor * (law.mean - center)
        return Gaussian(mean, None if law.scale is None else law.scale * factor, noisy=law.noisy)
    if type(law) is MultivariateGaussian:
        return MultivariateGaussian(center + factor * (law.mean - center), law.scale_tril * factor[:, None])
    return _Stretched(law, center.expand(law.mean.shape), factor.expand(law.mean.shape), view=view)


class _Stretched(Law):
    """Any law, stretched around a center; both tensors have the shape of its mean."""

    def __init__(self, law: Law, center: Tensor, factor: Tensor, *, view: Callable[[Any], Tensor] | None) -> None:
        self.law, self.center, self.factor, self.view = law, center, factor, view
        self.noise_size, self.exact = law.noise_size, law.exact

    @property
    @override
    def mean(self) -> Tensor:
        return self.center + self.factor * (self.law.mean - self.center)

    @property
    @override
    def variance(self) -> Tensor:
        return self.factor.square() * self.law.variance

    @property
    @override
    def covariance(self) -> Tensor:
        return self.factor[..., :, None] * self.law.covariance * self.factor[..., None, :]

    @override
    def push(self, noise: Tensor) -> Tensor:
        pushed = self.law.push(noise)
        state = pushed if self.view is None else self.view(pushed)
        return self.center + self.factor * (state - self.center)

    @override
    def abduct(self, next_state: Tensor, *, tolerance: float | None = None) -> Tensor:
        raise NotInvertible("expected a law of the model itself, got a recalibrated one; use worlds.smooth")

    @override
    def log_prob(self, state: Tensor, *, marginal: bool = False, tolerance: float | None = None) -> Tensor:
        raise SpecError("expected a law with a density, got a recalibrated one; use cdf")

    @override
    def cdf(self, state: Tensor) -> Tensor:
        return self.law.cdf(self.center + (state - self.center) / self.factor)

    @override
    def map(self, change: Callable[[Tensor], Tensor]) -> Self:
        return type(self)(self.law.map(change), change(self.center), change(self.factor), view=self.view)
