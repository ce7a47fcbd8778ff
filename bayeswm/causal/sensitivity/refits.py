"""Effects in models that are fitted again, to logs that were changed."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from bayeswm.base.along import Policy
from bayeswm.base.errors import SpecError
from bayeswm.base.model import DynamicsModel
from bayeswm.base.random import make_generator, permutation, spawn_seeds, uniform
from bayeswm.base.trajectories import Trajectories
from bayeswm.base.worlds import Belief
from bayeswm.causal.effects.effect import check_level, effect
from bayeswm.causal.interventions.intervention import Intervention

if TYPE_CHECKING:
    import xarray

Query = Callable[[DynamicsModel], "xarray.Dataset"]


@dataclass(frozen=True, eq=False, repr=False)
class Refutation:
    """An effect that has to be 0, as a model finds it.

    Attributes
    ----------
    dataset : xarray.Dataset
        By batch_0, ..., ``horizon`` and ``variable``: ``effect``, its confidence interval ``lower`` and ``upper``
        each at its level, the ``p_value`` of no effect, and ``original``, the effect that is to be refuted.
    name : str
        Of the attempt.
    p_value : float
        Of no effect at all, over all steps and variables (Bonferroni).
    level : float
        Of the intervals; the attempt refutes if the p-value is below 1 - level.
    """

    dataset: xarray.Dataset
    name: str
    p_value: float
    level: float

    @property
    def passed(self) -> bool:
        """Whether nothing was found that should not be there; that proves nothing, its contrary does."""
        return self.p_value >= 1 - self.level

    def __repr__(self) -> str:
        found = self.dataset["effect"].values
        worst = found.ravel()[np.abs(found).argmax()]
        verdict = "passed" if self.passed else "REFUTED: an effect where there is none"
        return f"Refutation({self.name}: {verdict}; p = {self.p_value:.3g}, largest effect {worst:.3g})"


def effect_of(
    treatment: Intervention,
    control: Intervention,
    *,
    state: Belief,
    horizon: int | None,
    actions: Tensor | Policy | None,
    context: Tensor | None,
    worlds: int,
    particles: int,
    generator: torch.Generator,
) -> Query:
    """Return the effect as a function of the model, with the same noise for all models."""
    seed = spawn_seeds(generator, 1)[0]

    def ask(model: DynamicsModel) -> xarray.Dataset:
        return effect(
            model,
            treatment,
            control,
            state=state,
            horizon=horizon,
            actions=actions,
            context=context,
            worlds=worlds,
            particles=particles,
            generator=make_generator(seed),
        )

    return ask


def refitted(
    model: DynamicsModel,
    logged: Trajectories,
    query: Query,
    *,
    change: Callable[[Trajectories, torch.Generator], Trajectories],
    refits: int,
    level: float,
    generator: torch.Generator,
) -> tuple[list[xarray.Dataset], xarray.Dataset]:
    """Return the effects that models find in changed logs, and that in the log itself.

    Raises
    ------
    SpecError
        For fewer than 2 refits, or a level outside (0, 1).
    """
    check_level(level)
    if refits < 2:
        raise SpecError(f"expected refits >= 2, got {refits}")

    def asked(data: Trajectories) -> xarray.Dataset:
        seed = spawn_seeds(generator, 1)[0] % 2**31
        return query(copy.deepcopy(model).fit(data, seed=seed, progress=False))

    original = asked(logged)
    return [asked(change(logged, generator)) for _ in range(refits)], original


def shuffled(logged: Trajectories, generator: torch.Generator) -> Trajectories:
    """Return a log whose actions are those of other steps."""
    inside = logged.step_mask
    action = logged.action.clone()
    rows = action[inside]
    action[inside] = rows[permutation(len(rows), generator, device=rows.device)]
    return logged._like(action=action)


def resampled(logged: Trajectories, generator: torch.Generator) -> Trajectories:
    """Return a log of as many recordings, drawn with replacement."""
    names = logged.episode.unique()
    drawn = (uniform((len(names),), generator, dtype=torch.float64).cpu() * len(names)).long().clamp(max=len(names) - 1)
    return logged[torch.cat([(logged.episode == names[i]).nonzero().flatten() for i in drawn.tolist()])]


def judged(
    name: str, value: np.ndarray, error: np.ndarray, *, original: xarray.Dataset, refits: int, level: float
) -> Refutation:
    """Return how an effect stands against 0, given its standard error from a number of refits."""
    from scipy.special import stdtr, stdtrit

    like = original["effect"]
    half = stdtrit(refits - 1, 0.5 + level / 2) * error
    # without spread, an effect that is there is certain
    t = np.divide(np.abs(value), error, out=np.where(value == 0, 0.0, np.inf), where=error > 0)
    p = 2 * stdtr(refits - 1, -t)
    found = original[["effect"]].rename(effect="original").drop_attrs()
    parts = {"effect": value, "lower": value - half, "upper": value + half, "p_value": p}
    found = found.assign({k: (like.dims, v) for k, v in parts.items()}).assign_attrs(level=level, refits=refits)
    return Refutation(found, name, min(1.0, float(p.min()) * p.size), level)
