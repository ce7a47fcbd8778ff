"""Counterfactuals: what would have happened, given what did."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from bayeswm.base.errors import FitError, SpecError
from bayeswm.base.model import DynamicsModel
from bayeswm.base.predictive import Predictive
from bayeswm.base.random import make_generator, standard_normal
from bayeswm.base.rollout import rollout
from bayeswm.base.trajectories import Trajectories
from bayeswm.base.worlds import Noise, Worlds
from bayeswm.causal.confounding.log import with_context
from bayeswm.causal.intervened import IntervenedModel, IntervenedWorlds
from bayeswm.causal.intervention import Intervention

_LEAST_SHARE = 0.1


@dataclass(frozen=True, eq=False, repr=False)
class Counterfactual:
    """Both branches of a counterfactual query.

    Attributes
    ----------
    predictive : Predictive
        What would have happened, over (episodes, H, S), in each world with the noise that it infers.
    factual : Trajectories
        What happened.
    replayed : Predictive or None
        Where the state is hidden, what is believed to have happened to it: the other branch, with the same noise.
    worlds : IntervenedWorlds
        The worlds with their noise, in which the other branch ran.
    effective_share : float
        Effective number of worlds after weighing them by the factual, as a share of that before; 1 where the model
        conditioned itself or knew the factual already.
    in_training : bool
        Whether the factual had been learned from before, so that it did not count again.
    """

    predictive: Predictive
    factual: Trajectories
    replayed: Predictive | None
    worlds: IntervenedWorlds
    effective_share: float
    in_training: bool

    @property
    def mean(self) -> Tensor:
        """Mean of the counterfactual branch, shape (episodes, H, S)."""
        return self.predictive.mean

    @property
    def variance(self) -> Tensor:
        """Variance of the counterfactual branch, shape (episodes, H, S)."""
        return self.predictive.variance

    @property
    def difference(self) -> Tensor:
        """Mean of the counterfactual branch minus that of what happened, shape (episodes, H, S)."""
        happened = self.factual.states()[:, 1:] if self.replayed is None else self.replayed.mean
        return self.mean - happened.to(self.mean)

    def __repr__(self) -> str:
        known = "in training" if self.in_training else f"effective share {self.effective_share:.2g}"
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
    the state is measured, drawn from its posterior (by the worlds' smoother) where it is hidden. Action: the
    intervention is made. Prediction: the episodes run again with that noise. What is left uncertain is the world, the
    noise where it was not solved, and whatever the intervention draws.

    Parameters
    ----------
    model : DynamicsModel or Worlds
        A fitted model, which is conditioned by its own ``condition``, or worlds, which are weighed by the density of
        the episodes.
    factual : Trajectories
        What happened, of equal length.
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
        If noise does not follow from the states: a mechanism that is no bijection, or states without noise that
        contradict the model.
    FitError
        If the episodes leave less than a tenth of the worlds, effectively.
    SpecError, DataError, UnknownVariableError
        For episodes of different lengths, values that are missing, unknown names, steps beyond the horizon; for a
        hidden state of which the family does not say how it began.

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
    if bool((factual.lengths != factual.horizon).any()):
        raise SpecError(f"expected episodes of equal length, got {sorted(set(factual.lengths.tolist()))} steps")
    generator = None if generator is None else make_generator(generator)
    if isinstance(model, DynamicsModel):
        if condition:
            model = model.condition(factual, in_training=in_training)
        drawn, weigh = model.draw(worlds, generator=generator), False
    else:
        drawn, weigh = model, condition and not in_training and len(model) > 1
    solved = drawn.state_is_measured and not drawn.episode_noise_size
    noise, log_density = abducted(drawn, factual, copies=1 if solved else particles, generator=generator)
    share = 1.0
    if weigh:
        drawn, share = weighed(drawn, log_density)
    start = factual.states()[:, 0] if drawn.state_is_measured else drawn.beginning(factual)
    branches: list[tuple[IntervenedWorlds, Predictive]] = []
    for interventions in ([intervention],) if solved else ([intervention], []):
        replayed = IntervenedWorlds(drawn, interventions, replay=noise.step)
        random = not solved or replayed.noise_size or replayed.episode_noise_size
        found = rollout(
            replayed,
            start,
            factual.action,
            horizon=factual.horizon,
            # what was recorded beyond the worlds' own context told the noise, and is not asked for again
            context=with_context(factual, drawn.schema).step_context() if drawn.schema.context.size else None,
            particles=particles if random else 1,
            generator=generator,
            noise=_completed(noise, replayed, generator),
        )
        branches.append((replayed, found))
    other = None if solved else branches[1][1]
    return Counterfactual(branches[0][1], factual, other, branches[0][0], share, in_training)


def abducted(
    worlds: Worlds, factual: Trajectories, *, copies: int, generator: torch.Generator | None
) -> tuple[Noise, Tensor]:
    """Return noise that led to episodes, and the log density of all of them in each world.

    Parameters
    ----------
    worlds : Worlds
        The system.
    factual : Trajectories
        What happened.
    copies : int
        Draws of the noise in each world; they take the axis of particles.
    generator : torch.Generator, optional
        Needed where noise is drawn.

    Returns
    -------
    tuple of Noise and Tensor, shape (worlds,)
    """
    episodes = len(factual)
    many = factual if copies == 1 else factual[torch.arange(episodes, device=factual.device).repeat(copies)]
    noise, log_density = worlds.smooth(many, generator=generator)

    def apart(values: Tensor) -> Tensor:
        return values[:, 0].unflatten(1, (copies, episodes))

    log_density = apart(log_density).logsumexp(1) - math.log(copies)  # a smoother's own estimates differ
    return Noise(*(None if v is None else apart(v) for v in noise)), log_density.sum(-1)


def _completed(noise: Noise, worlds: IntervenedWorlds, generator: torch.Generator | None) -> Noise | None:
    """Return the noise of the start and of the episode, with draws for stochastic interventions behind it."""
    episode, more = noise.episode, worlds.episode_noise_size - worlds.inner.episode_noise_size
    if episode is not None and more:
        if generator is None:
            raise SpecError("expected generator=torch.Generator, since interventions are drawn, got none")
        extra = standard_normal((*episode.shape[:-1], more), generator, dtype=episode.dtype, device=episode.device)
        episode = torch.cat((episode, extra), -1)
    return Noise(initial=noise.initial, episode=episode)


def weighed(worlds: Worlds, log_density: Tensor) -> tuple[Worlds, float]:
    """Return worlds weighed by a log density (worlds,), and the effective share of them that is left.

    Raises
    ------
    FitError
        If it is below a tenth, or no world has a density above 0.
    """
    if not bool((log_density > float("-inf")).any()):
        raise FitError("expected episodes that at least one world can produce, got density 0 in all of them")
    new = worlds.reweight(worlds.log_weight + log_density.to(worlds.log_weight))
    before, after = (float(w.weight.square().sum().reciprocal()) for w in (worlds, new))
    share = min(1.0, after / before)
    if share < _LEAST_SHARE:
        raise FitError(
            f"expected an effective share of the worlds above {_LEAST_SHARE:.0%} given the episodes, got {share:.2g} "
            f"({after:.1f} worlds of {len(worlds)}); condition the model itself, or draw more worlds near the posterior"
        )
    return new, share
