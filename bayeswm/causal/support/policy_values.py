"""The value of a policy from a log of another one, with a model as the control variate."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from bayeswm.base.errors import FitError, SpecError, SupportWarning
from bayeswm.base.model import DynamicsModel
from bayeswm.base.predictive import warn_caller
from bayeswm.base.random import spawn_seeds
from bayeswm.base.trajectories import Trajectories, check_trajectories
from bayeswm.causal.sensitivity.behaviour import LinearBehaviour, fit_behaviour
from bayeswm.causal.sensitivity.omitted_variable import critical_value
from bayeswm.causal.support.chosen_by import views
from bayeswm.causal.support.logged_values import Episodes, complete_episodes, earned_by, folds_of, forecasts, log_ratios
from bayeswm.causal.support.off_policy import (
    Logged,
    doubly_robust,
    effective_episodes,
    log_weights,
    weighted_doubly_robust,
)
from bayeswm.causal.support.played import StochasticPolicy, TrajectoryCost

if TYPE_CHECKING:
    import xarray

# effective episodes below which there is a warning, and no answer
_FEW, _TOO_FEW = 20.0, 3.0


@dataclass(frozen=True, eq=False, repr=False)
class PolicyValue:
    """What a policy would earn, estimated from a log.

    Attributes
    ----------
    dataset : xarray.Dataset
        By ``estimator``: ``value``, ``standard_error`` and the confidence interval ``lower``, ``upper`` of
        weighted_doubly_robust, doubly_robust, importance_sampling (step by step) and model (which knows nothing of
        what was earned in the log). By ``horizon``: ``effective_episodes`` of the weights up to that step, and
        ``mean_weight``, which is 1 but for chance if the log's policy is known.
    """

    dataset: xarray.Dataset

    @property
    def value(self) -> float:
        """The weighted doubly robust estimate; higher is better."""
        return float(self.dataset["value"].values[0])

    @property
    def standard_error(self) -> float:
        """Of :attr:`value`, with the recording as the unit."""
        return float(self.dataset["standard_error"].values[0])

    @property
    def interval(self) -> tuple[float, float]:
        """Confidence interval of :attr:`value`."""
        return float(self.dataset["lower"].values[0]), float(self.dataset["upper"].values[0])

    def __repr__(self) -> str:
        low, high = self.interval
        level, least = 100 * self.dataset.attrs["level"], float(self.dataset["effective_episodes"].min())
        count = self.dataset.attrs["episodes"]
        return f"PolicyValue({self.value:.4g}, {level:g} % {low:.4g} to {high:.4g}, {least:.0f} effective of {count})"


def policy_value(
    model: DynamicsModel,
    policy: StochasticPolicy,
    logged: Trajectories,
    *,
    objective: TrajectoryCost,
    behaviour: StochasticPolicy | None = None,
    horizon: int | None = None,
    folds: int = 5,
    worlds: int = 8,
    particles: int = 20,
    level: float = 0.95,
    generator: torch.Generator,
) -> PolicyValue:
    """Estimate what a policy would earn, from episodes in which another one acted.

    Logged episodes are weighed by how much more likely the policy makes their actions, and the model's forecasts
    take out most of the variance. The estimate is right if the log's policy is, or if the model is: it needs one of
    the two. No hidden confounder may have chosen the actions; recorded ones that a :class:`CausalDynamics` adjusts
    for are given to the behaviour too, and are no context of the forecasts. Model and behaviour are fitted anew
    without the episodes that they are used on (cross-fitting).

    Parameters
    ----------
    model : DynamicsModel
        A prototype, which is copied and fitted; a known system stays as it is.
    policy : callable
        ``policy(state, step)`` of states (..., S) returns the law of the action, such as
        ``bwm.Gaussian(mean, scale)``. One that is certain cannot be held against a log.
    logged : Trajectories
        Episodes of at least ``horizon`` steps; where they began is where the policy begins.
    objective : bayeswm.planning.Objective
        Or anything else with ``cost(states, actions, context)``; what is earned is the cost with its sign changed.
    behaviour : callable, optional
        The law of the logged actions, of the same form, if it is known; otherwise it is fitted, linear in the state
        (:func:`fit_behaviour`).
    horizon : int, optional
        Steps; by default those of the shortest episode.
    folds : int
        Parts of the log; each is judged by what was fitted to the others.
    worlds, particles : int
        Of the forecasts, from every step of every episode.
    level : float
        Of the confidence interval.
    generator : torch.Generator
        Source of all randomness.

    Returns
    -------
    PolicyValue

    Raises
    ------
    SpecError, DataError
        For arguments that do not fit, episodes that are too short, or missing values.
    ConfoundedError
        For a :class:`CausalDynamics` in whose log what chose the actions was not recorded.
    FitError
        If the weights leave fewer than 3 effective episodes.

    Warns
    -----
    SupportWarning
        If the weights leave fewer than 20.

    References
    ----------
    Jiang and Li (2016), Doubly robust off-policy value evaluation for reinforcement learning; Thomas and Brunskill
    (2016), Data-efficient off-policy policy evaluation for reinforcement learning.

    Examples
    --------
    >>> import bayeswm as bwm
    >>> schema = bwm.Schema(state=[bwm.Variable("s")], action=[bwm.Variable("a")], time_step=1.0)
    >>> truth = bwm.KnownDynamics(structure=bwm.structures.Linear(schema, A=0.8, B=0.5), noise=0.5)
    >>> g = torch.Generator().manual_seed(0)
    >>> starts, tried = torch.randn(300, 1, generator=g), torch.randn(300, 3, 1, generator=g)
    >>> log = bwm.data.simulate(truth, starts, tried, generator=g)
    >>> objective = bwm.planning.quadratic(torch.tensor([1.0]), torch.tensor([0.1]))
    >>> def policy(state, step):
    ...     return bwm.Gaussian(-0.5 * state, torch.full_like(state, 0.8))
    >>> policy_value(truth, policy, log, objective=objective, generator=g)
    PolicyValue(-2.894, 95 % -3.174 to -2.615, 157 effective of 300)
    """
    if not callable(getattr(objective, "cost", None)):
        kind = type(objective).__name__
        raise SpecError(f"expected objective= with cost(states, actions, context), as planning.Objective, got {kind}")
    check_trajectories(logged)
    asked, chose = views(model, logged)
    if chose is not asked and behaviour is not None and not isinstance(behaviour, LinearBehaviour):
        names = [name for name in chose.schema.context.names if name not in asked.schema.context.names]
        if names:
            raise SpecError(
                f"expected behaviour= from fit_behaviour, whose law is given ({', '.join(names)}) too, got a function "
                "of the state alone; leave it out to have it fitted"
            )
    episodes = complete_episodes(asked, horizon)
    earned = earned_by(episodes, objective)
    count, before = len(earned), torch.cat((torch.zeros_like(earned[:, :1]), earned[:, :-1]), 1)
    log_ratio, action_value, state_value = (torch.zeros_like(earned) for _ in range(3))
    fold, recorded = folds_of(logged, folds, generator), complete_episodes(chose, horizon)
    for k in fold.unique().tolist():
        here, others = fold == k, (fold != k).nonzero().flatten()
        seed = spawn_seeds(generator, 1)[0] % 2**31
        drawn = copy.deepcopy(model).fit(logged[others], seed=seed, progress=False).draw(worlds, generator=generator)
        chosen = fit_behaviour(chose[others]) if behaviour is None else behaviour
        log_ratio[here] = log_ratios(Episodes(*(v[here] for v in recorded)), policy, chosen)
        part = Episodes(*(v[here] for v in episodes))
        values = forecasts(part, drawn, policy, objective=objective, particles=particles, generator=generator)
        action_value[here], state_value[here] = (v - before[here] for v in values)
    found = Logged(earned - before, log_ratio, action_value, state_value)
    weight = log_weights(log_ratio)
    effective = effective_episodes(weight)
    least, at = float(effective.min()), int(effective.argmin()) + 1
    if not least >= _TOO_FEW:
        raise FitError(
            f"expected at least {_TOO_FEW:g} effective episodes, the weights leave {least:.2g} of {count} at step "
            f"{at}: the policy does what was hardly logged; shorten the horizon, or judge a policy closer to the log's"
        )
    if least < _FEW:
        warn_caller(
            f"the weights leave {least:.1f} effective episodes of {count} at step {at}: the estimate and its interval "
            "are rough; shorten the horizon, or judge a policy closer to the log's",
            SupportWarning,
        )
    return PolicyValue(_dataset(found, weight, logged, level=level))


def _dataset(found: Logged, weight: Tensor, logged: Trajectories, *, level: float) -> xarray.Dataset:
    import xarray as xr

    from bayeswm.diagnostics.bootstrap import cluster_error

    nothing = torch.zeros_like(found.action_value)
    parts = {
        "weighted_doubly_robust": weighted_doubly_robust(found),
        "doubly_robust": doubly_robust(found),
        "importance_sampling": doubly_robust(found._replace(action_value=nothing, state_value=nothing)),
        "model": found.state_value[:, 0],
    }
    value = np.array([float(v.mean()) for v in parts.values()])
    error = np.array([float(cluster_error(v, logged.episode)) for v in parts.values()])
    half = critical_value(level, len(logged.episode.unique()) - 1) * error
    steps = np.arange(1, weight.shape[1] + 1)
    return xr.Dataset(
        {
            "value": ("estimator", value),
            "standard_error": ("estimator", error),
            "lower": ("estimator", value - half),
            "upper": ("estimator", value + half),
            "effective_episodes": ("horizon", effective_episodes(weight).numpy()),
            "mean_weight": ("horizon", weight.exp().mean(0).numpy()),
        },
        coords={"estimator": list(parts), "horizon": steps, "time": ("horizon", steps * logged.schema.time_step)},
        attrs={"level": level, "episodes": len(logged)},
    )
