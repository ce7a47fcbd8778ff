"""Linear systems with quadratic costs: the Riccati recursion and its fixed point, in double precision."""

from __future__ import annotations

import torch
from torch import Tensor

from bayeswm.base.errors import SpecError


def riccati(  # noqa: PLR0917 (the five matrices of the problem have this order everywhere)
    A: Tensor, B: Tensor, Q: Tensor, R: Tensor, *, last: Tensor, cross: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Return the optimal feedback of a linear-quadratic problem over a finite horizon.

    For ``x[t+1] = A[t] x[t] + B[t] u[t]`` and the cost ``sum_t x'Q[t]x + 2 x'N[t]u + u'R[t]u`` with ``x'Q_H x`` at the
    end, by backward recursion (Anderson & Moore 1990, chapter 2).

    Parameters
    ----------
    A, B : Tensor, shapes (*batch, H, S, S) and (*batch, H, S, A)
        The system at each step.
    Q, R : Tensor, shapes (*batch, H, S, S) and (*batch, H, A, A)
        Costs of state and action, symmetric.
    last : Tensor, shape (*batch, S, S)
        Q_H.
    cross : Tensor, shape (*batch, H, S, A), optional
        N; 0 by default.

    Returns
    -------
    tuple of Tensor, shapes (*batch, H, A, S) and (*batch, H + 1, S, S), float64
        Gains K of ``u[t] = K[t] x[t]``, and P of the cost to go ``x'P[t]x``.

    Raises
    ------
    SpecError
        If an action costs nothing, now or later, so that there is no least cost.

    Examples
    --------
    >>> one = torch.ones(3, 1, 1)
    >>> K, P = riccati(one, one, one, one, last=one[0])
    >>> K[:, 0, 0], P[:, 0, 0]
    (tensor([-0.6154, -0.6000, -0.5000], dtype=torch.float64),
     tensor([1.6154, 1.6000, 1.5000, 1.0000], dtype=torch.float64))
    """
    A, B, Q, R, ahead = (v.double() for v in (A, B, Q, R, last))
    N = torch.zeros_like(B) if cross is None else cross.double()
    steps = A.shape[-3]
    gains, costs = list[Tensor](), [ahead]
    for t in reversed(range(steps)):
        a, b = A[..., t, :, :], B[..., t, :, :]
        after = ahead @ a
        curvature = R[..., t, :, :] + b.mT @ ahead @ b
        factor, failed = torch.linalg.cholesky_ex(_symmetric(curvature))
        if bool(failed.any()):
            raise SpecError(f"expected a cost that rises with every action, got one that does not at step {t}")
        mixed = b.mT @ after + N[..., t, :, :].mT
        gain = -torch.cholesky_solve(mixed, factor)
        ahead = _symmetric(Q[..., t, :, :] + a.mT @ after + mixed.mT @ gain)
        gains.append(gain)
        costs.append(ahead)
    if not steps:
        return B.mT, ahead[..., None, :, :]
    return torch.stack(gains[::-1], -3), torch.stack(costs[::-1], -3)


def dare(  # noqa: PLR0917
    A: Tensor, B: Tensor, Q: Tensor, R: Tensor, *, cross: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Return the optimal feedback over an infinite horizon: the stabilising solution of the discrete Riccati equation.

    By the structure-preserving doubling algorithm (Chu, Fan, Lin & Wang 2004), each iteration of which covers twice the
    horizon of the one before.

    Parameters
    ----------
    A, B : Tensor, shapes (*batch, S, S) and (*batch, S, A)
        The system.
    Q, R : Tensor, shapes (*batch, S, S) and (*batch, A, A)
        Costs of state and action, symmetric; R positive definite.
    cross : Tensor, shape (*batch, S, A), optional
        N of the cost ``2 x'N u``; 0 by default.

    Returns
    -------
    tuple of Tensor, shapes (*batch, A, S) and (*batch, S, S), float64
        The gain K of ``u = K x`` and P of the cost ``x'P x``.

    Raises
    ------
    SpecError
        If R is not positive definite, or no feedback that the costs ask for makes the system stable.

    Examples
    --------
    The golden ratio is the cost of a particle whose every step and push cost 1:

    >>> one = torch.ones(1, 1)
    >>> K, P = dare(one, one, one, one)
    >>> P, K
    (tensor([[1.6180]], dtype=torch.float64), tensor([[-0.6180]], dtype=torch.float64))
    """
    A, B, Q, R = (v.double() for v in (A, B, Q, R))
    N = torch.zeros_like(B) if cross is None else cross.double()
    factor, failed = torch.linalg.cholesky_ex(_symmetric(R))
    if bool(failed.any()):
        raise SpecError("expected a positive definite cost of actions, got one that is not")
    # the crossed cost is removed by a feedback of its own
    a = A - B @ torch.cholesky_solve(N.mT, factor)
    G = B @ torch.cholesky_solve(B.mT, factor)
    P = Q - N @ torch.cholesky_solve(N.mT, factor)
    eye = torch.eye(A.shape[-1], dtype=A.dtype, device=A.device)
    for _ in range(64):
        inverse = torch.linalg.inv(eye + G @ P)
        step = inverse @ a
        more = _symmetric(a.mT @ P @ step)
        G = _symmetric(G + a @ inverse @ G @ a.mT)
        a, P = a @ step, P + more
        if not bool(P.isfinite().all()) or bool((_size(more) <= 1e-15 * _size(P)).all()):
            break
    curvature = R + B.mT @ P @ B
    gain = -torch.linalg.solve(curvature, B.mT @ P @ A + N.mT)
    closed = A + B @ gain
    finite = bool(closed.isfinite().all())
    if not finite or not bool((torch.linalg.eigvals(closed).abs().amax(-1) < 1).all()):
        raise SpecError(
            "expected a system that the actions can make stable, and costs that see every mode that is not; "
            "got one where the optimal feedback is not stable"
        )
    return gain, P


def _symmetric(values: Tensor) -> Tensor:
    return 0.5 * (values + values.mT)


def _size(values: Tensor) -> Tensor:
    return values.abs().amax((-2, -1))
