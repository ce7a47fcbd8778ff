import math

import torch

from bayeswm.planning import saturating_sine


def test_it_reaches_the_bounds_and_is_flat_there() -> None:
    x = torch.tensor([-0.75 * math.pi, 0.0, 0.75 * math.pi], dtype=torch.float64, requires_grad=True)
    y = saturating_sine(x)
    (slope,) = torch.autograd.grad(y.sum(), x)
    torch.testing.assert_close(y.detach(), torch.tensor([-1.0, 0.0, 1.0], dtype=torch.float64), rtol=0, atol=1e-14)
    torch.testing.assert_close(slope, torch.tensor([0.0, 1.0, 0.0], dtype=torch.float64), rtol=0, atol=1e-14)


def test_it_rises_between_the_bounds_and_never_leaves_them() -> None:
    inside = torch.linspace(-0.75 * math.pi, 0.75 * math.pi, 1001, dtype=torch.float64)
    assert bool((saturating_sine(inside).diff() > 0).all())
    assert float(saturating_sine(torch.linspace(-1e3, 1e3, 100_001, dtype=torch.float64)).abs().max()) <= 1.0
