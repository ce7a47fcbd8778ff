"""Ways down a fixed function of many numbers, which may be infinite in places."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, override

import torch
from torch import Tensor

from bayeswm.base.errors import SpecError

# returns value and gradient at a point; the value is infinite where there is nothing to be used
Target = Callable[[Tensor], tuple[float, Tensor]]


class Descent(ABC):
    """A way to search for the minimum of a function from one start."""

    @abstractmethod
    def __call__(self, target: Target, start: Tensor) -> None:
        """Evaluate the function wherever it leads; the caller keeps the best point.

        Parameters
        ----------
        target : callable
            Returns value and gradient (n,) at a point (n,).
        start : Tensor, shape (n,)
            Where to begin, in double precision.
        """


@dataclass(frozen=True)
class LBFGS(Descent):
    """L-BFGS with a line search (Nocedal & Wright 2006, section 7.2), as in SciPy.

    Parameters
    ----------
    iterations : int
        At most.
    tolerance : float
        It ends where an iteration gains less than this share of the value.

    Examples
    --------
    >>> values = []
    >>> def bowl(x):
    ...     values.append(float((x - 1).square().sum()))
    ...     return values[-1], 2 * (x - 1)
    >>> LBFGS()(bowl, torch.zeros(3, dtype=torch.float64))
    >>> min(values) < 1e-20
    True
    """

    iterations: int = 100
    tolerance: float = 1e-9

    def __post_init__(self) -> None:
        if self.iterations < 1 or not self.tolerance >= 0:
            raise SpecError(
                f"expected iterations >= 1 and a tolerance >= 0, got {self.iterations} and {self.tolerance}"
            )

    @override
    def __call__(self, target: Target, start: Tensor) -> None:
        from scipy.optimize import minimize

        def checked(at: Any) -> tuple[float, Any]:
            value, gradient = target(torch.tensor(at, dtype=torch.float64))
            if not (abs(value) < float("inf") and bool(gradient.isfinite().all())):
                return 1e100, torch.zeros_like(gradient).numpy()  # too far: the line search comes back
            return value, gradient.numpy()

        options = {"maxiter": self.iterations, "maxfun": 2 * self.iterations, "ftol": self.tolerance, "gtol": 1e-9}
        minimize(checked, start.numpy(), jac=True, method="L-BFGS-B", options=options)


@dataclass(frozen=True)
class Adam(Descent):
    """Adam (Kingma & Ba 2015): steps of about the same size in every number, which rough functions need.

    The rate falls to 0 along half a cosine. A point without value or gradient is left again: the search goes on from
    the last good one, at half the rate.

    Parameters
    ----------
    iterations : int
        Evaluations.
    rate : float
        Size of the first steps, in the unit of the parameters.

    Examples
    --------
    >>> values = []
    >>> def bowl(x):
    ...     values.append(float((x - 1).square().sum()))
    ...     return values[-1], 2 * (x - 1)
    >>> Adam(iterations=200, rate=0.1)(bowl, torch.zeros(3, dtype=torch.float64))
    >>> min(values) < 1e-3
    True
    """

    iterations: int = 300
    rate: float = 0.03

    def __post_init__(self) -> None:
        if self.iterations < 1 or not self.rate > 0:
            raise SpecError(f"expected iterations >= 1 and a rate > 0, got {self.iterations} and {self.rate}")

    @override
    def __call__(self, target: Target, start: Tensor) -> None:
        point, good, share = start.clone(), start.clone(), 1.0
        optimiser = torch.optim.Adam([point], lr=self.rate)
        for i in range(self.iterations):
            value, gradient = target(point.clone())
            if abs(value) < float("inf") and bool(gradient.isfinite().all()):
                good, point.grad = point.clone(), gradient.clone()
            else:
                share /= 2
                point.copy_(good)
            if point.grad is None:
                return  # nothing to go by from the first point on
            falling = 0.5 * (1 + math.cos(math.pi * i / self.iterations))
            optimiser.param_groups[0]["lr"] = self.rate * share * falling
            optimiser.step()
