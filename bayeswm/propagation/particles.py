"""Particles: in the world that they started in, or in a fresh one at each step."""

from __future__ import annotations

from dataclasses import dataclass

from bayeswm.base.predictive import Predictive
from bayeswm.base.rollout import rollout
from bayeswm.propagation.task import Task


@dataclass(frozen=True)
class FixedWorlds:
    """Particles that stay in their world: a rollout. The reference: it assumes nothing about the shape of any law.

    Parameters
    ----------
    particles : int
        Sampled trajectories in each world.

    Examples
    --------
    >>> import torch
    >>> import bayeswm as bwm
    >>> model = bwm.KnownDynamics(structure=bwm.structures.Pendulum.gymnasium(), noise=0.01)
    >>> g = torch.Generator().manual_seed(0)
    >>> r = bwm.propagate(model, torch.zeros(2), torch.zeros(5, 1), method=FixedWorlds(particles=50), generator=g)
    >>> r.particles.shape
    torch.Size([1, 50, 5, 2])
    """

    particles: int = 20

    def propagate(self, task: Task) -> Predictive:
        """Return the rollout."""
        return _rollout(task, particles=self.particles, fresh_worlds=False)


@dataclass(frozen=True)
class FreshWorlds:
    """Particles that meet a world of the posterior anew at each step.

    What pooled moment matching approximates: what is not known of the world is treated as noise. The split of the
    variance is undefined.

    Parameters
    ----------
    particles : int
        Particles for each world.

    Examples
    --------
    >>> import torch
    >>> import bayeswm as bwm
    >>> belief = bwm.structures.Pendulum(mass=torch.distributions.LogNormal(0.0, 0.2))
    >>> model = bwm.KnownDynamics(structure=belief, noise=0.01)
    >>> g = torch.Generator().manual_seed(0)
    >>> bwm.propagate(model, torch.zeros(2), torch.ones(5, 1), method=FreshWorlds(), generator=g).fresh_worlds
    True
    """

    particles: int = 20

    def propagate(self, task: Task) -> Predictive:
        """Return the rollout."""
        return _rollout(task, particles=self.particles, fresh_worlds=True)


def _rollout(task: Task, *, particles: int, fresh_worlds: bool) -> Predictive:
    return rollout(
        task.drawn,
        task.belief,
        task.actions,
        horizon=task.horizon,
        particles=particles,
        generator=task.generator,
        context=task.context,
        fresh_worlds=fresh_worlds,
    )
