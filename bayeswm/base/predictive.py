"""The posterior predictive: what every model of this library answers with, for one step or a whole horizon."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from bayeswm.base.density import Joint, by_outcome, joint_log_score, marginal_log_score, observed, step_log_score
from bayeswm.base.errors import DataError, EstimateWarning, SpecError, UndefinedWarning
from bayeswm.base.laws import Law
from bayeswm.base.mixture import Estimate, LogScore, Split, Step, circular_mean, mix_mean, step_moments, valid_particles
from bayeswm.base.path_moments import path_mean, path_moments
from bayeswm.base.quantiles import step_cdf, step_quantile
from bayeswm.base.sampling import draw_paths, draw_step
from bayeswm.base.schema import Variables

if TYPE_CHECKING:
    import xarray

    from bayeswm.base.labelled_predictive import Layout

_PACKAGE = f"{Path(__file__).parents[1]}{os.sep}"
# values of a density or a cdf that are in work at one time, where there are many outcomes to score
_WORK = 2**21


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
    has_split : bool
        False where the parts of the variance mean nothing any more; they are NaN then, the total is not.
    view : callable, optional
        Maps what a law of one step pushes (a carry) to the variables' values; by default they are the same.
    aleatoric : Tensor, shape (*batch, H, S), optional
        Of one law that stands for all worlds together: the part of its variance that would be left if the world were
        known. By default the variance within worlds.

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
        has_split: bool = True,
        view: Callable[[Any], Tensor] | None = None,
        aleatoric: Tensor | None = None,
    ) -> None:
        self.variables = variables
        self.laws = tuple(laws)
        self.log_weight = log_weight
        self.exhaustive = exhaustive
        self.time_step = time_step
        self.initial = initial
        self.fresh_worlds = fresh_worlds
        self.has_density = has_density
        self.has_split = has_split
        self._paths = particles
        self._diverged = diverged
        self._resolved = tuple(resolved) if resolved is not None else tuple(h == 0 for h in range(len(self.laws)))
        self._joint = joint
        self._view = view
        self._aleatoric = aleatoric
        self._moments: dict[str, tuple[tuple[Tensor, ...], bool]] = {}

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
    def sampled(self) -> bool:
        """Whether there are :attr:`particles`: not for one step of which only the law was asked, nor for moments."""
        return self._paths is not None

    @property
    def particles(self) -> Tensor:
        """Sampled trajectories, shape (worlds, particles, *batch, horizon, variable).

        Raises
        ------
        SpecError
            For one step that was not sampled (use :meth:`sample`), and where moments were propagated.
        """
        if self._paths is None:
            raise SpecError(
                "expected a rollout, got a predictive without particles; use .sample(n, generator=) for one step, and "
                "propagate with FixedWorlds for trajectories"
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
        joint = None if self._joint is None else self._joint.part(index)
        return self._rows(lambda values, axis: values[(slice(None),) * axis + (index,)], joint=joint)

    def flatten(self) -> Predictive:
        """Return this with all batch axes as one; unless it has one already, without the joint density."""
        lead = len(self.batch_shape)
        if lead == 1:
            return self

        def merge(values: Tensor, axis: int) -> Tensor:
            return values.flatten(axis, axis + lead - 1) if lead else values.unsqueeze(axis)

        return self._rows(merge, joint=None)

    def _rows(self, change: Callable[[Tensor, int], Tensor], *, joint: Joint | None) -> Predictive:
        """Return this with other batch axes: ``change`` maps tensors whose batch begins at an axis."""
        batch, initial = self.batch_shape, self.initial
        if initial is not None:
            initial = initial.expand(torch.broadcast_shapes(initial.shape, (1, 1, *batch, 1)))

        def whole(values: Tensor) -> Tensor:
            return change(values.expand(*values.shape[:2], *batch, *values.shape[2 + len(batch) :]), 2)

        return Predictive(
            self.variables,
            [law.map(whole) for law in self.laws],
            self.log_weight,
            exhaustive=self.exhaustive,
            time_step=self.time_step,
            particles=None if self._paths is None else change(self._paths, 3),
            initial=None if initial is None else change(initial, 2),
            diverged=None if self._diverged is None else change(self._diverged, 3),
            resolved=self._resolved,
            fresh_worlds=self.fresh_worlds,
            joint=joint,
            has_density=self.has_density,
            has_split=self.has_split,
            view=self._view,
            aleatoric=None if self._aleatoric is None else change(self._aleatoric, 0),
        )

    def mapped(
        self,
        laws: Sequence[Law],
        *,
        particles: Tensor | None,
        resolved: Sequence[bool] | None = None,
        has_split: bool = True,
    ) -> Predictive:
        """Return this with its outcomes mapped: other laws and particles of the same worlds, without a density.

        Parameters
        ----------
        laws : sequence of Law
            What the laws have become.
        particles : Tensor, shape (worlds, particles, *batch, H, S), optional
            What the particles have become, in their places.
        resolved : sequence of bool, optional
            As of the constructor; by default as before.
        has_split : bool
            Whether the parts of the variance still mean something.

        Examples
        --------
        >>> import bayeswm as bwm
        >>> model = bwm.KnownDynamics(structure=bwm.structures.Pendulum.gymnasium(), noise=0.01)
        >>> p = model.predictive(torch.zeros(2), torch.zeros(1))
        >>> wide = p.mapped([bwm.Gaussian(law.mean, 2 * law.scale) for law in p.laws], particles=None)
        >>> wide.stddev, wide.has_density
        (tensor([[0.0200, 0.0200]], dtype=torch.float64), False)
        """
        return Predictive(
            self.variables,
            laws,
            self.log_weight,
            exhaustive=self.exhaustive,
            time_step=self.time_step,
            particles=None if particles is None else particles.movedim(-2, 0),
            initial=self.initial,
            diverged=self._diverged,
            resolved=self._resolved if resolved is None else resolved,
            fresh_worlds=self.fresh_worlds,
            has_density=False,
            # a part that was given is that of the laws before
            has_split=self.has_split and has_split and self._aleatoric is None,
        )

    @property
    def resolved(self) -> tuple[bool, ...]:
        """For each step, whether no noise came before it, so that the laws there are exact given the worlds."""
        return self._resolved

    @property
    def view(self) -> Callable[[Any], Tensor] | None:
        """What maps the push of a law to the variables' values, where these differ."""
        return self._view

    # --- moments --------------------------------------------------------------------------------------------------

    @property
    def mean(self) -> Tensor:
        """Mean, shape (*batch, H, S)."""

        def found() -> tuple[Tensor, ...]:
            return (self._joined(path_mean(self._steps, fresh_worlds=self.fresh_worlds)),)

        return self._checked(self._kept("mean", found)[0], "the mean")

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
        out, index = self.mean.clone(), list(self.variables.angles)
        if index:
            for h in range(self.horizon):
                out[..., h, index] = circular_mean(self._step(h), index)
        return out

    @property
    def _split(self) -> Split:
        """Moments of all steps."""

        def found() -> tuple[Tensor, ...]:
            parts = path_moments(self._steps, fresh_worlds=self.fresh_worlds)
            split = Split(*(self._joined([part[i] for part in parts]) for i in range(4)))
            if self._aleatoric is not None:
                known = torch.minimum(self._aleatoric, split.total)
                split = split._replace(aleatoric=known, between=split.total - self._aleatoric)
            if not self.has_split:
                nothing = torch.full_like(split.mean, float("nan"))
                split = split._replace(aleatoric=nothing, between=nothing)
            return split

        return Split(*self._kept("split", found))

    def _kept(self, name: str, found: Callable[[], tuple[Tensor, ...]]) -> tuple[Tensor, ...]:
        """Return what was computed before; for a gradient never what was made without one."""
        grad = torch.is_grad_enabled()
        if name in self._moments and (self._moments[name][1] or not grad):
            values, made_with_grad = self._moments[name]
            return tuple(v.detach() for v in values) if made_with_grad and not grad else values
        self._moments[name] = found(), grad
        return self._moments[name][0]

    @property
    def _steps(self) -> list[Step]:
        return [self._step(h) for h in range(self.horizon)]

    def _joined(self, parts: list[Tensor]) -> Tensor:
        """Put parts (*batch, h, S) one behind the other."""
        return torch.cat(parts, -2).contiguous() if parts else self._stack([])

    def _split_at(self, h: int, *, matrix: bool = False) -> Split:
        return step_moments(self._step(h), matrix=matrix, merged=self.fresh_worlds and h > 0)

    def _step(self, h: int) -> Step:
        """Return the mixture at a step, of the particles that had not diverged before it."""
        law = self.laws[h]
        valid = None if self._diverged is None else valid_particles(law, self._diverged[h])
        return Step(law, self.log_weight, self.exhaustive, self._resolved[h], valid)

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
        if not self.has_split:
            return "only the total is known: the outcomes were mapped by their ranks, or no split was asked for"
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
        steps = self._steps

        def each(x: Tensor) -> list[Tensor]:
            return [torch.stack([step_cdf(step, x[..., h, :], work=_WORK) for h, step in enumerate(steps)], -2)]

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
        steps = [step_quantile(self._step(h), p, work=_WORK) for h in range(self.horizon)]
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
            steps = [self._step(h) for h in range(self.horizon)]
            return LogScore(*self._by_outcome(x, lambda x: marginal_log_score(steps, x)))
        first, joint, fresh = self._step(0), self._joint, self.fresh_worlds
        if joint is not None:
            parts = self._by_outcome(x, lambda x: joint_log_score(joint(x), first, fresh_worlds=fresh), self.horizon)
            return LogScore(*parts)
        if self.horizon == 1:
            return LogScore(*self._by_outcome(x, lambda x: step_log_score(first, x[..., 0, :])))
        raise SpecError(
            "expected a rollout of a model whose state is measured, got one without a joint density (a hidden "
            "state, pooled worlds, or moments from an uncertain start); pass marginal=True, or use "
            "worlds.log_likelihood of measurements"
        )

    def _by_outcome(self, x: Tensor, answer: Callable[[Tensor], Sequence[Tensor]], depth: int = 1) -> list[Tensor]:
        shape = (self.worlds, 1 if self._paths is None else self._paths.shape[2], *self.batch_shape)
        return by_outcome(x, answer, laws=self.laws, shape=shape, work=_WORK, depth=depth)

    def _observed(self, x: Tensor) -> Tensor:
        like = self.laws[0].mean if self.laws else self.log_weight
        return observed(x, like=like, batch=self.batch_shape, horizon=self.horizon, size=self.variables.size)

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

        Raises
        ------
        SpecError
            Without a generator, and for moments of several steps, which know nothing of how the steps depend on each
            other.
        """
        if checked_generator(generator) is None:
            raise SpecError("expected generator=torch.Generator to draw samples, got none")
        if self.horizon == 0:
            like = self.log_weight if self._paths is None else self._paths
            return torch.empty(n, *self.batch_shape, 0, self.variables.size, dtype=like.dtype, device=like.device)
        if self._paths is None:
            if self.horizon > 1:
                raise SpecError(
                    "expected trajectories to draw from, got moments of each step; propagate with FixedWorlds, or ask "
                    "for .quantile and .cdf"
                )
            batch, view = self.batch_shape, self._view
            return draw_step(self.laws[0], n, self.log_weight, batch=batch, generator=generator, view=view)
        paths, diverged = self._paths.movedim(0, -2), None if self._diverged is None else self._diverged[-1]
        return self._checked(draw_paths(paths, n, self.log_weight, generator=generator, diverged=diverged), "a sample")

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

    def to_datatree(
        self,
        *,
        layout: Layout = "per_column",
        outcomes: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> xarray.DataTree:
        """Return the particles as an ArviZ tree: group posterior_predictive, chain = 1, draw = world.

        With ``layout="per_variable"`` there is one variable for each column and step, ``angle[5]``, its observations
        the windows (the batch), and ``outcomes`` (*batch, H, S) become ``observed_data``: what ArviZ's checks take,
        such as ``az.plot_ppc_pit(tree, var_names="angle[5]")``. Weighted worlds are resampled, for which a generator is
        needed.
        """
        from bayeswm.base.labelled_predictive import predictive_to_datatree

        return predictive_to_datatree(self, layout=layout, outcomes=outcomes, generator=generator)


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
