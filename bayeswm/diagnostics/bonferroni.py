"""The tube of pointwise intervals, each wide enough for all to hold together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from bayeswm.base.predictive import Predictive
from bayeswm.diagnostics.intervals import quantiles
from bayeswm.diagnostics.levels import check_level
from bayeswm.diagnostics.ranks import weight_of_each
from bayeswm.diagnostics.tube import AXES, Tube, check_over, warn_of_infinite

# tails, as probabilities, that are taken for 0; and what takes a lower end to the next of the points it lies between
_NOTHING, _NEXT = 1e-12, 4e-9


@dataclass(frozen=True)
class Bonferroni:
    """The pointwise central intervals at 1 - (1 - level) / K for K steps and variables: simple, and too wide.

    It holds at least the level whatever the dependence, and needs no trajectories, only the law of each step. Where
    that law is a mixture over n draws (worlds, or particles where the worlds are the posterior), it is taken honestly:
    one more draw takes 1 / (n + 1) of the probability and may lie anywhere, so that a tail t of the new draw is the
    tail t - (1 - t) / n of the mixture. For draws that are points these are the order statistics of rank (n + 1) t.
    Fewer than 2 K / (1 - level) - 1 draws make the tube infinite, with a warning; :class:`SupT` needs far fewer.

    Parameters
    ----------
    over : sequence of str
        As for :class:`SupT`.

    Examples
    --------
    >>> import bayeswm as bwm
    >>> model = bwm.KnownDynamics(structure=bwm.structures.Pendulum.gymnasium(), noise=1.0)
    >>> tube = Bonferroni()(model.predictive(torch.zeros(2).double(), torch.zeros(1)), level=0.9)
    >>> (tube.upper - tube.lower).flatten().numpy().round(2).tolist()  # 2 x 1.96, the 95 % interval of each
    [3.92, 3.92]
    """

    over: Sequence[str] = AXES

    def __call__(self, predictive: Predictive, *, level: float) -> Tube:
        """Return the tube that holds ``level`` of the probability, for every window of a batch."""
        over = check_over(self.over)
        count = (predictive.horizon if "horizon" in over else 1) * (
            predictive.variables.size if "variable" in over else 1
        )
        tail = 0.5 * (1 - check_level(level)) / max(count, 1)
        known = predictive.exhaustive or predictive.worlds == 1
        drawn = [not (known and resolved) for resolved in _resolved(predictive)]
        if not any(drawn):
            lower, upper = quantiles(predictive, [tail, 1 - tail])
        else:
            lower, upper = _of_draws(predictive, tail, drawn=torch.tensor(drawn))
            warn_of_infinite(upper, level)
        return Tube(
            lower, upper, level=level, over=over, variables=predictive.variables, time_step=predictive.time_step
        )


def _resolved(predictive: Predictive) -> Sequence[bool]:
    """Return for each step whether its law in a world is exact, and no mixture over particles."""
    return predictive.resolved if predictive.sampled else [True] * predictive.horizon


def _of_draws(predictive: Predictive, tail: float, *, drawn: Tensor) -> tuple[Tensor, Tensor]:
    """Return ends that one more draw exceeds with the probability ``tail`` at most; ``drawn`` says at which steps."""
    flat = predictive.flatten()
    shape = (*predictive.batch_shape, predictive.horizon, predictive.variables.size)
    units = _units(flat)
    ends = torch.empty(2, len(units), *shape[-2:], dtype=flat.laws[0].mean.dtype, device=units.device)
    for n in units.unique():
        rows = (units == n).nonzero()[:, 0]
        ends[:, rows] = _ends(flat[rows] if len(rows) < len(units) else flat, tail, units=float(n), drawn=drawn)
    return ends[0].reshape(shape), ends[1].reshape(shape)


def _ends(part: Predictive, tail: float, *, units: float, drawn: Tensor) -> Tensor:
    corrected = tail - (1 - tail) / units
    enough, every = corrected > -_NOTHING, bool(drawn.all())
    at_least = max(corrected, 0.0)
    ends = [at_least + _NEXT, 1 - max(at_least, _NOTHING)] if enough else []
    ends += [] if every else [tail, 1 - tail]
    found = quantiles(part, ends) if ends else None
    if enough and found is not None:
        of_draws = found[:2]
    else:
        like = part.laws[0].mean
        size = (*part.batch_shape, part.horizon, part.variables.size)
        of_draws = torch.stack([like.new_full(size, end) for end in (-float("inf"), float("inf"))])
    if every or found is None:
        return of_draws
    return torch.where(drawn.to(of_draws.device)[:, None], of_draws, found[-2:])


def _units(flat: Predictive) -> Tensor:
    """Return how many draws the law of each window mixes, 1 / sum w^2 where they are weighted, shape (windows,)."""
    alive = ~flat.diverged[..., -1]
    weight = weight_of_each(flat.weight.double(), alive.expand(flat.worlds, *alive.shape[1:]))
    # particles of a drawn world share it at each step, also of one that is fresh there
    unit = weight.sum(1) if flat.worlds > 1 and not flat.exhaustive else weight.flatten(0, 1)
    # where every particle diverged the quantiles are NaN whatever the number
    return (unit.sum(0).square() / unit.square().sum(0)).nan_to_num(float(len(unit)))
