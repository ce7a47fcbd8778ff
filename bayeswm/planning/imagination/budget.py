"""How far an imagined future can be trusted: a budget of epistemic uncertainty."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from typing import override

import torch
from torch import Tensor

from bayeswm.base.errors import SpecError
from bayeswm.base.predictive import Predictive
from bayeswm.planning.objective import Objective


def epistemic_budget(predictive: Predictive, limit: float, *, scale: Tensor | None = None) -> Tensor:
    """Return how many steps of a forecast can be used before its epistemic uncertainty exceeds a limit.

    In fixed worlds the uncertainty accumulates along the horizon. It is measured as the epistemic standard deviation of
    the state, the root mean square over its variables, each in units of its scale.

    Parameters
    ----------
    predictive : Predictive
        A rollout.
    limit : float
        Above 0.
    scale : Tensor, shape (S,), optional
        Unit of each variable, such as its standard deviation in the data; the variables' own units by default.

    Returns
    -------
    Tensor of int64, shape (*batch), from 0 to H
        Once exceeded, a limit stays exceeded.

    Raises
    ------
    SpecError
        If the limit makes no sense, or epistemic uncertainty cannot be told from chance.

    Examples
    --------
    >>> import bayeswm as bwm
    >>> prior = bwm.KnownDynamics(structure=bwm.structures.Pendulum(mass=torch.distributions.LogNormal(0.0, 0.2)))
    >>> g = torch.Generator().manual_seed(0)
    >>> r = bwm.rollout(prior, torch.zeros(2), torch.ones(20, 1), particles=2, generator=g)
    >>> epistemic_budget(r, 0.02)
    tensor(2)
    """
    _check_limit(limit)
    variance = predictive.epistemic_variance
    lost = variance.isnan()
    if bool(lost.all(-1).all(-1).any()) and not bool(predictive.diverged.any()):
        raise SpecError("expected a split of the variance, got none; use at least 2 worlds and 2 particles")
    return _usable(variance, limit, scale)


@dataclass(frozen=True)
class Budgeted(Objective):
    """An objective that trusts imagined futures up to a budget: beyond it only the terminal cost counts.

    The step at which worlds that follow the same actions are apart by more than the limit (as of
    :func:`epistemic_budget`; worlds count alike) ends the future of all of them. The state there is charged with the
    terminal cost, which should say what is to be expected from there: without it, ignorance would be free. It is for
    planners that imagine several worlds at once.

    Parameters
    ----------
    stage, terminal, change, termination, discount
        As of :class:`Objective`; a terminal cost is needed.
    limit : float
        Of the epistemic standard deviation.
    scale : Tensor, shape (S,), optional
        Unit of each variable.

    Examples
    --------
    >>> objective = Budgeted(
    ...     stage=lambda x, u, c, t: torch.ones_like(x[..., 0]), terminal=lambda x, c: x[..., 0], limit=0.5
    ... )
    >>> steps = torch.tensor([0.0, 1.0, 2.0, 3.0])
    >>> states = torch.stack((steps, 1.4 * steps))[:, None, :, None]  # two worlds that drift apart
    >>> objective.cost(states, torch.zeros(3, 1), torch.zeros(3, 0))
    tensor([[2.0000],
            [2.4000]])
    """

    _: KW_ONLY
    limit: float
    scale: Tensor | None = None

    @override
    def __post_init__(self) -> None:
        super().__post_init__()
        _check_limit(self.limit)
        if self.terminal is None:
            raise SpecError("expected a terminal cost, which stands for what is beyond the budget, got none")

    @override
    def cost(self, states: Tensor, actions: Tensor, context: Tensor, *, previous: Tensor | None = None) -> Tensor:
        if states.ndim < 4 or states.shape[0] < 2:
            raise SpecError(
                f"expected states (worlds, particles, ..., H + 1, S) of at least 2 worlds, got {tuple(states.shape)}"
            )
        variance = states[..., 1:, :].detach().mean(1).var(0)
        usable = _usable(variance, self.limit, self.scale)[..., None]
        horizon = states.shape[-2] - 1
        step = torch.arange(horizon + 1, device=states.device)
        index = torch.minimum(step, usable)[..., None].expand(states.shape)
        own = self.stage

        def stage(x: Tensor, u: Tensor, c: Tensor, t: Tensor) -> Tensor:  # noqa: PLR0917
            return torch.zeros_like(x[..., 0]) if own is None else torch.where(t < usable, own(x, u, c, t), 0.0)

        inner = Objective(
            stage=stage,
            terminal=self.terminal,
            change=self.change,
            termination=self.termination,
            discount=self.discount,
        )
        return inner.cost(states.gather(-2, index), actions, context, previous=previous)


def _check_limit(limit: float) -> None:
    if not limit > 0:
        raise SpecError(f"expected a limit > 0, got {limit}")


def _usable(variance: Tensor, limit: float, scale: Tensor | None) -> Tensor:
    """Return the steps before the limit is exceeded, (..., H, S) to (...); NaN exceeds it."""
    unit = 1.0 if scale is None else scale.to(variance)
    spread = (variance / unit**2).mean(-1).sqrt()
    return (spread <= limit).long().cummin(-1).values.sum(-1)
