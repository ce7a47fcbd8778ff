"""What all planners share: one call that makes a plan of a model, a state and an objective."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from bayeswm.base.counts import check_counts
from bayeswm.base.errors import DataError, SpecError
from bayeswm.base.model import DynamicsModel, check_model
from bayeswm.base.predictive import checked_generator
from bayeswm.base.worlds import Belief, Worlds
from bayeswm.planning.limits import Limits
from bayeswm.planning.objective import Objective
from bayeswm.planning.plan import Plan
from bayeswm.planning.problem import Problem, broken_from
from bayeswm.planning.risk import Mean, Risk
from bayeswm.planning.safety.constraints import Constraint
from bayeswm.planning.search.linear_feedback import LinearFeedback


class Found(NamedTuple):
    """What a search ended with.

    ``actions`` (*starts, H, A), ``key`` (*starts) as of :class:`Score` (NaN or infinite where nothing can be used),
    ``diverged`` (*starts), ``history`` (iterations, *starts), ``evaluations`` for each start, ``memory``,
    and the feedback around the actions where the search finds one.
    """

    actions: Tensor
    key: Tensor
    diverged: Tensor
    history: Tensor
    evaluations: int
    memory: Mapping[str, Tensor]
    feedback: LinearFeedback | None = None


@dataclass(frozen=True)
class Planner(ABC):
    """A way to search for actions. Settings are fields; nothing is remembered between calls.

    Parameters
    ----------
    objective : Objective
        What trajectories cost.
    horizon : int
        Steps to look ahead.
    risk : Risk
        Makes one number of the distribution of costs.
    constraints : sequence of Constraint
        What must not happen.
    worlds, particles : int
        Worlds drawn from the model, and noise draws in each; one particle is enough where there is no noise.
    bounds : tuple of float or Tensor, optional
        Lowest and highest action; those of the schema by default.
    change : float or Tensor of shape (A,), optional
        Largest change of the action in one step; any by default.
    fallback : float, Tensor of shape (A,) or callable, optional
        What to do where nothing that was tried can be used: an action, or a function of the state (*starts, S). It is
        held for the whole plan, as far as limits on change let it. By default the possible action nearest to 0, and
        only where everything diverged; what breaks hard constraints least is done otherwise.
    fresh_worlds : bool
        Put each particle into another world at each step.
    """

    objective: Objective
    _: KW_ONLY
    horizon: int
    risk: Risk = Mean()  # noqa: RUF009 (frozen)
    constraints: Sequence[Constraint] = ()
    worlds: int = 16
    particles: int = 8
    bounds: tuple[float | Tensor, float | Tensor] | None = None
    change: float | Tensor | None = None
    fallback: float | Tensor | Callable[[Tensor], Tensor] | None = None
    fresh_worlds: bool = False

    def __post_init__(self) -> None:
        if not isinstance(self.objective, Objective):
            raise SpecError(
                f"expected an Objective, got {_named(self.objective)}; try Objective(stage=...) for a cost function"
            )
        check_counts(horizon=self.horizon, worlds=self.worlds, particles=self.particles)
        if not isinstance(self.risk, Risk):
            raise SpecError(f"expected risk=Mean(), CVaR(0.1) or another Risk, got {_named(self.risk)}")
        given = self.constraints if isinstance(self.constraints, Sequence) else [self.constraints]
        for one in given:
            if not isinstance(one, Constraint) or given is not self.constraints:
                raise SpecError(f"expected a sequence of Constraint, got {_named(one)}")

    def plan(
        self,
        model: DynamicsModel | Worlds,
        state: Belief,
        *,
        generator: torch.Generator | None = None,
        context: Tensor | None = None,
        previous: Plan | None = None,
        done: int = 1,
        before: Tensor | None = None,
    ) -> Plan:
        """Search for actions that make the risk small.

        Parameters
        ----------
        model : DynamicsModel or Worlds
            A fitted model, or worlds already drawn from one (the same ones at each step of an episode, say).
        state : Tensor of shape (*starts, S), Law or Trajectories
            Where the system is: known states, a belief or a history. Each start gets a plan of its own, which does not
            depend on the others.
        generator : torch.Generator, optional
            Source of all randomness; needed where there is any.
        context : Tensor of shape (*starts, C) or (*starts, H, C), optional
            Environment factors.
        previous : Plan, optional
            The last plan, of this planner or another one, to begin with what remains of it, and for limits on change.
        done : int
            How many of its actions have been done.
        before : Tensor of shape (A,) or (*starts, A), optional
            The action before the first, for limits and costs of change; by default what the previous plan did last.
            Without either the first action may be any.

        Returns
        -------
        Plan

        Raises
        ------
        SpecError, DataError
            For arguments that do not fit together, NaN, bounds or a fallback beyond the bounds of the schema, a schema
            whose actions have no bounds, or a search that cannot fit into memory.
        """
        check_model(model)
        if previous is not None and not isinstance(previous, Plan):
            raise SpecError(f"expected a Plan as the previous one, got {_named(previous)}")
        generator = checked_generator(generator)
        check_counts(0, done=done)
        # planners that differentiate need tensors that inference mode does not make
        with torch.inference_mode(False), torch.no_grad():
            drawn = model if isinstance(model, Worlds) else model.draw(self.worlds, generator=generator)
            if not drawn.schema.action.size:
                raise SpecError("expected a system with actions, got one without: there is nothing to plan")
            like = torch.empty(drawn.schema.action.size, dtype=drawn.dtype, device=drawn.device)
            limits = Limits.chosen(drawn.schema, self.bounds, change=self.change, like=like)
            if self.fallback is not None and not callable(self.fallback):
                limits.check(_action(self.fallback, like), names=drawn.schema.action.columns)
            problem = Problem(
                self.objective,
                drawn,
                _ordinary(state),
                horizon=self.horizon,
                particles=self.particles,
                risk=self.risk,
                limits=limits,
                constraints=self.constraints,
                context=_ordinary(context),
                previous=_ordinary(before),
                generator=generator,
                fresh_worlds=self.fresh_worlds,
            )
            memory: dict[str, Tensor] = {}
            if previous is not None:
                memory = self._remembered(problem, previous, done)
                if before is None:
                    last = min(done, self.horizon) - 1
                    problem.previous = previous.problem.previous if done == 0 else previous.actions[..., last, :]
            found = self._search(problem, memory, generator=generator)
            return self._planned(problem, found)

    @abstractmethod
    def _search(self, problem: Problem, memory: Mapping[str, Tensor], *, generator: torch.Generator | None) -> Found:
        """Search, beginning with what is remembered of the last plan (empty where there was none)."""

    def _remembered(self, problem: Problem, previous: Plan, done: int) -> dict[str, Tensor]:
        memory = previous.shifted(done)
        wanted = (*problem.starts, self.horizon, len(problem.limits.low))
        for name, values in memory.items():
            if values.shape[-len(wanted) :] != wanted:
                raise SpecError(
                    f"expected a previous plan of shape {wanted}, got {name} of {tuple(values.shape)}: it belongs to "
                    "other starts, another horizon or other actions"
                )
        # what cannot be used is not passed on
        lost = previous.fallback
        if not bool(lost.any()):
            return memory
        like = problem.limits.apply(torch.zeros_like(problem.limits.low)[None])[0]
        return {k: torch.where(lost[..., None, None], like, v) for k, v in memory.items()}

    def _planned(self, problem: Problem, found: Found) -> Plan:
        useless = ~found.key.isfinite() | ~found.actions.isfinite().all(-1).all(-1)
        broken = found.key >= broken_from(found.key.dtype)
        fallback = useless | broken if self.fallback is not None else useless
        actions = found.actions
        if bool(fallback.any()):
            actions = torch.where(fallback[..., None, None], self._held(problem), actions)
        actions = problem.limits.apply(actions, problem.previous)
        feedback = found.feedback
        if feedback is not None and bool(fallback.any()):
            feedback = feedback.where(~fallback, actions)
        return Plan(
            actions=actions,
            problem=problem,
            fallback=fallback,
            feasible=~(broken | useless),
            diverged=found.diverged,
            evaluations=found.evaluations,
            history=found.history,
            memory=found.memory,
            feedback=feedback,
        )

    def _held(self, problem: Problem) -> Tensor:
        """Return the fallback action for each start, held for the whole plan, (*starts, H, A)."""
        limits, starts = problem.limits, problem.starts
        if self.fallback is None:
            action = torch.zeros_like(limits.low)
        elif callable(self.fallback):
            action = _action(self.fallback(problem.state), limits.low)
            if not bool(action.isfinite().all()):
                raise DataError("expected a finite fallback action, got NaN or infinity")
        else:
            action = _action(self.fallback, limits.low)
        return action[..., None, :].expand(*starts, self.horizon, len(limits.low))


def _action(value: float | Tensor, like: Tensor) -> Tensor:
    """Return an action, or one for each start, in the number format of ``like``."""
    action = torch.as_tensor(value).to(like)
    action = action if action.ndim else action.expand(len(like))
    if action.shape[-1] != len(like):
        raise DataError(f"expected a fallback action of shape ({len(like)},), got {tuple(action.shape)}")
    return action


def _named(value: object) -> str:
    """Return how a message calls what was given in place of something else."""
    return f"the class {value.__name__}" if isinstance(value, type) else f"a {type(value).__name__}"


def _ordinary[T](value: T) -> T:
    """Return tensors that inference mode made as others, so that they can be part of a derivative."""
    return value.clone() if isinstance(value, Tensor) and value.is_inference() else value  # pyright: ignore[reportReturnType]
