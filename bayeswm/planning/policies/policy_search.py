"""Policies learned from a model: down the gradient of the risk, through particles or Gaussian beliefs."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

from bayeswm.base.errors import FitError, SpecError
from bayeswm.base.model import DynamicsModel
from bayeswm.base.worlds import Belief, Worlds
from bayeswm.planning.objective import Objective
from bayeswm.planning.policies.descent import LBFGS, Descent
from bayeswm.planning.policies.policy import ParametricPolicy
from bayeswm.planning.policies.policy_cost import PolicyCost
from bayeswm.planning.risk import Mean, Risk
from bayeswm.propagation import Method


class FittedPolicy[P: ParametricPolicy](NamedTuple):
    """The best policy that was tried.

    ``cost`` is its risk with the noise that it was chosen for, and so a little too good; a :class:`PolicyCost` of
    another generator tells without that. ``history`` has the risk at each evaluation of each restart, in order;
    infinite for what diverged.
    """

    policy: P
    cost: float
    history: tuple[Tensor, ...]


def optimise_policy[P: ParametricPolicy](
    model: DynamicsModel | Worlds,
    policy: P,
    objective: Objective,
    *,
    belief: Belief,
    horizon: int,
    generator: torch.Generator,
    method: Method | None = None,
    risk: Risk = Mean(),  # noqa: B008 (frozen)
    descent: Descent = LBFGS(),  # noqa: B008 (frozen)
    restarts: int = 1,
    context: Tensor | None = None,
    worlds: int = 16,
    draws: int = 200,
) -> FittedPolicy[P]:
    """Search for parameters of a policy that make the risk small.

    Worlds and noise are drawn once (common random numbers; Ng & Jordan 2000), so that a fixed function is minimised.
    With ``MomentMatching(pooled=True)`` and a Gaussian process this is PILCO's policy search, but for the expected
    cost, which is averaged over draws, and the moments of the policy, which are taken by cubature. The landscape may
    have many local minima, above all over long horizons: compare restarts, and planners.

    Parameters
    ----------
    model : DynamicsModel or Worlds
        A fitted model, or worlds already drawn from one.
    policy : ParametricPolicy
        Its form, and where the first restart begins.
    objective : Objective
        What trajectories cost; differentiated.
    belief : Tensor of shape (*starts, S), Law or Trajectories
        Where they start; the risk is averaged over starts.
    horizon : int
        Steps.
    generator : torch.Generator
        Source of all randomness.
    method : Method, optional
        How beliefs are propagated, as of :func:`bayeswm.propagate`; particles, ``FixedWorlds()``, by default.
    risk, context, worlds, draws
        As of :class:`PolicyCost`.
    descent : Descent
        :class:`LBFGS` or :class:`Adam`.
    restarts : int
        Searches, all but the first from random parameters.

    Returns
    -------
    FittedPolicy

    Raises
    ------
    SpecError, DataError
        For arguments that do not fit together.
    FitError
        If every policy that was tried diverged.

    Examples
    --------
    >>> import bayeswm as bwm
    >>> model = bwm.KnownDynamics(structure=bwm.structures.Pendulum.gymnasium(), noise=0.01)
    >>> objective = bwm.planning.quadratic(torch.tensor([1.0, 0.1]), torch.tensor([0.01]))
    >>> policy, cost, history = optimise_policy(
    ...     model,
    ...     bwm.planning.LinearPolicy(model.schema),
    ...     objective,
    ...     belief=torch.tensor([0.2, 0.0]),
    ...     horizon=20,
    ...     generator=torch.Generator().manual_seed(0),
    ... )
    >>> cost < 0.1 * history[0][0]
    tensor(True)
    """
    if restarts < 1:
        raise SpecError(f"expected restarts >= 1, got {restarts}")
    if isinstance(policy, type) or not isinstance(policy, ParametricPolicy):
        raise SpecError(f"expected a policy with parameters, such as LinearPolicy(schema), got {policy!r}")
    target = _Target(
        PolicyCost(
            model,
            objective,
            belief,
            horizon=horizon,
            generator=generator,
            method=method,
            risk=risk,
            context=context,
            worlds=worlds,
            draws=draws,
        ),
        policy,
    )
    history: list[Tensor] = []
    for restart in range(restarts):
        start = policy.parameters if restart == 0 else policy.initial(generator)
        target.values = []
        descent(target, torch.cat([v.detach().double().flatten() for v in start.values()]))
        history.append(torch.tensor(target.values, dtype=torch.float64))
    if target.best is None:
        raise FitError(
            f"all of {sum(map(len, history))} policies diverged or had no finite cost; begin with another policy, "
            "shorten the horizon, or use a cost that saturates"
        )
    return FittedPolicy(target.policy_at(target.best, detached=True), target.least, tuple(history))


@dataclass
class _Target[P: ParametricPolicy]:
    """The risk and its gradient by one vector of parameters; remembers the best."""

    cost: PolicyCost
    policy: P
    values: list[float] = field(default_factory=list)
    least: float = math.inf
    best: Tensor | None = None

    def __call__(self, at: Tensor) -> tuple[float, Tensor]:
        if not bool(at.isfinite().all()):
            self.values.append(math.inf)
            return math.inf, torch.zeros_like(at)
        with torch.enable_grad():
            point = at.detach().clone().requires_grad_()
            risk = self.cost(self.policy_at(point))
            gradient = torch.zeros_like(point)
            if risk.requires_grad and bool(risk.isfinite()):
                gradient = torch.autograd.grad(risk, point)[0]
        value = float(risk.detach())
        self.values.append(value)
        if value < self.least:
            self.least, self.best = value, at.detach().clone()
        return value, gradient

    def policy_at(self, at: Tensor, *, detached: bool = False) -> P:
        given = self.policy.parameters
        parts = at.split([v.numel() for v in given.values()])
        named = {k: part.view(v.shape).to(v) for (k, v), part in zip(given.items(), parts, strict=True)}
        return self.policy.replace(**{k: v.clone() for k, v in named.items()} if detached else named)
