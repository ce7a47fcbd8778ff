"""How strong a hidden confounder must be to overturn an effect, or the choice between two plans."""

from __future__ import annotations

import torch
from torch import Tensor

from bayeswm.base.along import Policy
from bayeswm.base.errors import SpecError
from bayeswm.base.model import DynamicsModel
from bayeswm.base.random import make_generator, spawn_seeds
from bayeswm.base.trajectories import Trajectories
from bayeswm.base.worlds import Belief, Worlds
from bayeswm.causal.effects.branches import Branches
from bayeswm.causal.effects.effect import path_means
from bayeswm.causal.interventions.intervention import Intervention
from bayeswm.causal.sensitivity.tipping import Sensitivity, least_strength
from bayeswm.causal.support.played import TrajectoryCost, play


def sensitivity_of_effect(
    model: DynamicsModel | Worlds,
    treatment: Intervention,
    control: Intervention,
    *,
    logged: Trajectories,
    state: Belief,
    variable: str,
    horizon: int | None = None,
    actions: Tensor | Policy | None = None,
    context: Tensor | None = None,
    action: str | None = None,
    outcome: str | None = None,
    worlds: int = 64,
    particles: int = 20,
    level: float = 0.9,
    generator: torch.Generator | None = None,
) -> Sensitivity:
    """Return how strong a hidden confounder must be to change the sign of an effect.

    The worlds are corrected for confounders of growing strength (:func:`assume_confounder`, equal for action and
    outcome), with the same noise in each, until the effect at the last step is 0. For one step of a linear model this
    is the :func:`robustness_value` of its regression.

    Parameters
    ----------
    model : DynamicsModel or Worlds
        Fitted to the log, with a measured state.
    treatment, control, state, horizon, actions, context, worlds, particles, generator
        As of :func:`effect`; a batch of states is averaged over.
    logged : Trajectories
        The log, which says how actions were chosen.
    variable : str
        Column of the state whose effect at the last step is looked at.
    action, outcome : str, optional
        What the confounder drives: an action (not needed where there is one), and a column of the next state
        (``variable`` by default).
    level : float
        Of the interval over worlds.

    Returns
    -------
    Sensitivity

    Raises
    ------
    SpecError, DataError, UnknownVariableError
        For arguments that do not fit, a hidden state, or a log whose actions follow from the state; for a
        :class:`CausalDynamics` that corrects for hidden causes, with what to ask instead.

    References
    ----------
    Cinelli and Hazlett (2020), Making sense of sensitivity: extending omitted variable bias.

    Examples
    --------
    >>> import bayeswm as bwm
    >>> schema = bwm.Schema(state=[bwm.Variable("s")], action=[bwm.Variable("a")], time_step=1.0)
    >>> model = bwm.KnownDynamics(structure=bwm.structures.Linear(schema, A=0.9, B=1.0), noise=0.5)
    >>> g = torch.Generator().manual_seed(0)
    >>> log = bwm.data.simulate(model, torch.zeros(500, 1), torch.randn(500, 9, 1, generator=g), generator=g)
    >>> found = sensitivity_of_effect(
    ...     model, bwm.do(a=1.0), bwm.do(a=0.0), logged=log, state=torch.zeros(1), variable="s", horizon=1, generator=g)
    >>> round(found.strength, 2), found.sign
    (0.83, 1)
    """
    outcome = variable if outcome is None else outcome
    drawn, seed = _drawn(model, worlds, generator)
    column = drawn.schema.state.column(variable)

    def answer(worlds: Worlds) -> Tensor:
        branches = Branches(
            worlds,
            state,
            actions,
            horizon=horizon,
            context=context,
            particles=particles,
            generator=make_generator(seed),
        )
        gap = path_means(branches.run(treatment)) - path_means(branches.run(control))
        return gap[..., -1, column].flatten(1).mean(1)

    return least_strength(
        answer, drawn, logged, action=action, outcome=outcome, level=level, question=f"effect on {variable}"
    )


def sensitivity_of_choice(
    model: DynamicsModel | Worlds,
    first: Tensor | Policy,
    second: Tensor | Policy,
    *,
    logged: Trajectories,
    state: Belief,
    objective: TrajectoryCost,
    horizon: int | None = None,
    context: Tensor | None = None,
    action: str | None = None,
    outcome: str | None = None,
    worlds: int = 64,
    particles: int = 20,
    level: float = 0.9,
    generator: torch.Generator | None = None,
) -> Sensitivity:
    """Return how strong a hidden confounder must be to change which of two plans is better.

    As :func:`sensitivity_of_effect`, for the difference of their expected costs.

    Parameters
    ----------
    model : DynamicsModel or Worlds
        Fitted to the log, with a measured state.
    first, second : Tensor of shape (*batch, H, A), or callable
        Plans, or policies without randomness of their own.
    logged : Trajectories
        The log, which says how actions were chosen.
    state : Tensor of shape (*batch, S), Law or Trajectories
        Where it starts; a batch is averaged over.
    objective : bayeswm.planning.Objective
        Or anything else with ``cost(states, actions, context)``.
    horizon : int, optional
        Steps; the length of the plan by default.
    context, action, outcome, worlds, particles, level, generator
        As of :func:`sensitivity_of_effect`; the outcome is needed where the state has several columns.

    Returns
    -------
    Sensitivity
        Its ``value`` is the expected cost of the first minus that of the second: below 0 the first is better.

    Raises
    ------
    SpecError, DataError, UnknownVariableError
        As of :func:`sensitivity_of_effect`.

    Examples
    --------
    >>> import bayeswm as bwm
    >>> schema = bwm.Schema(state=[bwm.Variable("s")], action=[bwm.Variable("a")], time_step=1.0)
    >>> model = bwm.KnownDynamics(structure=bwm.structures.Linear(schema, A=0.9, B=1.0), noise=0.5)
    >>> g = torch.Generator().manual_seed(0)
    >>> log = bwm.data.simulate(model, torch.zeros(500, 1), torch.randn(500, 9, 1, generator=g), generator=g)
    >>> far = bwm.planning.Objective(terminal=lambda state, context: -state[..., 0])
    >>> sensitivity_of_choice(model, torch.ones(3, 1), torch.zeros(3, 1), logged=log, state=torch.zeros(1),
    ...                       objective=far, generator=g)
    Sensitivity(cost of the first - second: -2.71; a confounder that explains 82.7% of what is left of a and of s
    overturns it; 90 % of the worlds: 0.827 to 0.827)
    """
    steps = horizon
    for plan in (first, second):
        if not (isinstance(plan, Tensor) or callable(plan)):
            raise SpecError(
                f"expected plans of shape (*batch, H, A) or policies of (state, step), got {type(plan).__name__}"
            )
        steps = plan.shape[-2] if steps is None and isinstance(plan, Tensor) else steps
    if steps is None or steps < 1:
        raise SpecError(f"expected horizon= above 0 with policies, got {steps}")
    drawn, seed = _drawn(model, worlds, generator)

    def cost(worlds: Worlds, plan: Tensor | Policy) -> Tensor:
        g = make_generator(seed)
        acted = play(worlds, plan, state, horizon=steps, particles=particles, context=context, generator=g)
        return objective.cost(acted.states, acted.actions, each_step(context, acted.states)).flatten(1).mean(1)

    def answer(worlds: Worlds) -> Tensor:
        return cost(worlds, first) - cost(worlds, second)

    return least_strength(
        answer, drawn, logged, action=action, outcome=outcome, level=level, question="cost of the first - second"
    )


def each_step(context: Tensor | None, states: Tensor) -> Tensor:
    """Return the context of each step, broadcastable to (W, P, *batch, H, C), for states (W, P, *batch, H + 1, S)."""
    steps, batch = states.shape[-2] - 1, states.ndim - 4
    if context is None:
        return states.new_empty(steps, 0)
    context = context.to(states)
    return context if context.ndim == batch + 2 else context[..., None, :].expand(*context.shape[:-1], steps, -1)


def _drawn(model: DynamicsModel | Worlds, worlds: int, generator: torch.Generator | None) -> tuple[Worlds, int]:
    """Return worlds, and a seed for the noise that all strengths share."""
    if generator is None:
        raise SpecError("expected generator=torch.Generator for the noise that all strengths share, got none")
    drawn = model if isinstance(model, Worlds) else model.draw(worlds, generator=generator)
    return drawn, spawn_seeds(generator, 1)[0]
