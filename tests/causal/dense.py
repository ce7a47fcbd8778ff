"""Linear systems by dense algebra: the noise of whole episodes as one vector, conditioned on what was recorded."""

import torch
from torch import Tensor


def unrolled(A: Tensor, L: Tensor, drift: Tensor, *, start: Tensor) -> tuple[Tensor, Tensor]:
    """Return b (H, S) and G (H, S, H n) of x = b + G eps, for x' = A x + drift[t] + L eps[t].

    A has shape (S, S), L (S, n), drift (H, S) and start (S,); A and L may differ between steps, (H, S, ...).
    """
    steps, size, count = len(drift), len(start), L.shape[-1]
    A, L = A.expand(steps, size, size), L.expand(steps, size, count)
    b, G = torch.zeros(steps, size).to(L), torch.zeros(steps, size, steps * count).to(L)
    x, root = start, torch.zeros(size, steps * count).to(L)
    for t in range(steps):
        x = A[t] @ x + drift[t]
        root = A[t] @ root
        root[:, t * count : (t + 1) * count] += L[t]
        b[t], G[t] = x, root
    return b, G


def conditioned(G: Tensor, residual: Tensor, *, noise: float = 0.0) -> tuple[Tensor, Tensor]:
    """Return mean (n,) and covariance (n, n) of eps ~ N(0, I) given G eps + N(0, noise^2) = residual."""
    gain = G.mT @ torch.linalg.inv(G @ G.mT + noise**2 * torch.eye(len(G)).to(G))
    return gain @ residual, torch.eye(G.shape[1]).to(G) - gain @ G
