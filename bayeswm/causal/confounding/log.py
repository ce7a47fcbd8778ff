"""A log with its hidden causes as further columns: what the model of outcomes learns from."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from bayeswm.base.errors import SpecError
from bayeswm.base.model import DynamicsModel
from bayeswm.base.schema import Schema, Variable, Variables
from bayeswm.base.trajectories import Trajectories, replace_schema
from bayeswm.causal.confounding.behaviour import residual
from bayeswm.causal.confounding.regression import features_of
from bayeswm.causal.confounding.strategies import Adjusted, FrontDoor, Instrumented, Proxied, Strategy


def with_context(trajectories: Trajectories, schema: Schema) -> Trajectories:
    """Return trajectories with the context columns that a schema has, found by name, and no others.

    Raises
    ------
    UnknownVariableError
        If one was not recorded.

    Examples
    --------
    >>> from bayeswm.base.schema import Schema, Variable
    >>> wide = Schema(state=[Variable("s")], context=[Variable("e"), Variable("m")], time_step=1.0)
    >>> data = Trajectories(wide, state=torch.zeros(1, 3, 1), context=torch.tensor([[1.0, 2.0]]))
    >>> with_context(data, Schema(state=[Variable("s")], context=[Variable("m")], time_step=1.0)).context
    tensor([[2.]])
    """
    old = trajectories.schema
    if old.context.names == schema.context.names:
        return trajectories
    context = columns_of(trajectories.context, old.context, schema.context.names)
    return replace_schema(trajectories._like(context=context), same_but(old, context=schema.context))


def without_recorded(trajectories: Trajectories, schema: Schema) -> Trajectories:
    """Return trajectories without context that a model does not ask for; unchanged where other variables differ.

    Such columns were recorded only: they told a :class:`CausalDynamics` of hidden causes.

    Examples
    --------
    >>> from bayeswm.base.schema import Schema, Variable
    >>> wide = Schema(state=[Variable("s")], context=[Variable("e")], time_step=1.0)
    >>> data = Trajectories(wide, state=torch.zeros(1, 3, 1), context=torch.ones(1, 1))
    >>> without_recorded(data, Schema(state=[Variable("s")], time_step=1.0)).context.shape
    torch.Size([1, 0])
    """
    more = set(schema.context.names) < set(trajectories.schema.context.names)
    return with_context(trajectories, schema) if more else trajectories


def columns_of(values: Tensor, variables: Variables, names: tuple[str, ...]) -> Tensor:
    """Return the columns of some variables, in the order of the names."""
    index = [variables.column(column) for name in names for column in variables[name].columns]
    return values[..., index]


def same_but(schema: Schema, *, action: Variables | None = None, context: Variables) -> Schema:
    """Return a schema with other actions and context."""
    return Schema(
        state=schema.state,
        action=schema.action if action is None else action,
        context=context,
        observation=schema.observation,
        reward=schema.reward,
        time_step=schema.time_step,
    )


@dataclass(frozen=True, eq=False)
class Recipe:
    """How a log becomes one in which hidden causes are context.

    Parameters
    ----------
    strategy : Strategy
        What the causes are told by.
    public : Schema
        Of the model: without what is recorded only.
    log : Schema
        Of what it was fitted to.
    control : Tensor, shape (C, D + A + X), optional
        Causes as a linear map of features, actions and :meth:`extra`.
    weights : Tensor, shape (X, R), optional
        Of recorded columns in ``extra``.
    behaviour : DynamicsModel, optional
        What says the action from state, context and instruments, where it is not linear.
    """

    strategy: Strategy
    public: Schema
    log: Schema
    control: Tensor | None = None
    weights: Tensor | None = None
    behaviour: DynamicsModel | None = None

    @property
    def needed(self) -> tuple[str, ...]:
        """Recorded variables without which the causes are not known."""
        match self.strategy:
            case Adjusted(by=by) | Instrumented(by=by) | Proxied(by=by):
                return by
            case FrontDoor(through=through):
                return through
            case _:
                return ()

    @property
    def causes(self) -> Variables:
        """The hidden causes as variables of the context that the model of outcomes sees."""
        match self.strategy:
            case Adjusted(by=by):
                return Variables(self.log.context[name] for name in by)
            case Instrumented(actions=actions):
                return Variables(Variable(f"{a}_residual", unit=self.log.action[a].unit) for a in actions)
            case FrontDoor():
                return Variables(Variable(f"{a.name}_logged", unit=a.unit) for a in self.log.action)
            case Proxied(latent=latent, by=by):
                return Variables([Variable(latent, unit=self.log.context[by[0]].unit)])
            case _:
                return Variables()

    @property
    def inner(self) -> Schema:
        """What the model of outcomes sees."""
        context = Variables((*self.public.context, *self.causes))
        action = None
        if isinstance(self.strategy, FrontDoor):
            action = Variables(self.log.context[name] for name in self.strategy.through)
        return same_but(self.public, action=action, context=context)

    def check(self) -> None:
        """Refuse causes that are no real numbers, and actions that share them.

        Raises
        ------
        SpecError
            Naming the variable.
        """
        if not self.causes:
            return
        for v in (*self.log.action, *(self.log.context[name] for name in self.needed)):
            if v.kind.name != "real":
                raise SpecError(f"{v.name}: expected a real variable as a cause with a Gaussian law, got {v.kind.name}")

    # --- features ---------------------------------------------------------------------------------------------------

    def features(self, state: Tensor, context: Tensor) -> Tensor:
        """Return what laws of the causes are linear in."""
        return features_of(self.public, state, context)

    def with_action(self, phi: Tensor, action: Tensor) -> Tensor:
        """Return the features with actions behind them."""
        return torch.cat((phi, self.public.action.embed(action)), -1)

    def extra(self, recorded: Tensor) -> Tensor:
        """Return instruments, or the mean of measurements weighed by their precision, of recorded columns (..., R)."""
        return recorded if self.weights is None else recorded @ self.weights.to(recorded).mT

    # --- the log ----------------------------------------------------------------------------------------------------

    def outcome_log(self, trajectory: Trajectories) -> Trajectories:
        """Return a log as the model of outcomes sees it.

        Raises
        ------
        UnknownVariableError
            If a column that tells the causes was not recorded.
        """
        public = with_context(trajectory, self.public)
        if not self.causes:
            return public
        recorded = columns_of(trajectory.step_context(), trajectory.schema.context, self.needed)
        causes = self._causes(public, recorded)
        context = torch.cat((public.step_context(), causes), -1)
        inside = public.step_mask[..., None]
        context = torch.where(inside, context, float("nan"))
        action = recorded if isinstance(self.strategy, FrontDoor) else public.action
        return replace_schema(public._like(context=context, action=action), self.inner)

    def _causes(self, public: Trajectories, recorded: Tensor) -> Tensor:
        match self.strategy:
            case Adjusted():
                return recorded
            case FrontDoor():
                return public.action
            case _:
                pass
        if self.behaviour is not None and isinstance(self.strategy, Instrumented):
            return residual(self.behaviour, public, recorded, actions=self.strategy.actions)
        if self.control is None:
            raise SpecError("expected a fitted first stage, got none")
        phi = self.features(public.states()[:, :-1], public.step_context())
        everything = torch.cat((self.with_action(phi, public.action), self.extra(recorded)), -1)
        return everything @ self.control.to(everything).mT
