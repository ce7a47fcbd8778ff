"""Sparse Gaussian processes: the collapsed variational bound with its gradient, and the posterior."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

from bayeswm.base.errors import SpecError
from bayeswm.base.random import standard_normal
from bayeswm.inference.gp_algebra import Kernel
from bayeswm.inference.gp_blocks import ForwardSolver
from bayeswm.inference.gp_exact import Hyper, factor, memory

# doubles in the largest temporary of a loop over data, and in what is kept from one loop to the next
_CHUNK, _KEPT = 2**20, 2**24
# matrices (m, m) that an output keeps, and that live at once while the bound is computed or points are chosen
_KEPT_BY_OUTPUT, _WORK = 5, 16
# share of the prior variance below which no further inducing point is worth it, and what is added to their covariance
_ENOUGH, _JITTER = 1e-10, 1e-10


class Bound(NamedTuple):
    """A lower bound of the log marginal likelihood and its gradient.

    ``value`` in nats (more is better), ``by_hyper`` of shape (P + 1,) by the logarithms of the hyper-parameters,
    ``by_inducing`` of shape (m, D), and the constant mean that it holds at.
    """

    value: float
    by_hyper: Tensor
    by_inducing: Tensor
    constant: float


def collapsed_bound(
    kernel: Kernel, x: Tensor, y: Tensor, *, inducing: Tensor, log_hyper: Tensor, constant: bool = False
) -> Bound:
    r"""Return the variational bound of one output, maximised over what the inducing points' values may be.

    With :math:`Q = K_{fu} K_{uu}^{-1} K_{uf}` it is
    :math:`\log N(y; 0, Q + \sigma^2 I) - \mathrm{tr}(K_{ff} - Q) / 2 \sigma^2` (Titsias 2009), which never exceeds the
    log marginal likelihood and equals it where the inducing points are the data. Work of order n m^2, memory of order
    m^2. The derivatives by the matrices are in closed form, those of the matrices are autograd's, so that any kernel
    will do.

    Parameters
    ----------
    kernel : Kernel
        Covariance of the function.
    x : Tensor, shape (n, D)
        Inputs.
    y : Tensor, shape (n,)
        Values.
    inducing : Tensor, shape (m, D)
        Inducing points.
    log_hyper : Tensor, shape (P + 1,)
        Logarithms of the kernel's hyper-parameters and of the noise's standard deviation.
    constant : bool
        The mean is the constant that is best for these hyper-parameters, instead of 0.

    Returns
    -------
    Bound

    Raises
    ------
    FitError
        If a covariance is not positive definite.

    Examples
    --------
    >>> from bayeswm.inference import RBF, Scaled, log_marginal
    >>> x = torch.linspace(0, 3, 6, dtype=torch.float64)[:, None]
    >>> y, log_hyper = torch.sin(x[:, 0]), torch.tensor([0.0, 0.0, -1.0], dtype=torch.float64)
    >>> exact, *_ = log_marginal(Scaled(RBF()), x, y, log_hyper=log_hyper)
    >>> few, all_of_them = (collapsed_bound(Scaled(RBF()), x, y, inducing=z, log_hyper=log_hyper) for z in (x[::3], x))
    >>> few.value < exact, abs(all_of_them.value - exact) < 1e-6
    (True, True)
    """
    n, m, noise = len(y), len(inducing), float((2 * log_hyper[-1]).exp())
    log_values, at = log_hyper[:-1].detach().clone().requires_grad_(), inducing.detach().clone().requires_grad_()
    with torch.enable_grad():
        values = log_values.exp()
        among, prior = kernel.covariance(at, at, values), kernel.variance(values, x.shape[1])
    with torch.no_grad():
        given = values.detach()
        tril, _ = _factor(kernel, among.detach().clone())
        kept: list[Tensor] | None = [] if m * n <= _KEPT else None
        square, cross, ones = x.new_zeros(m, m), x.new_zeros(m), x.new_zeros(m)
        solver = ForwardSolver(tril)
        for rows in _chunks(n, m):
            white = solver.solve_(kernel.covariance(inducing, x[rows], given))
            square.addmm_(white, white.mT)
            cross.addmv_(white, y[rows])
            ones.add_(white.sum(-1))
            if kept is not None:
                kept.append(white)
        inner = _inner(square, noise)
        mean = 0.0
        if constant:
            of_one = torch.cholesky_solve(ones[:, None], inner)[:, 0]
            mean = float((y.sum() - of_one @ cross) / (n - of_one @ ones))
            y, cross = y - mean, cross - mean * ones
        weight = torch.cholesky_solve(cross[:, None], inner)[:, 0]
        inverse = torch.cholesky_inverse(inner)
        misfit = float(y @ y - cross @ weight)
        unexplained = n * float(prior) - float(square.diagonal().sum())
        log_det = (n - m) * math.log(noise) + 2 * float(inner.diagonal().log().sum())
        value = -0.5 * (n * math.log(2 * math.pi) + log_det + (misfit + unexplained) / noise)
        by_noise = (misfit + unexplained) / noise - (n - m)
        by_noise -= noise * float(inverse.diagonal().sum()) + float(weight @ weight)
        # d value / d K_uu = -L^-T (square / noise - I + noise C^-1 + w w') L^-1 / 2, with C = noise I + square
        middle = (square / noise + noise * inverse).addr_(weight, weight)
        middle.diagonal().sub_(1.0)
        back = torch.linalg.solve_triangular(tril.mT, middle, upper=True)
        by_among = -0.5 * torch.linalg.solve_triangular(tril, back, upper=False, left=False)
        # d value / d K_uf = L^-T ((I / noise - C^-1) V + w (y - V'w)' / noise)
        inverse.neg_().diagonal().add_(1.0 / noise)
        left = torch.linalg.solve_triangular(tril.mT, torch.cat((inverse, weight[:, None] / noise), 1), upper=True)
    by_values, by_inducing = torch.autograd.grad(
        (among, prior), (log_values, at), (by_among, torch.full_like(prior, -0.5 * n / noise)), allow_unused=True
    )
    by_inducing = torch.zeros_like(at) if by_inducing is None else by_inducing
    for i, rows in enumerate(_chunks(n, m)):
        with torch.enable_grad():
            across = kernel.covariance(at, x[rows], log_values.exp())
        with torch.no_grad():
            white = kept[i] if kept is not None else solver.solve_(across.detach().clone())
            by_across = left[:, :m] @ white
            by_across.addr_(left[:, m], y[rows] - white.mT @ weight)
        more = torch.autograd.grad(across, (log_values, at), by_across)
        by_values, by_inducing = by_values + more[0], by_inducing + more[1]
    return Bound(value, torch.cat((by_values, by_values.new_tensor([by_noise]))), by_inducing, mean)


def choose_inducing(kernel: Kernel, x: Tensor, values: Tensor, *, count: int) -> Tensor:
    """Return inputs that explain the others: one after another where the variance given the chosen ones is largest.

    This is a Cholesky decomposition with pivots, stopped early (Burt et al. 2020, section 4). It has no randomness.

    Parameters
    ----------
    kernel : Kernel
        Covariance of the function.
    x : Tensor, shape (n, D)
        Inputs to choose from.
    values : Tensor, shape (P,)
        The kernel's hyper-parameters.
    count : int
        How many.

    Returns
    -------
    Tensor, shape (min(count, n), D)

    Examples
    --------
    >>> from bayeswm.inference import RBF
    >>> x, one = torch.tensor([[0.0], [0.1], [3.0], [6.0]], dtype=torch.float64), torch.ones(1, dtype=torch.float64)
    >>> choose_inducing(RBF(), x, one, count=3)[:, 0].sort().values.tolist()
    [0.0, 3.0, 6.0]
    """
    count = min(count, len(x))
    prior = float(kernel.variance(values, x.shape[1]))
    left = x.new_full((len(x),), prior)
    found = x.new_zeros(count, len(x))
    chosen: list[int] = []
    for i in range(count):
        pivot = int(left.argmax())
        if float(left[pivot]) <= _ENOUGH * prior:
            break
        row = kernel.covariance(x[pivot : pivot + 1], x, values)[0]
        row = row.addmv(found[:i].mT, found[:i, pivot], alpha=-1.0).div_(left[pivot].sqrt())
        found[i] = row
        left = (left - row.square()).clamp_(min=0.0)
        left[pivot] = -1.0
        chosen.append(pivot)
    # nothing is left to explain: any others
    chosen += left.argsort(descending=True, stable=True)[: count - len(chosen)].tolist()
    return x[chosen]


@dataclass(frozen=True, eq=False)
class SparsePosterior:
    """Independent zero-mean Gaussian processes given data through inducing points, one for each output.

    All that it keeps of the data are two sums of what the data say of the inducing points.

    Attributes
    ----------
    kernel : Kernel
        Covariance, of all outputs.
    centers : Tensor, shape (S, m, D)
        Inducing points of each output.
    square : Tensor, shape (S, m, m)
        V V', V the covariances of inducing points and data, whitened by the Cholesky factor of the former's.
    cross : Tensor, shape (S, m)
        V y.
    hyper : Hyper
        Hyper-parameters.

    Examples
    --------
    >>> from bayeswm.inference import RBF
    >>> x, one = torch.linspace(0, 6, 200, dtype=torch.float64)[:, None], torch.ones(1, dtype=torch.float64)
    >>> prior = SparsePosterior.prior(RBF(), x[None, ::20], Hyper(one.view(1, 1), 0.1 * one))
    >>> mean, variance = prior.condition(x, torch.sin(x).mT).function(one.view(1, 1))
    >>> round(float(mean), 2), round(float(torch.sin(one)), 2), float(variance) < 0.001
    (0.84, 0.84, True)
    """

    kernel: Kernel
    centers: Tensor
    square: Tensor
    cross: Tensor
    hyper: Hyper

    @classmethod
    def prior(cls, kernel: Kernel, centers: Tensor, hyper: Hyper) -> SparsePosterior:
        """Return the process before any data, with inducing points of shape (S, m, D)."""
        outputs, m, _ = centers.shape
        return cls(kernel, centers, centers.new_zeros(outputs, m, m), centers.new_zeros(outputs, m), hyper)

    def condition(self, x: Tensor, y: Tensor) -> SparsePosterior:
        """Return the posterior given inputs (n, D) and values (S, n) too, as if it had seen all data at once."""
        square, cross = self.square.clone(), self.cross.clone()
        for s, values in enumerate(self.hyper.values):
            for rows in _chunks(len(x), self.centers.shape[1]):
                white = self._solvers[s].solve_(self.kernel.covariance(self.centers[s], x[rows], values))
                square[s].addmm_(white, white.mT)
                cross[s].addmv_(white, y[s, rows])
        return replace(self, square=square, cross=cross)

    @cached_property
    def _factors(self) -> tuple[Tensor, tuple[float, ...]]:
        """Cholesky factors of the inducing points' covariances and the jitter that each took."""
        pairs = [
            _factor(self.kernel, self.kernel.covariance(z, z, v))
            for z, v in zip(self.centers, self.hyper.values, strict=True)
        ]
        return torch.stack([p[0] for p in pairs]), tuple(p[1] for p in pairs)

    @cached_property
    def _solvers(self) -> list[ForwardSolver]:
        return [ForwardSolver(tril) for tril in self._factors[0]]

    @cached_property
    def _inner_solvers(self) -> list[ForwardSolver]:
        return [ForwardSolver(tril) for tril in self._inner]

    @property
    def jitter(self) -> tuple[float, ...]:
        """What was added to the diagonal of each output's covariance of inducing points."""
        return self._factors[1]

    @cached_property
    def _inner(self) -> Tensor:
        """Cholesky factors of C = noise^2 I + V V'; whitened, the inducing values are N(C^-1 V y, noise^2 C^-1)."""
        return torch.stack([_inner(s, float(v.square())) for s, v in zip(self.square, self.hyper.noise, strict=True)])

    @cached_property
    def _center(self) -> Tensor:
        return torch.cholesky_solve(self.cross[..., None], self._inner)

    @cached_property
    def alpha(self) -> Tensor:
        """Weights of the kernel at the inducing points in the mean, shape (S, m)."""
        return torch.linalg.solve_triangular(self._factors[0].mT, self._center, upper=True)[..., 0]

    @cached_property
    def reduction(self) -> Tensor:
        """C in the posterior variance k(x, x) - k(x, centers) C k(centers, x), shape (S, m, m)."""
        # L^-T (I - noise^2 C^-1) L^-1 for the factor L of the inducing points' covariance, in one product
        left = -self.hyper.noise.square()[:, None, None] * torch.cholesky_inverse(self._inner)
        left.diagonal(dim1=-2, dim2=-1).add_(1.0)
        back = torch.linalg.solve_triangular(self._factors[0].mT, left, upper=True)
        whole = torch.linalg.solve_triangular(self._factors[0], back, upper=False, left=False)
        return 0.5 * (whole + whole.mT)

    def explained_(self, cross: Tensor, *, output: int) -> Tensor:
        """Return k' C k for covariances k (m, j) with the centers of an output, which are overwritten, shape (j,)."""
        white = self._solvers[output].solve_(cross)
        explained = white.square().sum(0)
        left = self.hyper.noise[output] * self._inner_solvers[output].solve_(white)
        return explained - left.square().sum(0)

    def function(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and variance of the function, without noise, at points (k, D), both of shape (S, k)."""
        means, variances = [], []
        for s, values in enumerate(self.hyper.values):
            prior = self.kernel.variance(values, points.shape[-1])
            mean, variance = [], []
            for part in points.split(max(_CHUNK // self.centers.shape[1], 1)):
                cross = self.kernel.covariance(self.centers[s], part, values)
                mean.append(self.alpha[s] @ cross)
                variance.append(prior - self.explained_(cross, output=s))
            means.append(torch.cat(mean))
            variances.append(torch.cat(variance).clamp(min=0.0))
        return torch.stack(means), torch.stack(variances)

    def update(self, prior: Tensor, generator: torch.Generator) -> Tensor:
        """Return what turns draws from the prior into draws from the posterior: weights of the kernel at ``centers``.

        Matheron's rule with values at the inducing points drawn from the variational posterior (Wilson et al. 2020).

        Parameters
        ----------
        prior : Tensor, shape (count, S, m)
            Values at the centers of functions drawn from the prior.
        generator : torch.Generator
            Source of randomness.

        Returns
        -------
        Tensor, shape (count, S, m)
        """
        tril, device = self._factors[0], prior.device
        noise = standard_normal(prior.shape, generator, dtype=torch.float64, device=device).movedim(0, -1)
        spread = torch.linalg.solve_triangular(self._inner.mT, noise, upper=True) * self.hyper.noise[:, None, None]
        # the jitter is part of what the inducing values are
        jitter = prior.new_tensor(self.jitter).sqrt()[:, None]
        before = prior + jitter * standard_normal(prior.shape, generator, dtype=torch.float64, device=device)
        change = self._center + spread - torch.linalg.solve_triangular(tril, before.movedim(0, -1), upper=False)
        return torch.linalg.solve_triangular(tril.mT, change, upper=True).movedim(-1, 0).contiguous()

    def tensors(self) -> dict[str, Tensor]:
        """Return the fields but the kernel, for saving."""
        return {"centers": self.centers, "square": self.square, "cross": self.cross, **self.hyper._asdict()}


def check_sparse_memory(n: int, inducing: int, *, outputs: int, device: torch.device) -> None:
    """Refuse a sparse process that cannot fit into memory, before anything is allocated.

    Parameters
    ----------
    n : int
        Training points.
    inducing : int
        Inducing points.
    outputs : int
        Outputs; each keeps a few matrices of inducing^2 numbers.
    device : torch.device
        Where it is to live.

    Raises
    ------
    SpecError
        With the memory that it needs.

    Examples
    --------
    >>> check_sparse_memory(100_000, 500, outputs=4, device=torch.device("cpu"))
    """
    free = memory(device)
    # among the work are the rows of 8 candidates for each point
    need = 8 * ((_KEPT_BY_OUTPUT * outputs + _WORK) * inducing**2 + min(n * inducing, _KEPT) + 4 * _CHUNK)
    if need > 0.8 * free:
        most = math.isqrt(int(0.8 * free / (8 * (_KEPT_BY_OUTPUT * outputs + _WORK))))
        raise SpecError(
            f"expected a sparse Gaussian process that fits into memory, {inducing} inducing points need "
            f"{need / 1e9:.1f} GB of {free / 1e9:.1f} GB; use fewer than {most}"
        )


def _chunks(n: int, m: int) -> Iterator[slice]:
    size = max(_CHUNK // m, 1)
    return (slice(i, min(i + size, n)) for i in range(0, n, size))


def _factor(kernel: Kernel, among: Tensor) -> tuple[Tensor, float]:
    # always some jitter: where the decomposition just succeeds without, its rounding errors are larger than this
    added = _JITTER * float(among.diagonal().mean())
    among.diagonal().add_(added)
    tril, more = factor(among, repr(kernel))
    return tril, added + more


def _inner(square: Tensor, noise: float) -> Tensor:
    c = square.clone()
    c.diagonal().add_(noise)
    return factor(c, "of the inducing points")[0]
