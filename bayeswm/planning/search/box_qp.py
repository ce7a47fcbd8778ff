"""Small quadratic programs within boxes, many at once."""

from __future__ import annotations

import torch
from torch import Tensor

_LENGTHS = 8


def box_qp(  # noqa: PLR0917 (the four parts of the problem)
    hessian: Tensor, gradient: Tensor, low: Tensor, high: Tensor, *, iterations: int = 20
) -> tuple[Tensor, Tensor]:
    """Return the minimum of ``x'H x / 2 + g'x`` within a box, by projected Newton steps (Bertsekas 1982).

    Parameters
    ----------
    hessian : Tensor, shape (*batch, n, n)
        H, positive definite.
    gradient, low, high : Tensor, shape (*batch, n)
        g, and the ends of the box.
    iterations : int
        Newton steps at most; the free variables settle in a few.

    Returns
    -------
    tuple of Tensor, both of shape (*batch, n)
        The minimum, and which variables are free there.

    Examples
    --------
    >>> H, g = torch.tensor([[2.0, 1.0], [1.0, 2.0]]), torch.tensor([-4.0, -1.0])
    >>> box_qp(H, g, -torch.ones(2), torch.ones(2))
    (tensor([1., 0.]), tensor([False,  True]))
    """
    lengths = 0.5 ** torch.arange(_LENGTHS, dtype=gradient.dtype, device=gradient.device)
    lengths = lengths.view(-1, *(1,) * gradient.ndim)
    x = torch.minimum(torch.maximum(torch.zeros_like(gradient), low), high)
    free = torch.ones_like(x, dtype=torch.bool)
    for _ in range(iterations):
        slope = gradient + (hessian @ x[..., None])[..., 0]
        free = ~((x <= low) & (slope > 0)) & ~((x >= high) & (slope < 0))
        inner, slope = among(hessian, free), torch.where(free, slope, 0.0)
        step = -torch.linalg.solve(inner, slope[..., None])[..., 0]
        tried = torch.minimum(torch.maximum(x + lengths * step, low), high)
        moved = tried - x
        change = (moved * slope).sum(-1) + 0.5 * (moved * (hessian @ moved[..., None])[..., 0]).sum(-1)
        best = change.argmin(0, keepdim=True)
        better = change.gather(0, best)[0] < 0
        new = tried.gather(0, best[..., None].expand(1, *x.shape))[0]
        x = torch.where(better[..., None], new, x)
        if not bool(better.any()):
            break
    return x, free


def among(hessian: Tensor, free: Tensor) -> Tensor:
    """Return the Hessian among the free variables, the identity among the others.

    Examples
    --------
    >>> among(torch.full((2, 2), 3.0), torch.tensor([True, False]))
    tensor([[3., 0.],
            [0., 1.]])
    """
    both = free[..., :, None] & free[..., None, :]
    return torch.where(both, hessian, torch.diag_embed((~free).to(hessian)))
