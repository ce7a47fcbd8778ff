"""What a policy costs: a fixed function of its parameters, since worlds and noise are drawn once."""

from __future__ import annotations

import warnings

import torch
from torch import Tensor

from bayeswm.base.along import Policy
from bayeswm.base.errors import DivergenceWarning, EstimateWarning, SpecError
from bayeswm.base.model import DynamicsModel
from bayeswm.base.predictive import Predictive, checked_generator
from bayeswm.base.random import make_generator, spawn_seeds
from bayeswm.base.rollout import step_context
from bayeswm.base.worlds import Belief, Worlds
from bayeswm.planning.objective import Objective
from bayeswm.planning.policies.marginal_draws import marginal_draws
from bayeswm.planning.risk import Epistemic, Mean, Risk, WorstWorld
from bayeswm.propagation import FixedWorlds, Method, Task


class PolicyCost:
    """The risk of a policy, averaged over starts: the same worlds and the same noise for each policy.

    From particles it is the risk of the costs of whole trajectories. From Gaussian beliefs it is the expected cost in
    each world, over draws from the law of the state at each step: costs are sums over steps, so that the marginal laws
    tell their mean, but not what depends on whole trajectories (``change``, ``termination``, other risks). Draws have
    the mean and covariance of the belief; quadratic costs and linear policies are exact.

    Parameters
    ----------
    model : DynamicsModel or Worlds
        A fitted model, or worlds already drawn from one.
    objective : Objective
        What trajectories cost.
    belief : Tensor of shape (*starts, S), Law or Trajectories
        Where they start.
    horizon : int
        Steps.
    generator : torch.Generator
        Draws the worlds, and what all noise comes from.
    method : Method, optional
        As of :func:`bayeswm.propagate`; ``FixedWorlds()`` by default.
    risk : Risk
        From beliefs :class:`Mean`; with one in each world also :class:`Epistemic` and ``WorstWorld()``.
    context : Tensor of shape (*starts, C) or (*starts, H, C), optional
        Environment factors.
    worlds : int
        How many to draw.
    draws : int
        From each belief.

    Examples
    --------
    >>> import bayeswm as bwm
    >>> model = bwm.KnownDynamics(structure=bwm.structures.Pendulum.gymnasium(), noise=0.01)
    >>> objective = bwm.planning.quadratic(torch.tensor([1.0, 0.1]), torch.tensor([0.01]))
    >>> g = torch.Generator().manual_seed(0)
    >>> start = torch.tensor([0.1, 0.0])
    >>> cost = PolicyCost(model, objective, start, horizon=20, generator=g, method=bwm.propagation.MomentMatching())
    >>> policy = bwm.planning.LinearPolicy(model.schema)
    >>> braced = policy.replace(gain=torch.tensor([[-15.0, 0.0, -5.0]]))
    >>> round(float(cost(policy)), 2), round(float(cost(braced)), 2)
    (37.12, 0.12)
    """

    def __init__(
        self,
        model: DynamicsModel | Worlds,
        objective: Objective,
        belief: Belief,
        *,
        horizon: int,
        generator: torch.Generator,
        method: Method | None = None,
        risk: Risk = Mean(),  # noqa: B008 (frozen)
        context: Tensor | None = None,
        worlds: int = 16,
        draws: int = 200,
    ) -> None:
        if checked_generator(generator) is None:
            raise SpecError("expected generator=torch.Generator, since noise is drawn, got none")
        if horizon < 1 or worlds < 1:
            raise SpecError(f"expected horizon >= 1 and worlds >= 1, got {horizon} and {worlds}")
        method = FixedWorlds() if method is None else method
        if isinstance(method, type) or not isinstance(method, Method):
            raise SpecError(f"expected method=bayeswm.propagation.FixedWorlds() or another method, got {method!r}")
        self.objective, self.belief, self.risk, self.draws = objective, belief, risk, draws
        self.worlds = model if isinstance(model, Worlds) else model.draw(worlds, generator=generator)
        self.worlds.check_actionable()
        self.model, self.horizon, self.method, self.context = model, horizon, method, context
        self._seed, self._draw_seed = spawn_seeds(generator, 2)
        self._device = generator.device

    def __call__(self, policy: Policy) -> Tensor:
        """Return the risk, a single number; infinite where it is not finite, or the policy's actions are not.

        Raises
        ------
        SpecError, DataError
            For arguments that do not fit together.
        """
        sane = _Sane(policy)
        found = self.predictive(sane)
        if found.sampled:
            states = self._paths(found)
        else:
            self._check_additive(found)
            states = marginal_draws(found, self.belief, draws=self.draws, generator=self._generator(self._draw_seed))
        actions = torch.stack([sane(states[..., t, :], t) for t in range(self.horizon)], -2)
        context = step_context(self.worlds, self.context, found.batch_shape, steps=self.horizon)
        context = context[..., : self.horizon, :]
        costs = self.objective.cost(states, actions, context)
        bad = ~costs.detach().isfinite() | self._lost(found, states, context)
        if bool(bad.any()):
            costs = torch.where(bad, float("inf"), costs)
        total = self.risk(costs, found.log_weight).mean()
        return torch.full_like(total, float("inf")) if sane.failed or not bool(total.isfinite()) else total

    def predictive(self, policy: Policy) -> Predictive:
        """Return the forecast under a policy, with the fixed noise."""
        task = Task(
            self.model,
            self.belief,
            policy,
            self.horizon,
            self.context,
            len(self.worlds),
            self._generator(self._seed),
            ready=self.worlds,
            split=False,
        )
        with warnings.catch_warnings():  # what diverges is counted as such
            warnings.simplefilter("ignore", DivergenceWarning)
            warnings.simplefilter("ignore", EstimateWarning)
            return self.method.propagate(task)

    def _generator(self, seed: int) -> torch.Generator:
        return make_generator(seed, device=self._device)

    def _paths(self, found: Predictive) -> Tensor:
        """Return trajectories of the particles, the start included, (worlds, particles, *starts, H + 1, S)."""
        paths, begin = found.particles, found.initial
        if begin is None:
            raise SpecError(f"expected a method that tells where particles start, got {self.method!r}")
        begin = begin[..., None, :].expand(*paths.shape[:-2], 1, paths.shape[-1])
        return torch.cat((begin, paths), -2)

    def _lost(self, found: Predictive, states: Tensor, context: Tensor) -> Tensor:
        """Return what diverged before its end, broadcastable to (worlds, particles, *starts)."""
        wrong = found.diverged
        if bool(wrong.any()):
            ended = self.objective.ended(states.detach(), context)
            if ended is not None:
                wrong = wrong & ~ended[..., :-1]
        return wrong.any(-1)

    def _check_additive(self, found: Predictive) -> None:
        """Refuse what marginal laws do not tell."""
        wanted = f"with {self.method!r}, whose beliefs know nothing of trajectories; use FixedWorlds"
        if self.objective.termination is not None or self.objective.change:
            raise SpecError(f"expected an objective without termination and change {wanted}")
        by_world = isinstance(self.risk, Epistemic) or self.risk == WorstWorld()
        if not isinstance(self.risk, Mean) and not by_world:
            raise SpecError(f"expected risk=Mean(), Epistemic(...) or WorstWorld() {wanted}; got {self.risk!r}")
        if by_world and found.worlds != len(self.worlds):
            raise SpecError(f"expected a belief in each world for {self.risk!r}, got pooled ones; use pooled=False")


class _Sane:
    """A policy that is asked no more once an action is not finite: the search is to go on, not to end in an error."""

    def __init__(self, policy: Policy) -> None:
        self.policy, self.failed = policy, False

    def __call__(self, state: Tensor, step: int) -> Tensor:
        action = self.policy(state, step)
        wrong = ~action.detach().isfinite()
        if bool(wrong.any()):
            self.failed = self.failed or bool((wrong.any(-1) & state.detach().isfinite().all(-1)).any())
            action = torch.where(wrong, 0.0, action)
        return action
