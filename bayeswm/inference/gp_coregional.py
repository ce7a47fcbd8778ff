"""Outputs that share what they learn: the intrinsic coregionalisation model, as independent outputs and a rotation."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from bayeswm.base.errors import SpecError
from bayeswm.base.random import make_generator, standard_normal
from bayeswm.inference.gp_algebra import Kernel, Parameter
from bayeswm.inference.gp_exact import factor
from bayeswm.inference.gp_optimise import OutputFit, finite, fit_target
from bayeswm.inference.gp_priors import Density, HyperPriors, limits

# of a row of the Cholesky factor of the outputs' correlations, before it is normalised: 30 is a correlation of 0.9994
_MOST_LOADING = 30.0


@dataclass(frozen=True)
class Coregionalised:
    """Outputs that vary together: their covariance is B k(x, x'), with one kernel and a full matrix B to be learned.

    This is the intrinsic coregionalisation model (Bonilla et al. 2008). Where outputs are independent of each other, or
    need length scales of their own, it is no gain.

    Attributes
    ----------
    loading : float
        Standard deviation of the normal prior on the sub-diagonal of the correlations' Cholesky factor, in units of its
        diagonal; small values favour independent outputs.

    Raises
    ------
    SpecError
        If it is not above 0.
    """

    loading: float = 1.0

    def __post_init__(self) -> None:
        if not (self.loading > 0 and math.isfinite(self.loading)):
            raise SpecError(f"expected loading > 0, got {self.loading!r}")


class CoregionalHyper(NamedTuple):
    """Hyper-parameters of coregionalised outputs.

    The kernel's ``values`` (P,), the outputs' ``covariance`` B (S, S), standard deviations of the ``noise`` (S,) and
    learned means, if any, (S,).
    """

    values: Tensor
    covariance: Tensor
    noise: Tensor
    constant: Tensor


class CoregionalMarginal(NamedTuple):
    """The log marginal likelihood in nats (more is better), its gradients, and the constants that it holds at.

    ``by_values`` (P,) and ``by_noise`` (S,) by logarithms, ``by_covariance`` (S, S), symmetric, and ``constant`` (S,).
    """

    value: float
    by_values: Tensor
    by_covariance: Tensor
    by_noise: Tensor
    constant: Tensor


def rotation(covariance: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
    r"""Return what makes coregionalised outputs independent.

    Divided by their noise and rotated by the eigenvectors of :math:`\Sigma^{-1/2} B \Sigma^{-1/2}`, outputs are
    independent processes with noise 1, whose variances are the eigenvalues (Rakitsch et al. 2013).

    Parameters
    ----------
    covariance : Tensor, shape (S, S)
        B.
    noise : Tensor, shape (S,)
        Standard deviations of the noise.

    Returns
    -------
    tuple of Tensor, shapes (S,) and (S, S)
        Variances of the independent outputs, and the matrix that mixes these to the outputs.

    Examples
    --------
    >>> covariance = torch.tensor([[2.0, 1.0], [1.0, 3.0]], dtype=torch.float64)
    >>> noise = torch.tensor([0.1, 0.5], dtype=torch.float64)
    >>> variance, mixing = rotation(covariance, noise)
    >>> torch.allclose(mixing @ variance.diag() @ mixing.mT, covariance)
    True
    >>> torch.allclose(mixing @ mixing.mT, noise.square().diag())
    True
    """
    variance, vectors = torch.linalg.eigh(covariance / (noise[:, None] * noise))
    # B is positive definite; rounding may say otherwise
    return variance.clamp(min=1e-12), noise[:, None] * vectors


def coregional_marginal(
    kernel: Kernel,
    x: Tensor,
    y: Tensor,
    *,
    log_values: Tensor,
    covariance: Tensor,
    noise: Tensor,
    constant: bool = False,
) -> CoregionalMarginal:
    """Return the log marginal likelihood of coregionalised outputs and its gradients, by independent ones.

    Parameters
    ----------
    kernel : Kernel
        Of all outputs.
    x : Tensor, shape (n, D)
        Inputs.
    y : Tensor, shape (S, n)
        Values of each output.
    log_values : Tensor, shape (P,)
        Logarithms of the kernel's hyper-parameters.
    covariance : Tensor, shape (S, S)
        B.
    noise : Tensor, shape (S,)
        Standard deviations of the noise.
    constant : bool
        The means are the constants that are best for these hyper-parameters, instead of 0.

    Returns
    -------
    CoregionalMarginal

    Raises
    ------
    FitError
        If a covariance is not positive definite.

    Examples
    --------
    >>> from bayeswm.inference import RBF
    >>> one = torch.ones(1, dtype=torch.float64)
    >>> settings = {"log_values": 0 * one, "covariance": one.view(1, 1), "noise": one}
    >>> round(coregional_marginal(RBF(), one.view(1, 1), 0 * one.view(1, 1), **settings)[0], 4)  # N(0; 0, 2)
    -1.2655
    """
    n = len(x)
    variance, mixing = rotation(covariance, noise)
    unmix = mixing.mT / noise.square()  # the inverse: mixing is noise times a rotation
    shared, kernel_gradient = kernel.with_gradient(x, log_values.exp())
    latent = unmix @ y
    value = -n * float(noise.log().sum()) - 0.5 * y.numel() * math.log(2 * math.pi)
    alpha, weight, means = torch.empty_like(latent), torch.zeros_like(shared), x.new_zeros(len(y))
    traces = x.new_empty(2, len(y))
    for i, share in enumerate(variance):
        full = share * shared
        full.diagonal().add_(1.0)
        tril, _ = factor(full, repr(kernel))
        by_data, by_one = torch.cholesky_solve(torch.stack((latent[i], torch.ones_like(latent[i])), -1), tril).unbind(
            -1
        )
        if constant:
            means[i] = by_data.sum() / by_one.sum()
        alpha[i], latent[i] = by_data - means[i] * by_one, latent[i] - means[i]
        value -= 0.5 * float(latent[i] @ alpha[i]) + float(tril.diagonal().log().sum())
        # symmetric, and stored by columns: its transpose is the contiguous one
        inverse = torch.cholesky_inverse(tril).mT.contiguous()
        traces[0, i] = torch.dot(inverse.view(-1), shared.reshape(-1))
        traces[1, i] = inverse.diagonal().sum()
        weight.add_(inverse.neg_().addr_(alpha[i], alpha[i]), alpha=float(share))
    by_covariance = 0.5 * unmix.mT @ (alpha @ shared @ alpha.mT - traces[0].diag()) @ unmix
    by_noise = noise.square() * (unmix.mT @ (alpha @ alpha.mT - traces[1].diag()) @ unmix).diagonal()
    return CoregionalMarginal(value, 0.5 * kernel_gradient(weight), by_covariance, by_noise, mixing @ means)


def fit_coregional(
    kernel: Kernel,
    x: Tensor,
    y: Tensor,
    *,
    outputs: Coregionalised,
    priors: HyperPriors | None,
    restarts: int,
    noise_floor: float,
    seed: int,
    constant: bool = False,
) -> tuple[CoregionalHyper, OutputFit]:
    """Find the hyper-parameters of all outputs together, as :func:`fit_hyper` does for each by itself.

    The first start has independent outputs.

    Parameters
    ----------
    kernel : Kernel
        Of all outputs; its variance should not be learned, since B has it.
    x : Tensor, shape (n, D)
        Inputs, standardised.
    y : Tensor, shape (S, n)
        Outputs, of root mean square near 1.
    outputs : Coregionalised
        How much they are expected to vary together.
    priors : HyperPriors, optional
        Those of a signal are for the roots of B's diagonal. None maximises the likelihood alone.
    restarts : int
        Starts.
    noise_floor : float
        Smallest standard deviation of the noise.
    seed : int
        Decides the starts.
    constant : bool
        Learn a constant mean of each output.

    Returns
    -------
    tuple of CoregionalHyper and OutputFit

    Raises
    ------
    FitError
        If the objective is not finite.

    Examples
    --------
    >>> from bayeswm.inference import RBF
    >>> x = torch.linspace(-2, 2, 40, dtype=torch.float64)[:, None]
    >>> y = torch.sin(2 * x).mT * torch.tensor([[1.0], [-1.0]], dtype=torch.float64)
    >>> settings = {"priors": HyperPriors(), "restarts": 1, "noise_floor": 0.01, "seed": 0}
    >>> hyper, _ = fit_coregional(RBF(), x, y, outputs=Coregionalised(), **settings)
    >>> float(hyper.covariance[0, 1]) < 0
    True
    """
    size = len(y)
    signals = Parameter("outputs.signal", "signal", (), (1.0,) * size)
    parameters = [*kernel.parameters(x.shape[1]), signals]
    # the last noise is there without being asked for
    more = [Parameter("outputs.noise", "noise", (), (1.0,) * (size - 1))] if size > 1 else []
    density = (HyperPriors() if priors is None else priors).density([*parameters, *more])
    box = limits(parameters, noise_floor)
    loadings = size * (size - 1) // 2
    edge = torch.tensor([[-_MOST_LOADING, _MOST_LOADING]], dtype=torch.float64)
    box = torch.cat((box, box[-1:].expand(size - 1, 2), edge.expand(loadings, 2)))
    generator = make_generator(seed)
    starts = density.starts(restarts, generator)
    drawn = 0.5 * standard_normal((restarts, loadings), generator, dtype=torch.float64, device="cpu")
    drawn[0] = 0.0
    starts = torch.cat((starts, drawn), 1).clamp(box[:, 0], box[:, 1])
    target = _Target(kernel, x, y, None if priors is None else density, outputs.loading, constant)
    best, fit = fit_target(target, starts, box)
    values, deviation, noise, loading = (v.to(x.device) for v in target.split(best))
    covariance = _covariance(deviation, loading)
    of_best = coregional_marginal(
        kernel, x, y, log_values=values, covariance=covariance, noise=noise.exp(), constant=constant
    )
    return CoregionalHyper(values.exp(), covariance, noise.exp(), of_best.constant), fit


@dataclass
class _Target:
    """The objective: log likelihood and, if there are priors, their log density."""

    kernel: Kernel
    x: Tensor
    y: Tensor
    density: Density | None
    loading: float
    constant: bool = False
    evaluations: int = 0

    @property
    def size(self) -> int:
        return len(self.x)

    def rows(self, chosen: Tensor) -> _Target:
        return _Target(self.kernel, self.x[chosen], self.y[:, chosen], self.density, self.loading, self.constant)

    def split(self, at: Tensor) -> tuple[Tensor, ...]:
        """Return logarithms of the kernel's values, of B's diagonal's roots and of the noise, and the loadings."""
        size = len(self.y)
        kernel = self.kernel.size(self.x.shape[1])
        return at.split([kernel, size, size, size * (size - 1) // 2])

    def log_prior(self, at: Tensor) -> tuple[float, Tensor]:
        if self.density is None:
            return 0.0, torch.zeros_like(at)
        loading = self.split(at)[-1] / self.loading
        head = len(at) - len(loading)
        value, gradient = self.density(at[:head])
        return value - 0.5 * float(loading.square().sum()), torch.cat((gradient, -loading / self.loading))

    def __call__(self, at: Tensor) -> tuple[float, Tensor]:
        self.evaluations += 1
        values, deviation, noise, loading = (v.to(self.x.device) for v in self.split(at))
        with torch.enable_grad():
            free = (deviation.clone().requires_grad_(), loading.clone().requires_grad_())
            covariance = _covariance(*free)
        found = coregional_marginal(
            self.kernel,
            self.x,
            self.y,
            log_values=values,
            covariance=covariance.detach(),
            noise=noise.exp(),
            constant=self.constant,
        )
        by_deviation, by_loading = torch.autograd.grad(covariance, free, found.by_covariance, allow_unused=True)
        by_loading = torch.zeros_like(loading) if by_loading is None else by_loading
        log_prior, slope = self.log_prior(at)
        gradient = torch.cat((found.by_values, by_deviation, found.by_noise, by_loading)).cpu() + slope
        finite(found.value, gradient, kernel=self.kernel, n=self.size)
        return found.value + log_prior, gradient


def _covariance(log_deviation: Tensor, loading: Tensor) -> Tensor:
    """Return B from the logarithms of its diagonal's roots and the loadings of its correlations' Cholesky factor."""
    size = len(log_deviation)
    lower = torch.eye(size, dtype=loading.dtype, device=loading.device)
    row, column = torch.tril_indices(size, size, -1, device=loading.device)
    lower = lower.index_put((row, column), loading)
    lower = log_deviation.exp()[:, None] * lower / lower.square().sum(-1, keepdim=True).sqrt()
    return lower @ lower.mT
