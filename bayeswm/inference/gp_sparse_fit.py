"""Hyper-parameters and inducing points of sparse Gaussian processes."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from tqdm.auto import tqdm

from bayeswm.base.errors import SpecError
from bayeswm.base.random import make_generator
from bayeswm.inference.gp_algebra import Kernel
from bayeswm.inference.gp_exact import Hyper, log_marginal
from bayeswm.inference.gp_optimise import OutputFit, ascend, evenly_spaced, finite, screened, warn_stopped
from bayeswm.inference.gp_priors import Density, HyperPriors, limits
from bayeswm.inference.gp_sparse import choose_inducing, collapsed_bound

# rows for each inducing point among which these are chosen
_CANDIDATES = 8
# the points are chosen anew with the hyper-parameters just found, at most so often and while that gains so many nats
_ROUNDS, _GAIN = 3, 1.0
# share of the bound: a hundredth of a nat where it is of the order of 10,000
_RELATIVE = 1e-6


@dataclass(frozen=True)
class InducingPoints:
    """When a Gaussian process becomes sparse, and how many inducing points carry what the data say.

    Parameters
    ----------
    count : int
        Inducing points of each output. Time grows with the square of their number, and with the data.
    above : int
        Number of training steps up to which the process is exact.
    learned : bool
        Move the points so that they raise the bound, which costs several times as much and gains where they are few.
        Otherwise they are training inputs, chosen where the others leave most to explain.

    Raises
    ------
    SpecError
        If a number makes no sense.

    Examples
    --------
    >>> InducingPoints(count=100).above
    2000
    """

    count: int = 300
    above: int = 2000
    learned: bool = False

    def __post_init__(self) -> None:
        if self.count < 1 or self.above < 0:
            raise SpecError(f"expected count >= 1 and above >= 0, got {self.count} and {self.above}")


def fit_sparse(
    kernel: Kernel,
    x: Tensor,
    y: Tensor,
    *,
    inducing: InducingPoints,
    priors: HyperPriors | None,
    restarts: int,
    noise_floor: float,
    seed: int,
    constant: bool = False,
    progress: bool = False,
) -> tuple[Hyper, Tensor, tuple[OutputFit, ...]]:
    """Find hyper-parameters and inducing points of each output by itself, by the variational bound.

    All starts run on 128 evenly spaced rows, by the exact likelihood. From the end whose bound is best on all rows, the
    choice of inducing points and the ascent of the bound take turns (Burt et al. 2020).

    Parameters
    ----------
    kernel : Kernel
        Covariance of the functions.
    x : Tensor, shape (n, D)
        Inputs, standardised.
    y : Tensor, shape (S, n)
        Outputs, of root mean square near 1.
    inducing : InducingPoints
        How many, and whether they are learned.
    priors : HyperPriors, optional
        None maximises the bound alone; starts are drawn from the default priors then.
    restarts : int
        Starts.
    noise_floor : float
        Smallest standard deviation of the noise.
    seed : int
        Decides the starts.
    constant : bool
        Learn a constant mean of each output.
    progress : bool
        Show a progress bar over the outputs.

    Returns
    -------
    tuple of Hyper, Tensor, shape (S, m, D), and tuple of OutputFit

    Raises
    ------
    FitError
        If the objective is not finite.

    Examples
    --------
    >>> from bayeswm.inference import RBF, Scaled
    >>> x = torch.linspace(-2, 2, 400, dtype=torch.float64)[:, None]
    >>> settings = {"priors": HyperPriors(), "restarts": 1, "noise_floor": 0.01, "seed": 0}
    >>> hyper, points, _ = fit_sparse(Scaled(RBF()), x, torch.sin(2 * x).mT, inducing=InducingPoints(12), **settings)
    >>> points.shape, float(hyper.noise) < 0.02
    (torch.Size([1, 12, 1]), True)
    """
    generator = make_generator(seed)
    parameters = kernel.parameters(x.shape[1])
    density = (HyperPriors() if priors is None else priors).density(parameters)
    box = limits(parameters, noise_floor)
    found: list[tuple[Tensor, Tensor, OutputFit]] = []
    for values in tqdm(y, desc="sparse Gaussian process", unit="output", disable=not progress):
        starts = density.starts(restarts, generator).clamp(box[:, 0], box[:, 1])
        problem = _Problem(kernel, x, values, None if priors is None else density, inducing, constant)
        found.append(_fit_output(problem, starts, box))
    hyper = torch.stack([f[0] for f in found]).exp().to(x.device)
    points = torch.stack([f[1] for f in found])
    return Hyper(hyper[:, :-1].contiguous(), hyper[:, -1].clone()), points, tuple(f[2] for f in found)


def spread_points(kernel: Kernel, x: Tensor, values: Tensor, *, inducing: InducingPoints) -> Tensor:
    """Return inducing points chosen among evenly spaced inputs, shape (m, D); see :func:`choose_inducing`.

    Parameters
    ----------
    kernel : Kernel
        Covariance of the function.
    x : Tensor, shape (n, D)
        Inputs.
    values : Tensor, shape (P,)
        The kernel's hyper-parameters.
    inducing : InducingPoints
        How many.

    Examples
    --------
    >>> from bayeswm.inference import RBF
    >>> x, one = torch.linspace(0, 1, 100, dtype=torch.float64)[:, None], torch.ones(1, dtype=torch.float64)
    >>> spread_points(RBF(), x, one, inducing=InducingPoints(2)).shape
    torch.Size([2, 1])
    """
    rows = evenly_spaced(len(x), min(len(x), _CANDIDATES * inducing.count))
    return choose_inducing(kernel, x[rows.to(x.device)], values, count=inducing.count)


@dataclass
class _Problem:
    """The data and settings of one output, with its exact objective, for trials on few rows."""

    kernel: Kernel
    x: Tensor
    y: Tensor
    priors: Density | None
    inducing: InducingPoints
    constant: bool
    evaluations: int = 0

    @property
    def size(self) -> int:
        return len(self.y)

    def rows(self, chosen: Tensor) -> _Problem:
        return _Problem(self.kernel, self.x[chosen], self.y[chosen], self.priors, self.inducing, self.constant)

    def log_prior(self, at: Tensor) -> tuple[float, Tensor]:
        return (0.0, torch.zeros_like(at)) if self.priors is None else self.priors(at)

    def __call__(self, at: Tensor) -> tuple[float, Tensor]:
        of_these = log_marginal(self.kernel, self.x, self.y, log_hyper=at.to(self.x.device), constant=self.constant)
        return self.with_prior(of_these.value, of_these.gradient, at)

    def with_prior(self, value: float, gradient: Tensor, at: Tensor) -> tuple[float, Tensor]:
        log_prior, slope = self.log_prior(at)
        gradient = gradient.cpu() + slope
        finite(value, gradient, kernel=self.kernel, n=self.size)
        return value + log_prior, gradient

    def choose(self, at: Tensor) -> Tensor:
        """Return inducing points for these hyper-parameters."""
        return spread_points(self.kernel, self.x, at[:-1].exp().to(self.x.device), inducing=self.inducing)


@dataclass
class _Bounded:
    """The objective of one output on all rows: its bound with given inducing points, or with these behind the rest."""

    problem: _Problem
    points: Tensor
    learned: bool = False
    mean: float = 0.0

    def __call__(self, at: Tensor) -> tuple[float, Tensor]:
        p, size = self.problem, self.problem.kernel.size(self.points.shape[1]) + 1
        p.evaluations += 1
        hyper = at[:size].to(p.x.device)
        points = at[size:].view_as(self.points).to(p.x.device) if self.learned else self.points
        bound = collapsed_bound(p.kernel, p.x, p.y, inducing=points, log_hyper=hyper, constant=p.constant)
        self.mean = bound.constant
        value, gradient = p.with_prior(bound.value, bound.by_hyper, at[:size])
        return value, torch.cat((gradient, bound.by_inducing.flatten().cpu())) if self.learned else gradient


def _fit_output(problem: _Problem, starts: Tensor, box: Tensor) -> tuple[Tensor, Tensor, OutputFit]:
    trial = screened(problem)
    ends = [ascend(trial, start, box) for start in starts]
    ready = [(at, problem.choose(at)) for at in (starts[0], *(end[0] for end in ends))]
    heights = [_Bounded(problem, points)(at)[0] for at, points in ready]
    at, points = ready[max(range(len(heights)), key=lambda i: heights[i])]
    objective, converged = max(heights), False
    for _ in range(_ROUNDS):
        at, objective, converged = ascend(_Bounded(problem, points), at, box, relative=_RELATIVE)
        others = problem.choose(at)
        gain = _Bounded(problem, others)(at)[0] - objective
        if gain < _GAIN:
            break
        points, objective = others, objective + gain
    if problem.inducing.learned:
        free = torch.full((points.numel(), 2), torch.inf, dtype=torch.float64)
        free[:, 0] = -torch.inf
        start = torch.cat((at, points.flatten().cpu()))
        end, objective, converged = ascend(
            _Bounded(problem, points, learned=True), start, torch.cat((box, free)), relative=_RELATIVE
        )
        at, points = end[: len(at)], end[len(at) :].view_as(points).to(points.device)
    if not converged:
        warn_stopped()
    last = _Bounded(problem, points)
    objective, _ = last(at)
    likelihood = objective - problem.log_prior(at)[0]
    tried = tuple(end[1] for end in ends)
    return at, points, OutputFit(likelihood, objective, tried, problem.evaluations, converged, last.mean)
