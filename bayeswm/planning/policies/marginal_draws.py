"""Draws from the law of the state at each step, as if they were trajectories."""

from __future__ import annotations

import torch
from torch import Tensor

from bayeswm.base.errors import SpecError
from bayeswm.base.laws import Law
from bayeswm.base.predictive import Predictive
from bayeswm.base.random import standard_normal
from bayeswm.base.worlds import Belief
from bayeswm.propagation.moment_reset import matched


def marginal_draws(predictive: Predictive, belief: Belief, *, draws: int, generator: torch.Generator) -> Tensor:
    """Return draws whose mean and covariance are exactly those of each law; successive steps are independent.

    Parameters
    ----------
    predictive : Predictive
        Gaussian laws of the states to come, in each world or pooled.
    belief : Tensor, Law or Trajectories
        Where they started.
    draws : int
        More than the state has columns.
    generator : torch.Generator
        Source of the draws, which are the same for all worlds and starts.

    Returns
    -------
    Tensor, shape (worlds, draws, *starts, H + 1, S)

    Raises
    ------
    SpecError
        For too few draws.

    Examples
    --------
    >>> import bayeswm as bwm
    >>> model = bwm.KnownDynamics(structure=bwm.structures.Pendulum.gymnasium(), noise=0.01)
    >>> start = torch.tensor([0.1, 0.0])
    >>> p = bwm.propagate(model, start, torch.zeros(5, 1))
    >>> x = marginal_draws(p, start, draws=50, generator=torch.Generator().manual_seed(0))
    >>> x.shape, bool(torch.allclose(x[0, :, 1:].var(0, correction=0), p.variance))
    (torch.Size([1, 50, 6, 2]), True)
    """
    begin = predictive.initial
    if begin is None or not predictive.laws:
        raise SpecError("expected a forecast of one step or more that tells where it starts, got another")
    size, steps = begin.shape[-1], predictive.horizon + 1
    if draws <= size:
        raise SpecError(f"expected more than {size} draws for {size} columns, got {draws}")
    noise = matched(standard_normal((steps, draws, size), generator, dtype=torch.float64)).to(begin)
    noise = noise.view(steps, 1, draws, *(1,) * (begin.ndim - 3), size)
    if isinstance(belief, Law):
        law = belief.map(lambda v: v.to(begin))
        begin = law.push(noise[0, ..., : law.noise_size])
    states = [begin, *(law.push(noise[t + 1]) for t, law in enumerate(predictive.laws))]
    shape = (predictive.worlds, draws, *predictive.batch_shape, size)
    return torch.stack([x.expand(shape) for x in states], -2)
