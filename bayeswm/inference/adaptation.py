"""What a many-chain Hamiltonian sampler tunes while it warms up: coordinates, step size, trajectory length."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from bayeswm.inference.convergence import ess_mean

LogDensity = Callable[[Tensor], Tensor]

# bounds on what a curvature may claim: a variable's scale, and the condition number that finite differences resolve
_LARGEST_SCALE, _SMALLEST_EIGENVALUE = 1e4, 1e-7


class Target:
    """A log density in coordinates z, x = centre + L z, in which it is nearly a standard normal one.

    Parameters
    ----------
    log_density : callable
        Takes (n, D), returns (n,); differentiable by autograd.
    size : int
        D.
    dense : bool
        Whether L is a full matrix or a diagonal.

    Attributes
    ----------
    evaluations : int
        Batched gradients so far.
    """

    def __init__(self, log_density: LogDensity, size: int, *, dense: bool) -> None:
        self.log_density, self.dense, self.evaluations = log_density, dense, 0
        self.centre = torch.zeros(size, dtype=torch.float64)
        self.factor = torch.eye(size, dtype=torch.float64) if dense else torch.ones(size, dtype=torch.float64)

    def __call__(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Return log density (n,) and gradient (n, D) in z; -inf and 0 where either is not finite."""
        self.evaluations += 1
        with torch.enable_grad():
            x = self.position(z.detach()).requires_grad_()
            value = self.log_density(x)
            (gradient,) = torch.autograd.grad(value.sum(), x)
        value = value.detach()
        # one number tells that all are finite, which is the rule
        if not math.isfinite(float(value.sum() + gradient.sum())):
            finite = value.isfinite() & gradient.isfinite().all(-1)
            value = torch.where(finite, value, float("-inf"))
            gradient = torch.where(finite[:, None], gradient, 0.0)
        return value, gradient @ self.factor if self.dense else gradient * self.factor

    def position(self, z: Tensor) -> Tensor:
        """Return x, shape as z: (..., D)."""
        return self.centre + (z @ self.factor.mT if self.dense else z * self.factor)

    def coordinates(self, x: Tensor) -> Tensor:
        """Return z, shape as x: (..., D)."""
        moved = x - self.centre
        return torch.linalg.solve(self.factor, moved.mT).mT if self.dense else moved / self.factor

    def follow_curvature(self, z: Tensor, *, step: float = 1e-4) -> None:
        """Take the coordinates from the curvature at one point z (D,): central differences of 2 D gradients.

        Directions of negative curvature count by their size (a soft absolute value without the softness).
        """
        size = len(z)
        shifts = step * torch.eye(size, dtype=torch.float64)
        gradient = self(torch.cat((z + shifts, z - shifts)))[1]
        hessian = (gradient[size:] - gradient[:size]) / (2 * step)
        if not bool(hessian.isfinite().all()):
            return
        scale = hessian.diagonal().abs().clamp(min=_LARGEST_SCALE**-2).rsqrt()
        scaled = scale[:, None] * (hessian + hessian.mT) / 2 * scale
        values, vectors = torch.linalg.eigh(scaled)
        root = scale[:, None] * vectors * values.abs().clamp(min=_SMALLEST_EIGENVALUE).rsqrt()
        self.centre = self.position(z)
        self.factor = self.factor @ root

    def follow_draws(self, z: Tensor) -> None:
        """Take the coordinates from draws (chains, n, D) of all chains together.

        The covariance is shrunk towards its diagonal by D / (D + effective draws).
        """
        flat = z.reshape(-1, z.shape[-1])
        spread = flat.var(0).clamp(min=1e-16)
        self.centre = self.position(flat.mean(0))
        if not self.dense:
            self.factor = self.factor * spread.sqrt()
            return
        effective = float(ess_mean(z).nan_to_num(1.0).median()) if z.shape[1] >= 8 else float(len(z))
        keep = effective / (effective + z.shape[-1])
        covariance = keep * flat.mT.cov() + (1 - keep) * torch.diag(spread)
        factor, failed = torch.linalg.cholesky_ex(covariance)
        self.factor = self.factor @ (factor if int(failed) == 0 else torch.diag(spread.sqrt()))


class StepSize:
    """Dual averaging of the log step size towards a mean acceptance (Hoffman & Gelman 2014)."""

    def __init__(self, start: float, target: float) -> None:
        self.target, self.centre, self.count, self.error = target, math.log(2 * start), 0, 0.0
        self.log_step = self.log_average = math.log(start)

    def update(self, acceptance: float) -> None:
        """Learn from the mean acceptance (0 to 1) of one iteration."""
        self.count += 1
        weight = 1 / (self.count + 10)
        self.error = (1 - weight) * self.error + weight * (self.target - acceptance)
        self.log_step = self.centre - math.sqrt(self.count) / 0.05 * self.error
        share = self.count**-0.75
        self.log_average = share * self.log_step + (1 - share) * self.log_average

    @property
    def now(self) -> float:
        """The step size to try next."""
        return math.exp(self.log_step)

    @property
    def average(self) -> float:
        """The step size to sample with."""
        return math.exp(self.log_average)


class TrajectoryLength:
    """Adam on the log trajectory length, uphill on ChEES: the change of the squared distance from the centre.

    Hoffman, Radul & Sountsov (2021), An adaptive-MCMC scheme for setting trajectory lengths in Hamiltonian Monte Carlo.
    """

    def __init__(self, start: float, *, rate: float = 0.05) -> None:
        self.log_length = self.log_average = math.log(start)
        self.rate, self.count, self.second = rate, 0, 0.0

    def update(
        self,
        start: Tensor,
        end: Tensor,
        *,
        momentum: Tensor,
        acceptance: Tensor,
        time: float,
        limits: tuple[float, float],
    ) -> None:
        """Learn from one trajectory of each chain.

        Parameters
        ----------
        start, end, momentum : Tensor, shape (chains, D)
            Both ends, and the momentum at the second, in the coordinates of :class:`Target`.
        acceptance : Tensor, shape (chains,)
            Probability of acceptance.
        time : float
            How long the trajectories were.
        limits : tuple of float
            Shortest and longest length.
        """
        if float(acceptance.sum()) <= 0:
            return
        weight = acceptance / acceptance.sum()
        after = end - weight @ end
        change = after.square().sum(-1) - (start - start.mean(0)).square().sum(-1)
        each = torch.where(weight > 0, weight * change * (after * momentum).sum(-1), 0.0)
        slope = time * float(each.sum())
        if not math.isfinite(slope):
            return
        self.count += 1
        self.second = 0.95 * self.second + 0.05 * slope**2
        size = math.sqrt(self.second / (1 - 0.95**self.count))
        moved = self.log_length + self.rate * slope / max(size, 1e-300)
        low, high = limits
        self.log_length = min(max(moved, math.log(low)), math.log(high))
        share = self.count**-0.5
        self.log_average = share * self.log_length + (1 - share) * self.log_average

    @property
    def now(self) -> float:
        """The length to try next."""
        return math.exp(self.log_length)

    @property
    def average(self) -> float:
        """The length to sample with."""
        return math.exp(self.log_average)


def halton(index: int) -> float:
    """Return element ``index`` >= 1 of the van der Corput sequence in base 2, in (0, 1).

    Examples
    --------
    >>> [halton(i) for i in range(1, 5)]
    [0.5, 0.25, 0.75, 0.125]
    """
    value, share = 0.0, 0.5
    while index:
        value += share * (index & 1)
        index, share = index >> 1, share / 2
    return value
