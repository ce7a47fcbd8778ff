"""Dynamics learned from logs whose actions may share causes with what followed."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any, Self, override

import torch
from torch import Tensor

from bayeswm.base.errors import ConfoundedError, SpecError, UnknownVariableError
from bayeswm.base.model import DynamicsModel
from bayeswm.base.schema import Schema
from bayeswm.base.structure import Structure
from bayeswm.base.trajectories import Trajectories, check_trajectories
from bayeswm.base.worlds import Worlds
from bayeswm.causal.confounding.behavioural import BehaviouralDynamics
from bayeswm.causal.confounding.choice import plan_for
from bayeswm.causal.confounding.learned import Causes, learn_causes
from bayeswm.causal.confounding.log import Recipe
from bayeswm.causal.confounding.mechanisms import Given, structural_of
from bayeswm.causal.confounding.strategies import Persistent, Strategy, Unconfounded, Unidentified
from bayeswm.causal.graphs.time_graph import TimeGraph


class CausalDynamics(DynamicsModel):
    """Dynamics under actions that are set, learned from a log of actions that somebody chose.

    A controller that senses what the model does not see (a gust, a slope) makes its actions tell of it; a model of the
    next state given state and action then takes the gust's work for the action's. The graph says who may act on whom;
    from it and from what was recorded follows the strategy: adjust for recorded causes, use injected exploration noise
    as an instrument, go through a recorded mediator, or put a measurement in the place of a cause. Hidden causes become
    columns of the context, from which the dynamics are learned; in worlds they are drawn anew at each step, from their
    law given the state. Rollouts, planners and interventions thus see what actions do.

    Variables of the graph that are not in the log count as hidden. A context variable that the graph names is recorded
    only: the model does not ask for it again. One that the graph does not name is context of the model as usual.

    Parameters
    ----------
    graph : TimeGraph
        Who acts on whom: states at t on states at t + 1, actions at t on states at t + 1.
    dynamics : DynamicsModel, optional
        A model to fit a copy of: any family with any structure. It sees hidden causes as further context, in this
        order: recorded causes by their names, ``<action>_residual`` for an instrument, ``<action>_logged`` behind a
        front door (where the mediators are its actions), a hidden variable by its name where it was measured. For
        causes of a whole episode it needs a :class:`bayeswm.base.Hierarchical` parameter.
    mechanisms : DynamicsModel, callable, Mechanism or mapping of str to these, optional
        Instead of ``dynamics``: what learns each variable of the state from its own parents in the graph, as in
        :class:`bayeswm.causal.Learned`; one for all, or by variable. The model of outcomes is then a
        :class:`bayeswm.causal.StructuralModel`.
    behaviour : DynamicsModel, optional
        With an instrument: what learns the logged actions from state and instruments, where they are not linear in
        these (angles by sine and cosine). Its own uncertainty does not reach the worlds; that of the linear default
        does.
    proxy_error : mapping of str to float, optional
        Standard deviation of the error of measurements of a hidden cause.

    Raises
    ------
    SpecError
        If the model to fit or the graph are none.

    Examples
    --------
    A wind e pushes the state, and the controller leans into it; noise nu was added to its actions and recorded.

    >>> import bayeswm as bwm
    >>> from torch.distributions import Normal
    >>> g = torch.Generator().manual_seed(0)
    >>> e, nu, s = *torch.randn(2, 500, 1, generator=g).double(), torch.ones(500, 1).double()
    >>> a = -0.3 * s + e + nu
    >>> after = 0.9 * s + 0.5 * a + e
    >>> schema = bwm.Schema(
    ...     state=[bwm.Variable("s")], action=[bwm.Variable("a")], context=[bwm.Variable("nu")], time_step=1.0
    ... )
    >>> log = bwm.Trajectories(schema, state=torch.stack((s, after), 1), action=a[:, None], context=nu[:, None])
    >>> seen = bwm.Schema(
    ...     state=schema.state, action=schema.action, context=[bwm.Variable("a_residual")], time_step=1.0
    ... )
    >>> linear = bwm.structures.FromFunction(
    ...     lambda s, a, c, p: p["A"] * s + p["B"] * a + p["C"] * c, schema=seen,
    ...     parameters={k: Normal(0.0, 3.0) for k in "ABC"},
    ... )
    >>> graph = TimeGraph(
    ...     [("s[t]", "s[t+1]"), ("a[t]", "s[t+1]"), ("s[t]", "a[t]"), ("nu[t]", "a[t]")],
    ...     confounded=[("a[t]", "s[t+1]")],
    ... )
    >>> prototype = bwm.BayesianDynamics(structure=linear, noise=0.1, inference=bwm.inference.Conjugate())
    >>> model = CausalDynamics(graph, dynamics=prototype).fit(log, seed=0, progress=False)
    >>> print(model.strategy)
    instrument (nu) for (a)
    >>> p, q = (m.predictive(torch.ones(1), torch.ones(1), generator=g).mean for m in (model, model.behavioural))
    >>> abs(float(p) - 1.4) < 0.2, abs(float(q) - 2.05) < 0.2
    (True, True)
    """

    def __init__(
        self,
        graph: TimeGraph,
        *,
        dynamics: DynamicsModel | None = None,
        mechanisms: Given | Mapping[str, Given] | None = None,
        behaviour: DynamicsModel | None = None,
        proxy_error: Mapping[str, float] | None = None,
    ) -> None:
        if not isinstance(graph, TimeGraph):
            raise SpecError(f"expected a TimeGraph, got {type(graph).__name__}")
        for name, value in {"dynamics": dynamics, "behaviour": behaviour}.items():
            if value is not None and not isinstance(value, DynamicsModel):
                raise SpecError(f"expected a model as {name}=, got {type(value).__name__}")
        if (dynamics is None) == (mechanisms is None):
            raise SpecError("expected dynamics= or mechanisms=, got " + ("neither" if dynamics is None else "both"))
        self.graph, self.dynamics, self.mechanisms, self.behaviour = graph, dynamics, mechanisms, behaviour
        self.proxy_error = None if proxy_error is None else dict(proxy_error)
        self._causes: Causes | None = None
        self._outcome: DynamicsModel | None = None

    # --- what was learned -------------------------------------------------------------------------------------------

    @property
    def _fitted(self) -> tuple[Causes, DynamicsModel]:
        if self._causes is None or self._outcome is None:
            raise SpecError("expected a fitted model: call .fit(log) first")
        return self._causes, self._outcome

    @property
    @override
    def schema(self) -> Schema:
        return self._fitted[0].recipe.public

    @property
    def strategy(self) -> Strategy:
        """What the graph allows with this log."""
        return self._fitted[0].recipe.strategy

    @property
    def outcome(self) -> DynamicsModel:
        """The fitted model of the next state given state, action and hidden causes."""
        return self._fitted[1]

    @property
    def behavioural(self) -> DynamicsModel:
        """The next state given state and action as they were logged: what a forecaster of the log wants to know.

        It says what goes together, not what an action does: planners refuse it. The model itself where actions are not
        confounded.

        Raises
        ------
        SpecError
            For causes of a whole episode, of which a single action tells something that depends on those before.
        """
        causes, outcome = self._fitted
        if isinstance(self.strategy, Persistent):
            raise SpecError("expected causes of single steps: what an action tells of lasting ones depends on the past")
        return self if isinstance(self.strategy, Unconfounded) else BehaviouralDynamics(causes, outcome)

    # --- learning ---------------------------------------------------------------------------------------------------

    @override
    def fit(self, trajectories: Trajectories, *, seed: int | None = None, progress: bool = True) -> Self:
        """Choose a strategy, learn the laws of the causes, and fit the dynamics given these.

        Parameters
        ----------
        trajectories : Trajectories
            The log: recorded causes, instruments, mediators and measurements are its context.
        seed : int, optional
            Passed on to the dynamics.
        progress : bool
            Whether these show a progress bar.

        Raises
        ------
        SpecError, UnknownVariableError, DataError, FitError
            For a log that does not fit the graph, or what the dynamics refuse.

        Warns
        -----
        FitWarning
            If instruments are weak: their F statistic is below 10.
        """
        check_trajectories(trajectories)
        schema, names = trajectories.schema, self.graph.with_latent([]).variables
        recorded = [v.name for v in schema.context if v.name in names]
        if unknown := [name for name in self.proxy_error or () if name not in recorded]:
            raise UnknownVariableError.of(unknown[0], recorded)
        strategy, public = plan_for(self.graph, schema)
        causes, whole = learn_causes(
            Recipe(strategy, public, schema),
            trajectories,
            behaviour=self.behaviour,
            proxy_error=self.proxy_error,
            seed=seed,
        )
        if self.dynamics is not None:
            prototype = copy.deepcopy(self.dynamics)
        else:
            prototype = structural_of(self.graph, causes.recipe, self.mechanisms or {})
        outcome = prototype.fit(whole, seed=seed, progress=progress)
        if isinstance(strategy, Persistent):
            drawn = outcome.draw(1, generator=torch.Generator().manual_seed(0))
            if not drawn.episode_noise_size:
                raise SpecError(
                    "expected dynamics with a parameter that differs between episodes (bayeswm.base.Hierarchical), "
                    f"for ({', '.join(strategy.latent)}), got none"
                )
        self._causes, self._outcome = causes, outcome
        return self

    # --- worlds -----------------------------------------------------------------------------------------------------

    @override
    def draw(self, worlds: int, *, generator: torch.Generator | None = None) -> Worlds:
        """Draw worlds in which actions are set.

        Raises
        ------
        ConfoundedError
            If the effect of actions does not follow from the log, with what is missing.
        """
        causes, outcome = self._fitted
        if isinstance(self.strategy, Unidentified):
            raise ConfoundedError(f"what an action does does not follow from this log: {self.strategy.reason}")
        inner = outcome.draw(worlds, generator=generator)
        return causes.worlds(inner, generator, logged=False) if causes.recipe.causes else inner

    @override
    def condition(self, trajectories: Trajectories, *, in_training: bool = False) -> DynamicsModel:
        """Return a model whose dynamics are given these trajectories too; laws of the causes stay as they are.

        Raises
        ------
        SpecError, UnknownVariableError
            If the dynamics cannot be conditioned, or a column that tells the causes was not recorded.
        """
        if in_training:
            return self
        causes, outcome = self._fitted
        missing = [name for name in causes.recipe.needed if name not in trajectories.schema.context.names]
        if missing:
            raise UnknownVariableError.of(missing[0], trajectories.schema.context.names)
        new = copy.copy(self)
        new._outcome = outcome.condition(causes.recipe.outcome_log(trajectories))
        return new

    # --- saving -----------------------------------------------------------------------------------------------------

    @override
    def state_dict(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        causes, outcome = self._fitted
        config, tensors = causes.state_dict()
        graph = {"edges": self.graph.edges, "confounded": self.graph.confounded, "latent": self.graph.latent}
        graph["variables"] = self.graph.with_latent([]).variables
        return config | {"outcome": outcome, "graph": graph}, tensors

    @classmethod
    @override
    def from_state(
        cls, config: Mapping[str, Any], tensors: Mapping[str, Tensor], structure: Structure | None
    ) -> CausalDynamics:
        given = config["graph"]
        graph = TimeGraph(
            map(tuple, given["edges"]),
            map(tuple, given["confounded"]),
            latent=given["latent"],
            variables=given.get("variables", ()),
        )
        causes, outcome = Causes.from_state(config, tensors), config["outcome"]
        found = cls(graph, dynamics=outcome, behaviour=causes.recipe.behaviour, proxy_error=causes.proxy_error)
        found._causes, found._outcome = causes, outcome
        return found

    @override
    def __repr__(self) -> str:
        what = "not fitted" if self._causes is None else str(self.strategy)
        learner = self._outcome or self.dynamics or self.mechanisms
        return f"CausalDynamics({learner!r}, {what})"
