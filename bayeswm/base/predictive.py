"""The posterior predictive: what every model of this library answers with, for one step or a whole horizon."""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor

from bayeswm.base.errors import DataError, EstimateWarning, SpecError, UndefinedWarning
from bayeswm.base.laws import Law
from bayeswm.base.mixture import Estimate, LogScore, Split, mix_log, mix_mean, solve_quantile, split_moments
from bayeswm.base.random import standard_normal, systematic, uniform
from bayeswm.base.schema import Variables

if TYPE_CHECKING:
    import xarray

_PACKAGE = f"{Path(__file__).parents[1]}{os.sep}"
# values of a density or a cdf that are in work at one time, where there are many outcomes to score
_WORK = 2**21


class Joint(Protocol):
    """The log density of an observed trajectory by step, and that of some of the first batch axis."""

    def __call__(self, x: Tensor, /) -> Tensor:
        """Map x (*batch, H, S), or with one more axis in front, to (worlds, particles, *batch, H)."""
        ...

    def part(self, index: int | slice | Tensor, /) -> Joint:
        """Return the density of some rows."""
        ...


class Predictive:
    """The law of what comes next, as a weighted mixture over worlds and particles.

    Axes are (sample, worlds, particles, *batch, horizon, variable). ``mean``, ``variance``, ``cdf``, ``quantile`` and
    the like are marginal over worlds, of shape (*batch, H, S); entry h of the horizon is x[h + 1], the start is
    ``initial``. Models and :func:`bayeswm.rollout` make these; users read them.

    Parameters
    ----------
    variables : Variables
        What the last axis holds.
    laws : sequence of Law
        For each step, the law in each world given the particle's past.
    log_weight : Tensor, shape (worlds,)
        Normalised log weights.
    exhaustive : bool
        Whether the worlds are the posterior.
    time_step : float
        Seconds between two entries of the horizon.
    particles : Tensor, shape (H, worlds, particles, *batch, S), optional
        Sampled trajectories; absent for one step that was not sampled.
    initial : Tensor, optional
        The start state, broadcastable to (worlds, particles, *batch, S).
    diverged : Tensor, shape (H, worlds, particles, *batch), optional
        Particles that left the finite numbers; every statistic leaves them out.
    resolved : sequence of bool, optional
        For each step, whether no noise came before it, so that the laws there are exact given the worlds; by default
        the first step only.
    fresh_worlds : bool
        Whether each particle met a new world at each step.
    joint : Joint, optional
        Maps an observed trajectory (*batch, H, S) to its log density by step, shape (worlds, particles, *batch, H).
    has_density : bool
        False where ``log_prob`` makes no sense.
    view : callable, optional
        Maps what a law of one step pushes (a carry) to the variables' values; by default they are the same.

    Examples
    --------
    Two members that disagree: N(0, 0.1^2) and N(2, 1). The variance is 1.505, not the mean of the two.

    >>> from bayeswm.base.laws import Gaussian
    >>> from bayeswm.base.schema import Variable
    >>> law = Gaussian(torch.tensor([0.0, 2.0]).view(2, 1, 1), torch.tensor([0.1, 1.0]).view(2, 1, 1))
    >>> p = Predictive(Variables([Variable("x")]), [law], torch.full((2,), 0.5).log(), exhaustive=True, time_step=1.0)
    >>> round(float(p.variance), 3), round(float(p.aleatoric_variance), 3), round(float(p.epistemic_variance), 3)
    (1.505, 0.505, 1.0)
    """

    def __init__(
        self,
        variables: Variables,
        laws: Sequence[Law],
        log_weight: Tensor,
        *,
        exhaustive: bool,
        time_step: float,
        particles: Tensor | None = None,
        initial: Tensor | None = None,
        diverged: Tensor | None = None,
        resolved: Sequence[bool] | None = None,
        fresh_worlds: bool = False,
        joint: Joint | None = None,
        has_density: bool = True,
        view: Callable[[Any], Tensor] | None = None,
    ) -> None:
        self.variables = variables
        self.laws = tuple(laws)
        self.log_weight = log_weight
        self.exhaustive = exhaustive
        self.time_step = time_step
        self.initial = initial
        self.fresh_worlds = fresh_worlds
        self.has_density = has_density
        self._paths = particles
        self._diverged = diverged
        self._resolved = tuple(resolved) if resolved is not None else tuple(h == 0 for h in range(len(self.laws)))
        self._joint = joint
        self._view = view
        self._moments: tuple[Split, bool] | None = None

    # --- shape ----------------------------------------------------------------------------------------------------

    @property
    def horizon(self) -> int:
        """Number of steps."""
        return len(self.laws)

    @property
    def worlds(self) -> int:
        """Number of worlds."""
        return len(self.log_weight)

    @property
    def weight(self) -> Tensor:
        """Weights of the worlds, summing to 1."""
        return self.log_weight.exp()

    @property
    def batch_shape(self) -> tuple[int, ...]:
        """Shape of the batch axes."""
        if self._paths is not None:
            return tuple(self._paths.shape[3:-1])
        return tuple(self.laws[0].mean.shape[2:-1]) if self.laws else ()

    @property
    def particles(self) -> Tensor:
        """Sampled trajectories, shape (worlds, particles, *batch, horizon, variable).

        Raises
        ------
        SpecError
            For one step that was not sampled: use :meth:`sample`.
        """
        if self._paths is None:
            raise SpecError(
                "expected a rollout, got a one-step predictive without particles; use .sample(n, generator=)"
            )
        return self._paths.movedim(0, -2)

    @property
    def diverged(self) -> Tensor:
        """Which particles left the finite numbers by each step, shape (worlds, particles, *batch, horizon)."""
        if self._diverged is None:
            shape = (self.worlds, 1, *self.batch_shape) if self._paths is None else self._paths.shape[1:-1]
            return torch.zeros(*shape, self.horizon, dtype=torch.bool, device=self.log_weight.device)
        return self._diverged.movedim(0, -1)

    def __repr__(self) -> str:
        names = ", ".join(self.variables.columns)
        return f"Predictive({self.worlds} worlds, batch {self.batch_shape}, {self.horizon} steps, ({names}))"

    def __getitem__(self, index: int | slice | Tensor) -> Predictive:
        """Return part of the first batch axis."""
        if not self.batch_shape:
            raise SpecError("expected a batch to index, got a single predictive")

        def pick(values: Tensor) -> Tensor:
            return values[:, :, index]

        initial = self.initial
        if initial is not None:
            initial = pick(initial.expand(*initial.shape[:2], *self.batch_shape, initial.shape[-1]))
        return Predictive(
            self.variables,
            [law.map(pick) for law in self.laws],
            self.log_weight,
            exhaustive=self.exhaustive,
            time_step=self.time_step,
            particles=None if self._paths is None else self._paths[:, :, :, index],
            initial=initial,
            diverged=None if self._diverged is None else self._diverged[:, :, :, index],
            resolved=self._resolved,
            fresh_worlds=self.fresh_worlds,
            joint=None if self._joint is None else self._joint.part(index),
            has_density=self.has_density,
            view=self._view,
        )

    # --- moments --------------------------------------------------------------------------------------------------

    @property
    def mean(self) -> Tensor:
        """Mean, shape (*batch, H, S)."""
        return self._checked(self._split.mean, "the mean")

    @property
    def variance(self) -> Tensor:
        """Total variance, shape (*batch, H, S): aleatoric and epistemic together."""
        total = self._split.total
        if bool(total.isnan().any()):
            _undefined("the variance", "no particle, or a single noisy one, is there to estimate it from")
        return total

    @property
    def stddev(self) -> Tensor:
        """Total standard deviation, shape (*batch, H, S)."""
        return self.variance.sqrt()

    @property
    def aleatoric_variance(self) -> Tensor:
        """Variance within worlds, shape (*batch, H, S): what would remain if the world were known."""
        part = self._split.aleatoric
        if bool(part.isnan().any()):
            _undefined("the split of the variance", self._why_no_split())
        return part

    @property
    def epistemic_variance(self) -> Tensor:
        """Variance between worlds, shape (*batch, H, S), not below 0."""
        return self._between().clamp(min=0)

    @property
    def unclamped_epistemic_variance(self) -> Tensor:
        """The unbiased estimate of the variance between worlds, which Monte Carlo error can make negative."""
        return self._between()

    def _between(self) -> Tensor:
        part = self._split.between
        if bool(part.isnan().any()):
            _undefined("the epistemic variance", self._why_no_split())
        return part

    @property
    def covariance(self) -> Tensor:
        """Total covariance between the variables at each step, shape (*batch, H, S, S)."""
        return self._stack([self._split_at(h, matrix=True).total for h in range(self.horizon)], matrix=True)

    def circular_mean(self) -> Tensor:
        """Mean with angles averaged on the circle, in [-pi, pi], shape (*batch, H, S); Gaussian kernels are assumed."""
        out = self.mean.clone()
        index = list(self.variables.angles)
        if not index:
            return out
        for h, law in enumerate(self.laws):
            shrink, angle = torch.exp(-0.5 * law.variance[..., index]), law.mean[..., index]
            sine, cosine = (self._average(shrink * f(angle), self._valid(h)) for f in (torch.sin, torch.cos))
            out[..., h, index] = torch.atan2(sine, cosine)
        return out

    @property
    def _split(self) -> Split:
        """Moments of all steps; kept, but for a gradient never those that were made without one."""
        grad = torch.is_grad_enabled()
        if self._moments is not None and (self._moments[1] or not grad):
            split, made_with_grad = self._moments
            return Split(*(v.detach() for v in split)) if made_with_grad and not grad else split
        steps = [self._split_at(h) for h in range(self.horizon)]
        split = Split(*(self._stack([s[i] for s in steps]) for i in range(4)))
        self._moments = split, grad
        return split

    def _split_at(self, h: int, *, matrix: bool = False) -> Split:
        law = self.laws[h]
        spread = law.covariance if matrix else law.variance
        weight = self.weight.to(law.mean).view(-1, *(1,) * (law.mean.ndim - 2))
        return split_moments(
            law.mean,
            spread,
            weight,
            exhaustive=self.exhaustive,
            resolved=self._resolved[h],
            valid=self._valid(h),
            merged=self.fresh_worlds and h > 0,
        )

    def _valid(self, h: int) -> Tensor | None:
        """Which particles count at a step: those that had not diverged before it (None: all)."""
        if self._diverged is None:
            return None
        finite = self.laws[h].mean.isfinite().all(-1) & self.laws[h].variance.isfinite().all(-1)
        return finite & ~self._diverged[h] if finite.shape == self._diverged[h].shape else finite

    def _average(self, values: Tensor, valid: Tensor | None) -> Tensor:
        """Return the weighted mean over worlds and valid particles of values (W, P, *batch, n); NaN where none is."""
        weight = self.weight.to(values).view(-1, *(1,) * (values.ndim - 2))
        if valid is None:
            return (weight * values.mean(1)).sum(0)
        inside = valid[..., None]
        count = inside.sum(1).to(values)
        weight = torch.where(count > 0, weight, 0.0)
        by_world = torch.where(inside, values, 0.0).sum(1) / count.clamp(min=1)
        return (weight * by_world).sum(0) / weight.sum(0)

    def _checked(self, values: Tensor, what: str) -> Tensor:
        if self._diverged is not None and bool(values.isnan().any()):
            _undefined(what, "every particle diverged there; shorten the horizon or look at .diverged")
        return values

    def _stack(self, steps: list[Tensor], *, matrix: bool = False) -> Tensor:
        if steps:
            return torch.stack(steps, -3 if matrix else -2)
        size = self.variables.size
        tail = (0, size, size) if matrix else (0, size)
        return torch.empty(*self.batch_shape, *tail, dtype=self.log_weight.dtype, device=self.log_weight.device)

    def _why_no_split(self) -> str:
        if self.worlds == 1 and not self.exhaustive:
            return "one world was drawn; draw more"
        if self.fresh_worlds:
            return "a particle that meets a fresh world each step belongs to none"
        return "it needs at least 2 particles a world after noise or under a policy; pass particles="

    # --- distribution ---------------------------------------------------------------------------------------------

    def cdf(self, x: Tensor) -> Tensor:
        """Return P(X <= x) for each variable, shape (*batch, H, S); x as for :meth:`log_prob`."""
        x = self._observed(x)
        if self.horizon == 0:
            return torch.zeros_like(x)

        def each(x: Tensor) -> list[Tensor]:
            return [self._stack([self._mix_cdf(h, x[..., h, :]) for h in range(self.horizon)])]

        return self._checked(self._by_outcome(x, each)[0], "the cdf")

    def quantile(self, probability: float | Tensor) -> Tensor:
        """Return quantiles of each variable.

        Parameters
        ----------
        probability : float or Tensor of shape (q,)
            Between 0 and 1, ends excluded.

        Returns
        -------
        Tensor, shape (*batch, H, S), with a leading axis q for a tensor of probabilities
        """
        p = torch.as_tensor(probability, dtype=torch.float64, device=self.log_weight.device)
        if bool(((p <= 0) | (p >= 1) | p.isnan()).any()):
            raise SpecError(f"expected probabilities between 0 and 1, ends excluded, got {probability}")
        p = p.view(*p.shape, *(1,) * (len(self.batch_shape) + 1))
        steps = []
        for h, law in enumerate(self.laws):
            with torch.no_grad():
                mean, valid = law.mean.double(), self._valid(h)
                spread = law.variance.double().sqrt()
                low, high = mean - 8 * spread, mean + 8 * spread
                narrow = torch.where(spread > 0, spread, float("inf"))
                if valid is not None:
                    low = torch.where(valid[..., None], low, float("inf"))
                    high = torch.where(valid[..., None], high, float("-inf"))
                    narrow = torch.where(valid[..., None], narrow, float("inf"))
                low, high, narrow = low.amin((0, 1)), high.amax((0, 1)), narrow.amin((0, 1))
                shape = torch.broadcast_shapes(low.shape, p.shape)
                # moves the cdf by less than 1e-11
                resolution = torch.where(narrow.isfinite(), 1e-11 * narrow, 0.0) + 1e-30
                low, high = low.expand(shape), high.expand(shape)
                x = solve_quantile(lambda x, h=h: self._mix_cdf(h, x), low, high, probability=p, resolution=resolution)
            steps.append(x.to(law.mean.dtype))
        if not steps:
            return self._stack(steps).expand(*p.shape[: p.ndim - len(self.batch_shape) - 1], *self.batch_shape, 0, -1)
        return self._checked(torch.stack(steps, -2), "the quantile")

    def interval(self, level: float) -> tuple[Tensor, Tensor]:
        """Return the central interval that holds ``level`` of the probability, as (lower, upper)."""
        if not 0 < level < 1:
            raise SpecError(f"expected a level between 0 and 1, got {level}; 0.9 is a 90 % interval")
        low, high = self.quantile(torch.tensor([0.5 - level / 2, 0.5 + level / 2], dtype=torch.float64))
        return low, high

    def log_prob(self, x: Tensor, *, marginal: bool = False) -> Tensor:
        """Return the log density of an observed outcome.

        Parameters
        ----------
        x : Tensor, shape (*batch, H, S) or (*more, *batch, H, S)
            What came; angles on the lift of the observed trajectory. NaN after the end of an episode counts nothing
            jointly and stays NaN if marginal. Axes before the batch are several outcomes, each scored on its own; fewer
            axes, or axes of size 1, are broadcast to the batch. Over one step the axis H may be left out where x is
            exactly of shape (*batch, S); with further axes in front it is needed.
        marginal : bool
            For each step and variable instead of jointly.

        Returns
        -------
        Tensor, shape (*more, *batch), or (*more, *batch, H, S) if marginal

        Raises
        ------
        SpecError
            If this predictive has no density.
        DataError
            If the outcome is no tensor of numbers, or does not fit the batch, the horizon and the variables.

        Warns
        -----
        EstimateWarning
            Where an estimate rests on fewer than 20 effective kernels; :meth:`log_score` gives the error.
        """
        score = self.log_score(x, marginal=marginal)
        few = score.kernels < 20
        if bool(few.any()):
            share, least = float(few.double().mean()), float(score.kernels.min())
            warn_caller(
                f"{share:.0%} of the log densities rest on fewer than 20 effective kernels (least {least:.1f}); "
                "draw more worlds or particles, or read the standard errors of .log_score(x)",
                EstimateWarning,
            )
        return score.value

    def log_score(self, x: Tensor, *, marginal: bool = False) -> LogScore:
        """Return :meth:`log_prob` with its Monte Carlo standard error and effective kernel count.

        The marginal densities of later steps mix the one-step laws of the particles (a Rao-Blackwellised estimate).
        The joint one multiplies one-step laws along the observed trajectory in each world, then averages over worlds;
        with a fresh world at each step it is the product of the averages.
        """
        if not self.has_density:
            raise SpecError("expected a predictive with a density, got one of a function or of mapped samples; use cdf")
        x = self._observed(x)
        if self.horizon == 0:
            nothing = x.new_zeros((*x.shape[:-2], 0, self.variables.size) if marginal else x.shape[:-2])
            return LogScore(nothing, torch.zeros_like(nothing), torch.full_like(nothing, float("inf")))
        if marginal:

            def each(x: Tensor) -> list[Tensor]:
                steps = [self._mix_log(h, x[..., h, :], marginal=True) for h in range(self.horizon)]
                return [self._stack([s[i] for s in steps]) for i in range(3)]

            return LogScore(*self._by_outcome(x, each))
        if self._joint is not None:
            return LogScore(*self._by_outcome(x, self._mix_joint, steps=self.horizon))
        if self.horizon == 1:
            return LogScore(*self._by_outcome(x, lambda x: self._mix_log(0, x[..., 0, :])))
        raise SpecError(
            "expected a rollout of a model whose state is measured, got one without a joint density (a hidden "
            "state); pass marginal=True, or use worlds.log_likelihood of measurements"
        )

    def _mix_joint(self, x: Tensor) -> LogScore:
        if self._joint is None:
            raise SpecError("expected a joint density, got none")
        by_step = self._joint(x)
        weight = self.log_weight.view(-1, *(1,) * (by_step.ndim - 2))
        exact = by_step.shape[1] == 1 and self._resolved[0]
        if self.fresh_worlds:
            score = mix_log(by_step, weight, exhaustive=self.exhaustive, resolved=exact)
            return LogScore(score.value.sum(-1), score.standard_error.square().sum(-1).sqrt(), score.kernels.amin(-1))
        return mix_log(by_step.sum(-1), weight[..., 0], exhaustive=self.exhaustive, resolved=exact)

    def _mix_log(self, h: int, x: Tensor, *, marginal: bool = False) -> LogScore:
        law, valid = self._facing(h, x)
        log_kernel = law.log_prob(x, marginal=marginal)
        if valid is not None and marginal:
            valid = valid[..., None]
        weight = self.log_weight.view(-1, *(1,) * (log_kernel.ndim - 2))
        return mix_log(log_kernel, weight, exhaustive=self.exhaustive, resolved=self._resolved[h], valid=valid)

    def _mix_cdf(self, h: int, x: Tensor) -> Tensor:
        if x.ndim > self.laws[h].mean.ndim - 2 and self.laws[h].mean.numel() * len(x) > _WORK:
            return torch.stack([self._mix_cdf(h, part) for part in x])
        law, valid = self._facing(h, x)
        return self._average(law.cdf(x), valid)

    def _facing(self, h: int, x: Tensor) -> tuple[Law, Tensor | None]:
        """Return the law of a step and which particles count, with the further leading axes of x after the particles.

        Aligned from the right alone, those axes of x would meet worlds and particles.
        """
        law, valid = self.laws[h], self._valid(h)
        more = x.ndim - law.mean.ndim + 2
        if more <= 0:
            return law, valid

        def widen(values: Tensor) -> Tensor:
            return values[(slice(None), slice(None), *(None,) * more)]

        return law.map(widen), None if valid is None else widen(valid)

    def _by_outcome(self, x: Tensor, answer: Callable[[Tensor], Sequence[Tensor]], *, steps: int = 1) -> list[Tensor]:
        """Answer for outcomes (*more, *batch, H, S), a bounded number of them at a time."""
        more = x.shape[: x.ndim - len(self.batch_shape) - 2]
        if not more:
            return list(answer(x))
        particles = 1 if self._paths is None else self._paths.shape[2]
        particles = max(particles, *(law.mean.shape[1] for law in self.laws))
        one = self.worlds * particles * torch.Size(self.batch_shape).numel() * steps * self.variables.size
        parts = [answer(part) for part in x.flatten(0, len(more) - 1).split(max(_WORK // max(one, 1), 1))]
        return [torch.cat(values).unflatten(0, more) for values in zip(*parts, strict=True)]

    def _observed(self, x: Tensor) -> Tensor:
        """Return outcomes in the laws' number format and place, shape (*more, *batch, H, S)."""
        like, batch, size = self.laws[0].mean if self.laws else self.log_weight, self.batch_shape, self.variables.size
        try:
            values = torch.as_tensor(x).to(like.device, like.dtype)
        except (TypeError, ValueError, RuntimeError):
            raise DataError(
                f"expected values of shape (*batch, {self.horizon}, {size}), got {type(x).__name__}; pass a tensor"
            ) from None
        given = tuple(values.shape)
        if self.horizon == 1 and given == (*batch, size):
            values = values[..., None, :]
        lead = tuple(values.shape[:-2])
        fits = all(n in (1, full) for n, full in zip(lead[::-1], batch[::-1], strict=False))
        if values.ndim < 2 or values.shape[-2:] != (self.horizon, size) or not fits:
            more = "; the axis of the horizon may be left out for one outcome only" if self.horizon == 1 else ""
            raise DataError(
                f"expected values of shape (*batch, {self.horizon}, {size}) with batch {batch}, or with further axes "
                f"in front of the batch, got {given}{more}"
            )
        return values.expand(*lead[: max(len(lead) - len(batch), 0)], *batch, *values.shape[-2:])

    # --- samples --------------------------------------------------------------------------------------------------

    def sample(self, n: int, *, generator: torch.Generator) -> Tensor:
        """Draw n outcomes, shape (n, *batch, H, S), without gradients: see :meth:`rsample`."""
        with torch.no_grad():
            return self.rsample(n, generator=generator)

    def rsample(self, n: int, *, generator: torch.Generator) -> Tensor:
        """Draw n outcomes, differentiable in the start, the actions and the parameters.

        One step is pushed forward from new noise. A horizon draws from its particles, whole trajectories at a time, so
        that more draws than particles repeat some.

        Returns
        -------
        Tensor, shape (n, *batch, H, S)
        """
        if checked_generator(generator) is None:
            raise SpecError("expected generator=torch.Generator to draw samples, got none")
        if self.horizon == 0:
            like = self.log_weight if self._paths is None else self._paths
            return torch.empty(n, *self.batch_shape, 0, self.variables.size, dtype=like.dtype, device=like.device)
        if self._paths is None:
            law = self.laws[0]
            worlds, count = law.mean.shape[:2]
            each = (self.log_weight[:, None] - math.log(count)).expand(worlds, count)
            index = systematic(each.flatten(), n, generator)
            world, particle = index // count, index % count
            one = law.map(lambda v: v[world % v.shape[0], particle % v.shape[1]][None])
            noise = standard_normal(
                (1, n, *self.batch_shape, law.noise_size), generator, dtype=law.mean.dtype, device=law.mean.device
            )
            pushed = one.push(noise)
            return (pushed if self._view is None else self._view(pushed))[0][..., None, :]
        paths = self._paths.movedim(0, -2)
        worlds, count = paths.shape[:2]
        flat = paths.flatten(0, 1)
        log_weight = (self.log_weight - math.log(count))[:, None].expand(worlds, count).flatten()
        if self._diverged is None:
            return flat[systematic(log_weight, n, generator)]
        alive = ~self._diverged[-1].flatten(0, 1)
        weight = log_weight.exp().view(-1, *(1,) * (alive.ndim - 1)) * alive
        edges = (weight / weight.sum(0)).cumsum(0).movedim(0, -1).contiguous()
        draw = uniform((*alive.shape[1:], n), generator, dtype=edges.dtype, device=edges.device)
        index = torch.searchsorted(edges, draw, right=True).clamp(max=len(flat) - 1).movedim(-1, 0)
        out = flat.gather(0, index[..., None, None].expand(n, *flat.shape[1:]))
        # a row without a living particle has no outcome to give
        return self._checked(torch.where(alive.any(0)[..., None, None], out, float("nan")), "a sample")

    def expectation(self, fn: Callable[[Tensor], Tensor]) -> Estimate:
        """Return the expectation of a function of whole trajectories, with its Monte Carlo standard error.

        Parameters
        ----------
        fn : callable
            Maps trajectories (worlds, particles, *batch, H, S) to values (worlds, particles, ...): it reduces the axes
            behind the particles only.

        Returns
        -------
        Estimate
            ``value`` and ``standard_error``; worlds are the clusters of the error where they are drawn.

        Raises
        ------
        SpecError
            If the values lack the axes of worlds and particles.
        DataError
            If particles diverged.
        """
        if self._diverged is not None and bool(self._diverged.any()):
            share = float(self._diverged[-1].double().mean())
            raise DataError(f"expected finite particles, {share:.1%} diverged; shorten the horizon or treat .diverged")
        paths = self.particles
        values = torch.as_tensor(fn(paths)).to(self.log_weight)
        if values.shape[:2] != paths.shape[:2]:
            raise SpecError(
                f"expected a function of trajectories with values of shape ({paths.shape[0]}, {paths.shape[1]}, ...) "
                f"(worlds, particles, ...), got {tuple(values.shape)}; reduce the axes behind them only, as in "
                "paths[..., -1, 0]"
            )
        return mix_mean(values, self.weight, exhaustive=self.exhaustive)

    def probability(self, event: Callable[[Tensor], Tensor]) -> Estimate:
        """Return the probability of an event over whole trajectories: :meth:`expectation` of a boolean function."""
        return self.expectation(lambda paths: torch.as_tensor(event(paths)).to(self.log_weight.dtype))

    # --- labelled -------------------------------------------------------------------------------------------------

    def to_xarray(self) -> xarray.Dataset:
        """Return mean, parts of the variance and quantiles as a labelled data set."""
        from bayeswm.base.labelled_predictive import predictive_to_xarray

        return predictive_to_xarray(self)

    def to_datatree(self, *, generator: torch.Generator | None = None) -> xarray.DataTree:
        """Return the particles as an ArviZ tree: group posterior_predictive, chain = 1, draw = world.

        Weighted worlds are resampled, for which a generator is needed.
        """
        from bayeswm.base.labelled_predictive import predictive_to_datatree

        return predictive_to_datatree(self, generator=generator)


def checked_generator(generator: object) -> Any:
    """Return a generator, or None, as it is.

    Raises
    ------
    SpecError
        For anything else, such as a seed.
    """
    if generator is not None and not isinstance(generator, torch.Generator):
        raise SpecError(
            f"expected generator=torch.Generator, got {generator!r}; make one with torch.Generator().manual_seed(0)"
        )
    return generator


def warn_caller(message: str, category: type[Warning]) -> None:
    """Warn at the line of the caller's code that led here, however deep in the library this is."""
    warnings.warn(message, category, skip_file_prefixes=(_PACKAGE,))


def _undefined(what: str, why: str) -> None:
    warn_caller(f"{what} is undefined and is NaN: {why}", UndefinedWarning)
