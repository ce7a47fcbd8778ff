"""What a policy will return, and how much of what is not known of it is ignorance."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from bayeswm.base.along import Policy
from bayeswm.base.errors import SpecError
from bayeswm.base.mixture import Estimate, Split, mix_mean, split_moments
from bayeswm.base.model import DynamicsModel
from bayeswm.base.worlds import Belief, Worlds
from bayeswm.planning.objective import Objective
from bayeswm.planning.policies.planned_policy import act_out, step_context
from bayeswm.planning.risk import Quantile


@dataclass(frozen=True, eq=False)
class PolicyReturn:
    """The distribution of returns over worlds and chance.

    Attributes
    ----------
    samples : Tensor, shape (worlds, particles, *batch)
        Return of each imagined trajectory; minus infinity where it diverged.
    log_weight : Tensor, shape (worlds,)
        Normalised log weights.
    exhaustive : bool
        Whether the worlds are the posterior.
    resolved : bool
        Whether there is no chance, so that one particle tells everything about a world.
    """

    samples: Tensor
    log_weight: Tensor
    exhaustive: bool
    resolved: bool

    @property
    def mean(self) -> Estimate:
        """Expected return and its Monte Carlo standard error, each of shape (*batch)."""
        found = mix_mean(self.samples, self.log_weight.exp(), exhaustive=self.exhaustive)
        if self.exhaustive and self.resolved:
            return found._replace(standard_error=torch.zeros_like(found.value))
        return found

    @property
    def variance(self) -> Tensor:
        """Total variance, shape (*batch)."""
        return self._split.total[..., 0]

    @property
    def aleatoric_variance(self) -> Tensor:
        """Variance that would remain if the world were known, shape (*batch)."""
        return self._split.aleatoric[..., 0]

    @property
    def epistemic_variance(self) -> Tensor:
        """Variance between worlds, shape (*batch), without the Monte Carlo error of their means; not below 0."""
        return self._split.between[..., 0].clamp(min=0)

    @cached_property
    def _split(self) -> Split:
        values = self.samples[..., None]
        weight = self.log_weight.exp().to(values).view(-1, *(1,) * (values.ndim - 2))
        return split_moments(
            values, torch.zeros_like(values), weight, exhaustive=self.exhaustive, resolved=self.resolved
        )

    def quantile(self, probability: float) -> Tensor:
        """Return a quantile of the returns, shape (*batch)."""
        return Quantile(probability)(self.samples, self.log_weight)

    def interval(self, level: float) -> tuple[Tensor, Tensor]:
        """Return the central interval that holds ``level`` of the returns, as (lower, upper)."""
        if not 0 < level < 1:
            raise SpecError(f"expected a level between 0 and 1, got {level}; 0.9 is a 90 % interval")
        return self.quantile(0.5 - level / 2), self.quantile(0.5 + level / 2)

    def __repr__(self) -> str:
        worlds, particles, *batch = self.samples.shape
        return f"PolicyReturn({worlds} worlds, {particles} particles, batch {tuple(batch)})"


def policy_return(
    model: DynamicsModel | Worlds,
    policy: Tensor | Policy,
    starts: Belief,
    *,
    objective: Objective,
    horizon: int | None = None,
    worlds: int = 64,
    particles: int = 20,
    generator: torch.Generator | None = None,
    context: Tensor | None = None,
) -> PolicyReturn:
    """Return what a policy or a plan will return in the worlds of a model.

    Parameters
    ----------
    model : DynamicsModel or Worlds
        A fitted model, or worlds drawn from it.
    policy : Tensor of shape (*batch, H, A), or callable
        A plan, or a policy as of :func:`bayeswm.rollout`; :class:`PlannedPolicy` makes one of a planner.
    starts : Tensor of shape (*batch, S), Law or Trajectories
        Where it starts.
    objective : Objective
        Its costs, with the sign changed, are what is returned.
    horizon : int, optional
        Steps; needed with a policy.
    worlds, particles, generator, context
        As of :func:`bayeswm.rollout`.

    Returns
    -------
    PolicyReturn

    Raises
    ------
    SpecError, DataError
        As of :func:`bayeswm.rollout`.

    Examples
    --------
    >>> import bayeswm as bwm
    >>> prior = bwm.KnownDynamics(structure=bwm.structures.Pendulum(mass=torch.distributions.LogNormal(0.0, 0.2)))
    >>> objective = bwm.planning.quadratic(torch.tensor([1.0, 0.1]), torch.tensor([0.001]))
    >>> g = torch.Generator().manual_seed(0)
    >>> found = policy_return(prior, torch.ones(10, 1), torch.zeros(2), objective=objective, generator=g)
    >>> bool(found.epistemic_variance > 0), float(found.aleatoric_variance)
    (True, 0.0)
    """
    drawn = model if isinstance(model, Worlds) else model.draw(worlds, generator=generator)
    drawn.check_actionable()
    acted = act_out(drawn, policy, starts, horizon=horizon, particles=particles, generator=generator, context=context)
    cost = objective.cost(acted.states, acted.actions, step_context(context, acted.states))
    cost = torch.where(acted.states.isfinite().all(-1).all(-1) & ~cost.isnan(), cost, float("inf"))
    certain = acted.predictive.resolved[-1] and not drawn.noise_size
    return PolicyReturn(-cost, drawn.log_weight, drawn.exhaustive, certain)
