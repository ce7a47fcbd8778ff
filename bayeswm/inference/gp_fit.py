"""Hyper-parameters of exact Gaussian processes: maximum a posteriori by L-BFGS-B, from several starts."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from tqdm.auto import tqdm

from bayeswm.base.errors import FitError, FitWarning, SpecError
from bayeswm.base.random import make_generator, standard_normal
from bayeswm.inference.gp_exact import Hyper, log_marginal
from bayeswm.inference.gp_kernels import Kernel

# rows on which starts are tried; more only for the best of them
_SCREENING = 256
_ITERATIONS = 500
# limits of length scales and of the standard deviations of signal and noise, in standardised units. A drawn function
# is a sum with rounding errors near 1e-16 signal^2 sqrt(n) / noise: a larger signal on little noise would show them
_LENGTHS, _SIGNALS, _MOST_NOISE = (1e-2, 1e3), (1e-3, 30.0), 10.0


@dataclass(frozen=True)
class HyperPriors:
    """Weak log-normal priors, each a median and a standard deviation of the logarithm, in standardised units.

    Attributes
    ----------
    length : tuple of float
        Of every length scale; the median is in units of sqrt(D) standard deviations of the inputs, since distances
        between D inputs grow that way.
    signal : tuple of float
        Of the function's standard deviation, in units of the outputs' root mean square.
    noise : tuple of float
        Of the noise's standard deviation, in the same units.

    Raises
    ------
    SpecError
        If a median or a standard deviation is not above 0.

    Examples
    --------
    >>> HyperPriors().noise
    (0.1, 2.0)
    """

    length: tuple[float, float] = (1.0, 1.5)
    signal: tuple[float, float] = (1.0, 1.5)
    noise: tuple[float, float] = (0.1, 2.0)

    def __post_init__(self) -> None:
        for name, (median, spread) in {"length": self.length, "signal": self.signal, "noise": self.noise}.items():
            if not (median > 0 and spread > 0):
                raise SpecError(f"expected a median and a spread > 0 in the prior of {name}, got {median}, {spread}")

    def log_normal(self, inputs: int) -> tuple[Tensor, Tensor]:
        """Return means and standard deviations of the logarithms, each of shape (D + 2,)."""
        pairs = [(self.length[0] * math.sqrt(inputs), self.length[1])] * inputs + [self.signal, self.noise]
        values = torch.tensor(pairs, dtype=torch.float64)
        return values[:, 0].log(), values[:, 1]


@dataclass(frozen=True)
class OutputFit:
    """How the fit of one output went.

    Attributes
    ----------
    log_likelihood : float
        Log marginal likelihood on all rows, in nats of the standardised output.
    objective : float
        The same with the log density of the priors, up to a constant.
    starts : tuple of float
        Objective at the end of each start, on the rows on which starts were tried.
    evaluations : int
        Of the objective on all rows.
    converged : bool
        Whether the optimiser ended by itself.
    """

    log_likelihood: float
    objective: float
    starts: tuple[float, ...]
    evaluations: int
    converged: bool


def fit_hyper(
    kernel: Kernel,
    x: Tensor,
    y: Tensor,
    *,
    priors: HyperPriors | None,
    restarts: int,
    noise_floor: float,
    seed: int,
    progress: bool = False,
) -> tuple[Hyper, tuple[OutputFit, ...]]:
    """Find the hyper-parameters of each output by itself.

    The first start is the priors' median with length scales half as long, since from long ones the optimiser may take
    everything for noise; the others are drawn from the priors. With more than 256 rows, all starts run on 256 evenly
    spaced ones; the end that is best on all rows is where the run on all rows begins.

    Parameters
    ----------
    kernel : Kernel
        Correlation.
    x : Tensor, shape (n, D)
        Inputs, standardised.
    y : Tensor, shape (S, n)
        Outputs, of root mean square near 1.
    priors : HyperPriors, optional
        None maximises the likelihood alone; starts are drawn from the default priors then.
    restarts : int
        Starts.
    noise_floor : float
        Smallest standard deviation of the noise.
    seed : int
        Decides the starts.
    progress : bool
        Show a progress bar over the outputs.

    Returns
    -------
    tuple of Hyper and tuple of OutputFit

    Raises
    ------
    FitError
        If the objective is not finite.

    Examples
    --------
    >>> from bayeswm.inference import RBF
    >>> x = torch.linspace(-2, 2, 40, dtype=torch.float64)[:, None]
    >>> y, settings = torch.sin(2 * x).T, {"priors": HyperPriors(), "restarts": 2, "noise_floor": 3e-3}
    >>> hyper, fits = fit_hyper(RBF(), x, y, **settings, seed=0)
    >>> 0.3 < float(hyper.length) < 3, float(hyper.noise) < 0.01
    (True, True)
    """
    generator = make_generator(seed)
    mean, scale = (HyperPriors() if priors is None else priors).log_normal(x.shape[1])
    limits = [_LENGTHS] * x.shape[1] + [_SIGNALS, (noise_floor, _MOST_NOISE)]
    box = torch.tensor(limits, dtype=torch.float64).log()
    found: list[Tensor] = []
    fits: list[OutputFit] = []
    for values in tqdm(y, desc="Gaussian process", unit="output", disable=not progress):
        drawn = mean + scale * standard_normal((restarts, len(mean)), generator, dtype=torch.float64, device="cpu")
        drawn[0] = mean
        drawn[0, :-2] -= math.log(2)
        starts = drawn.clamp(box[:, 0], box[:, 1])
        target = _Target(kernel, x, values, None if priors is None else (mean, scale))
        best, fit = _fit_output(target, starts, box)
        found.append(best)
        fits.append(fit)
    hyper = torch.stack(found).exp().to(x.device)
    return Hyper(hyper[:, :-2].contiguous(), hyper[:, -2].clone(), hyper[:, -1].clone()), tuple(fits)


@dataclass
class _Target:
    """The objective of one output: log likelihood and, if there are priors, their log density."""

    kernel: Kernel
    x: Tensor
    y: Tensor
    priors: tuple[Tensor, Tensor] | None
    evaluations: int = 0

    def rows(self, count: int) -> _Target:
        """Return the objective on so many evenly spaced rows."""
        chosen = torch.linspace(0, len(self.y) - 1, count, dtype=torch.float64).round().long().to(self.x.device)
        return _Target(self.kernel, self.x[chosen], self.y[chosen], self.priors)

    def log_prior(self, at: Tensor) -> tuple[float, Tensor]:
        if self.priors is None:
            return 0.0, torch.zeros_like(at)
        mean, scale = self.priors
        z = (at - mean) / scale
        return -0.5 * float(z.square().sum()), -z / scale

    def __call__(self, at: Tensor) -> tuple[float, Tensor]:
        self.evaluations += 1
        value, gradient = log_marginal(self.kernel, self.x, self.y, log_hyper=at.to(self.x.device))
        log_prior, slope = self.log_prior(at)
        gradient = gradient.cpu() + slope
        if not (math.isfinite(value) and bool(gradient.isfinite().all())):
            raise FitError(
                f"the marginal likelihood of kernel {self.kernel!r} at n = {len(self.y)} points is not finite; "
                "look for extreme values in the data"
            )
        return value + log_prior, gradient


def _fit_output(target: _Target, starts: Tensor, box: Tensor) -> tuple[Tensor, OutputFit]:
    few = len(target.y) <= _SCREENING
    trial = target if few else target.rows(_SCREENING)
    ends = [_ascend(trial, start, box) for start in starts]
    tried = tuple(end[1] for end in ends)
    if few:
        best = max(range(len(ends)), key=lambda i: tried[i])
    else:
        candidates = [starts[0], *(end[0] for end in ends)]
        heights = [target(at)[0] for at in candidates]
        ends = [_ascend(target, candidates[max(range(len(heights)), key=lambda i: heights[i])], box)]
        best = 0
    at, objective, converged = ends[best]
    if not converged:
        warnings.warn(
            f"the optimiser of the hyper-parameters stopped after {_ITERATIONS} iterations; the best point is kept",
            FitWarning,
            stacklevel=2,
        )
    likelihood = objective - target.log_prior(at)[0]
    return at, OutputFit(likelihood, objective, tried, target.evaluations, converged)


def _ascend(target: _Target, start: Tensor, box: Tensor) -> tuple[Tensor, float, bool]:
    """Run L-BFGS-B from one start; return where it ended, the objective there, and whether it ended by itself."""
    from scipy.optimize import minimize

    def negative(at: Any) -> tuple[float, Any]:
        value, gradient = target(torch.tensor(at, dtype=torch.float64))
        return -value, -gradient.numpy()

    options = {"maxiter": _ITERATIONS, "maxfun": 10 * _ITERATIONS, "ftol": 1e-9, "gtol": 1e-3}
    done = minimize(negative, start.numpy(), jac=True, method="L-BFGS-B", bounds=box.numpy(), options=options)
    return torch.tensor(done.x, dtype=torch.float64), -float(done.fun), done.status != 1
