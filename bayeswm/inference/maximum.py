"""The highest point of a log density: L-BFGS from several starts, then Newton's method."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from tqdm.auto import tqdm

from bayeswm.base.errors import FitError, FitWarning
from bayeswm.inference.derivatives import hessian

# iterations of L-BFGS
_ITERATIONS = 2000
# up to so many dimensions Newton's method follows, which costs a second derivative a step
_NEWTON, _NEWTON_STEPS = 512, 30
# twice the height that is left, in nats, at which it ends
_LEFT = 1e-22
# the same, below which the top is near enough
_FLAT = 1e-6


class Maximum(NamedTuple):
    """The highest point (D,) that was found, the log density there, and how it was found.

    ``evaluations`` counts gradients; ``converged`` says whether the climb ended by itself.
    """

    x: Tensor
    value: float
    evaluations: int
    converged: bool

    def warn(self) -> None:
        """Warn where the climb was cut short."""
        if not self.converged:
            warnings.warn(
                f"the climb to the maximum stopped after {self.evaluations} gradients; the highest point is kept",
                FitWarning,
                stacklevel=3,
            )


def maximise(
    log_density: Callable[[Tensor], Tensor], starts: Tensor, *, scale: Tensor, progress: bool = False
) -> Maximum:
    """Climb from each start and keep the best end.

    Parameters
    ----------
    log_density : callable
        Takes (n, D) and returns (n,); differentiable by autograd.
    starts : Tensor, shape (n, D)
        Those of finite density are used.
    scale : Tensor, shape (D,)
        Rough size of each coordinate.
    progress : bool
        Show a progress bar over the starts.

    Raises
    ------
    FitError
        If no start, or no end, has a finite density and gradient.

    Examples
    --------
    >>> top = torch.tensor([3.0, -20.0], dtype=torch.float64)
    >>> found = maximise(lambda x: -(x - top).cosh().log().sum(-1), torch.zeros(1, 2).double(), scale=torch.ones(2))
    >>> found.x.numpy().round(8).tolist()
    [3.0, -20.0]
    """
    target = _Target(log_density)
    ends: list[tuple[float, Tensor, bool]] = []
    for start in tqdm(starts.detach().double(), desc="maximum", unit="start", disable=not progress):
        value, gradient = target(start)
        if value.isfinite() and bool(gradient.isfinite().all()):
            ends.append(_climb(target, start, scale.double(), left=1e-8))
    ends = [end for end in ends if bool(torch.tensor(end[0]).isfinite())]
    if not ends:
        raise FitError(
            f"expected a start of finite density and gradient, got none among {len(starts)}; look at laws and data"
        )
    _, x, _ = max(ends, key=lambda end: end[0])
    if len(x) <= _NEWTON:
        value, x, converged = _polish(target, x)
    else:
        value, x, converged = _climb(target, x, scale.double(), left=1e-14)
    return Maximum(x, value, target.evaluations, converged)


class _Target:
    def __init__(self, log_density: Callable[[Tensor], Tensor]) -> None:
        self.log_density, self.evaluations = log_density, 0

    def __call__(self, x: Tensor) -> tuple[Tensor, Tensor]:
        self.evaluations += 1
        with torch.enable_grad():
            at = x.detach()[None].clone().requires_grad_()
            value = self.log_density(at)
            (gradient,) = torch.autograd.grad(value.sum(), at)
        return value[0].detach(), gradient[0]


def _climb(target: _Target, start: Tensor, scale: Tensor, *, left: float) -> tuple[float, Tensor, bool]:
    from scipy.optimize import minimize

    def negative(z: Any) -> tuple[float, Any]:
        value, gradient = target(start + scale * torch.as_tensor(z, dtype=torch.float64))
        if not (value.isfinite() and bool(gradient.isfinite().all())):
            return 1e100, torch.zeros_like(gradient).numpy()  # too far: the line search comes back
        return -float(value), -(scale * gradient).numpy()

    options = {"maxiter": _ITERATIONS, "maxfun": 2 * _ITERATIONS, "ftol": left, "gtol": math.sqrt(left), "maxcor": 20}
    done = minimize(negative, torch.zeros_like(start).numpy(), jac=True, method="L-BFGS-B", options=options)
    return -float(done.fun), start + scale * torch.as_tensor(done.x, dtype=torch.float64), done.status != 1


def _polish(target: _Target, x: Tensor) -> tuple[float, Tensor, bool]:
    """Newton's method; directions of negative curvature are climbed by the size of their curvature."""
    value, gradient = target(x)
    left = float("inf")
    for _ in range(_NEWTON_STEPS):
        before = left
        curvature = hessian(target.log_density, x)
        if not bool(curvature.isfinite().all()):
            break
        size = curvature.diagonal().abs().clamp(min=1e-300).rsqrt()
        values, vectors = torch.linalg.eigh(size[:, None] * curvature * size)
        step = size * (vectors @ ((vectors.mT @ (size * gradient)) / values.abs().clamp(min=1e-12)))
        left = float(gradient @ step)
        # where steps no longer shrink as Newton's do, they are rounding errors of the gradient
        if left < _LEFT or (max(left, before) < _FLAT and left > 0.1 * before):
            break
        # near the top a value says less than its rounding, and the full step is right
        least = value - 1e-13 * (1 + value.abs()) if left < _FLAT else value
        for halvings in range(20):
            candidate = x + 0.5**halvings * step
            new = target(candidate)
            if bool(new[0] >= least) and bool(new[1].isfinite().all()):
                break
        else:
            break
        x, (value, gradient) = candidate, new
    return float(value), x, left < _FLAT
