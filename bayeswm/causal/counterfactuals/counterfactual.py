"""Counterfactuals: what would have happened, given what did."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from bayeswm.base.errors import NotInvertible, SpecError, UndefinedWarning
from bayeswm.base.kinds import Categorical
from bayeswm.base.model import DynamicsModel
from bayeswm.base.predictive import Predictive
from bayeswm.base.random import make_generator
from bayeswm.base.trajectories import Trajectories
from bayeswm.base.worlds import Worlds
from bayeswm.causal.counterfactuals.abduction import is_even, solved_noise, weighed
from bayeswm.causal.counterfactuals.drawn_noise import DrawnNoise
from bayeswm.causal.counterfactuals.out_of_bounds import warn_of_bounds
from bayeswm.causal.counterfactuals.partly_seen import PartlySeen, has_gaps
from bayeswm.causal.counterfactuals.unique import check_unique
from bayeswm.causal.counterfactuals.unsettled import hidden_noise, missing_noise
from bayeswm.causal.interventions.intervened import IntervenedWorlds
from bayeswm.causal.interventions.intervened_model import IntervenedModel
from bayeswm.causal.interventions.intervention import Intervention
from bayeswm.causal.structural.worlds import StructuralWorlds


@dataclass(frozen=True, eq=False, repr=False)
class Counterfactual:
    """Both branches of a counterfactual query.

    Attributes
    ----------
    predictive : Predictive
        What would have happened, over (episodes, H, S), in each world with the noise that it infers; NaN beyond the end
        of an episode.
    factual : Trajectories
        What happened.
    replayed : Predictive or None
        Where the state is hidden or values are missing, what is believed to have happened: the other branch, with the
        same noise.
    worlds : IntervenedWorlds
        The worlds with their noise, in which the other branch ran.
    effective_share : float
        Effective number of worlds after weighing them by the factual, as a share of that before; 1 where the model
        conditioned itself or knew the factual already.
    in_training : bool
        Whether the factual had been learned from before, so that it did not count again.
    noise_size : float
        Effectively independent draws of the noise in the world and episode that have the fewest, where they were
        weighed; infinite where the noise was solved or has a closed form.
    """

    predictive: Predictive
    factual: Trajectories
    replayed: Predictive | None
    worlds: IntervenedWorlds
    effective_share: float
    in_training: bool
    noise_size: float = math.inf

    @property
    def mean(self) -> Tensor:
        """Mean of the counterfactual branch, shape (episodes, H, S); NaN beyond the end of an episode."""
        return self._known(lambda p: p.mean, self.predictive)

    @property
    def variance(self) -> Tensor:
        """Variance of the counterfactual branch, shape (episodes, H, S); NaN beyond the end of an episode."""
        return self._known(lambda p: p.variance, self.predictive)

    @property
    def difference(self) -> Tensor:
        """Mean of the counterfactual branch minus that of what happened, shape (episodes, H, S)."""
        if self.replayed is None:
            happened = self.factual.states()[:, 1:]
        else:
            happened = self._known(lambda p: p.mean, self.replayed)
        return self.mean - happened.to(self.mean)

    def _known(self, ask: Callable[[Predictive], Tensor], predictive: Predictive) -> Tensor:
        if is_even(self.factual):
            return ask(predictive)
        with warnings.catch_warnings():  # NaN beyond the end is what is wanted
            warnings.simplefilter("ignore", UndefinedWarning)
            return ask(predictive)

    def __repr__(self) -> str:
        known = "in training" if self.in_training else f"effective share {self.effective_share:.2g}"
        known += "" if self.noise_size == math.inf else f", {self.noise_size:.0f} draws of the noise"
        return f"Counterfactual({self.predictive!r}, {list(self.worlds.interventions)}, {known})"


def counterfactual(
    model: DynamicsModel | Worlds,
    factual: Trajectories,
    intervention: Intervention,
    *,
    condition: bool = True,
    in_training: bool = False,
    worlds: int = 64,
    particles: int = 20,
    generator: torch.Generator | None = None,
) -> Counterfactual:
    """Say what would have happened to recorded episodes under an intervention.

    Abduction: worlds are weighed by the episodes, and in each world the noise is found that led to them: solved where
    the state is measured; where it is hidden the noise keeps its posterior, in closed form where measurements are
    affine in the noise, else drawn (by the worlds' smoother). Action: the intervention is made. Prediction: the
    episodes run again with that noise. What is left uncertain is the world, the noise where it was not solved, and
    whatever the intervention draws. The law of a branch that is affine in normal noise is exact.

    Values may be missing (NaN) in episodes of a :class:`StructuralModel`. What was recorded then leaves a posterior of
    the noise: in closed form where the recorded values are affine in the noise of the missing ones, and the branch with
    it where it is affine too; otherwise drawn by a particle smoother. Other models say what is missing by a sensor.

    Parameters
    ----------
    model : DynamicsModel or Worlds
        A fitted model, which is conditioned by its own ``condition``, or worlds, which are weighed by the density of
        the episodes.
    factual : Trajectories
        What happened.
    intervention : Intervention
        Made by :func:`do`; recorded actions are kept where it does not set them.
    condition : bool
        Whether worlds are conditioned on the episodes. Without it the answer mixes over worlds that may not have
        produced them.
    in_training : bool
        The model has learned from these episodes already: they are not counted twice.
    worlds : int
        How many are drawn from a model.
    particles : int
        Sampled trajectories in each world, where the intervention is stochastic or the noise is drawn.
    generator : torch.Generator, optional
        Needed where worlds, noise or interventions are drawn.

    Returns
    -------
    Counterfactual

    Raises
    ------
    NotInvertible
        If the answer does not follow from the episodes: a mechanism that is no bijection, a class instead of a number,
        correlated noise that changes with the state; or states without noise that contradict the model.
    FitError
        If the episodes leave less than a tenth of the worlds, effectively, or too few draws of missing noise count.
    SpecError, DataError, UnknownVariableError
        For missing values in other models than structural ones, unknown names, steps beyond the end of the longest
        episode; for a hidden state of which the family does not say how it began.

    Warns
    -----
    DataWarning
        For actions that the intervention sets outside their bounds, with their number.

    See Also
    --------
    causation_bounds, joint_bounds : What can be said of discrete outcomes, whose counterfactuals are not identified.

    References
    ----------
    Pearl (2009), Causality, 2nd edition, section 7.1.

    Examples
    --------
    s[t+1] = 0.8 s[t] + 0.5 a[t] + w[t], observed without action. With a push at the start it would have been

    >>> import bayeswm as bwm
    >>> schema = bwm.Schema(state=[bwm.Variable("s")], action=[bwm.Variable("a")], time_step=1.0)
    >>> linear = bwm.structures.Linear(schema, A=torch.tensor([[0.8]]), B=torch.tensor([[0.5]]))
    >>> seen = bwm.Trajectories(schema, state=[[[1.0], [1.0], [0.5], [0.9]]], action=[[[0.0], [0.0], [0.0]]])
    >>> found = counterfactual(bwm.KnownDynamics(structure=linear, noise=1.0), seen, bwm.do({"a": 1.0}, steps=0))
    >>> found.mean.flatten().numpy().round(6).tolist(), found.variance.abs().max().item()
    ([1.5, 0.9, 1.22], 0.0)
    """
    if isinstance(model, IntervenedModel | IntervenedWorlds):
        raise SpecError("expected the system as it was when the episodes were recorded, got one under interventions")
    if not isinstance(intervention, Intervention):
        raise SpecError(f"expected an intervention made by do(...), got {type(intervention).__name__}")
    if not isinstance(factual, Trajectories):
        raise SpecError(f"expected recorded episodes as Trajectories, got {type(factual).__name__}")
    _check_kinds(model)
    generator = None if generator is None else make_generator(generator)
    if isinstance(model, DynamicsModel):
        if condition:
            model = model.condition(factual, in_training=in_training)
        drawn, weigh = model.draw(worlds, generator=generator), False
    else:
        drawn, weigh = model, condition and not in_training and len(model) > 1
    partly = isinstance(drawn, StructuralWorlds) and has_gaps(factual)
    solved = drawn.state_is_measured and not drawn.episode_noise_size and not partly
    share, size, log_density = 1.0, math.inf, None
    given = {"particles": particles, "generator": generator}
    if isinstance(drawn, StructuralWorlds) and partly:
        source, log_density, size = missing_noise(PartlySeen(drawn, factual), factual, **given)
    elif solved and not weigh:
        noise = solved_noise(drawn, factual, generator=generator)
        source = DrawnNoise(noise, factual.states()[:, 0], factual, **given)
    else:
        source, log_density = hidden_noise(drawn, factual, weigh=weigh, **given)
    if weigh and log_density is not None:
        drawn, share = weighed(drawn, log_density)
    done, found = source.branch(drawn, [intervention])
    if done.correlated:
        check_unique(drawn, factual, done.correlated)
    warn_of_bounds(done, factual)
    replayed = None if solved else source.branch(drawn, [])[1]
    return Counterfactual(found, factual, replayed, done, share, in_training, size)


def _check_kinds(model: DynamicsModel | Worlds) -> None:
    """Refuse classes: which of them would have come does not follow from which came."""
    classes = [v.name for v in model.schema.state if isinstance(v.kind, Categorical)]
    if classes:
        raise NotInvertible(
            f"expected a state of numbers, got classes {classes}: a counterfactual class does not follow from the one "
            "that was seen; joint_bounds and causation_bounds say what the laws of both branches leave possible"
        )
