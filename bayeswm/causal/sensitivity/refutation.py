"""Attempts to refute an effect: what has none by construction must show none."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from bayeswm.base.along import Policy
from bayeswm.base.errors import SpecError
from bayeswm.base.model import DynamicsModel
from bayeswm.base.trajectories import Trajectories
from bayeswm.base.worlds import Belief
from bayeswm.causal.interventions.intervention import Intervention
from bayeswm.causal.sensitivity.refits import Refutation, effect_of, judged, refitted, resampled, shuffled

if TYPE_CHECKING:
    import xarray


def placebo_treatment(
    model: DynamicsModel,
    treatment: Intervention,
    control: Intervention,
    *,
    logged: Trajectories,
    state: Belief,
    horizon: int | None = None,
    actions: Tensor | Policy | None = None,
    context: Tensor | None = None,
    refits: int = 10,
    worlds: int = 64,
    particles: int = 20,
    level: float = 0.95,
    generator: torch.Generator,
) -> Refutation:
    """Ask for the effect of actions that were shuffled over the whole log: it has to vanish.

    A model that still finds one got it from its structure, its prior or a mistake on the way, not from the data. Hidden
    confounders pass: shuffling breaks their tie with the action too (:func:`negative_control` can find them).

    Parameters
    ----------
    model : DynamicsModel
        A prototype, which is copied and fitted.
    treatment, control, state, horizon, actions, context, worlds, particles
        As of :func:`effect`.
    logged : Trajectories
        The log.
    refits : int
        How often actions are shuffled and the model is fitted, at least 2.
    level : float
        Of the intervals.
    generator : torch.Generator
        Source of all randomness.

    Returns
    -------
    Refutation
        Its effect is the mean over refits, with Student's t for the interval.

    Raises
    ------
    SpecError, DataError
        For a log without actions, fewer than 2 refits, and as of :func:`effect`.

    References
    ----------
    Sharma and Kiciman (2020), DoWhy: an end-to-end library for causal inference (refutation).

    Examples
    --------
    What is known beforehand does not come from the log:

    >>> import bayeswm as bwm
    >>> schema = bwm.Schema(state=[bwm.Variable("s")], action=[bwm.Variable("a")], time_step=1.0)
    >>> known = bwm.KnownDynamics(structure=bwm.structures.Linear(schema, A=0.8, B=0.5), noise=0.5)
    >>> g = torch.Generator().manual_seed(0)
    >>> log = bwm.data.simulate(known, torch.zeros(9, 1), torch.randn(9, 5, 1, generator=g), generator=g)
    >>> placebo_treatment(known, bwm.do(a=1.0), bwm.do(a=0.0), logged=log, state=torch.zeros(1), horizon=1, generator=g)
    Refutation(placebo treatment: REFUTED: an effect where there is none; p = 0, largest effect 0.5)
    """
    if not logged.schema.action.size:
        raise SpecError("expected a log with actions to shuffle, got a system without")
    query = effect_of(
        treatment,
        control,
        state=state,
        horizon=horizon,
        actions=actions,
        context=context,
        worlds=worlds,
        particles=particles,
        generator=generator,
    )
    found, original = refitted(model, logged, query, change=shuffled, refits=refits, level=level, generator=generator)
    values = np.stack([f["effect"].values for f in found])
    error = values.std(0, ddof=1) / len(found) ** 0.5
    return judged("placebo treatment", values.mean(0), error, original=original, refits=refits, level=level)


def negative_control(
    model: DynamicsModel,
    treatment: Intervention,
    control: Intervention,
    *,
    logged: Trajectories,
    variables: Sequence[str],
    state: Belief,
    horizon: int | None = None,
    actions: Tensor | Policy | None = None,
    context: Tensor | None = None,
    refits: int = 10,
    worlds: int = 64,
    particles: int = 20,
    level: float = 0.95,
    generator: torch.Generator,
) -> Refutation:
    """Ask for an effect that is known to be none: of the treatment on an outcome that it cannot reach, or the reverse.

    A negative control outcome shares the hidden confounders of the outcome in question, but the action has no way to
    it; a negative control action shares those of the action, but has no way to the outcome. An effect in either is
    confounding (or another bias), and the effect in question has likely the same.

    Parameters
    ----------
    model : DynamicsModel
        A prototype, which is copied and fitted.
    treatment, control, state, horizon, actions, context, worlds, particles
        As of :func:`effect`; for a negative control action they set that action.
    logged : Trajectories
        The log.
    variables : sequence of str
        Columns of the state on which there can be no effect.
    refits : int
        Resamples of the log's recordings to which the model is fitted (bootstrap), at least 2.
    level : float
        Of the intervals.
    generator : torch.Generator
        Source of all randomness.

    Returns
    -------
    Refutation
        Its effect is that of a fit to the whole log; the interval is Student's t with the spread over refits.

    Raises
    ------
    SpecError, DataError, UnknownVariableError
        For unknown variables, fewer than 2 refits or recordings, and as of :func:`effect`.

    References
    ----------
    Lipsitch, Tchetgen Tchetgen and Cohen (2010), Negative controls: a tool for detecting confounding and bias.

    Examples
    --------
    >>> import bayeswm as bwm
    >>> schema = bwm.Schema(
    ...     state=[bwm.Variable("s"), bwm.Variable("other")], action=[bwm.Variable("a")], time_step=1.0)
    >>> linear = bwm.structures.Linear(schema, A=0.5 * torch.eye(2), B=torch.tensor([[1.0], [0.0]]))
    >>> known = bwm.KnownDynamics(structure=linear, noise=0.5)
    >>> g = torch.Generator().manual_seed(0)
    >>> log = bwm.data.simulate(known, torch.zeros(9, 2), torch.randn(9, 5, 1, generator=g), generator=g)
    >>> negative_control(known, bwm.do(a=1.0), bwm.do(a=0.0), logged=log, variables=["other"], state=torch.zeros(2),
    ...                  horizon=3, generator=g)
    Refutation(negative control: passed; p = 1, largest effect 0)
    """
    wanted = [logged.schema.state.columns[logged.schema.state.column(name)] for name in variables]
    if not wanted or len(logged.episode.unique()) < 2:
        raise SpecError("expected variables= and a log of at least 2 recordings to resample, got none or one")
    query = effect_of(
        treatment,
        control,
        state=state,
        horizon=horizon,
        actions=actions,
        context=context,
        worlds=worlds,
        particles=particles,
        generator=generator,
    )

    def only(model: DynamicsModel) -> xarray.Dataset:
        return query(model).sel(variable=wanted)

    found, original = refitted(model, logged, only, change=resampled, refits=refits, level=level, generator=generator)
    error = np.stack([f["effect"].values for f in found]).std(0, ddof=1)
    return judged("negative control", original["effect"].values, error, original=original, refits=refits, level=level)
