import torch
from torch import Tensor

from bayeswm.base.random import make_generator
from bayeswm.inference.adaptation import Target
from bayeswm.inference.climb import climb

F64 = torch.float64


def start(n: int, size: int) -> Tensor:
    return 3 * torch.randn(n, size, generator=make_generator(0), dtype=F64)


def target(log_density, size: int) -> Target:
    return Target(log_density, size, dense=False)


def test_every_point_reaches_the_only_mode_of_a_stretched_rotated_normal() -> None:
    g = make_generator(1)
    rotation = torch.linalg.qr(torch.randn(20, 20, generator=g, dtype=F64))[0]
    # scales from 0.03 to 3
    precision = rotation @ torch.diag(torch.logspace(-1, 3, 20, dtype=F64)) @ rotation.mT
    mode = torch.randn(20, generator=g, dtype=F64)
    f = target(lambda x: -0.5 * (((x - mode) @ precision) * (x - mode)).sum(-1), 20)
    z, value = climb(f, start(16, 20), steps=200, reach=1000.0, worth=40.0)
    # it stops at gains of 0.1 in 10 steps
    assert float(value.min()) > -0.5
    torch.testing.assert_close(value, f(z)[0])
    assert f.evaluations < 200


def test_points_stay_in_the_basin_of_their_start() -> None:
    f = target(lambda x: torch.logaddexp(-0.5 * x.square(), -0.5 * (x - 40).square()).sum(-1), 1)
    z, _ = climb(f, torch.tensor([[3.0], [37.0]], dtype=F64), steps=50, reach=1000.0, worth=21.0)
    torch.testing.assert_close(z, torch.tensor([[0.0], [40.0]], dtype=F64), atol=0.5, rtol=0)


def test_a_density_without_a_bound_is_climbed_as_far_as_allowed() -> None:
    f = target(lambda x: x.exp().sum(-1), 2)
    first = torch.zeros(3, 2, dtype=F64)
    z, value = climb(f, first, steps=100, reach=5.0, worth=20.0)
    assert float((z - first).norm(dim=-1).max()) <= 5 + 1e-12
    assert bool((value > 2).all())


def test_points_never_enter_where_there_is_no_density() -> None:
    def edge(x: Tensor) -> Tensor:
        # highest at the edge 0, nothing beyond
        return torch.where(x < 0, x, torch.nan).sum(-1)

    z, value = climb(target(edge, 1), -start(8, 1).abs() - 0.1, steps=60, reach=100.0, worth=21.0)
    assert bool(value.isfinite().all())
    assert bool((z < 0).all())
    assert float(z.min()) > -0.5


def test_no_steps_leave_the_start() -> None:
    first = start(4, 3)
    z, _ = climb(target(lambda x: -x.square().sum(-1), 3), first, steps=0, reach=1.0, worth=23.0)
    assert torch.equal(z, first)
