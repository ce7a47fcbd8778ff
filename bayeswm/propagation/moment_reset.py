"""Particles drawn anew after each step from the Gaussian that fits them."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from bayeswm.base.counts import check_counts
from bayeswm.base.errors import SpecError
from bayeswm.base.moments import Cubature
from bayeswm.base.predictive import Predictive
from bayeswm.base.random import standard_normal
from bayeswm.base.roots import back, factor, front
from bayeswm.propagation.recursion import Scheme, carry_on
from bayeswm.propagation.task import Task


@dataclass(frozen=True)
class MomentReset:
    """Distribution sampling: after each step particles are replaced by draws from the Gaussian fitted to all of them.

    Moment matching by Monte Carlo: it forgets all but mean and covariance after each step, as :class:`MomentMatching`
    does, without cubature points, so that a policy acts in every particle and the number of state columns costs
    nothing. The draws are shifted and scaled so that their own mean and covariance are exactly those of the Gaussian
    (linear systems are then exact), and are the same for all rows of the batch, so that candidates can be compared.
    What remains of Monte Carlo error is not in the standard errors of the answer.

    Parameters
    ----------
    particles : int
        Draws for each belief; more than the state (and the action, where a policy tells its moments) has columns.
    pooled : bool
        One Gaussian for all worlds together instead of one in each; as for :class:`MomentMatching`.

    References
    ----------
    Chua, Calandra, McAllister and Levine (2018), Deep reinforcement learning in a handful of trials, section 5
    (distribution sampling).

    Examples
    --------
    >>> import bayeswm as bwm
    >>> model = bwm.KnownDynamics(structure=bwm.structures.Pendulum.gymnasium(), noise=0.01)
    >>> g = torch.Generator().manual_seed(0)
    >>> r = bwm.propagate(model, torch.zeros(2), torch.zeros(5, 1), method=MomentReset(particles=50), generator=g)
    >>> r.stddev.shape
    torch.Size([5, 2])
    """

    particles: int = 100
    pooled: bool = False

    def propagate(self, task: Task) -> Predictive:
        """Return the law of the states to come."""
        generator, drawn = task.generator, task.drawn
        if generator is None:
            raise SpecError("expected generator=torch.Generator, since particles are drawn, got none")
        check_counts(particles=self.particles)
        beliefs = 1 if self.pooled else len(drawn)

        def rule(size: int) -> Cubature:
            if self.particles <= size:
                raise SpecError(f"expected more than {size} particles for {size} columns, got {self.particles}")
            noise = standard_normal((beliefs, self.particles, size), generator, dtype=torch.float64)
            return Cubature(matched(noise), torch.full((self.particles,), 1 / self.particles, dtype=torch.float64))

        return carry_on(task, Scheme(rule, self.pooled, redrawn=True))


def matched(noise: torch.Tensor) -> torch.Tensor:
    """Return draws (W, P, n), shifted and scaled so that each set of P has mean 0 and covariance 1, divided by P.

    Examples
    --------
    >>> drawn = torch.randn(1, 5, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    >>> (matched(drawn).mT @ matched(drawn) / 5).abs().numpy().round(12).tolist()
    [[[1.0, 0.0], [0.0, 1.0]]]
    """
    off = noise - noise.mean(1, keepdim=True)
    root = back(factor(front(off.mT @ off / noise.shape[1])))
    return torch.linalg.solve_triangular(root, off.mT, upper=False).mT
