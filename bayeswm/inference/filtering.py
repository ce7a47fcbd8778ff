"""Filtering along recorded windows: the log density of what was measured, and beliefs on the way."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from bayeswm.base.errors import DataError
from bayeswm.inference.cloud import Cloud
from bayeswm.inference.gaussian_belief import GaussianBelief, Sensors
from bayeswm.inference.gaussian_filter import LinearGaussian, Move, Passage, Unscented
from bayeswm.inference.particle_filter import CloudPassage, ParticleFilter

Filter = Unscented | LinearGaussian | ParticleFilter
Belief = GaussianBelief | Cloud
# maps states (W, P, K, *batch, S), actions, contexts and the step's index to a mean and a standard deviation of noise
Transition = Callable[[Tensor, Tensor, Tensor, int], tuple[Tensor, Tensor | None]]


class Filtered(NamedTuple):
    """What filtering along episodes gave.

    ``beliefs`` has the first belief and one for each step, kept after an episode's end; ``passages`` one for each step
    (empty unless asked for); ``log_prob`` of shape (W, P, *batch, H) is the log density of each measurement given those
    before it.
    """

    beliefs: list[Belief]
    passages: list[Passage | CloudPassage]
    log_prob: Tensor


def filter_along(
    method: Filter,
    belief: Belief,
    moves: Callable[[int], Move],
    *,
    measured: Tensor,
    inside: Tensor,
    sensors: Sensors,
    keep: bool = False,
) -> Filtered:
    """Filter along episodes.

    Parameters
    ----------
    method : Unscented, LinearGaussian or ParticleFilter
        How a belief is moved.
    belief : GaussianBelief or Cloud
        About the state before the first step, as ``method.begin`` returns it.
    moves : callable
        Maps the index of a step to its transition.
    measured : Tensor, shape (*batch, H, M)
        What was measured after each step, NaN where nothing was.
    inside : Tensor of bool, shape (*batch, H)
        Which steps belong to an episode: the belief stays as it is after the end.
    sensors : Sensors
        What is measured, and how well.
    keep : bool
        Keep all beliefs and passages, for smoothing, instead of the last belief.

    Returns
    -------
    Filtered
    """
    beliefs: list[Belief] = [belief]
    passages: list[Passage | CloudPassage] = []
    steps: list[Tensor] = []
    seen = ~measured.isnan()
    whole, all_inside = bool(seen.all()), bool(inside.all())
    for t in range(measured.shape[-2]):
        passage = method.passage(belief, moves(t))  # pyright: ignore[reportArgumentType]
        new, log_prob = passage.predicted().update(measured[..., t, :], None if whole else seen[..., t, :], sensors)
        if not all_inside:
            on = inside[..., t]
            new, log_prob = _choose(on, new, belief), torch.where(on, log_prob, 0.0)
        belief = new
        steps.append(log_prob)
        if keep:
            passages.append(passage)
            beliefs.append(belief)
    if not keep:
        beliefs = [belief]
    stacked = torch.stack(steps, -1) if steps else measured.new_zeros(*belief.mean.shape[:-1], 0)
    return Filtered(beliefs, passages, stacked)


def first_belief(mean: Tensor, scale: Tensor, *, measured: Tensor, sensors: Sensors) -> tuple[Tensor, Tensor, Tensor]:
    """Condition independent Gaussian columns on one measurement.

    Parameters
    ----------
    mean, scale : Tensor, broadcastable to (W, P, *batch, S)
        What is believed before; an infinite scale says nothing at all (a flat prior): then the measurement alone
        counts, and it has no density.
    measured : Tensor, shape (*batch, M)
        NaN where nothing was measured.
    sensors : Sensors
        What is measured, and how well.

    Returns
    -------
    tuple of Tensor, shape (W, P, *batch, S), the same, and (W, P, *batch)
        Mean, standard deviation, and the log density of the measurement in the columns whose prior is not flat.

    Raises
    ------
    DataError
        If a column with a flat prior was not measured.

    Examples
    --------
    >>> flat = torch.tensor([float("inf")]), torch.tensor([[2.0]])
    >>> found = first_belief(torch.zeros(1), flat[0], measured=torch.tensor([3.0]), sensors=Sensors((0,), flat[1]))
    >>> [v.tolist() for v in found]
    [[[[3.0]]], [[[2.0]]], [[0.0]]]
    """
    size, lead = mean.shape[-1], measured.ndim + 1
    shape = torch.broadcast_shapes(mean.shape, scale.shape, (len(sensors.scale), 1, *measured.shape[:-1], size))
    means, scales = (list(v.expand(shape).unbind(-1)) for v in (mean, scale))
    unknown = [v.isinf() for v in scales]
    log_prob = means[0].new_zeros(shape[:-1])
    for i, column in enumerate(sensors.columns):
        noise, there = sensors.of(i, lead), ~measured[..., i].isnan()
        value = torch.where(there, measured[..., i], 0.0)
        flat = scales[column].isinf()
        prior = torch.where(flat, 1.0, scales[column])
        precision = torch.where(flat, 0.0, prior.square().reciprocal())
        known = torch.where(flat, 0.0, means[column])
        exact = there & (noise == 0)
        gained = torch.where(there & ~exact, noise.square().reciprocal(), 0.0)
        total = precision + gained
        # of flat priors without a measurement nothing is known; a sampler's noise may be infinite, which is no reason
        informed = there | ~flat
        unknown[column] = unknown[column] & ~there
        safe = torch.where(informed, total, 1.0)
        spread = prior.square() + noise.square()
        density = -0.5 * ((value - known).square() / spread + spread.log() + math.log(2 * math.pi))
        log_prob = log_prob + torch.where(flat | ~there, 0.0, density)
        means[column] = torch.where(exact, value, (known * precision + value * gained) / safe)
        scales[column] = torch.where(exact, 0.0, torch.where(informed, safe.rsqrt(), float("inf")))
    if any(bool(v.any()) for v in unknown):
        column = next(i for i, v in enumerate(unknown) if bool(v.any()))
        raise DataError(
            f"expected a first measurement of state column {column}, about which nothing is believed, got none; "
            "say what is believed of it, or cut the episode where it is measured"
        )
    return torch.stack(means, -1), torch.stack(scales, -1), log_prob


def window_log_likelihood(
    method: Filter,
    transition: Transition,
    *,
    initial_mean: Tensor,
    initial_scale: Tensor,
    measurements: Tensor,
    actions: Tensor,
    context: Tensor,
    process_noise: Tensor | None,
    sensors: Sensors,
) -> Tensor:
    """Return the log density of measured windows in each world, the state inside each of them inferred.

    Differentiable in whatever the transition, the noises and the initial belief depend on.

    Parameters
    ----------
    method : Unscented, LinearGaussian or ParticleFilter
        How a belief is moved.
    transition : callable
        Maps states (W, 1, K, n, S), actions (n, A), contexts (n, C) and the index of the step to the mean of the next
        state and its own noise, if any: ``Structure.batched`` of given parameters.
    initial_mean, initial_scale : Tensor, broadcastable to (W, 1, n, S)
        What is believed of each window's first state before its first measurement; an infinite scale is a flat prior,
        whose column starts at its measurement.
    measurements : Tensor, shape (n, H + 1, M)
        The first before the first step; NaN where nothing was measured, and after a window's end.
    actions, context : Tensor, shape (n, H, A) and (n, H, C)
        Whatever comes after a window's last measurement does not matter.
    process_noise : Tensor, shape (W, S), optional
        Standard deviations of the process noise, 0 for none; the transition's own by default.
    sensors : Sensors
        What is measured, and how well.

    Returns
    -------
    Tensor, shape (W, n)

    Raises
    ------
    DataError
        If a column with a flat prior lacks its first measurement in some window.

    Examples
    --------
    A constant measured twice with noise 1 and nothing known before: the second has variance 2.

    >>> y = torch.tensor([[[0.0], [1.0]]], dtype=torch.float64)
    >>> nothing = torch.zeros(1, 1, 0)
    >>> flat = torch.tensor([float("inf")], dtype=torch.float64)
    >>> one = Sensors((0,), torch.ones(1, 1, dtype=torch.float64))
    >>> found = window_log_likelihood(LinearGaussian(), lambda x, *_: (x, None), initial_mean=0 * flat.isinf(),
    ...     initial_scale=flat, measurements=y, actions=nothing, context=nothing, process_noise=None, sensors=one)
    >>> round(float(found), 6), round(-0.25 - 0.5 * math.log(4 * math.pi), 6)
    (-1.515512, -1.515512)
    """
    seen = ~measurements.isnan()
    # nothing after the last measurement has a part in the density
    needed = seen[:, 1:].any(-1).flip(-1).cummax(-1).values.flip(-1)
    actions, context = (torch.where(needed[..., None], v, 0.0) for v in (actions, context))
    silent = process_noise is not None and not process_noise.requires_grad and not bool(process_noise.any())
    mean, scale, first = first_belief(initial_mean, initial_scale, measured=measurements[:, 0], sensors=sensors)

    def moves(t: int) -> Move:
        def move(states: Tensor) -> tuple[Tensor, Tensor | None]:
            moved, own = transition(states, actions[:, t], context[:, t], t)
            if silent:
                own = None
            elif process_noise is not None:
                own = process_noise.view(len(process_noise), *(1,) * (moved.ndim - 2), -1)
            return moved, own

        return move

    begun = method.begin(mean, torch.diag_embed(scale))
    found = filter_along(method, begun, moves, measured=measurements[:, 1:], inside=needed, sensors=sensors)
    return (first + found.log_prob.sum(-1))[:, 0]


def _choose(on: Tensor, new: Belief, old: Belief) -> Belief:
    """Take the new belief in some rows, on of shape (*batch,)."""

    def pick(now: Tensor | int, before: Tensor | int) -> Tensor | int:
        if isinstance(now, int) or isinstance(before, int):
            return now
        return torch.where(on.view(*on.shape, *(1,) * (now.ndim - 2 - on.ndim)), now, before)

    return type(new)(*(pick(a, b) for a, b in zip(new, old, strict=True)))  # pyright: ignore[reportArgumentType]
