"""Many-chain Hamiltonian Monte Carlo: all chains advance together, in one batch of plain torch."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, override

import torch
from torch import Tensor
from tqdm.auto import tqdm

from bayeswm.base.errors import FitError, FitWarning, SpecError
from bayeswm.base.random import standard_normal, uniform
from bayeswm.inference.adaptation import LogDensity, StepSize, Target, TrajectoryLength, halton
from bayeswm.inference.climb import climb
from bayeswm.inference.draws import Draws, all_diverge, no_start
from bayeswm.inference.joint import Inference, Inferred, Joint
from bayeswm.inference.tempering import temper

# ends of the warm-up's windows, as shares of it; coordinates are renewed at each end but the last
_WINDOWS = (0.15, 0.4, 0.8, 1.0)
# longest trajectories in them, in standard deviations: early coordinates are rough, and long trajectories there wasted
_LONGEST = (5.0, 12.0, math.inf, math.inf)
_DIVERGENT = 1000.0
# trajectories that refresh resampled points, and their longest length
_MOVES, _MOVE_LENGTH = 6, 3.0
# how far a chain may climb from its start, for each root of D
_REACH = 20.0


class _State(NamedTuple):
    """Where all chains are: coordinates (chains, D), log density (chains,), gradient (chains, D)."""

    z: Tensor
    value: Tensor
    gradient: Tensor


@dataclass(frozen=True)
class HMC(Inference):
    """ChEES-HMC: chains that share step size and trajectory length, both adapted over all of them.

    Hoffman, Radul & Sountsov (2021): trajectory lengths climb the ChEES criterion and are jittered by a Halton
    sequence; the step size follows the mean acceptance. Before that all chains climb the log density, coordinates are
    taken from the curvature at the best of them, and chains in a mode more than 20 + D nats below the best one restart
    at other chains; in the warm-up coordinates follow the pooled covariance of the chains.

    Parameters
    ----------
    chains : int
        Chains, advanced in one batch; the cost of a gradient hardly grows with them.
    warmup, draws : int
        Iterations of adaptation, then of sampling. Split R-hat below 1.01 needs about 400 draws a chain.
    target_acceptance : float
        Mean probability of acceptance that the step size aims at.
    climb_steps : int
        Batched L-BFGS steps before the first iteration at most.
    max_steps : int
        Leapfrog steps of an iteration at most.
    dense_limit : int
        Up to this many dimensions the coordinates are a full linear map, above it a diagonal one.

    Raises
    ------
    SpecError
        If a number makes no sense.

    Examples
    --------
    >>> scales = torch.tensor([1.0, 100.0], dtype=torch.float64)
    >>> g = torch.Generator().manual_seed(0)
    >>> start = torch.randn(16, 2, generator=g, dtype=torch.float64)
    >>> drawn = HMC(chains=16).sample(lambda x: -0.5 * (x / scales).square().sum(-1), start, generator=g)
    >>> drawn.positions.shape, drawn.problems()
    (torch.Size([16, 400, 2]), ())
    >>> (drawn.positions.std((0, 1)) / scales).numpy().round(1).tolist()
    [1.0, 1.0]
    """

    chains: int = 64
    warmup: int = 200
    draws: int = 400
    target_acceptance: float = 0.85
    climb_steps: int = 100
    max_steps: int = 512
    dense_limit: int = 256

    def __post_init__(self) -> None:
        least = {"chains": 2, "warmup": 20, "draws": 4, "climb_steps": 0, "max_steps": 1, "dense_limit": 0}
        for name, bound in least.items():
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < bound:
                raise SpecError(f"expected {name} to be an integer >= {bound}, got {value!r}")
        if not 0 < self.target_acceptance < 1:
            raise SpecError(f"expected target_acceptance between 0 and 1, got {self.target_acceptance}")

    def sample(
        self,
        log_density: LogDensity,
        start: Tensor,
        *,
        generator: torch.Generator,
        labels: Sequence[str] | None = None,
        progress: bool = False,
    ) -> Draws:
        """Draw from a log density.

        Parameters
        ----------
        log_density : callable
            Takes (n, D) in float64 and returns (n,), up to a constant; differentiable by autograd; rows independent.
        start : Tensor, shape (n, D)
            Where chains may begin; those of finite density are used in turn. Best drawn from the prior.
        generator : torch.Generator
            Source of momenta and acceptances.
        labels : sequence of str, optional
            Names of the D quantities, for messages.
        progress : bool
            Show a progress bar.

        Returns
        -------
        Draws

        Raises
        ------
        SpecError
            If start has another shape.
        FitError
            If no start has a finite density and gradient, or every trajectory diverges; it names the quantity.

        Warns
        -----
        FitWarning
            If R-hat is above 1.01, the effective sample size below 400 or more than one step in 1,000 diverged; if the
            run was interrupted from the keyboard: the draws so far are kept.
        """
        if start.ndim != 2 or 0 in start.shape:
            raise SpecError(f"expected start of shape (n, D), got {tuple(start.shape)}")
        size = start.shape[1]
        names = tuple(f"x[{i}]" for i in range(size)) if labels is None else tuple(labels)
        if len(names) != size:
            raise SpecError(f"expected {size} labels, got {len(names)}")
        with torch.inference_mode(False), torch.no_grad():
            target = Target(log_density, size, dense=size <= self.dense_limit)
            bar = tqdm(total=self.warmup + self.draws, disable=not progress, desc="HMC", unit="draw")
            try:
                run = _Run(self, target, generator, names=names)
                state = run.begin(start.detach().double())
                state, step, length = run.adapt(state, bar)
                drawn = run.collect(state, step, length=length, bar=bar)
            finally:
                bar.close()
        drawn.warn()
        return drawn

    def approach(
        self, log_density: LogDensity, start: Tensor, *, generator: torch.Generator, labels: Sequence[str]
    ) -> tuple[Target, Tensor]:
        """Climb from starts: what precedes the first iteration.

        Parameters
        ----------
        log_density, start, generator, labels
            As for :meth:`sample`.

        Returns
        -------
        tuple of Target and Tensor, shape (chains, D)
            The density in coordinates taken from the curvature at the best end, and the ends in them.

        Raises
        ------
        FitError
            If no start has a finite density and gradient.
        """
        with torch.inference_mode(False), torch.no_grad():
            target = Target(log_density, start.shape[1], dense=start.shape[1] <= self.dense_limit)
            return target, _Run(self, target, generator, names=tuple(labels)).begin(start.detach().double()).z

    @override
    def infer(self, joint: Joint, *, generator: torch.Generator, progress: bool = False) -> Inferred:
        start = joint.flat.sample(4 * self.chains, generator)
        drawn = self.sample(joint.log_density, start, generator=generator, labels=joint.flat.labels, progress=progress)
        with torch.no_grad():
            values = joint.values(drawn.positions)
        stats = {"lp": drawn.log_density, "acceptance_rate": drawn.acceptance, "diverging": drawn.divergent}
        figures = {
            "divergences": drawn.divergences,
            "acceptance": float(drawn.acceptance.mean()),
            "step_size": drawn.step_size,
            "trajectory_length": drawn.trajectory_length,
            "evaluations": drawn.evaluations,
        }
        return Inferred(values, stats, figures)

    @override
    def update(self, joint: Joint, since: int, inferred: Inferred, *, generator: torch.Generator) -> Inferred:
        """Return the posterior given all rows by tempered resampling and rejuvenation of the draws."""
        return temper(joint, since, inferred, rejuvenate=self.rejuvenate, generator=generator)

    def rejuvenate(self, log_density: LogDensity, points: Tensor, generator: torch.Generator) -> tuple[Tensor, float]:
        """Move many points so that their law, if it is the density's, stays what it is.

        Parameters
        ----------
        log_density : callable
            Takes (n, D) in float64 and returns (n,).
        points : Tensor, shape (n, D)
            Coordinates are taken from their covariance.
        generator : torch.Generator
            Source of momenta and acceptances.

        Returns
        -------
        tuple of Tensor, shape (n, D), and float
            Where they are, and the mean acceptance.
        """
        target = Target(log_density, points.shape[1], dense=points.shape[1] <= self.dense_limit)
        run = _Run(self, target, generator, names=tuple(f"x[{i}]" for i in range(points.shape[1])))
        with torch.no_grad():
            target.follow_draws(target.coordinates(points)[:, None])
            z = target.coordinates(points)
            return run.refresh(_State(z, *target(z)))


class _Run:
    """One run of the sampler."""

    def __init__(self, settings: HMC, target: Target, generator: torch.Generator, *, names: tuple[str, ...]) -> None:
        self.settings, self.target, self.generator, self.names = settings, target, generator, names

    def begin(self, start: Tensor) -> _State:
        """Climb from finite starts and take coordinates from the curvature at the best chain."""
        value, gradient = self.target(start)
        finite = value.isfinite()
        if not bool(finite.any()):
            raise FitError(no_start(self.target.log_density, start, self.names))
        rows = finite.nonzero()[:, 0]
        z = start[rows[torch.arange(self.settings.chains) % len(rows)]]
        size = z.shape[1]
        # lower than that is another mode of no weight, or lost
        worth = 20.0 + size
        steps, reach = self.settings.climb_steps, _REACH * math.sqrt(size)
        z, value = climb(self.target, z, steps=steps, reach=reach, worth=worth)
        if self.target.dense:
            x = self.target.position(z)
            self.target.follow_curvature(z[value.argmax()])
            z = self.target.coordinates(x)
        lost = value < value.max() - worth
        if bool(lost.any()):
            kept = (~lost).nonzero()[:, 0]
            z[lost] = z[kept[torch.arange(int(lost.sum())) % len(kept)]]
        value, gradient = self.target(z)
        return _State(z, value, gradient)

    def adapt(self, state: _State, bar: tqdm) -> tuple[_State, float, float]:
        """Warm up; return where the chains are, the step size and the trajectory length."""
        ends = [round(share * self.settings.warmup) for share in _WINDOWS]
        first, length = 0, 2.0
        step = StepSize(self._first_step(state), self.settings.target_acceptance)
        lengths = TrajectoryLength(length)
        for window, (end, longest) in enumerate(zip(ends, _LONGEST, strict=True)):
            seen: list[Tensor] = []
            divergent = torch.zeros(1, dtype=torch.bool)
            for i in range(first, end):
                count = self._count(step.now, lengths.now, i + 1)
                (state, acceptance), divergent = self._move(state, step.now, count, lengths=lengths, longest=longest)
                step.update(float(acceptance.mean()))
                seen.append(state.z)
                bar.update()
                bar.set_postfix(step=f"{step.now:.3g}", length=f"{lengths.now:.3g}", refresh=False)
            if bool(divergent.all()):
                raise FitError(all_diverge(state.gradient, self.names))
            first = end
            if window < len(ends) - 1:
                x = self.target.position(state.z)
                # the first half of a window still comes from where the chains were before
                self.target.follow_draws(torch.stack(seen[len(seen) // 2 :], 1))
                z = self.target.coordinates(x)
                state = _State(z, *self.target(z))
                step = StepSize(self._first_step(state), self.settings.target_acceptance)
                lengths = TrajectoryLength(min(lengths.average, 3.0) if window else length)
        return state, step.average, lengths.average

    def collect(self, state: _State, step: float, *, length: float, bar: tqdm) -> Draws:
        """Sample with everything fixed."""
        columns: list[tuple[Tensor, Tensor, Tensor, Tensor]] = []
        try:
            for i in range(self.settings.draws):
                count = self._count(step, length, i + 1)
                (state, acceptance), divergent = self._move(state, step, count)
                columns.append((self.target.position(state.z), state.value, acceptance, divergent))
                bar.update()
        except KeyboardInterrupt:
            if len(columns) < 4:
                raise
            warnings.warn(f"interrupted after {len(columns)} draws a chain: these are kept", FitWarning, stacklevel=3)
        positions, values, acceptance, divergent = (torch.stack(c, 1) for c in zip(*columns, strict=True))
        if bool(divergent.all()):
            raise FitError(all_diverge(state.gradient, self.names))
        return Draws(
            positions,
            values,
            acceptance,
            divergent,
            step_size=step,
            trajectory_length=length,
            evaluations=self.target.evaluations,
            labels=self.names,
        )

    def refresh(self, state: _State) -> tuple[Tensor, float]:
        """Advance by a few trajectories with a step size that follows the acceptance."""
        step = StepSize(self._first_step(state), self.settings.target_acceptance)
        accepted: list[float] = []
        for i in range(_MOVES):
            (state, acceptance), _ = self._move(state, step.now, self._count(step.now, _MOVE_LENGTH, i + 1))
            accepted.append(float(acceptance.mean()))
            step.update(accepted[-1])
        return self.target.position(state.z), sum(accepted) / len(accepted)

    def _count(self, step: float, length: float, index: int) -> int:
        return min(max(math.ceil(halton(index) * length / step), 1), self.settings.max_steps)

    def _move(
        self,
        state: _State,
        step: float,
        count: int,
        *,
        lengths: TrajectoryLength | None = None,
        longest: float = math.inf,
    ) -> tuple[tuple[_State, Tensor], Tensor]:
        """Advance every chain by one trajectory; return the state with its acceptance, and who diverged."""
        momentum = standard_normal(tuple(state.z.shape), self.generator, dtype=torch.float64, device="cpu")
        z, p, value, gradient = self._leapfrog(state, momentum, step, count=count)
        change = (value - 0.5 * p.square().sum(-1)) - (state.value - 0.5 * momentum.square().sum(-1))
        change = change.nan_to_num(nan=-torch.inf, posinf=torch.inf, neginf=-torch.inf)
        acceptance = change.clamp(max=0).exp()
        if lengths is not None:
            limits = (step, min(longest, step * self.settings.max_steps))
            lengths.update(state.z, z.nan_to_num(), momentum=p, acceptance=acceptance, time=count * step, limits=limits)
        taken = uniform((len(z),), self.generator, dtype=torch.float64, device="cpu") < acceptance
        mixed = (
            torch.where(taken[:, None], z, state.z),
            torch.where(taken, value, state.value),
            torch.where(taken[:, None], gradient, state.gradient),
        )
        return (_State(*mixed), acceptance), change < -_DIVERGENT

    def _leapfrog(self, state: _State, momentum: Tensor, step: float, *, count: int) -> tuple[Tensor, ...]:
        z, value, gradient = state
        p = momentum + 0.5 * step * gradient
        for i in range(count):
            z = z + step * p
            value, gradient = self.target(z)
            p = p + (step if i + 1 < count else 0.5 * step) * gradient
        return z, p, value, gradient

    def _first_step(self, state: _State) -> float:
        """Return a step size at which about half of the one-step proposals are accepted."""
        step, direction = 1.0, 0
        for _ in range(40):
            acceptance = float(self._move(state, step, 1)[0][1].mean())
            wanted = 1 if acceptance > 0.5 else -1
            if direction not in (0, wanted):
                return step
            direction = wanted
            step *= 2.0**direction
        raise FitError(all_diverge(state.gradient, self.names))
