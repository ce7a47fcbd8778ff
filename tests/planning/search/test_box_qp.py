import itertools

import pytest
import torch

from bayeswm.planning.search.box_qp import among, box_qp


def programs(count, n, seed=0):
    g = torch.Generator().manual_seed(seed)
    root = torch.randn(count, n, n, generator=g, dtype=torch.float64)
    hessian = root @ root.mT + 0.1 * torch.eye(n, dtype=torch.float64)
    gradient = 3 * torch.randn(count, n, generator=g, dtype=torch.float64)
    low = -torch.rand(count, n, generator=g, dtype=torch.float64)
    return hessian, gradient, low, low + torch.rand(count, n, generator=g, dtype=torch.float64)


def by_enumeration(hessian, gradient, low, high):
    """The best of the points where each variable is at an end or settles among the free ones."""
    n, best, value = len(gradient), None, float("inf")
    for pattern in itertools.product((-1, 0, 1), repeat=n):
        kind = torch.tensor(pattern)
        x = torch.where(kind < 0, low, high)
        free = kind == 0
        x = torch.where(free, 0.0, x)
        if free.any():
            x[free] = -torch.linalg.solve(hessian[free][:, free], (gradient + hessian @ x)[free])
        if bool(((x < low - 1e-12) | (x > high + 1e-12)).any()):
            continue
        found = float(0.5 * x @ hessian @ x + gradient @ x)
        if found < value:
            best, value = x, found
    return best


@pytest.mark.parametrize("n", [1, 2, 4])
def test_minimum_is_the_best_of_all_active_sets(n):
    H, g, low, high = programs(40, n)
    x, free = box_qp(H, g, low, high)
    for i in range(40):
        torch.testing.assert_close(x[i], by_enumeration(H[i], g[i], low[i], high[i]), rtol=1e-7, atol=1e-9)
    slope = g + (H @ x[..., None])[..., 0]
    assert float(slope[free].abs().max()) < 1e-8
    assert bool(((x == low) | (x == high))[~free].all())


def test_a_wide_box_is_no_box():
    H, g, _, _ = programs(10, 3)
    x, free = box_qp(H, g, torch.full_like(g, -1e6), torch.full_like(g, 1e6))
    torch.testing.assert_close(x, -torch.linalg.solve(H, g), rtol=1e-9, atol=1e-9)
    assert bool(free.all())


def test_leading_axes_are_free():
    H, g, low, high = programs(12, 2)
    flat = box_qp(H, g, low, high)[0]
    shaped = box_qp(H.view(3, 4, 2, 2), *(v.view(3, 4, 2) for v in (g, low, high)))[0]
    torch.testing.assert_close(shaped.view(12, 2), flat)


def test_hessian_among_all_is_itself():
    H = programs(2, 3)[0]
    torch.testing.assert_close(among(H, torch.ones(2, 3, dtype=torch.bool)), H)
