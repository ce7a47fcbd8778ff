"""Hyper-parameters of exact Gaussian processes: maximum a posteriori by L-BFGS-B, from several starts."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor
from tqdm.auto import tqdm

from bayeswm.base.random import make_generator
from bayeswm.inference.gp_algebra import Kernel
from bayeswm.inference.gp_exact import Hyper, log_marginal
from bayeswm.inference.gp_optimise import OutputFit, finite, fit_target
from bayeswm.inference.gp_priors import Density, HyperPriors, limits


def fit_hyper(
    kernel: Kernel,
    x: Tensor,
    y: Tensor,
    *,
    priors: HyperPriors | None,
    restarts: int,
    noise_floor: float,
    seed: int,
    constant: bool = False,
    progress: bool = False,
) -> tuple[Hyper, tuple[OutputFit, ...]]:
    """Find the hyper-parameters of each output by itself.

    The first start is the priors' median with length scales half as long, since from long ones the optimiser may take
    everything for noise; the others are drawn from the priors. With more than 256 rows, all starts run on 128 evenly
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
    constant : bool
        Learn a constant mean too, which has no prior.
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
        target = _Target(kernel, x, values, None if priors is None else density, constant)
        best, fit = fit_target(target, starts, box)
        if constant:
            of_best = log_marginal(kernel, x, values, log_hyper=best.to(x.device), constant=True)
            fit = replace(fit, constant=of_best.constant)
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
    constant: bool
    evaluations: int = 0

    @property
    def size(self) -> int:
        return len(self.y)

    def rows(self, chosen: Tensor) -> _Target:
        return _Target(self.kernel, self.x[chosen], self.y[chosen], self.priors, self.constant)

    def log_prior(self, at: Tensor) -> tuple[float, Tensor]:
        return (0.0, torch.zeros_like(at)) if self.priors is None else self.priors(at)

    def __call__(self, at: Tensor) -> tuple[float, Tensor]:
        self.evaluations += 1
        value, gradient, _ = log_marginal(
            self.kernel, self.x, self.y, log_hyper=at.to(self.x.device), constant=self.constant
        )
        log_prior, slope = self.log_prior(at)
        gradient = gradient.cpu() + slope
        finite(value, gradient, kernel=self.kernel, n=self.size)
        return value + log_prior, gradient
