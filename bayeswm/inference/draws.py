"""Posterior draws of many chains, with what says whether they can be trusted."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from bayeswm.base.errors import FitWarning
from bayeswm.inference.convergence import ess_bulk, r_hat

R_HAT_LIMIT, ESS_LIMIT = 1.01, 400
# a few among many thousand steps of many chains are met in far tails; they are counted, and not worth a warning
DIVERGENT_LIMIT = 1e-3


@dataclass(frozen=True)
class Draws:
    """Draws of a sampler; R-hat and effective sample sizes are computed at once and always there.

    Attributes
    ----------
    positions : Tensor, shape (chains, draws, D)
        Where the chains were.
    log_density : Tensor, shape (chains, draws)
        Log density there, up to a constant.
    acceptance : Tensor, shape (chains, draws)
        Probability of acceptance of the step that led there.
    divergent : Tensor of bool, shape (chains, draws)
        Whether that step's energy error was above 1000 or not a number.
    step_size, trajectory_length : float
        What was used, in the sampler's own coordinates.
    evaluations : int
        Gradients of all chains together, warm-up included.
    labels : tuple of str
        Names of the D quantities.
    r_hat, ess_bulk : Tensor, shape (D,)
        Split rank-normalised R-hat; how many independent draws the bulk is worth.

    Examples
    --------
    >>> g = torch.Generator().manual_seed(0)
    >>> x = torch.randn(4, 300, 1, generator=g, dtype=torch.float64)
    >>> ones, no = torch.ones(4, 300), torch.zeros(4, 300, dtype=torch.bool)
    >>> drawn = Draws(x, ones, ones, no, step_size=1.0, trajectory_length=1.0, evaluations=0, labels=("x",))
    >>> bool(drawn.r_hat < 1.01), drawn.problems()
    (True, ())
    """

    positions: Tensor
    log_density: Tensor
    acceptance: Tensor
    divergent: Tensor
    step_size: float
    trajectory_length: float
    evaluations: int
    labels: tuple[str, ...]
    r_hat: Tensor = field(init=False)
    ess_bulk: Tensor = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "r_hat", r_hat(self.positions))
        object.__setattr__(self, "ess_bulk", ess_bulk(self.positions))

    @property
    def divergences(self) -> int:
        """Number of divergent steps after the warm-up."""
        return int(self.divergent.sum())

    def problems(self) -> tuple[str, ...]:
        """Return what speaks against the draws, in words; nothing where nothing does."""
        found: list[str] = []
        # a quantity that never moved has NaN, which must count as bad
        apart, few = ~(self.r_hat <= R_HAT_LIMIT), ~(self.ess_bulk >= ESS_LIMIT)
        if bool(apart.any()):
            worst = int(self.r_hat.nan_to_num(torch.inf).argmax())
            found.append(
                f"R-hat above {R_HAT_LIMIT} for {int(apart.sum())} of {len(self.labels)} quantities, "
                f"worst {float(self.r_hat[worst]):.3f} ({self.labels[worst]})"
            )
        if bool(few.any()):
            worst = int(self.ess_bulk.nan_to_num(0.0).argmin())
            found.append(
                f"effective sample size below {ESS_LIMIT} for {int(few.sum())} of {len(self.labels)} quantities, "
                f"smallest {float(self.ess_bulk[worst]):.0f} ({self.labels[worst]})"
            )
        if self.divergences > DIVERGENT_LIMIT * self.divergent.numel():
            found.append(
                f"{self.divergences} of {self.divergent.numel()} steps diverged (a higher target_acceptance may help)"
            )
        return tuple(found)

    def warn(self) -> None:
        """Say the problems aloud.

        Warns
        -----
        FitWarning
            If there are any.
        """
        problems = self.problems()
        if problems:
            warnings.warn(f"{'; '.join(problems)}: sample longer, or look at the model", FitWarning, stacklevel=3)


def no_start(log_density: Callable[[Tensor], Tensor], start: Tensor, labels: Sequence[str]) -> str:
    """Say why none of the starts (n, D) can begin a chain."""
    with torch.enable_grad():
        x = start.clone().requires_grad_()
        value = log_density(x)
        (gradient,) = torch.autograd.grad(value.sum(), x)
    bad = ~gradient.isfinite()
    named: list[str] = [labels[int(i)] for i in bad.any(0).nonzero()[:, 0].tolist()]
    what = f"the gradient is not finite in {', '.join(named[:5])}" if named else "the log density is not finite"
    return f"expected a finite start for the chains, got none among {len(start)}: {what}; look at priors and data"


def all_diverge(gradient: Tensor, labels: Sequence[str]) -> str:
    """Say that every trajectory diverges, and where the gradient (n, D) is largest."""
    worst = labels[int(gradient.abs().mean(0).argmax())]
    return f"every trajectory diverges; the gradient is largest in {worst}: look at its prior, its scale and the data"
