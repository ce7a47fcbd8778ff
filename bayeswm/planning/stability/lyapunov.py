"""Lyapunov functions of linear systems in discrete time."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from bayeswm.base.errors import DataError, SpecError


class Certificate(NamedTuple):
    """Quadratic Lyapunov functions ``V(x) = x'P x`` of linear systems ``x[t+1] = A x[t]``.

    Attributes
    ----------
    P : Tensor, shape (*batch, S, S), float64
        NaN where there is none.
    spectral_radius : Tensor, shape (*batch)
        Largest modulus of an eigenvalue of A: errors shrink by this factor a step in the long run.
    rate : Tensor, shape (*batch)
        Largest ratio of V after a step to V before it; infinite where there is no certificate.
    valid : Tensor of bool, shape (*batch)
        Whether P is positive definite and V falls, both checked on the numbers that were found.
    """

    P: Tensor
    spectral_radius: Tensor
    rate: Tensor
    valid: Tensor


def lyapunov(A: Tensor, Q: Tensor | None = None) -> Certificate:
    """Return certificates from the discrete Lyapunov equation ``A'P A - P + Q = 0``.

    The sum ``P = sum_k A'^k Q A^k`` is doubled in length at each iteration (Smith 1968).

    Parameters
    ----------
    A : Tensor, shape (*batch, S, S)
        Linear systems in discrete time.
    Q : Tensor, shape (S, S) or (*batch, S, S), optional
        How much V falls, ``x'Q x``; symmetric, positive definite, the identity by default.

    Returns
    -------
    Certificate

    Raises
    ------
    SpecError
        If Q is not positive definite.
    DataError
        If A is NaN or infinite.

    Examples
    --------
    >>> found = lyapunov(torch.tensor([[[0.5]], [[1.5]]]))
    >>> found.P.flatten(), found.rate, found.valid
    (tensor([1.3333,    nan], dtype=torch.float64), tensor([0.2500,    inf], dtype=torch.float64),
     tensor([ True, False]))
    """
    A = A.double()
    if A.ndim < 2 or A.shape[-1] != A.shape[-2]:
        raise SpecError(f"expected A of shape (*batch, S, S), got {tuple(A.shape)}")
    if not bool(A.isfinite().all()):
        raise DataError("expected a finite A, got NaN or infinity")
    eye = torch.eye(A.shape[-1], dtype=A.dtype, device=A.device)
    Q = eye if Q is None else Q.double()
    if bool(torch.linalg.cholesky_ex(Q)[1].any()) or not torch.allclose(Q, Q.mT, rtol=1e-9, atol=0.0):
        raise SpecError("expected a symmetric, positive definite Q, got one that is not")
    radius = torch.linalg.eigvals(A).abs().amax(-1)
    stable = radius < 1
    power, P = torch.where(stable[..., None, None], A, 0.0), Q.expand(A.shape)
    for _ in range(64):
        more = power.mT @ P @ power
        P, power = P + more, power @ power
        if bool((more.abs().amax((-2, -1)) <= 1e-16 * P.abs().amax((-2, -1))).all()):
            break
    P = 0.5 * (P + P.mT)
    factor, failed = torch.linalg.cholesky_ex(P)
    sound = stable & (failed == 0)
    factor = torch.where(sound[..., None, None], factor, eye)
    # V after over V before, largest over directions: an eigenvalue in the coordinates where V is a square
    whitened = torch.linalg.solve_triangular(factor, (factor.mT @ A).mT, upper=False).mT
    rate = torch.linalg.matrix_norm(whitened, 2).square()
    valid = sound & (rate < 1)
    return Certificate(
        torch.where(valid[..., None, None], P, torch.nan), radius, torch.where(valid, rate, torch.inf), valid
    )
