"""Moment matching: a Gaussian of the right mean and covariance after each step."""

from __future__ import annotations

from dataclasses import dataclass

from bayeswm.base.model import DynamicsModel
from bayeswm.base.moments import Moments, fifth_degree
from bayeswm.base.predictive import Predictive
from bayeswm.base.random import make_generator, spawn_seeds
from bayeswm.propagation.recursion import Closed, Passage, Scheme, carry_on
from bayeswm.propagation.task import Task


@dataclass(frozen=True)
class MomentMatching:
    """A Gaussian belief with the mean and covariance of the next state, step by step.

    By cubature of the fifth degree in the state (in state and action under a policy). Pooled, families that know these
    moments in closed form use it (``model.moments``).

    Parameters
    ----------
    pooled : bool
        One belief for all worlds together, which meets a world of the posterior anew at each step, instead of one
        belief in each world. The default is in each world, because a system stays what it is: pooling forgets that a
        world persists, and its spread after many steps can be far too small. It costs as much as one world where there
        is a closed form, and is what PILCO does.

    References
    ----------
    Girard, Rasmussen, Quinonero-Candela and Murray-Smith (2003), Gaussian process priors with uncertain inputs;
    Deisenroth and Rasmussen (2011), PILCO.

    Examples
    --------
    >>> import torch
    >>> import bayeswm as bwm
    >>> belief = bwm.structures.Pendulum(mass=torch.distributions.LogNormal(0.0, 0.2))
    >>> worlds = bwm.KnownDynamics(structure=belief, noise=0.01).draw(30, generator=torch.Generator().manual_seed(0))
    >>> r = bwm.propagate(worlds, torch.zeros(2), torch.ones(20, 1), method=MomentMatching())
    >>> p = bwm.propagate(worlds, torch.zeros(2), torch.ones(20, 1), method=MomentMatching(pooled=True))
    >>> r.epistemic_variance[-1, 0].sqrt(), p.epistemic_variance[-1, 0].sqrt()
    (tensor(0.0416, dtype=torch.float64), tensor(0.0103, dtype=torch.float64))
    """

    pooled: bool = False

    def propagate(self, task: Task) -> Predictive:
        """Return the law of the states to come."""
        scheme, model = Scheme(fifth_degree, self.pooled), task.model
        # what the base gives by default is the same cubature, with worlds drawn anew at each step
        own = isinstance(model, DynamicsModel) and type(model).moments is not DynamicsModel.moments
        if not self.pooled or not own or not isinstance(model, DynamicsModel):
            return carry_on(task, scheme)
        # no number depends on this world: it says what the variables and the number format are
        one = model.draw(1, generator=make_generator(0))
        return carry_on(task, scheme, worlds=one, closed=_closed(model, task))


def _closed(model: DynamicsModel, task: Task) -> Closed:
    # a family may have to draw worlds after all: the same ones then for both recursions and all steps
    source = task.generator
    seed = None if source is None else spawn_seeds(source, 1)[0]

    def moments(passage: Passage) -> Moments:
        mean, covariance, _ = passage.belief
        found = model.moments(
            mean[0],
            covariance[0],
            passage.action,
            context=passage.context if passage.context.shape[-1] else None,
            worlds=task.worlds,
            generator=None if source is None or seed is None else make_generator(seed, device=source.device),
        )
        return Moments(*(v[None].to(mean) for v in found))

    return moments
