"""A predictive held against what came: one value for each window, step and variable."""

from __future__ import annotations

import torch
from torch import Tensor

from bayeswm.base.errors import DataError
from bayeswm.base.laws import Gaussian, MultivariateGaussian
from bayeswm.base.predictive import Predictive
from bayeswm.diagnostics.cdf_score import crps_of_cdf
from bayeswm.diagnostics.univariate_scores import crps_mixture, crps_samples, pair_distance


def check_outcomes(predictive: Predictive, outcomes: Tensor) -> None:
    """Refuse outcomes whose shape is not that of a predictive.

    Raises
    ------
    DataError

    Examples
    --------
    >>> import bayeswm as bwm
    >>> model = bwm.KnownDynamics(structure=bwm.structures.Pendulum.gymnasium(), noise=1.0)
    >>> check_outcomes(model.predictive(torch.zeros(2), torch.zeros(1)), torch.zeros(1, 2))
    """
    shape = (*predictive.batch_shape, predictive.horizon, predictive.variables.size)
    if tuple(outcomes.shape) != shape:
        raise DataError(
            f"expected outcomes of shape {shape}, as the predictive has (*batch, horizon, variable), "
            f"got {tuple(outcomes.shape)}; x[1..H] without the start"
        )


def observed(predictive: Predictive, outcomes: Tensor) -> tuple[Tensor, Tensor]:
    """Return the outcomes with gaps filled in, and where they were recorded; each of shape (*batch, H, S).

    Gaps hold the predicted mean, so that no NaN reaches a law; what is computed there is to be masked.

    Raises
    ------
    DataError
        If the shape is not that of the predictive, or a value is infinite.
    """
    check_outcomes(predictive, outcomes)
    if bool(outcomes.isinf().any()):
        index = tuple(outcomes.isinf().nonzero()[0].tolist())
        raise DataError(f"expected finite outcomes (NaN for what was not recorded), got infinity first at {index}")
    if not predictive.laws:
        return outcomes, torch.ones_like(outcomes, dtype=torch.bool)
    reference = predictive.laws[0].mean
    x = outcomes.to(reference.device, reference.dtype)
    there = ~x.isnan()
    return (x if bool(there.all()) else torch.where(there, x, predictive.mean)), there


def pit(predictive: Predictive, outcomes: Tensor) -> Tensor:
    """Return the probability integral transform: the predicted probability of less than what came.

    Uniform on (0, 1) for a calibrated forecast, one horizon at a time: the values of one trajectory are dependent.
    Where the prediction has an atom (no noise, or samples alone) the middle of the jump is taken, so that a point
    prediction that is met has the value 0.5, and one that is missed 0 or 1; met is within rounding, as for laws.

    Parameters
    ----------
    predictive : Predictive
        One step or a horizon.
    outcomes : Tensor, shape (*batch, H, S)
        What came; NaN where nothing was recorded.

    Returns
    -------
    Tensor, shape (*batch, H, S)

    Examples
    --------
    >>> import bayeswm as bwm
    >>> model = bwm.KnownDynamics(structure=bwm.structures.Pendulum.gymnasium(), noise={"velocity": 0.1})
    >>> p = model.predictive(torch.zeros(2), torch.zeros(1))
    >>> pit(p, torch.tensor([[0.0, 0.1]])).numpy().round(4).tolist()
    [[0.5, 0.8413]]
    """
    x, there = observed(predictive, outcomes)
    if predictive.horizon == 0:
        return x
    reach = rounding_reach(predictive, x)
    if bool((reach > 0).any()):
        value = 0.5 * (predictive.cdf(x - reach) + predictive.cdf(x + reach))
    else:
        value = predictive.cdf(x)
    return torch.where(there, value, float("nan"))


def rounding_reach(predictive: Predictive, x: Tensor) -> Tensor:
    """Return how far from a point prediction an outcome still meets it; 0 where there is noise.

    Parameters
    ----------
    predictive : Predictive
        Over a step or more.
    x : Tensor, shape (*batch, H, S)
        Outcomes.

    Examples
    --------
    >>> import bayeswm as bwm
    >>> model = bwm.KnownDynamics(structure=bwm.structures.Pendulum.gymnasium(), noise={"velocity": 0.1})
    >>> bool(rounding_reach(model.predictive(torch.zeros(2), torch.zeros(1)), torch.zeros(1, 2))[0, 1] == 0)
    True
    """
    silent = torch.stack([(law.variance <= 0).any(0).any(0).expand(x[..., 0, :].shape) for law in predictive.laws], -2)
    rounding = 1e-9 if x.dtype == torch.float64 else 1e-5
    return torch.where(silent, rounding * x.abs().clamp(min=1.0), 0.0)


def central(u: Tensor, level: Tensor) -> Tensor:
    """Return whether PIT values lie in central intervals, shape (..., levels); NaN for NaN.

    An outcome lies inside the central interval just if its PIT lies inside the level around one half. Those on the rim,
    which samples alone can be, are inside whatever the rounding.

    Examples
    --------
    >>> central(torch.tensor([0.5, 0.95, 0.99]), torch.tensor([0.9])).tolist()
    [[1.0], [1.0], [0.0]]
    """
    rounding = 1e-9 if u.dtype == torch.float64 else 1e-6
    inside = ((u - 0.5).abs()[..., None] <= level / 2 + rounding).to(u.dtype)
    return torch.where(u.isnan()[..., None], float("nan"), inside)


def crps(predictive: Predictive, outcomes: Tensor) -> Tensor:
    """Return the continuous ranked probability score of each step and variable, in its unit; lower is better.

    Fair: an unbiased estimate of the score that infinitely many worlds and particles would have. Where the laws are
    known given the worlds (the first step) it is the closed form of their mixture, or an integral of its distribution
    function where they are not Gaussian and were not sampled; later it is estimated from the particles. Distances
    within a world count one particle less; where worlds are drawn, pairs of one world are replaced by those of
    different worlds, as in the split of the variance. A single drawn world is taken as it is.

    Parameters
    ----------
    predictive : Predictive
        One step or a horizon.
    outcomes : Tensor, shape (*batch, H, S)
        What came; NaN where nothing was recorded.

    Returns
    -------
    Tensor, shape (*batch, H, S)
        NaN too where no spread is left to estimate it from: one particle in one world.

    Examples
    --------
    >>> import bayeswm as bwm
    >>> model = bwm.KnownDynamics(structure=bwm.structures.Pendulum.gymnasium(), noise=1.0)
    >>> crps(model.predictive(torch.zeros(2), torch.zeros(1)), torch.zeros(1, 2)).numpy().round(4).tolist()
    [[0.2337, 0.2337]]
    """
    x, there = observed(predictive, outcomes)
    if predictive.horizon == 0:
        return x
    steps = [_crps_at(predictive, h, x[..., h, :]) for h in range(predictive.horizon)]
    return torch.where(there, torch.stack(steps, -2).to(x.dtype), float("nan"))


def _crps_at(predictive: Predictive, h: int, x: Tensor) -> Tensor:
    law = predictive.laws[h]
    fair = not predictive.exhaustive and predictive.worlds > 1
    if law.mean.shape[1] == 1 and isinstance(law, Gaussian | MultivariateGaussian):
        mean, scale = law.mean[:, 0].double(), law.variance[:, 0].double().sqrt()
        weight = spread_out(predictive.weight, mean)
        alive = mean.isfinite() & scale.isfinite()
        if not bool(alive.all()):
            weight = torch.where(alive, weight, 0.0)
            mean, scale = torch.where(alive, mean, 0.0), torch.where(alive, scale, 0.0)
        return crps_mixture(mean, scale, x.double(), weight=weight, fair=fair)
    if not predictive.sampled and law.mean.shape[1] == 1:
        return crps_of_cdf(law, x.double(), weight=predictive.weight, fair=fair)
    samples = predictive.particles[..., h, :]
    alive = ~predictive.diverged[..., h, None] & samples.isfinite()
    if predictive.fresh_worlds and h > 0:  # particles without a lasting world are one pool of draws
        samples, alive = samples.flatten(0, 1), alive.flatten(0, 1)
        weight = None if bool(alive.all()) else alive.to(samples)
        return crps_samples(torch.where(alive, samples, 0.0), x, weight=weight)
    valid = None if bool(alive.all()) else alive
    return crps_worlds(samples, x, weight=predictive.weight, exhaustive=predictive.exhaustive, valid=valid)


def crps_worlds(
    samples: Tensor, observed: Tensor, *, weight: Tensor, exhaustive: bool, valid: Tensor | None = None
) -> Tensor:
    """Return the fair score of samples from several worlds; lower is better.

    Parameters
    ----------
    samples : Tensor, shape (W, P, ...)
        Draws in each world.
    observed : Tensor, shape (...)
        What came.
    weight : Tensor, shape (W,)
        Weights of the worlds, normalised here.
    exhaustive : bool
        Whether the worlds are the posterior, or draws from it.
    valid : Tensor, shape (W, P, ...), optional
        Samples to count; all by default.

    Returns
    -------
    Tensor, shape (...)

    Examples
    --------
    >>> draws = torch.tensor([[0.0, 1.0], [0.0, 1.0]])
    >>> half = torch.tensor([0.5, 0.5])
    >>> [round(float(crps_worlds(draws, torch.tensor(0.5), weight=half, exhaustive=e)), 3) for e in (True, False)]
    [0.125, 0.25]
    """
    offset = samples - observed
    particles = offset.shape[1]
    weight = weight / weight.sum()
    share = spread_out(weight.to(offset), offset[:, 0])
    if valid is None:
        count = torch.full_like(share, float(particles))
        each = share / count
        even = bool((weight - weight[0]).abs().max() < 1e-12)
        every = pair_distance(offset.flatten(0, 1), None if even else _flat(each, particles))
        own = pair_distance(offset.movedim(1, 0))
        near = (each[:, None] * offset.abs()).sum((0, 1))
    else:
        offset = torch.where(valid, offset, 0.0)
        count = valid.sum(1).to(offset)
        share = torch.where(count > 0, share, 0.0)
        share = share / share.sum(0)  # 0 / 0 = NaN where every particle diverged
        each = (share / count.clamp(min=1))[:, None] * valid
        every = pair_distance(offset.flatten(0, 1), each.flatten(0, 1))
        own = pair_distance(offset.movedim(1, 0), (valid / count.clamp(min=1)[:, None]).movedim(1, 0))
        near = (each * offset.abs()).sum((0, 1))
    return near - mean_distance_of_worlds(every, own, share=share, count=count, exhaustive=exhaustive) / 2


def mean_distance_of_worlds(every: Tensor, own: Tensor, *, share: Tensor, count: Tensor, exhaustive: bool) -> Tensor:
    """Return the unbiased mean distance of two draws of the predictive, from those of the samples at hand.

    Parameters
    ----------
    every : Tensor, shape (...)
        Weighted mean distance of all ordered pairs of samples, each with itself too.
    own : Tensor, shape (W, ...)
        The same within each world.
    share, count : Tensor, shape (W, ...)
        Weights of the worlds, which sum to 1, and their numbers of samples.
    exhaustive : bool
        Whether the worlds are the posterior, or draws from it.

    Returns
    -------
    Tensor, shape (...)
        NaN where one sample in one world shows no spread.

    Examples
    --------
    >>> half, two = torch.tensor([0.5, 0.5]), torch.tensor([2.0, 2.0])
    >>> mean_distance_of_worlds(torch.tensor(0.5), half, share=half, count=two, exhaustive=True)
    tensor(0.7500)
    """
    between = every - (share.square() * own).sum(0)  # pairs of different worlds
    apart = 1 - share.square().sum(0)
    single = apart < 1e-12
    within = torch.where(count > 1, own * count / (count - 1), float("nan"))
    spread = between / torch.where(single, 1.0, apart)
    alone = torch.where(share > 0.5, within, 0.0).sum(0)
    if exhaustive:
        full = between + torch.where(share > 0, share.square() * within, 0.0).sum(0)
        spread = torch.where(full.isnan(), spread, full)  # one particle a world shows no spread of its own
    return torch.where(single, alone, spread)


def spread_out(weight: Tensor, like: Tensor) -> Tensor:
    """Return weights (W,) repeated over a tensor of shape (W, ...).

    Examples
    --------
    >>> spread_out(torch.tensor([0.25, 0.75]), torch.zeros(2, 3)).shape
    torch.Size([2, 3])
    """
    return weight.view(-1, *(1,) * (like.ndim - 1)).expand_as(like)


def _flat(each: Tensor, particles: int) -> Tensor:
    return each[:, None].expand(each.shape[0], particles, *each.shape[1:]).flatten(0, 1)
