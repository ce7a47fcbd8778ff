"""More data for a posterior that is held as draws: tempered importance resampling with rejuvenation."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from bayeswm.base.errors import FitError
from bayeswm.base.random import systematic
from bayeswm.inference.importance import smooth_weights
from bayeswm.inference.joint import Inferred, Joint

Rejuvenate = Callable[[Callable[[Tensor], Tensor], Tensor, torch.Generator], tuple[Tensor, float]]

# share of the draws that the weights of one stage must be worth, and the stages after which the data say too much
_WORTH, _STAGES = 0.5, 50
# draws that are moved, and the acceptance below which they hardly were
_DRAWS, _LEAST_ACCEPTANCE = 2048, 0.2
# numbers in one block where many draws meet many rows
_BLOCK = 2**22


def temper(
    joint: Joint, since: int, inferred: Inferred, *, rejuvenate: Rejuvenate, generator: torch.Generator
) -> Inferred:
    """Return the posterior given all rows from draws given the rows before ``since``.

    The likelihood of the new rows enters in stages (Del Moral, Doucet & Jasra 2006): the power of each is as large as
    leaves weights worth half the draws; the draws are resampled by these weights (smoothed, Pareto k at most 0.7) and
    then moved so that they leave the density of that stage unchanged. No stage relies on a few heavy draws, which is
    what a single reweighting does as soon as the new data say much.

    Parameters
    ----------
    joint : Joint
        Of all rows, old ones first.
    since : int
        Number of old rows.
    inferred : Inferred
        The posterior given these.
    rejuvenate : callable
        Takes a log density, points (n, D) and a generator; returns moved points and the mean acceptance.
    generator : torch.Generator
        Source of all randomness.

    Returns
    -------
    Inferred
        One chain of at most 2,048 draws; ``statistics`` has the number of ``stages``, the smallest effective sample
        size as a share of the draws (``weight_share``), the largest ``pareto_k`` and the smallest ``acceptance``.

    Raises
    ------
    FitError
        If 50 stages do not reach the whole likelihood, weights have Pareto k above 0.7, or the draws cannot be moved.

    Examples
    --------
    A mean known from 3 measurements, then 3 more:

    >>> from torch.distributions import Normal
    >>> from bayeswm.inference import HMC
    >>> seen = torch.tensor([0.9, 1.0, 1.1, 1.4, 1.5, 1.6], dtype=torch.float64)
    >>> def log_likelihood(values, rows):
    ...     return Normal(values["level"][:, None], 0.5).log_prob(seen if rows is None else seen[rows])
    >>> joint = Joint({"level": Normal(0.0, 10.0)}, log_likelihood, terms=6)
    >>> g = torch.Generator().manual_seed(0)
    >>> before = 1.0 + 0.5 / 3**0.5 * torch.randn(1, 1000, generator=g, dtype=torch.float64)
    >>> after = temper(joint, 3, Inferred({"level": before}), rejuvenate=HMC().rejuvenate, generator=g)
    >>> round(float(after.values["level"].mean()), 1), round(float(after.values["level"].std()), 1)
    (1.2, 0.2)
    """
    with torch.no_grad():
        x = joint.flat.unconstrain({k: v.flatten(0, 1) for k, v in inferred.values.items()})
        power, share, pareto_k, acceptance, stages = 0.0, 1.0, 0.0, 1.0, 0
        while power < 1:
            if stages == _STAGES:
                raise FitError(
                    f"expected new data that {_STAGES} tempered stages can take in, got to {power:.2g} of their log "
                    "likelihood: fit again on Trajectories.concatenate([old, new])"
                )
            new = _new_rows(joint, since, x)
            part = _power(new, 1 - power)
            weights = smooth_weights(part * new)
            share = min(share, weights.size / len(x))
            pareto_k = max(pareto_k, weights.pareto_k)
            x = x[systematic(weights.log_weight, min(len(x), _DRAWS), generator)]
            power = 1.0 if part == 1 - power else power + part
            x, accepted = rejuvenate(_tempered(joint, since, power), x, generator)
            acceptance, stages = min(acceptance, accepted), stages + 1
            if not accepted >= _LEAST_ACCEPTANCE:
                raise FitError(
                    f"expected draws that can be moved, got a mean acceptance of {accepted:.2f}: "
                    "fit again on Trajectories.concatenate([old, new])"
                )
        values = {k: v[None] for k, v in joint.values(x).items()}
    figures = {"stages": stages, "weight_share": share, "pareto_k": pareto_k, "acceptance": acceptance}
    return Inferred(values, {}, figures)


def _power(new: Tensor, most: float) -> float:
    """Return the largest power of the new rows' likelihood whose weights are worth half the draws."""

    def worth(power: float) -> float:
        weight = torch.softmax(power * new, 0)
        return float(1 / weight.square().sum()) / len(new)

    if worth(most) >= _WORTH:
        return most
    low, high = 0.0, most
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if worth(middle) >= _WORTH else (low, middle)
    return max(low, 1e-12)


def _new_rows(joint: Joint, since: int, x: Tensor) -> Tensor:
    rows = torch.arange(since, joint.terms)
    size = max(_BLOCK // max(len(rows), 1), 1)
    each = [joint.log_likelihood(joint.values(part), rows).sum(-1) for part in x.split(size)]
    return torch.cat(each).nan_to_num(nan=-torch.inf, neginf=-torch.inf)


def _tempered(joint: Joint, since: int, power: float) -> Callable[[Tensor], Tensor]:
    def log_density(x: Tensor) -> Tensor:
        values, log_det = joint.flat.constrain(x)
        each = joint.log_likelihood(values, None)
        likelihood = each[:, :since].sum(-1) + power * each[:, since:].sum(-1)
        return joint.flat.log_prior(values) + log_det + likelihood

    return log_density
