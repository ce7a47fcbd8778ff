"""Exact Gaussian processes: marginal likelihood with its gradient in closed form, and the posterior."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

from bayeswm.base.errors import FitError, SpecError
from bayeswm.base.random import standard_normal
from bayeswm.inference.gp_algebra import Kernel
from bayeswm.inference.gp_blocks import ForwardSolver

# what is added to the diagonal, in units of its mean, until the Cholesky decomposition succeeds
JITTER_LADDER = (0.0, 1e-12, 1e-10, 1e-8, 1e-6)
# doubles in the largest temporary of a loop over points
_CHUNK = 2**19
# matrices (n, n) that live at once while the marginal likelihood is computed
_WORK = 4


class Hyper(NamedTuple):
    """Hyper-parameters of independent outputs, all positive.

    ``values`` of shape (S, P) are the kernel's, in the order of its ``parameters``; ``noise`` of shape (S,) holds
    standard deviations in the outputs' units.
    """

    values: Tensor
    noise: Tensor


def memory(device: torch.device) -> float:
    """Return the bytes of memory that there are, or infinity where the system does not say."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    if "SC_PHYS_PAGES" in getattr(os, "sysconf_names", {}):
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return math.inf


def check_memory(n: int, outputs: int, device: torch.device) -> None:
    """Refuse an exact process that cannot fit into memory, before anything is allocated.

    Parameters
    ----------
    n : int
        Training points.
    outputs : int
        Outputs; each keeps a factor of n^2 numbers.
    device : torch.device
        Where it is to live.

    Raises
    ------
    SpecError
        With the memory that it needs and the largest n that fits.

    Examples
    --------
    >>> check_memory(1000, 4, torch.device("cpu"))
    """
    free = memory(device)
    need = 8 * (outputs + _WORK) * n * n
    if need > 0.8 * free:
        most = math.isqrt(int(0.8 * free / (8 * (outputs + _WORK))))
        raise SpecError(
            f"expected training data for which an exact Gaussian process fits into memory, {n} steps need "
            f"{need / 1e9:.1f} GB of {free / 1e9:.1f} GB; use at most {most} steps (fewer episodes, or a longer time "
            "step by .resample), or a sparse process: sparse=InducingPoints()"
        )


def factor(matrix: Tensor, name: str) -> tuple[Tensor, float]:
    """Return the Cholesky factor of a covariance and the jitter that it took.

    Parameters
    ----------
    matrix : Tensor, shape (n, n)
        Symmetric; changed where jitter is added.
    name : str
        Of the kernel, for the message.

    Returns
    -------
    tuple of Tensor, shape (n, n), and float
        Lower triangle, and what was added to the diagonal.

    Raises
    ------
    FitError
        If the last rung of the ladder does not help either.

    Examples
    --------
    >>> tril, jitter = factor(torch.ones(2, 2, dtype=torch.float64), "RBF()")
    >>> 0 < jitter < 1e-9
    True
    """
    diagonal = matrix.diagonal()
    mean, added = float(diagonal.abs().mean()), 0.0
    for rung in JITTER_LADDER:
        diagonal.add_(rung * mean - added)
        added = rung * mean
        tril, info = torch.linalg.cholesky_ex(matrix)
        if int(info) == 0 and bool(tril.diagonal().isfinite().all()):
            return tril, added
    raise FitError(
        f"the covariance of kernel {name} at n = {len(matrix)} points is not positive definite, with jitter up to "
        f"{added:.1g} either; look for extreme values among the inputs, or raise noise_floor="
    )


class LogMarginal(NamedTuple):
    """The log marginal likelihood, its gradient of shape (P + 1,), and the constant mean that it holds at."""

    value: float
    gradient: Tensor
    constant: float


def log_marginal(kernel: Kernel, x: Tensor, y: Tensor, *, log_hyper: Tensor, constant: bool = False) -> LogMarginal:
    """Return the log marginal likelihood of one output and its gradient.

    With G = a a' - K^-1 and a = K^-1 y, the derivative by a hyper-parameter is tr(G dK) / 2 (Rasmussen & Williams
    2006, equation 5.9), which the kernel works out for all of its own with a matrix product or two.

    Parameters
    ----------
    kernel : Kernel
        Covariance of the function.
    x : Tensor, shape (n, D)
        Inputs.
    y : Tensor, shape (n,)
        Values.
    log_hyper : Tensor, shape (P + 1,)
        Logarithms of the kernel's hyper-parameters and of the noise's standard deviation.
    constant : bool
        The mean is the constant that is best for these hyper-parameters, 1' K^-1 y / 1' K^-1 1, instead of 0.

    Returns
    -------
    LogMarginal
        In nats; more is better.

    Raises
    ------
    FitError
        If the covariance is not positive definite.

    Examples
    --------
    >>> from bayeswm.inference import RBF, Scaled
    >>> x, y = torch.zeros(1, 1, dtype=torch.float64), torch.zeros(1, dtype=torch.float64)
    >>> value, gradient, _ = log_marginal(Scaled(RBF()), x, y, log_hyper=torch.zeros(3, dtype=torch.float64))
    >>> round(value, 4), gradient.numpy().round(6).tolist()  # N(0; 0, 2), by length scale, signal and noise
    (-1.2655, [0.0, -0.5, -0.5])
    """
    n, noise = len(y), float((2 * log_hyper[-1]).exp())
    covariance, kernel_gradient = kernel.with_gradient(x, log_hyper[:-1].exp())
    diagonal = covariance.diagonal()
    without = diagonal.clone()
    diagonal.add_(noise)
    tril, _ = factor(covariance, repr(kernel))
    diagonal.copy_(without)  # the kernel may need the matrix for its gradient
    mean = 0.0
    if constant:
        by_data, by_one = torch.cholesky_solve(torch.stack((y, torch.ones_like(y)), -1), tril).unbind(-1)
        # the gradient by the constant is 0 at its best value, so that the others' are those of y without it
        mean = float(by_data.sum() / by_one.sum())
        y, alpha = y - mean, by_data - mean * by_one
    else:
        alpha = torch.cholesky_solve(y[:, None], tril)[:, 0]
    value = -0.5 * (y @ alpha) - tril.diagonal().log().sum() - 0.5 * n * math.log(2 * math.pi)
    # symmetric, and stored by columns: its transpose is the contiguous one
    g = torch.cholesky_inverse(tril).mT.contiguous().neg_().addr_(alpha, alpha)
    by_noise = noise * g.diagonal().sum()
    return LogMarginal(float(value), torch.cat((0.5 * kernel_gradient(g), by_noise[None])), mean)


@dataclass(frozen=True, eq=False)
class ExactPosterior:
    """Independent zero-mean Gaussian processes given data, one for each output.

    Attributes
    ----------
    kernel : Kernel
        Covariance, of all outputs.
    x : Tensor, shape (n, D)
        Inputs.
    y : Tensor, shape (S, n)
        Values of each output.
    hyper : Hyper
        Hyper-parameters.

    Examples
    --------
    Far from the data, the prior:

    >>> from bayeswm.inference import RBF
    >>> one = torch.ones(1, dtype=torch.float64)
    >>> known = ExactPosterior(RBF(), one.view(1, 1), one.view(1, 1), Hyper(one.view(1, 1), 0.1 * one))
    >>> mean, variance = known.function(torch.tensor([[1.0], [50.0]], dtype=torch.float64))
    >>> mean[0].numpy().round(2).tolist(), variance[0].numpy().round(2).tolist()
    ([0.99, 0.0], [0.01, 1.0])
    """

    kernel: Kernel
    x: Tensor
    y: Tensor
    hyper: Hyper

    @cached_property
    def factors(self) -> tuple[Tensor, tuple[float, ...]]:
        """Cholesky factors of the outputs' covariances, shape (S, n, n), and the jitter that each took."""
        check_memory(len(self.x), len(self.y), self.x.device)
        tril, jitter = [], []
        for values, noise in zip(*self.hyper, strict=True):
            covariance = self.kernel.covariance(self.x, self.x, values)
            covariance.diagonal().add_(noise.square())
            one, added = factor(covariance, repr(self.kernel))
            tril.append(one)
            jitter.append(added)
        return torch.stack(tril), tuple(jitter)

    @property
    def jitter(self) -> tuple[float, ...]:
        """What was added to the diagonal of each output's covariance beyond the noise."""
        return self.factors[1]

    @property
    def nugget(self) -> Tensor:
        """Variance on the diagonal beside the kernel's: noise and jitter, shape (S,)."""
        return self.hyper.noise.square() + torch.tensor(self.jitter, dtype=torch.float64, device=self.x.device)

    def solve(self, values: Tensor) -> Tensor:
        """Return K^-1 v for values of shape (S, n, k)."""
        return torch.cholesky_solve(values, self.factors[0])

    @cached_property
    def alpha(self) -> Tensor:
        """K^-1 y, shape (S, n)."""
        return self.solve(self.y[..., None])[..., 0]

    @cached_property
    def reduction(self) -> Tensor:
        """C in the posterior variance k(x, x) - k(x, centers) C k(centers, x): here K^-1, shape (S, n, n)."""
        return torch.cholesky_inverse(self.factors[0])

    @property
    def centers(self) -> Tensor:
        """Where the kernels of a drawn function sit: at the data, shape (S, n, D)."""
        return self.x.expand(len(self.y), -1, -1)

    def condition(self, x: Tensor, y: Tensor) -> ExactPosterior:
        """Return the posterior given inputs (n, D) and values (S, n) too."""
        return replace(self, x=torch.cat((self.x, x)), y=torch.cat((self.y, y), -1))

    @cached_property
    def _solvers(self) -> list[ForwardSolver]:
        return [ForwardSolver(tril) for tril in self.factors[0]]

    def explained_(self, cross: Tensor, *, output: int) -> Tensor:
        """Return k' C k for covariances k (n, m) with the centers of an output, which are overwritten, shape (m,)."""
        return self._solvers[output].squares_(cross)

    def function(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and variance of the function, without noise, at points (m, D), both of shape (S, m)."""
        means, variances = [], []
        size = max(_CHUNK // len(self.x), 1)
        for s, values in enumerate(self.hyper.values):
            prior = self.kernel.variance(values, points.shape[-1])
            mean, variance = [], []
            for part in points.split(size):
                cross = self.kernel.covariance(self.x, part, values)
                mean.append(self.alpha[s] @ cross)
                variance.append((prior - self.explained_(cross, output=s)).clamp(min=0.0))
            means.append(torch.cat(mean))
            variances.append(torch.cat(variance))
        return torch.stack(means), torch.stack(variances)

    def update(self, prior: Tensor, generator: torch.Generator) -> Tensor:
        """Return what turns draws from the prior into draws from the posterior: weights of the kernel at ``centers``.

        Matheron's rule, K^-1 (y - f(X) - noise) (Wilson et al. 2020).

        Parameters
        ----------
        prior : Tensor, shape (count, S, n)
            Values at the centers of functions drawn from the prior.
        generator : torch.Generator
            Source of the noise.

        Returns
        -------
        Tensor, shape (count, S, n)
        """
        noise = standard_normal(prior.shape, generator, dtype=torch.float64, device=prior.device)
        residual = self.y - prior - self.nugget.sqrt()[:, None] * noise
        return self.solve(residual.movedim(0, -1)).movedim(-1, 0).contiguous()

    def tensors(self) -> dict[str, Tensor]:
        """Return the fields but the kernel, for saving."""
        return {"x": self.x, "y": self.y, **self.hyper._asdict()}
