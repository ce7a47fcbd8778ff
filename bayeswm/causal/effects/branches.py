"""Branches of a query: the same worlds and the same noise under different interventions."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from bayeswm.base.along import Policy
from bayeswm.base.errors import SpecError
from bayeswm.base.model import DynamicsModel
from bayeswm.base.predictive import Predictive
from bayeswm.base.random import make_generator, standard_normal
from bayeswm.base.rollout import checked_arguments, rollout
from bayeswm.base.worlds import Belief, Noise, Worlds
from bayeswm.causal.interventions.changes import Change
from bayeswm.causal.interventions.intervened import IntervenedWorlds
from bayeswm.causal.interventions.intervened_model import intervene
from bayeswm.causal.interventions.intervention import Intervention

if TYPE_CHECKING:
    import xarray

    from bayeswm.base.trajectories import Trajectories


class Branches:
    """Rollouts of one system under different interventions, with common random numbers.

    Parameters
    ----------
    model : DynamicsModel or Worlds
        The system.
    state : Tensor of shape (*batch, S), Law or Trajectories
        Where it starts.
    actions : Tensor of shape (*batch, H, A), callable or None
        A plan or a policy. None where the interventions set every action.
    horizon : int, optional
        Steps.
    context : Tensor, optional
        Environment factors.
    worlds, particles : int
        How many.
    generator : torch.Generator, optional
        Source of all randomness.

    Examples
    --------
    >>> import bayeswm as bwm
    >>> pendulum = bwm.KnownDynamics(structure=bwm.structures.Pendulum(), noise=0.1)
    >>> branches = Branches(pendulum, torch.zeros(2), None, horizon=3, generator=torch.Generator().manual_seed(0))
    >>> push, rest = (branches.run(bwm.do(torque=u)) for u in (1.0, 0.0))
    >>> (push.particles - rest.particles)[0, :3, 0, 1].round(decimals=2).tolist()
    [0.05, 0.05, 0.05]
    """

    def __init__(
        self,
        model: DynamicsModel | Worlds,
        state: Belief,
        actions: Tensor | Policy | None,
        *,
        horizon: int | None,
        context: Tensor | None = None,
        worlds: int = 64,
        particles: int = 20,
        generator: torch.Generator | None = None,
    ) -> None:
        generator = None if generator is None else make_generator(generator)
        self.worlds = model if isinstance(model, Worlds) else model.draw(worlds, generator=generator)
        self.given = actions is not None or not self.worlds.schema.action.size
        if not self.given:
            if horizon is None:
                raise SpecError("expected horizon= without actions, got none")
            if isinstance(horizon, bool) or not isinstance(horizon, int) or horizon < 1:
                raise SpecError(f"expected horizon= as a number of steps >= 1, got {horizon!r}")
            actions = torch.zeros(horizon, self.worlds.schema.action.size)
        self.state, self.plan, batch, self.horizon = checked_arguments(self.worlds, state, actions, horizon=horizon)
        self.context, self.generator = context, generator
        self.shape = (len(self.worlds), particles, *batch)
        initial = self.worlds.initial_noise_size(self.state)
        self._noise = Noise(
            self._draw(initial),
            self._draw(self.worlds.episode_noise_size),
            self._draw(self.worlds.noise_size, self.horizon),
        )
        self._extra: dict[str, Tensor | None] = {}

    def run(self, *interventions: Intervention) -> Predictive:
        """Return the branch under these interventions.

        Raises
        ------
        SpecError
            If neither actions nor interventions say what is done.
        """
        worlds = intervene(self.worlds, *interventions)
        self._check_actions(interventions)
        return rollout(
            worlds,
            self.state,
            self.plan,
            horizon=self.horizon,
            particles=self.shape[1],
            context=self.context,
            noise=self._completed(worlds),
        )

    def _completed(self, worlds: IntervenedWorlds) -> Noise:
        """Return the common noise, with that of stochastic interventions behind it: the same in all branches."""
        step = worlds.noise_size - self.worlds.noise_size
        episode = worlds.episode_noise_size - self.worlds.episode_noise_size
        return self._noise._replace(
            step=self._with("step", self._noise.step, step, self.horizon),
            episode=self._with("episode", self._noise.episode, episode),
        )

    def _with(self, part: str, common: Tensor | None, more: int, *steps: int) -> Tensor | None:
        if more == 0:
            return common
        kept = self._extra.get(part)
        have = 0 if kept is None else kept.shape[-1]
        if have < more:
            new = self._draw(more - have, *steps)
            kept = new if kept is None or new is None else torch.cat((kept, new), -1)
            self._extra[part] = kept
        found = None if kept is None else kept[..., :more]
        return found if common is None or found is None else torch.cat((common, found), -1)

    def _draw(self, size: int, *steps: int) -> Tensor | None:
        if size == 0:
            return None
        if self.generator is None:
            raise SpecError("expected generator=torch.Generator, since noise is drawn, got none")
        shape = (*self.shape, *steps, size)
        return standard_normal(shape, self.generator, dtype=self.worlds.dtype, device=self.worlds.device)

    def with_positivity(
        self, found: xarray.Dataset, logged: Trajectories | None, *, treatment: Intervention, control: Intervention
    ) -> xarray.Dataset:
        """Return an effect of one intervention over another with the positivity of both, or that it was not checked.

        Returns
        -------
        xarray.Dataset
            With ``inside``, ``effective_rows`` and ``supported`` by ``branch`` and ``horizon``, and the attribute
            ``positivity``.

        Warns
        -----
        SupportWarning
            For each branch with a thinly supported step.
        """
        if logged is None:
            return found.assign_attrs(positivity="not checked: pass logged=, the data that the model was fitted to")
        from bayeswm.causal.support.overlap import with_positivity

        interventions = {"treatment": treatment, "control": control}
        return with_positivity(found, self, logged=logged, interventions=interventions)

    def _check_actions(self, interventions: tuple[Intervention, ...]) -> None:
        if self.given:
            return
        # a change, or what waits for an event, needs what was proposed
        sets = (a for i in interventions for a in i.assignments if a.when is None and not isinstance(a.value, Change))
        fully = {a.name for a in sets if all(map(a.active, range(self.horizon)))}
        missing = [name for name in self.worlds.schema.action.columns if name not in fully]
        if missing:
            raise SpecError(f"expected actions=, or interventions that set {missing} at every step, got neither")
