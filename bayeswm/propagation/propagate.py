"""Where a belief about the state goes under a plan or a policy, by a method of choice."""

from __future__ import annotations

import torch
from torch import Tensor

from bayeswm.base.along import Policy
from bayeswm.base.counts import check_counts
from bayeswm.base.errors import SpecError
from bayeswm.base.model import DynamicsModel, check_model
from bayeswm.base.predictive import Predictive, checked_generator
from bayeswm.base.worlds import Belief, Worlds
from bayeswm.propagation.moment_matching import MomentMatching
from bayeswm.propagation.task import Method, Task


def propagate(
    model: DynamicsModel | Worlds,
    belief: Belief,
    actions: Tensor | Policy | None = None,
    *,
    method: Method | None = None,
    horizon: int | None = None,
    context: Tensor | None = None,
    worlds: int = 64,
    generator: torch.Generator | None = None,
) -> Predictive:
    """Propagate a belief about the state.

    Parameters
    ----------
    model : DynamicsModel or Worlds
        A fitted model, or worlds already drawn from one.
    belief : Tensor of shape (*batch, S), Law or Trajectories
        Where it starts: a known state, a law of it, or the history that led to it. Methods that propagate moments take
        ``Gaussian`` and ``MultivariateGaussian`` laws, (1, 1, *batch, S) or one a world.
    actions : Tensor of shape (*batch, H, A), or callable, optional
        A plan, or a policy as for :func:`bayeswm.rollout`. Methods that propagate moments show it their cubature points
        in place of particles, and take it for a function of the state; one that acts at random tells its moments by a
        method ``moments(mean, covariance, step)``.
    method : Method, optional
        ``MomentMatching()`` by default; see ``bayeswm.propagation``.
    horizon : int, optional
        Steps; needed with a policy and without actions, the length of the plan otherwise.
    context : Tensor of shape (*batch, C) or (*batch, H, C), optional
        Environment factors.
    worlds : int
        How many to draw; a model whose posterior is a few worlds (an ensemble) gives those.
    generator : torch.Generator, optional
        Source of all randomness; needed where worlds or particles are drawn.

    Returns
    -------
    Predictive
        Over the horizon. Moments have no particles: means, variances, quantiles and marginal densities are there,
        trajectories are not.

    Raises
    ------
    SpecError, DataError
        For arguments that do not fit together, NaN, a hidden state where moments are asked for, or a result that
        cannot fit into memory.

    Warns
    -----
    DivergenceWarning
        If worlds or particles leave the finite numbers, with their share.
    EstimateWarning
        If a covariance had to be repaired.

    Notes
    -----
    Methods that run in each world give a weighted mixture of Gaussians, whose variance splits as that of a rollout
    does. Pooled ones give one Gaussian and carry a second recursion for the aleatoric part: a belief around the same
    mean, which begins with the belief's own covariance and meets the mean function of the worlds at each step, so that
    only the spread of its values and the process noise are added. The epistemic part is the rest of the variance.

    Covariances may be singular. Pivots below 100 eps of a variance are taken for 0; larger negative eigenvalues (a
    closed form, or cubature of more than four inputs) are set to 0 with a warning.

    Examples
    --------
    >>> import bayeswm as bwm
    >>> model = bwm.KnownDynamics(structure=bwm.structures.Pendulum.gymnasium(), noise=0.01)
    >>> start = bwm.Gaussian(torch.tensor([0.1, 0.0]).view(1, 1, 2), torch.tensor([0.05, 0.0]))
    >>> r = bwm.propagate(model, start, torch.zeros(25, 1), method=bwm.propagation.MomentMatching())
    >>> r.mean.shape, r.covariance.shape
    (torch.Size([25, 2]), torch.Size([25, 2, 2]))
    """
    method = MomentMatching() if method is None else method
    if isinstance(method, type) or not isinstance(method, Method):
        shown = f"the class {method.__name__}" if isinstance(method, type) else repr(method)
        raise SpecError(f"expected method=bayeswm.propagation.MomentMatching() or another method object, got {shown}")
    check_model(model)
    check_counts(worlds=worlds)
    generator = checked_generator(generator)
    return method.propagate(Task(model, belief, actions, horizon, context, worlds, generator))
