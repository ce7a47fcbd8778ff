"""Derivatives of densities and of their means, exact and in batches."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor
from torch.distributions import Independent

from bayeswm.base.errors import SpecError
from bayeswm.inference.joint import Joint

# rows of a second derivative that are found together, and numbers in one block of first derivatives
_TOGETHER, _BLOCK = 64, 2**22


def hessian(function: Callable[[Tensor], Tensor], x: Tensor, index: Tensor | None = None) -> Tensor:
    """Return second derivatives at one point, by automatic differentiation.

    Parameters
    ----------
    function : callable
        Takes (n, D), returns (n,); rows independent; twice differentiable by autograd.
    x : Tensor, shape (D,)
        The point.
    index : Tensor, shape (d,), optional
        Coordinates; all by default.

    Returns
    -------
    Tensor, shape (d, d)

    Examples
    --------
    >>> hessian(lambda x: x[:, 0] ** 2 * x[:, 1], torch.tensor([3.0, 5.0])).tolist()
    [[10.0, 6.0], [6.0, 0.0]]
    """
    chosen = torch.arange(len(x)) if index is None else index
    rows: list[Tensor] = []
    with torch.enable_grad():
        for part in chosen.split(_TOGETHER):
            # one copy of the point for each row: the gradient of one entry of the gradient is that row
            at = x.detach().expand(len(part), -1).clone().requires_grad_()
            (gradient,) = torch.autograd.grad(function(at).sum(), at, create_graph=True)
            entries = gradient.gather(1, part[:, None]).sum()
            row = torch.zeros_like(at)
            if entries.requires_grad:
                (row,) = torch.autograd.grad(entries, at, allow_unused=True, materialize_grads=True)
            rows.append(row[:, chosen])
    found = torch.cat([x.new_zeros(0, len(chosen)), *rows])
    return (found + found.mT) / 2


class Slopes(NamedTuple):
    """What some rows of data have: derivatives of means and of log deviations (n, S, d), deviations (n, S)."""

    mean: Tensor
    log_sd: Tensor
    sd: Tensor


def slopes(joint: Joint, x: Tensor, index: Tensor) -> Iterator[Slopes]:
    """Yield, block by block, what each row of data depends on.

    Parameters
    ----------
    joint : Joint
        With ``predict`` and ``target``.
    x : Tensor, shape (D,)
        The point, in unconstrained coordinates.
    index : Tensor, shape (d,)
        Coordinates.

    Raises
    ------
    SpecError
        If the density does not say its mean.

    Examples
    --------
    >>> from torch.distributions import Normal
    >>> inputs = torch.tensor([[1.0], [2.0]], dtype=torch.float64)
    >>> def predict(values, rows):
    ...     mean = values["gain"][:, None, None] * inputs[rows]
    ...     return mean, torch.ones_like(mean)
    >>> laws = {"gain": Normal(0.0, 1.0)}
    >>> joint = Joint(laws, lambda v, r: v["gain"], terms=2, predict=predict, target=2 * inputs)
    >>> [s.mean.flatten().tolist() for s in slopes(joint, torch.zeros(1).double(), torch.tensor([0]))]
    [[1.0, 2.0]]
    """
    if joint.predict is None or joint.target is None:
        raise SpecError(
            "expected a joint density with predict= and target= (a Gaussian likelihood), got none: use FullHessian"
        )
    predict = joint.predict

    def one(free: Tensor, row: Tensor) -> tuple[tuple[Tensor, Tensor], Tensor]:
        values = joint.values(x.index_copy(0, index, free)[None])
        mean, sd = (v[0, 0] for v in predict(values, row[None]))
        return (mean, sd.log()), sd

    each = torch.func.vmap(torch.func.jacrev(one, has_aux=True), in_dims=(None, 0))
    size = max(_BLOCK // (2 * joint.target.shape[1] * max(len(index), 1)), 1)
    for rows in torch.arange(joint.terms).split(size):
        (mean, log_sd), sd = each(x[index], rows)
        yield Slopes(mean.detach(), log_sd.detach(), sd.detach())


def prior_precision(joint: Joint, x: Tensor, index: Tensor) -> Tensor:
    """Return minus the second derivative of the log density before data, in unconstrained coordinates.

    Returns
    -------
    Tensor, shape (d,) or (d, d)
        The diagonal where the numbers of every law are independent.
    """

    def log_prior(at: Tensor) -> Tensor:
        values, log_det = joint.flat.constrain(at)
        return joint.flat.log_prior(values) + log_det

    if not all(_elementwise(law) for law in joint.laws.values()):
        return -hessian(log_prior, x, index)
    with torch.enable_grad():
        at = x.detach()[None].clone().requires_grad_()
        (gradient,) = torch.autograd.grad(log_prior(at).sum(), at, create_graph=True)
        (row_sums,) = torch.autograd.grad(gradient.sum(), at, allow_unused=True, materialize_grads=True)
    return -row_sums[0, index]


def _elementwise(law: torch.distributions.Distribution) -> bool:
    while isinstance(law, Independent):
        law = law.base_dist
    return not law.event_shape
