"""A plan: what to do, what is expected of it, and how it was found."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor

from bayeswm.base.errors import SpecError
from bayeswm.base.mixture import Estimate
from bayeswm.base.predictive import Predictive
from bayeswm.base.worlds import Worlds
from bayeswm.planning.problem import Problem
from bayeswm.planning.safety.violation import Violation, violation
from bayeswm.planning.search.linear_feedback import LinearFeedback


@dataclass(frozen=True, eq=False)
class Plan:
    """A sequence of actions for each start, with what the model expects of it.

    Attributes
    ----------
    actions : Tensor, shape (*starts, H, A)
        What to do; always finite and possible.
    fallback : Tensor of bool, shape (*starts)
        Where nothing that was tried could be used, so that the actions are the planner's fallback.
    feasible : Tensor of bool, shape (*starts)
        Where every hard constraint is kept, as far as the planner looked; true where there are none.
    diverged : Tensor, shape (*starts)
        Share of all imagined particles that left the finite numbers during the search.
    evaluations : int
        How many action sequences were tried for each start.
    history : Tensor, shape (iterations, *starts)
        Lowest key (see :class:`Score`) in each iteration.
    memory : mapping of str to Tensor
        What the next search begins with: ``actions``, and what some planners keep besides; the second-to-last axis is
        the horizon.
    feedback : LinearFeedback, optional
        A policy around the plan, from planners that find one (LQR, iLQR).
    """

    actions: Tensor
    problem: Problem = field(repr=False)
    fallback: Tensor
    feasible: Tensor
    diverged: Tensor
    evaluations: int
    history: Tensor = field(repr=False)
    memory: Mapping[str, Tensor] = field(default_factory=dict, repr=False)
    feedback: LinearFeedback | None = field(default=None, repr=False)

    @property
    def action(self) -> Tensor:
        """What to do now, shape (*starts, A)."""
        return self.actions[..., 0, :]

    @cached_property
    def predictive(self) -> Predictive:
        """The forecast under the plan, in the worlds and with the noise that it was made with."""
        return self.problem.predictive(self.actions)

    @cached_property
    def returns(self) -> Tensor:
        """Return (negative cost) of each imagined particle, shape (worlds, particles, *starts)."""
        with torch.no_grad():
            return -self.problem.costs(self.actions[None])[1][:, :, 0]

    @property
    def log_weight(self) -> Tensor:
        """Normalised log weights of the worlds, shape (worlds,)."""
        return self.problem.worlds.log_weight

    @cached_property
    def cost(self) -> Tensor:
        """The planner's risk of the costs under the plan, without penalties, shape (*starts)."""
        return self.problem.risk(-self.returns, self.log_weight)

    def violation(
        self, *, generator: torch.Generator | None = None, particles: int = 1000, worlds: Worlds | None = None
    ) -> tuple[Violation, ...]:
        """Return how often the plan breaks each constraint, on new noise: that of the search chose it.

        Parameters
        ----------
        generator : torch.Generator, optional
            Draws the noise, where there is any.
        particles : int
            In each world.
        worlds : Worlds, optional
            What the system may be, such as new draws of the model, or the true one; the worlds of the search by
            default.

        Returns
        -------
        tuple of Violation
            One for each constraint of the planner, hard or soft.

        Examples
        --------
        >>> import bayeswm as bwm
        >>> model = bwm.KnownDynamics(structure=bwm.structures.Pendulum.gymnasium(), noise=0.05)
        >>> safe = bwm.planning.HalfSpaces.between(model.schema, {"velocity": (-1.0, 1.0)})
        >>> slow = bwm.planning.ChanceConstraint(safe, by=bwm.planning.GaussianTightening())
        >>> objective = bwm.planning.Objective(stage=lambda x, u, c, t: -x[..., 1])
        >>> planner = bwm.planning.CEM(objective, horizon=5, particles=200, constraints=[slow])
        >>> g = torch.Generator().manual_seed(0)
        >>> plan = planner.plan(model, torch.tensor([3.1, 0.0]), generator=g)
        >>> found = plan.violation(generator=g, particles=2000)[0]
        >>> found.by_step.value.shape, bool((found.by_step.value < 0.08).all())
        (torch.Size([5]), True)
        """
        with torch.no_grad():
            new = self.problem.again(particles=particles, worlds=worlds, generator=generator)
            actions = self.actions[None]
            imagined = new.imagined(new.trajectories(actions), actions)
            found = [violation(constraint, imagined) for constraint in new.constraints]
        return tuple(Violation(*(Estimate(*(v.squeeze(0) for v in part)) for part in one)) for one in found)

    def shifted(self, steps: int = 1) -> dict[str, Tensor]:
        """Return the memory after some steps were done, the last entry repeated at the end.

        Raises
        ------
        SpecError
            For a negative number of steps.
        """
        if steps < 0:
            raise SpecError(f"expected steps >= 0, got {steps}")

        def later(values: Tensor) -> Tensor:
            kept = values[..., min(steps, values.shape[-2] - 1) :, :]
            missing = values.shape[-2] - kept.shape[-2]
            return torch.cat((kept, kept[..., -1:, :].expand(*kept.shape[:-2], missing, -1)), -2)

        return {k: later(v) for k, v in self.memory.items()}
