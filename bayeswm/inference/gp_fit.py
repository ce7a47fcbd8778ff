"""Hyper-parameters of exact Gaussian processes: maximum a posteriori by L-BFGS-B, from several starts."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from tqdm.auto import tqdm

from bayeswm.base.errors import FitError, FitWarning
from bayeswm.base.random import make_generator
from bayeswm.inference.gp_algebra import Kernel
from bayeswm.inference.gp_exact import Hyper, log_marginal
from bayeswm.inference.gp_priors import Density, HyperPriors, limits

# rows on which starts are tried; more only for the best of them
_SCREENING = 256
_ITERATIONS = 500


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
        Covariance of the functions.
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
    >>> from bayeswm.inference import RBF, Scaled
    >>> x = torch.linspace(-2, 2, 40, dtype=torch.float64)[:, None]
    >>> y, settings = torch.sin(2 * x).T, {"priors": HyperPriors(), "restarts": 2, "noise_floor": 3e-3}
    >>> hyper, fits = fit_hyper(Scaled(RBF()), x, y, **settings, seed=0)
    >>> 0.3 < float(hyper.values[0, 0]) < 3, float(hyper.noise) < 0.01
    (True, True)
    """
    generator = make_generator(seed)
    parameters = kernel.parameters(x.shape[1])
    density = (HyperPriors() if priors is None else priors).density(parameters)
    box = limits(parameters, noise_floor)
    found: list[Tensor] = []
    fits: list[OutputFit] = []
    for values in tqdm(y, desc="Gaussian process", unit="output", disable=not progress):
        starts = density.starts(restarts, generator).clamp(box[:, 0], box[:, 1])
        target = _Target(kernel, x, values, None if priors is None else density)
        best, fit = _fit_output(target, starts, box)
        found.append(best)
        fits.append(fit)
    hyper = torch.stack(found).exp().to(x.device)
    return Hyper(hyper[:, :-1].contiguous(), hyper[:, -1].clone()), tuple(fits)


@dataclass
class _Target:
    """The objective of one output: log likelihood and, if there are priors, their log density."""

    kernel: Kernel
    x: Tensor
    y: Tensor
    priors: Density | None
    evaluations: int = 0

    def rows(self, count: int) -> _Target:
        """Return the objective on so many evenly spaced rows."""
        chosen = torch.linspace(0, len(self.y) - 1, count, dtype=torch.float64).round().long().to(self.x.device)
        return _Target(self.kernel, self.x[chosen], self.y[chosen], self.priors)

    def log_prior(self, at: Tensor) -> tuple[float, Tensor]:
        return (0.0, torch.zeros_like(at)) if self.priors is None else self.priors(at)

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
