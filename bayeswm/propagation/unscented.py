"""The unscented transform: few points, none with a negative weight."""

from __future__ import annotations

from dataclasses import dataclass

from bayeswm.base.moments import third_degree
from bayeswm.base.predictive import Predictive
from bayeswm.propagation.recursion import Scheme, carry_on
from bayeswm.propagation.task import Task


@dataclass(frozen=True)
class Unscented:
    """A Gaussian belief sent through each step by 2 n + 1 points.

    n are the columns of the state, and of the action under a policy.
    As :class:`MomentMatching`, with fewer points: the mean is exact for functions of the third degree, the covariance
    for linear ones. It grows with n, not with its square, and a covariance stays one.

    Parameters
    ----------
    pooled : bool
        One belief for all worlds together instead of one in each; as for :class:`MomentMatching`.

    References
    ----------
    Julier and Uhlmann (1997), A new extension of the Kalman filter to nonlinear systems; Arasaratnam and Haykin (2009),
    Cubature Kalman filters.

    Examples
    --------
    >>> import torch
    >>> import bayeswm as bwm
    >>> model = bwm.KnownDynamics(structure=bwm.structures.Pendulum.gymnasium(), noise=0.01)
    >>> bwm.propagate(model, torch.zeros(2), torch.zeros(5, 1), method=Unscented()).stddev.shape
    torch.Size([5, 2])
    """

    pooled: bool = False

    def propagate(self, task: Task) -> Predictive:
        """Return the law of the states to come."""
        return carry_on(task, Scheme(third_degree, self.pooled))
