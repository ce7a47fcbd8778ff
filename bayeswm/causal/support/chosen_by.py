"""What of a log a model asks for, and what the choice of its actions may have followed from."""

from __future__ import annotations

from typing import NamedTuple

from bayeswm.base.errors import ConfoundedError
from bayeswm.base.model import DynamicsModel
from bayeswm.base.schema import Schema, Variables
from bayeswm.base.trajectories import Trajectories
from bayeswm.causal.confounding.choice import plan_for
from bayeswm.causal.confounding.dynamics import CausalDynamics
from bayeswm.causal.confounding.log import same_but, with_context
from bayeswm.causal.confounding.strategies import Adjusted, Unconfounded, Unidentified


class Views(NamedTuple):
    """A log with the context that the model asks for, and with that which the action's law is given."""

    asked: Trajectories
    chosen: Trajectories


def views(model: DynamicsModel, logged: Trajectories) -> Views:
    """Return a log as the model's forecasts see it, and as the law of its actions does.

    Importance weights are right if that law is given all that acts on the action and on what follows. A
    :class:`CausalDynamics` that adjusts says what this is. Its other strategies rest on causes that were not recorded:
    no weights of recorded columns make up for these, and what they would add is the confounding that the model left
    out.

    Raises
    ------
    ConfoundedError
        If causes of actions and outcomes were not recorded.
    """
    if not isinstance(model, CausalDynamics):
        return Views(logged, logged)
    strategy, public = plan_for(model.graph, logged.schema)
    if isinstance(strategy, Unidentified):
        raise ConfoundedError(f"what an action does does not follow from this log: {strategy.reason}")
    if not isinstance(strategy, Adjusted | Unconfounded):
        raise ConfoundedError(
            f"expected a log with all that its actions share causes by, got one for the strategy {strategy}: logged "
            "episodes cannot be weighed without what chose their actions; record these causes, or take the model's "
            "own value, by a rollout of the policy"
        )
    by = strategy.by if isinstance(strategy, Adjusted) else ()
    return Views(with_context(logged, public), with_context(logged, _with(public, logged.schema, by)))


def _with(public: Schema, log: Schema, names: tuple[str, ...]) -> Schema:
    return same_but(public, context=Variables((*public.context, *(log.context[name] for name in names))))
