"""The density of a structural model's uncertain parameters and of recorded episodes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.distributions import Distribution

from bayeswm.base.errors import SpecError
from bayeswm.base.random import make_generator
from bayeswm.base.trajectories import Trajectories
from bayeswm.causal.counterfactuals.free_noise import slack
from bayeswm.causal.counterfactuals.noise_belief import noise_belief
from bayeswm.causal.counterfactuals.partly_seen import PartlySeen, has_gaps
from bayeswm.causal.structural.worlds import StructuralWorlds
from bayeswm.inference.joint import Joint

if TYPE_CHECKING:
    from bayeswm.causal.structural.model import StructuralModel

# draws of the laws at which variables without noise are looked at
_PROBES = 4


class ParameterDensity:
    """What ways of inference need of a structural model and its data.

    Parameters
    ----------
    model : StructuralModel
        With laws for some parameters, of one number each.
    trajectories : Trajectories
        Data.

    Attributes
    ----------
    joint : Joint
        Its rows are steps, or episodes where values are missing.
    partly : bool
        Whether values are missing.

    Raises
    ------
    SpecError
        For a law of several numbers, and learned mechanisms beside laws.
    """

    def __init__(self, model: StructuralModel, trajectories: Trajectories) -> None:
        model.schema.check_same(trajectories.schema, who="the structural model")
        self._model, self._trajectories = model, trajectories.to(model.dtype)
        if model.regressions:
            raise SpecError(
                "expected known mechanisms beside uncertain parameters, got learned ones of "
                f"{sorted(model.regressions)}; learn all of them, or fix the parameters"
            )
        laws = {k: v for k, v in model.laws.items() if isinstance(v, Distribution)}
        for name, law in laws.items():
            if law.batch_shape or law.event_shape:
                raise SpecError(f"{name}: expected a law of one number, got one of {tuple(law.batch_shape)}")
        self.partly = has_gaps(trajectories)
        if self.partly:
            self.joint = Joint(laws, self._by_episode, terms=len(trajectories))
            return
        self._rows = self._trajectories.transitions()
        names = model.schema.state.columns
        self._noisy = [i for i, name in enumerate(names) if model.mechanisms[name].noisy]
        target = self._rows.next_state[:, self._noisy]
        self.joint = Joint(laws, self._by_step, terms=len(target), predict=self._predict, target=target)
        self._check_silent()

    def _check_silent(self) -> None:
        """Refuse a variable without noise that the parameters reach: it would settle them without a density."""
        some = self.joint.flat.sample(_PROBES, make_generator(0))
        after, mean, spread = self._law(self.joint.values(some), None)
        off = (after - mean).abs() > slack(mean.dtype) * mean.abs().clamp(min=1.0)
        wrong = (off & (spread <= 0)).any(0).any(0)
        if bool(wrong.any()):
            name = self._model.schema.state.columns[int(wrong.nonzero()[0])]
            raise SpecError(
                f"expected {name!r} to have noise, or to be what its mechanism without noise says whatever the "
                "uncertain parameters are, got other values; give it noise"
            )

    def rows(self, episodes: int) -> int:
        """Return the number of rows of the first episodes."""
        return episodes if self.partly else int((self._rows.episode < episodes).sum())

    def _by_episode(self, values: Mapping[str, Tensor], rows: Tensor | None) -> Tensor:
        some = self._trajectories if rows is None else self._trajectories[rows]
        found = noise_belief(PartlySeen(worlds_of(self._model, values), some))
        if found is None:
            raise SpecError(
                "expected missing values in whose noise the recorded ones are affine, to learn parameters; draw worlds "
                "and pass them, so that they are weighed by estimates of the density"
            )
        return found.log_density

    def _law(self, values: Mapping[str, Tensor], rows: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """Return next states (n, S), and mean and spread (worlds, n, S) of each variable given its parents."""
        index = slice(None) if rows is None else rows
        state, action, context, after = (v[index] for v in self._rows[:4])
        worlds = worlds_of(self._model, values)
        law = worlds.transition(worlds.start(state), action, context)
        given, _ = law.by_parents(after.expand(len(worlds), 1, *after.shape))
        return after, given.mean[:, 0], given.spread[:, 0]

    def _by_step(self, values: Mapping[str, Tensor], rows: Tensor | None) -> Tensor:
        after, mean, spread = self._law(values, rows)
        safe = torch.where(spread > 0, spread, 1.0)
        density = torch.distributions.Normal(mean, safe, validate_args=False).log_prob(after)
        agrees = (after - mean).abs() <= slack(mean.dtype) * mean.abs().clamp(min=1.0)
        return torch.where(spread > 0, density, torch.where(agrees, 0.0, -torch.inf)).sum(-1)

    def _predict(self, values: Mapping[str, Tensor], rows: Tensor | None) -> tuple[Tensor, Tensor]:
        _, mean, spread = self._law(values, rows)
        return mean[..., self._noisy], spread[..., self._noisy]


def worlds_of(model: StructuralModel, values: Mapping[str, Tensor]) -> StructuralWorlds:
    """Return one system for each of some values (worlds,) of the uncertain parameters."""
    count = len(next(iter(values.values())))
    whole: dict[str, Tensor] = {}
    for name, law in model.laws.items():
        known = not isinstance(law, Distribution)
        whole[name] = torch.full((count,), float(law)) if known else values[name]
        whole[name] = whole[name].to(model.dtype)
    equal = torch.zeros(count, dtype=torch.float64)
    return StructuralWorlds(
        model.mechanisms, model.schema, whole, log_weight=equal, exhaustive=False, dtype=model.dtype
    )
