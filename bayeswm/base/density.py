"""Log densities of outcomes under a mixture, by step and variable or jointly, for one outcome or many."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import torch
from torch import Tensor

from bayeswm.base.errors import DataError
from bayeswm.base.laws import Law
from bayeswm.base.mixture import LogScore, Step, mix_log


class Joint(Protocol):
    """The log density of an observed trajectory by step, and that of some of the first batch axis."""

    def __call__(self, x: Tensor, /) -> Tensor:
        """Map x (*batch, H, S), or with one more axis in front, to (worlds, particles, *batch, H)."""
        ...

    def part(self, index: int | slice | Tensor, /) -> Joint:
        """Return the density of some rows."""
        ...


def observed(x: Tensor, *, like: Tensor, batch: tuple[int, ...], horizon: int, size: int) -> Tensor:
    """Return outcomes in the laws' number format and place, with all axes of the batch.

    Parameters
    ----------
    x : Tensor, shape (*batch, H, S) or (*more, *batch, H, S)
        Fewer axes, or axes of size 1, are broadcast to the batch; (*batch, S) will do for one step.
    like : Tensor
        Has the number format and the device.
    batch : tuple of int
        Shape of the batch axes.
    horizon, size : int
        Number of steps and of variables.

    Returns
    -------
    Tensor, shape (*more, *batch, H, S)

    Raises
    ------
    DataError
        If x is no tensor of numbers, or does not fit.

    Examples
    --------
    >>> observed(torch.zeros(5, 1, 2, 1), like=torch.zeros(0), batch=(3,), horizon=2, size=1).shape
    torch.Size([5, 3, 2, 1])
    """
    try:
        values = torch.as_tensor(x).to(like.device, like.dtype)
    except (TypeError, ValueError, RuntimeError):
        raise DataError(
            f"expected values of shape (*batch, {horizon}, {size}), got {type(x).__name__}; pass a tensor"
        ) from None
    given = tuple(values.shape)
    if horizon == 1 and given == (*batch, size):
        values = values[..., None, :]
    lead = tuple(values.shape[:-2])
    fits = all(n in (1, full) for n, full in zip(lead[::-1], batch[::-1], strict=False))
    if values.ndim < 2 or values.shape[-2:] != (horizon, size) or not fits:
        more = "; the axis of the horizon may be left out for one outcome only" if horizon == 1 else ""
        raise DataError(
            f"expected values of shape (*batch, {horizon}, {size}) with batch {batch}, or with further axes "
            f"in front of the batch, got {given}{more}"
        )
    return values.expand(*lead[: max(len(lead) - len(batch), 0)], *batch, *values.shape[-2:])


def by_outcome(
    x: Tensor,
    answer: Callable[[Tensor], Sequence[Tensor]],
    *,
    laws: Sequence[Law],
    shape: tuple[int, ...],
    work: int,
    depth: int = 1,
) -> list[Tensor]:
    """Answer for several outcomes, a bounded number of them at a time.

    Parameters
    ----------
    x : Tensor, shape (*more, *batch, H, S)
        The outcomes.
    answer : callable
        Maps outcomes (k, *batch, H, S), or (*batch, H, S) where there are no further axes, to tensors whose leading
        axes are k, or not there.
    laws : sequence of Law
        The law of each step; some may have more particles than others.
    shape : tuple of int
        Worlds, least number of particles, and the batch.
    work : int
        Values that may be in work at one time.
    depth : int
        Steps that are in work together.

    Returns
    -------
    list of Tensor, each of shape (*more, ...)
    """
    worlds, particles, *batch = shape
    more = x.shape[: x.ndim - len(batch) - 2]
    if not more:
        return list(answer(x))
    particles = max(particles, *(law.mean.shape[1] for law in laws))
    one = worlds * particles * torch.Size(batch).numel() * depth * x.shape[-1]
    parts = [answer(part) for part in x.flatten(0, len(more) - 1).split(max(work // max(one, 1), 1))]
    return [torch.cat(values).unflatten(0, more) for values in zip(*parts, strict=True)]


def facing(step: Step, x: Tensor) -> Step:
    """Return a step whose law and particles stand opposite outcomes, shape (*more, *batch, S).

    The further leading axes of x come after the particles. Aligned from the right alone, they would meet worlds and
    particles.
    """
    more = x.ndim - step.law.mean.ndim + 2
    if more <= 0:
        return step

    def widen(values: Tensor) -> Tensor:
        return values[(slice(None), slice(None), *(None,) * more)]

    return step._replace(law=step.law.map(widen), valid=None if step.valid is None else widen(step.valid))


def step_log_score(step: Step, x: Tensor, *, marginal: bool = False) -> LogScore:
    """Return the log density of outcomes of one step, shape (*more, *batch, S).

    Returns
    -------
    LogScore, each of shape (*more, *batch), or (*more, *batch, S) if marginal
    """
    step = facing(step, x)
    log_kernel = step.law.log_prob(x, marginal=marginal)
    valid = step.valid[..., None] if step.valid is not None and marginal else step.valid
    weight = step.log_weight.view(-1, *(1,) * (log_kernel.ndim - 2))
    return mix_log(log_kernel, weight, exhaustive=step.exhaustive, resolved=step.resolved, valid=valid)


def marginal_log_score(steps: Sequence[Step], x: Tensor) -> LogScore:
    """Return the log density of outcomes (*more, *batch, H, S) for each step and variable, each of that shape."""
    scores = [step_log_score(step, x[..., h, :], marginal=True) for h, step in enumerate(steps)]
    return LogScore(*(torch.stack(values, -2) for values in zip(*scores, strict=True)))


def joint_log_score(log_kernel: Tensor, first: Step, *, fresh_worlds: bool) -> LogScore:
    """Return the log density of whole trajectories.

    Parameters
    ----------
    log_kernel : Tensor, shape (W, P, ..., H)
        Log densities by step along the trajectory, as a :class:`Joint` gives them.
    first : Step
        The first step: its weights hold for the others too.
    fresh_worlds : bool
        Whether each step met a new world: the average over worlds then comes before the product over steps.

    Returns
    -------
    LogScore, each of shape (...)
    """
    weight = first.log_weight.view(-1, *(1,) * (log_kernel.ndim - 2))
    exact = log_kernel.shape[1] == 1 and first.resolved
    if fresh_worlds:
        score = mix_log(log_kernel, weight, exhaustive=first.exhaustive, resolved=exact)
        return LogScore(score.value.sum(-1), score.standard_error.square().sum(-1).sqrt(), score.kernels.amin(-1))
    return mix_log(log_kernel.sum(-1), weight[..., 0], exhaustive=first.exhaustive, resolved=exact)
