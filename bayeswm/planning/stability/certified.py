"""Is a policy stable near a goal: linearised closed loops in each world, and how many of them are certified."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from bayeswm.base.along import Policy, ask
from bayeswm.base.errors import SpecError
from bayeswm.base.worlds import Worlds
from bayeswm.planning.stability.confidence import clopper_pearson
from bayeswm.planning.stability.lyapunov import Certificate, lyapunov


def closed_loop_jacobian(
    worlds: Worlds, policy: Policy, state: Tensor, *, context: Tensor | None = None, step: int = 0
) -> Tensor:
    """Return the derivative of each world's mean next state by the state, under a policy.

    Parameters
    ----------
    worlds : Worlds
        Systems whose carry can begin in a known state.
    policy : callable
        As of :func:`bayeswm.rollout`; differentiable. Where it clips an action its derivative is 0.
    state : Tensor, shape (*batch, S)
        Where, such as the goal.
    context : Tensor, shape (*batch, C), optional
        Context.
    step : int
        Index of the step.

    Returns
    -------
    Tensor, shape (worlds, *batch, S, S), float64

    Examples
    --------
    >>> import bayeswm as bwm
    >>> worlds = bwm.KnownDynamics(structure=bwm.structures.Pendulum.gymnasium()).draw(1)
    >>> closed_loop_jacobian(worlds, lambda x, t: -20.0 * x[..., :1] - 5.0 * x[..., 1:], torch.zeros(2))
    tensor([[[ 0.8875,  0.0125],
             [-2.2500,  0.2500]]], dtype=torch.float64)
    """
    with torch.enable_grad():
        x = state.detach().to(worlds.device, worlds.dtype).expand(len(worlds), 1, *state.shape).clone().requires_grad_()
        after = mean_after(worlds, policy, x, context=context, step=step)
        rows = [
            torch.autograd.grad(after[..., i].sum(), x, retain_graph=True, allow_unused=True, materialize_grads=True)[
                0
            ][:, 0]
            for i in range(after.shape[-1])
        ]
    return torch.stack(rows, -2).double()


def mean_after(
    worlds: Worlds, policy: Policy, state: Tensor, *, context: Tensor | None = None, step: int = 0
) -> Tensor:
    """Return each world's mean next state under a policy, from states (worlds, 1, *batch, S) of their own.

    Raises
    ------
    SpecError
        If worlds carry more than the state, such as what they remember.

    Examples
    --------
    >>> import bayeswm as bwm
    >>> worlds = bwm.KnownDynamics(structure=bwm.structures.Pendulum.gymnasium()).draw(1)
    >>> mean_after(worlds, lambda x, t: -x[..., 1:], torch.zeros(1, 1, 5, 2)).shape
    torch.Size([1, 1, 5, 2])
    """
    if not isinstance(worlds.start(state[0, 0], context), Tensor):
        raise SpecError("expected worlds whose carry is the state, got another one: ask those of the dynamics")
    action = ask(policy, worlds, state, step=step, size=tuple(state.shape[:-1]))
    return worlds.transition(state, action, context, step=step).mean


@dataclass(frozen=True, eq=False)
class Certified:
    """How many worlds a policy makes stable near a goal.

    Attributes
    ----------
    each : Certificate
        Of each world by itself, shapes (worlds, ...).
    common : Certificate
        Of the mean of the closed loops, without a batch.
    common_rate : Tensor, shape (worlds,)
        Largest ratio of the common V after a step to V before it, in each world; below 1 where it falls.
    share, common_share : Tensor, shape ()
        Weight of the worlds with a certificate of their own, and of those in which the common V falls.
    interval, common_interval : tuple of Tensor, shape ()
        Confidence interval of each share in the posterior; the share itself where the worlds are the posterior.
    """

    each: Certificate
    common: Certificate
    common_rate: Tensor
    share: Tensor
    interval: tuple[Tensor, Tensor]
    common_share: Tensor
    common_interval: tuple[Tensor, Tensor]


def certify(
    worlds: Worlds,
    policy: Policy,
    goal: Tensor,
    *,
    Q: Tensor | None = None,
    context: Tensor | None = None,
    level: float = 0.95,
) -> Certified:
    """Return in which worlds the linearised closed loop is stable, with a confidence interval of their share.

    Parameters
    ----------
    worlds : Worlds
        Draws from a posterior, or all of it.
    policy : callable
        As of :func:`bayeswm.rollout`, the same at every step.
    goal : Tensor, shape (S,)
        Where the closed loop is linearised; a fixed point, if it is to mean anything.
    Q : Tensor, shape (S, S), optional
        How much the functions fall.
    context : Tensor, shape (C,), optional
        Context.
    level : float
        Of the confidence intervals (Clopper & Pearson 1934). Worlds with unequal weights count as their effective
        number, rounded down.

    Examples
    --------
    >>> import bayeswm as bwm
    >>> from torch.distributions import LogNormal
    >>> pendulum = bwm.structures.Pendulum(mass=LogNormal(0.0, 0.1))
    >>> worlds = bwm.KnownDynamics(structure=pendulum).draw(40, generator=torch.Generator().manual_seed(0))
    >>> upright = torch.tensor([torch.pi, 0.0], dtype=torch.float64)
    >>> found = certify(worlds, lambda x, t: ((upright - x) * torch.tensor([20.0, 5.0])).sum(-1, keepdim=True), upright)
    >>> found.share, found.interval
    (tensor(1., dtype=torch.float64), (tensor(0.9119, dtype=torch.float64), tensor(1., dtype=torch.float64)))
    """
    A = closed_loop_jacobian(worlds, policy, goal, context=context)
    each = lyapunov(A, Q)
    weight = worlds.weight.double()
    common = lyapunov((weight[:, None, None] * A).sum(0), Q)
    if bool(common.valid):
        factor = torch.linalg.cholesky(common.P)
        whitened = torch.linalg.solve_triangular(factor, (factor.mT @ A).mT, upper=False).mT
        common_rate = torch.linalg.matrix_norm(whitened, 2).square()
    else:
        common_rate = torch.full_like(weight, torch.inf)
    shares = [share_of_worlds(worlds, holds, level=level) for holds in (each.valid, common_rate < 1)]
    return Certified(each, common, common_rate, *shares[0], *shares[1])


def share_of_worlds(worlds: Worlds, holds: Tensor, *, level: float) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    """Return the weight of the worlds where something holds (worlds, *batch), and its confidence interval.

    Examples
    --------
    >>> import bayeswm as bwm
    >>> worlds = bwm.KnownDynamics(structure=bwm.structures.Pendulum()).draw(1)
    >>> share_of_worlds(worlds, torch.tensor([True]), level=0.95)[0]
    tensor(1., dtype=torch.float64)
    """
    weight = worlds.weight.double().view(-1, *(1,) * (holds.ndim - 1))
    share = (weight * holds).sum(0).clamp(max=1.0)
    if worlds.exhaustive:
        return share, (share, share)
    count = max(int(1 / float(weight.square().sum()) + 1e-6), 1)
    # a part of a world speaks for neither side
    lower = clopper_pearson((share * count + 1e-6).floor().long(), count, level)[0]
    upper = clopper_pearson((share * count - 1e-6).ceil().long().clamp(min=0), count, level)[1]
    return share, (lower, upper)
