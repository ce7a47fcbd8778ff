"""Linearisation: each step by its tangent at the mean of the belief."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from bayeswm.base.moments import Cloud, Cubature, send, third_degree
from bayeswm.base.predictive import Predictive
from bayeswm.base.worlds import Worlds
from bayeswm.propagation.recursion import Passage, Scheme, carry_on
from bayeswm.propagation.task import Task


@dataclass(frozen=True)
class Linearized:
    """A Gaussian belief sent through the tangent of each step at its mean, as in an extended Kalman filter.

    The mean is the path without noise; process noise is that at the mean. Exact for linear systems, and the first
    to fail where the function bends within the belief. A policy is passed by cubature. The derivative is by
    ``torch.func.vjp``.

    Parameters
    ----------
    pooled : bool
        One belief for all worlds together instead of one in each; as for :class:`MomentMatching`. The variance of the
        function between worlds is then averaged over the belief with each world's tangent.

    Examples
    --------
    >>> import torch
    >>> import bayeswm as bwm
    >>> model = bwm.KnownDynamics(structure=bwm.structures.Pendulum.gymnasium(), noise=0.01)
    >>> r = bwm.propagate(model, torch.tensor([0.1, 0.0]), torch.zeros(5, 1), method=Linearized())
    >>> path = bwm.rollout(bwm.KnownDynamics(structure=model.structure), torch.tensor([0.1, 0.0]), torch.zeros(5, 1))
    >>> bool(torch.allclose(r.mean, path.mean))
    True
    """

    pooled: bool = False

    def propagate(self, task: Task) -> Predictive:
        """Return the law of the states to come."""
        return carry_on(task, Scheme(third_degree, self.pooled, sender=by_tangent))


def by_tangent(worlds: Worlds, passage: Passage, rule: Cubature) -> Cloud:
    """Send each point of the rule through the tangent of the step at the belief's mean."""
    mean, _, root = passage.belief
    action, context, step = passage.action, passage.context, passage.step
    middle = Cubature(mean.new_zeros(1, mean.shape[-1]), mean.new_ones(1))
    centre = send(worlds, mean[:, None], mean, rule=middle, action=action, context=context, step=step)
    size, columns, lead = mean.shape[-1], worlds.schema.state.size, tuple(mean.shape[1:-1])
    # one copy of the mean for each column of the next state, whose derivative is followed back there
    at = mean[:, None].expand(len(worlds), columns, *lead, size).contiguous()
    rows = Cubature(mean.new_zeros(columns, size), mean.new_zeros(columns))

    def moved(points: Tensor) -> Tensor:
        return send(worlds, points, mean, rule=rows, action=action, context=context, step=step).after

    # forward differentiation took ten times as long
    after, back = torch.func.vjp(moved, at)[:2]
    each = torch.eye(columns, dtype=mean.dtype, device=mean.device).view(1, columns, *(1,) * len(lead), columns)
    slope = back(each.expand(after.shape))[0].movedim(1, -2) @ root
    points = rule.points.to(mean)
    return Cloud(
        torch.einsum("w...ij,kj->wk...i", root, points),
        centre.after + torch.einsum("kj,w...sj->wk...s", points, slope),
        centre.noise,
        rule.weight.to(mean),
    )
