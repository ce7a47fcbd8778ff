"""A Gaussian belief carried through a horizon step by step: what all methods of moments have in common."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from bayeswm.base.along import Along, Policy, ask
from bayeswm.base.errors import DataError, DivergenceWarning, SpecError
from bayeswm.base.laws import Gaussian, Law, MultivariateGaussian
from bayeswm.base.moments import Cloud, Cubature, Moments, check_markov, cubature_points, send
from bayeswm.base.predictive import Predictive, warn_caller
from bayeswm.base.rollout import check_memory, checked_arguments, divergence_limit, step_context
from bayeswm.base.roots import covariance_root, semidefinite
from bayeswm.base.trajectories import Trajectories
from bayeswm.base.worlds import Belief, Worlds
from bayeswm.propagation.task import GaussianPolicy, Task


class Knowledge(NamedTuple):
    """A Gaussian belief: ``mean`` (W or 1, *batch, n), ``covariance`` and its lower ``root`` (W or 1, *batch, n, n)."""

    mean: Tensor
    covariance: Tensor
    root: Tensor

    @classmethod
    def of(cls, mean: Tensor, covariance: Tensor) -> Knowledge:
        """Take the root, after repairs."""
        return cls(mean, covariance, covariance_root(covariance))


class Passage(NamedTuple):
    """One step on the way of a belief: from what, under which action (none if it is part of the belief), where."""

    belief: Knowledge
    action: Tensor | None
    context: Tensor
    step: int


# the moments after a step that a family knows in closed form, with an axis of one belief in front
Closed = Callable[[Passage], Moments]
# sends a belief by a rule of its size through a step of each world
Sender = Callable[[Worlds, Passage, Cubature], Cloud]


def by_points(worlds: Worlds, passage: Passage, rule: Cubature) -> Cloud:
    """Send each point of the rule through the step."""
    mean, _, root = passage.belief
    points = cubature_points(mean, root, rule)
    return send(worlds, points, mean, rule=rule, action=passage.action, context=passage.context, step=passage.step)


@dataclass(frozen=True)
class Scheme:
    """How a method of moments goes about a step.

    Attributes
    ----------
    rule : callable
        Returns points and weights for a number of inputs.
    pooled : bool
        One belief for all worlds together, instead of one in each.
    sender : callable
        Sends a belief through a step.
    redrawn : bool
        Take new points at each step, and let a policy act in each of them.
    """

    rule: Callable[[int], Cubature]
    pooled: bool
    sender: Sender = by_points
    redrawn: bool = False


def carry_on(task: Task, scheme: Scheme, *, worlds: Worlds | None = None, closed: Closed | None = None) -> Predictive:
    """Propagate a Gaussian belief.

    Parameters
    ----------
    task : Task
        What was asked.
    scheme : Scheme
        How.
    worlds : Worlds, optional
        Instead of those that the task draws.
    closed : callable, optional
        Pooled moments that the family knows in closed form.

    Returns
    -------
    Predictive
        In each world laws of shape (W, 1, *batch, S); pooled one law, with its aleatoric part.

    Notes
    -----
    Pooled, the aleatoric part is a second recursion. Its covariance starts as the belief's. At each step a belief with
    that covariance, around the mean that the whole belief has there, meets the mean function of the worlds: what
    becomes of it is the covariance of the mean function's values and the mean process noise, without the variance of
    the function between worlds. The epistemic part is the rest.
    """
    drawn = task.drawn if worlds is None else worlds
    state, plan, batch, steps = checked_arguments(drawn, task.belief, task.actions, horizon=task.horizon)
    context = step_context(drawn, task.context, batch, steps=steps)
    check_markov(drawn, "moments")
    size, count = drawn.schema.state.size, 1 if scheme.pooled else len(drawn)
    check_memory((count, 1 + size, *batch), steps, drawn)
    belief = _beginning(drawn, state, context[..., 0, :], count=count)
    walk = _Walk(drawn, scheme, plan, closed=closed)
    single = scheme.pooled and closed is None and len(drawn) == 1
    split = scheme.pooled and not single and task.split
    start, known = belief, belief.covariance

    laws: list[Law] = []
    parts: list[Tensor] = []
    bad = torch.zeros(count, 1, *batch, dtype=torch.bool, device=drawn.device)
    diverged: list[Tensor] = []
    limit = divergence_limit(drawn.dtype)
    for t in range(steps):
        walk.begin()
        found = walk.step(belief, context[..., t, :], t)
        if split:  # at the first step both recursions have the same belief
            narrow = found if t == 0 else walk.step(Knowledge.of(belief.mean, known), context[..., t, :], t)
            known = narrow.aleatoric
        mean, covariance = found.mean, found.covariance
        reach = mean.detach().abs() + covariance.detach().diagonal(dim1=-2, dim2=-1).abs().sqrt()
        if reach.numel() and not bool(reach.amax() < limit):
            lost = bad[:, 0] | ~(reach < limit).all(-1)
            # what diverged stays where it was, so that nothing else meets NaN
            mean = torch.where(lost[..., None], belief.mean.detach(), mean)
            covariance = torch.where(lost[..., None, None], 0.0, covariance)
            known = torch.where(lost[..., None, None], 0.0, known) if split else known
            bad = lost[:, None]
        belief = Knowledge.of(mean, covariance)
        laws.append(MultivariateGaussian(belief.mean[:, None], belief.root[:, None]))
        diverged.append(bad)
        if split:
            parts.append(known[0].diagonal(dim1=-2, dim2=-1))
    if bool(bad.any()):
        share = float(bad.double().mean())
        what = "beliefs" if scheme.pooled else "worlds' beliefs"
        warn_caller(f"{share:.1%} of the {what} diverged and are left out", DivergenceWarning)

    certain = not isinstance(state, Law) and not scheme.pooled
    joint = None
    if certain:  # the density along an observed trajectory needs no moments: it is that of a rollout
        origin = start.mean[:, None]
        joint = Along(drawn, origin, plan=plan, context=context, size=(count, 1, *batch))
    predictive = Predictive(
        drawn.schema.state,
        laws,
        drawn.log_weight.new_zeros(1) if scheme.pooled else drawn.log_weight,
        exhaustive=split or drawn.exhaustive,
        time_step=drawn.schema.time_step,
        initial=start.mean[:, None],
        diverged=torch.stack(diverged) if bool(bad.any()) else None,
        resolved=[True] * steps,
        joint=joint,
        has_split=split or single or not scheme.pooled,
        aleatoric=torch.stack(parts, -2) if parts else None,
    )
    return drawn.finish(predictive)


class _Walk:
    """The steps of a propagation: everything that stays the same on the way."""

    def __init__(self, worlds: Worlds, scheme: Scheme, plan: Tensor | Policy, *, closed: Closed | None) -> None:
        self.worlds, self.scheme, self.plan, self.closed = worlds, scheme, plan, closed
        self.rules: dict[int, Cubature] = {}

    def begin(self) -> None:
        """Begin a step: both recursions of it see the same points."""
        if self.scheme.redrawn:
            self.rules = {}

    def rule(self, size: int) -> Cubature:
        """Return the rule for a number of inputs."""
        if size not in self.rules:
            self.rules[size] = self.scheme.rule(size)
        return self.rules[size]

    def step(self, belief: Knowledge, context: Tensor, t: int) -> Moments:
        """Return the moments after a step, with the axis of worlds or of the one pooled belief in front."""
        if isinstance(self.plan, Tensor):
            passage = Passage(belief, self.plan[..., t, :], context, t)
        elif self.scheme.redrawn and not isinstance(self.plan, GaussianPolicy):
            return self._in_each_point(belief, context, t, policy=self.plan)
        else:
            passage = Passage(self._joined(belief, t, policy=self.plan), None, context, t)
        if self.closed is not None:
            return self.closed(passage)
        return self._moments(self.scheme.sender(self.worlds, passage, self.rule(passage.belief.mean.shape[-1])))

    def _moments(self, cloud: Cloud) -> Moments:
        if not self.scheme.pooled:
            return cloud.by_world()
        found = cloud.pooled(self.worlds.weight, exhaustive=self.worlds.exhaustive)
        return Moments(*(v[None] for v in found))

    def _in_each_point(self, belief: Knowledge, context: Tensor, t: int, *, policy: Policy) -> Moments:
        rule = self.rule(belief.mean.shape[-1])
        points = cubature_points(belief.mean, belief.root, rule)
        action = self._ask(policy, points, t)
        both = torch.cat((points, action), -1)
        middle = torch.cat((belief.mean, action.mean(1)), -1)
        return self._moments(send(self.worlds, both, middle, rule=rule, action=None, context=context, step=t))

    def _joined(self, belief: Knowledge, t: int, *, policy: Policy) -> Knowledge:
        """Return the belief about state and action together, as a Gaussian."""
        mean, covariance, root = belief
        if isinstance(policy, GaussianPolicy):
            acts, columns = policy.moments(mean, covariance, t), self.worlds.schema.action.size
            lead = mean.shape[:-1]
            _check_shapes(acts, (mean.shape[-1], columns), batch=lead)
            middle, spread = acts.mean.expand(*lead, -1), acts.covariance.expand(*lead, -1, -1)
            cross = acts.cross.expand(*lead, -1, -1)
        else:
            rule = self.rule(mean.shape[-1])
            points = cubature_points(mean, root, rule)
            action = self._ask(policy, points, t)
            weight = rule.weight.to(action).view(-1, *(1,) * (action.ndim - 2))
            middle = (weight * action).sum(1)
            off, away = action - middle[:, None], points - mean[:, None]
            spread = (weight[..., None] * off[..., :, None] * off[..., None, :]).sum(1)
            cross = (weight[..., None] * away[..., :, None] * off[..., None, :]).sum(1)
        both = torch.cat((torch.cat((covariance, cross), -1), torch.cat((cross.mT, spread), -1)), -2)
        return Knowledge.of(torch.cat((mean, middle), -1), both)

    def _ask(self, policy: Policy, points: Tensor, t: int) -> Tensor:
        size = tuple(points.shape[:-1])
        action = ask(policy, self.worlds, points, step=t, size=size)
        return action.expand(*size, action.shape[-1])


def _check_shapes(found: Moments, sizes: tuple[int, int], *, batch: tuple[int, ...]) -> None:
    state, columns = sizes
    wanted = {"mean": (columns,), "covariance": (columns, columns), "cross": (state, columns)}
    for name, shape in wanted.items():
        given = getattr(found, name)
        if tuple(given.shape[-len(shape) :]) != shape:
            raise DataError(
                f"expected {name} of shape {(*batch, *shape)} from the policy's moments, got {tuple(given.shape)}"
            )
        if not bool(given.isfinite().all()):
            raise DataError(f"expected finite moments from the policy, got NaN or infinity in {name}")


def _beginning(worlds: Worlds, belief: Belief, context: Tensor, *, count: int) -> Knowledge:
    """Return the belief to begin with, in each world or once."""
    if isinstance(belief, Law):
        if not isinstance(belief, Gaussian | MultivariateGaussian):
            raise SpecError(
                f"expected a known state or a Gaussian or MultivariateGaussian law of it, got {type(belief).__name__}; "
                "use FixedWorlds, which takes any law"
            )
        mean, covariance = belief.mean, belief.covariance
        if mean.shape[-1] != worlds.schema.state.size or mean.shape[0] not in (1, count) or mean.shape[1] != 1:
            raise SpecError(
                f"expected a law of the state of shape ({1 if count == 1 else f'1 or {count}'}, 1, *batch, "
                f"{worlds.schema.state.size}), got {tuple(mean.shape)}"
            )
        mean, covariance = (v[:, 0].to(worlds.device, worlds.dtype) for v in (mean, covariance))
        if not bool(mean.isfinite().all() & covariance.isfinite().all()):
            raise DataError("expected a finite belief, got NaN or infinity")
        if not bool(semidefinite(covariance).all()):
            raise DataError("expected a covariance without negative eigenvalues as the belief, got another")
    else:
        carry = worlds.start(belief, context)
        if isinstance(belief, Trajectories) and not bool(carry.isfinite().all()):
            raise DataError("expected a finite last state of the history, got NaN or infinity")
        mean = carry[:1, 0]
        covariance = torch.zeros_like(mean)[..., None].expand(*mean.shape, mean.shape[-1])
    mean = mean.expand(count, *mean.shape[1:])
    covariance = covariance.expand(count, *covariance.shape[1:])
    return Knowledge.of(mean, covariance)
