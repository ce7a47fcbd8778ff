"""Mean dynamics over worlds and their derivatives; objectives and their curvature."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from bayeswm.base.errors import SpecError
from bayeswm.base.worlds import Worlds
from bayeswm.planning.objective import Objective


def mean_step(
    worlds: Worlds, state: Tensor, action: Tensor, *, context: Tensor | None = None, step: int | Tensor = 0
) -> Tensor:
    """Return the mean of the next state over worlds and noise, all worlds beginning in the same state.

    Parameters
    ----------
    worlds : Worlds
        Whose carry can begin in a known state.
    state : Tensor, shape (*batch, S)
        Where the step starts.
    action : Tensor, shape (*batch, A)
        What is done.
    context : Tensor, shape (*batch, C), optional
        Context.
    step : int or Tensor
        Index of the step.

    Returns
    -------
    Tensor, shape (*batch, S)

    Examples
    --------
    >>> import bayeswm as bwm
    >>> worlds = bwm.KnownDynamics(structure=bwm.structures.Pendulum.gymnasium()).draw(1)
    >>> mean_step(worlds, torch.tensor([0.0, 1.0]), torch.zeros(1))
    tensor([0.0500, 1.0000], dtype=torch.float64)
    """
    state = state.to(worlds.device, worlds.dtype)
    action = action.to(worlds.device, worlds.dtype)
    if context is not None:
        context = context.to(worlds.device, worlds.dtype).expand(*state.shape[:-1], -1)
    by_world = worlds.transition(worlds.start(state, context), action, context, step=step).mean[:, 0]
    if len(by_world) == 1:
        return by_world[0]
    weight = worlds.weight.to(by_world).view(-1, *(1,) * (by_world.ndim - 1))
    return (weight * by_world).sum(0)


def linearise(
    worlds: Worlds, state: Tensor, action: Tensor, *, context: Tensor | None = None, step: int | Tensor = 0
) -> tuple[Tensor, Tensor, Tensor]:
    """Return :func:`mean_step` and its derivatives by state and action.

    Parameters
    ----------
    worlds, state, action, context, step
        As of :func:`mean_step`; any batch axes, time among them.

    Returns
    -------
    tuple of Tensor, shapes (*batch, S), (*batch, S, S) and (*batch, S, A)
        The derivatives in double precision; row i belongs to column i of the next state.

    Examples
    --------
    >>> import bayeswm as bwm
    >>> worlds = bwm.KnownDynamics(structure=bwm.structures.Pendulum.gymnasium()).draw(1)
    >>> linearise(worlds, torch.zeros(2), torch.zeros(1))[1:]
    (tensor([[1.0375, 0.0500],
            [0.7500, 1.0000]], dtype=torch.float64), tensor([[0.0075],
            [0.1500]], dtype=torch.float64))
    """
    with torch.enable_grad():
        x = state.detach().to(worlds.device, worlds.dtype).clone().requires_grad_()
        u = action.detach().to(worlds.device, worlds.dtype).expand(*x.shape[:-1], action.shape[-1])
        u = u.clone().requires_grad_()
        mean = mean_step(worlds, x, u, context=context, step=step)
        # rows of the batch do not meet in a step: one sum gives the derivatives of all
        by_x, by_u = zip(*(_slopes(mean[..., i].sum(), x, u) for i in range(mean.shape[-1])), strict=True)
    return mean.detach(), torch.stack(by_x, -2).double(), torch.stack(by_u, -2).double()


def quadratise(
    objective: Objective, states: Tensor, actions: Tensor, *, context: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return gradient and Hessian of an objective along trajectories, step by step, without its cost of changes.

    Parameters
    ----------
    objective : Objective
        Twice differentiable.
    states, actions, context : Tensor, shapes (*batch, H + 1, S), (*batch, H, A) and (*batch, H, C)
        Where.

    Returns
    -------
    tuple of Tensor, shapes (*batch, H, S + A), (*batch, H, S + A, S + A), (*batch, S) and (*batch, S, S)
        Gradient and Hessian by state and action together at each step, and by the last state; double precision.

    Raises
    ------
    SpecError
        Where they are NaN or infinite.

    Examples
    --------
    >>> from bayeswm.planning import quadratic
    >>> objective = quadratic(torch.tensor([1.0, 2.0]), torch.tensor([0.5]))
    >>> quadratise(objective, torch.ones(2, 2), torch.ones(1, 1), context=torch.zeros(1, 0))[:2]
    (tensor([[2., 4., 1.]], dtype=torch.float64), tensor([[[2., 0., 0.],
             [0., 4., 0.],
             [0., 0., 1.]]], dtype=torch.float64))
    """
    plain = replace(objective, change=0.0)
    with torch.enable_grad():
        x, u = (v.detach().double().clone().requires_grad_() for v in (states, actions))
        total = plain.cost(x, u, context.double()).sum()
        gx, gu = _slopes(total, x, u, create_graph=True)
        # each step has a cost of its own, so that the derivative of one sum over steps holds that of each
        columns = [_slopes(g.sum(), x, u) for v in (gx[..., :-1, :], gu) for g in v.unbind(-1)]
        ends = [_slopes(g.sum(), x, u)[0][..., -1, :] for g in gx[..., -1, :].unbind(-1)]
    gradient = torch.cat((gx[..., :-1, :], gu), -1).detach()
    hessian = torch.stack([torch.cat((by_x[..., :-1, :], by_u), -1) for by_x, by_u in columns], -2)
    last, curvature = gx[..., -1, :].detach(), torch.stack(ends, -2)
    for values in (gradient, hessian, last, curvature):
        if not bool(values.isfinite().all()):
            raise SpecError(
                "expected an objective with finite first and second derivatives, got NaN or infinity; smooth it where "
                "it has a kink, such as a distance at its target"
            )
    return gradient, hessian.mT, last, curvature.mT


def _slopes(value: Tensor, x: Tensor, u: Tensor, *, create_graph: bool = False) -> tuple[Tensor, Tensor]:
    """Return the derivatives by x and u, 0 where there is no dependence."""
    if not value.requires_grad:
        return torch.zeros_like(x), torch.zeros_like(u)
    gx, gu = torch.autograd.grad(
        value, (x, u), retain_graph=True, create_graph=create_graph, allow_unused=True, materialize_grads=True
    )
    return gx, gu
