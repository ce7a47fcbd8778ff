"""The least strength of a hidden confounder at which an answer changes its sign."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from bayeswm.base.trajectories import Trajectories, check_trajectories
from bayeswm.base.worlds import Worlds
from bayeswm.causal.confounding.log import without_recorded
from bayeswm.causal.effects.effect import check_level
from bayeswm.causal.sensitivity.behaviour import fit_behaviour
from bayeswm.causal.sensitivity.confounder import assume_confounder, refuse_corrected

# strengths that are looked at first; the last one is the limit
_GRID = torch.cat((torch.arange(0.05, 0.95, 0.1), torch.tensor([0.95, 0.99]))).double()
_HALVINGS = 16


@dataclass(frozen=True, repr=False)
class Sensitivity:
    """The least confounder that overturns an answer.

    Attributes
    ----------
    strength : float
        Partial R^2 of the confounder with the action given the state, and with the outcome given both: the least at
        which the answer's mean over worlds changes its sign. Higher is more robust; 1 where none up to 0.99 does.
    lower : float
        Lower end of the central interval of the worlds' own such strengths.
    upper : float
        Its upper end.
    sign : int
        Of the confounder that does it: 1 if it raises (or lowers) action and outcome together, -1 if not; 0 if none.
    value : float
        The answer without a confounder.
    level : float
        Of the interval.
    question : str
        What was asked.
    action : str
        The action that the confounder drives.
    outcome : str
        The variable that it drives.
    """

    strength: float
    lower: float
    upper: float
    sign: int
    value: float
    level: float
    question: str
    action: str
    outcome: str

    def __repr__(self) -> str:
        spread = f"{100 * self.level:g} % of the worlds: {self.lower:.3g} to {self.upper:.3g}"
        if not self.sign:
            return f"Sensitivity({self.question}: {self.value:.4g}; no confounder overturns it; {spread})"
        return (
            f"Sensitivity({self.question}: {self.value:.4g}; a confounder that explains {self.strength:.1%} of what is "
            f"left of {self.action} and of {self.outcome} overturns it; {spread})"
        )


def least_strength(
    answer: Callable[[Worlds], Tensor],
    worlds: Worlds,
    logged: Trajectories,
    *,
    action: str | None,
    outcome: str | None,
    level: float,
    question: str,
) -> Sensitivity:
    """Find the least strength at which an answer (worlds,) changes its sign: a grid first, then bisection."""
    check_level(level)
    check_trajectories(logged)
    refuse_corrected(worlds)
    behaviour, weight = fit_behaviour(without_recorded(logged, worlds.schema)), worlds.weight

    def at(strength: Tensor, sign: Tensor) -> Tensor:
        """Return each world's answer at its own strength."""
        found = weight.new_zeros(len(worlds))
        for s in (1, -1):
            if bool((sign == s).any()):
                r2 = strength.clamp(max=0.99)
                shifted = assume_confounder(
                    worlds, behaviour, action_r2=r2, outcome_r2=r2, sign=s, action=action, outcome=outcome
                )
                found = torch.where(sign == s, answer(shifted).to(found), found)
        return found

    one = torch.ones(len(worlds), dtype=torch.int64, device=weight.device)
    plain = at(0.0 * weight, one)
    rows = {s: torch.stack([at(q * torch.ones_like(weight), s * one) for q in _GRID.tolist()]) for s in (1, -1)}
    grid = torch.cat((_GRID.new_zeros(1), _GRID)).to(weight)

    def bracket(own: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """Return the last strength of the grid before the first change of sign, the next one, and whose sign it is."""
        reference = own(plain).sign()
        first = {s: _first(own(v).sign() != reference) for s, v in rows.items()}
        sign = torch.where(first[1] <= first[-1], 1, -1)
        index = torch.minimum(first[1], first[-1])
        sign = torch.where(index == len(_GRID), 0, sign)
        return grid[index], grid[(index + 1).clamp(max=len(_GRID))], sign

    def pooled(values: Tensor) -> Tensor:
        return (values @ weight)[..., None].expand(values.shape)

    found: list[tuple[Tensor, Tensor]] = []
    for own in (pooled, lambda values: values):
        low, high, sign = bracket(own)
        reference = own(plain).sign()
        for _ in range(_HALVINGS):
            middle = (low + high) / 2
            same = own(at(middle, torch.where(sign == 0, 1, sign))).sign() == reference
            low, high = torch.where(same, middle, low), torch.where(same, high, middle)
        strength = torch.where(reference == 0, 0.0, torch.where(sign == 0, 1.0, (low + high) / 2))
        found.append((strength, torch.where(reference == 0, 1, sign)))
    (strength, sign), (each, _) = found
    return Sensitivity(
        strength=float(strength[0]),
        lower=_quantile(each, weight, (1 - level) / 2),
        upper=_quantile(each, weight, (1 + level) / 2),
        sign=int(sign[0]),
        value=float(plain @ weight),
        level=level,
        question=question,
        action=action or worlds.schema.action.columns[0],
        outcome=outcome or worlds.schema.state.columns[0],
    )


def _first(changed: Tensor) -> Tensor:
    """Return the index of the first row that is true, shape (worlds,); the number of rows where none is."""
    any_row = changed.any(0)
    return torch.where(any_row, changed.to(torch.int8).argmax(0), len(changed))


def _quantile(values: Tensor, weight: Tensor, probability: float) -> float:
    """Return the smallest value at or below which there is this much weight."""
    ordered, index = values.sort()
    reached = weight[index].cumsum(0) >= probability - 1e-12
    return float(ordered[reached.to(torch.int8).argmax()])
