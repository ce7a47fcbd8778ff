"""Maximise an objective of hyper-parameters by L-BFGS-B, from several starts of which the best is kept."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, Self

import torch
from torch import Tensor

from bayeswm.base.errors import FitError, FitWarning
from bayeswm.base.memory import keep_blocks

type Objective = Callable[[Tensor], tuple[float, Tensor]]

# Rows on which starts are tried where there are more than a few; all of them only for the best. On 30 problems of 350
# rows the best of three starts was missed as rarely with 96 or 128 as with 192 or 256, at up to 1.7 times the cost.
SCREENING, FEW = 128, 256
_ITERATIONS = 500


@dataclass(frozen=True)
class OutputFit:
    """How the fit of one output went, or of all of them together where they are coregionalised.

    Attributes
    ----------
    log_likelihood : float
        Log marginal likelihood on all rows, or a sparse process's lower bound of it, in nats of standardised outputs.
    objective : float
        The same with the log density of the priors, up to a constant.
    starts : tuple of float
        Objective at the end of each start, on the rows on which starts were tried.
    evaluations : int
        Of the objective on all rows.
    converged : bool
        Whether the optimiser ended by itself.
    constant : float
        Mean of the standardised output, if it was learned.
    """

    log_likelihood: float
    objective: float
    starts: tuple[float, ...]
    evaluations: int
    converged: bool
    constant: float = 0.0


class Target(Protocol):
    """An objective with its gradient, as a function of the logarithms of hyper-parameters."""

    evaluations: int

    @property
    def size(self) -> int:
        """Rows of data."""
        ...

    def rows(self, chosen: Tensor) -> Self:
        """Return the objective on some of the rows."""
        ...

    def log_prior(self, at: Tensor) -> tuple[float, Tensor]:
        """Return the part of the priors, and its gradient."""
        ...

    def __call__(self, at: Tensor) -> tuple[float, Tensor]:
        """Return the objective and its gradient."""
        ...


def fit_target(target: Target, starts: Tensor, box: Tensor) -> tuple[Tensor, OutputFit]:
    """Climb from every start and keep the best end.

    With many rows, all starts run on evenly spaced ones; the end that is best on all rows is where the run on all rows
    begins.

    Parameters
    ----------
    target : Target
        What is maximised.
    starts : Tensor, shape (count, P)
        Where to begin.
    box : Tensor, shape (P, 2)
        Lower and upper limits.

    Returns
    -------
    tuple of Tensor, shape (P,), and OutputFit

    Warns
    -----
    FitWarning
        If the optimiser was stopped.

    Examples
    --------
    See :func:`fit_hyper`.
    """
    keep_blocks()
    few = target.size <= FEW
    # a trial has to find the right hill, not its top
    trial, relative = (target, 1e-9) if few else (screened(target), 1e-5)
    ends = [ascend(trial, start, box, relative=relative) for start in starts]
    tried = tuple(end[1] for end in ends)
    if few:
        best = max(range(len(ends)), key=lambda i: tried[i])
    else:
        candidates = [starts[0], *(end[0] for end in ends)]
        heights = [target(at)[0] for at in candidates]
        ends = [ascend(target, candidates[max(range(len(heights)), key=lambda i: heights[i])], box)]
        best = 0
    at, objective, converged = ends[best]
    if not converged:
        warn_stopped()
    likelihood = objective - target.log_prior(at)[0]
    return at, OutputFit(likelihood, objective, tried, target.evaluations, converged)


def screened[T: Target](target: T) -> T:
    """Return the objective on evenly spaced rows, on which starts are tried."""
    return target.rows(evenly_spaced(target.size, SCREENING))


def evenly_spaced(n: int, count: int) -> Tensor:
    """Return so many of n row numbers.

    Examples
    --------
    >>> evenly_spaced(10, 4).tolist()
    [0, 3, 6, 9]
    """
    return torch.linspace(0, n - 1, count, dtype=torch.float64).round().long()


def ascend(target: Objective, start: Tensor, box: Tensor, *, relative: float = 1e-9) -> tuple[Tensor, float, bool]:
    """Run L-BFGS-B from one start; return where it ended, the objective there, and whether it ended by itself.

    It ends where a step gains less than the share ``relative`` of the objective.
    """
    from scipy.optimize import minimize

    def negative(at: Any) -> tuple[float, Any]:
        value, gradient = target(torch.tensor(at, dtype=torch.float64))
        return -value, -gradient.numpy()

    options = {"maxiter": _ITERATIONS, "maxfun": 10 * _ITERATIONS, "ftol": relative, "gtol": 1e-3}
    done = minimize(negative, start.numpy(), jac=True, method="L-BFGS-B", bounds=box.numpy(), options=options)
    return torch.tensor(done.x, dtype=torch.float64), -float(done.fun), done.status != 1


def finite(value: float, gradient: Tensor, *, kernel: object, n: int) -> None:
    """Refuse an objective that is not finite."""
    if not (math.isfinite(value) and bool(gradient.isfinite().all())):
        raise FitError(
            f"the marginal likelihood of kernel {kernel!r} at n = {n} points is not finite; "
            "look for extreme values in the data"
        )


def warn_stopped() -> None:
    """Say that the optimiser reached its limit."""
    warnings.warn(
        f"the optimiser of the hyper-parameters stopped after {_ITERATIONS} iterations; the best point is kept",
        FitWarning,
        stacklevel=3,
    )
