import torch

from bayeswm.planning.search.box_lbfgs import BoxLBFGS
from bayeswm.planning.search.box_qp import box_qp
from tests.planning.search.test_box_qp import programs


def minimised(search, function, iterations):
    for _ in range(iterations):
        z = search.trial.detach().requires_grad_()
        value = function(z)
        (gradient,) = torch.autograd.grad(value.sum(), z)
        search.tell(value.detach(), gradient)
    return search


def quadratics(count=20, n=6):
    H, g, _, _ = programs(count, n)
    return H, g, lambda z: 0.5 * (z * (H @ z[..., None])[..., 0]).sum(-1) + (g * z).sum(-1)


def test_quadratics_in_a_box_reach_their_minimum():
    H, g, function = quadratics()
    search = minimised(BoxLBFGS(torch.zeros_like(g)), function, 80)
    exact = box_qp(H, g, -torch.ones_like(g), torch.ones_like(g))[0]
    torch.testing.assert_close(search.value, function(exact), rtol=1e-8, atol=1e-10)
    assert bool((exact.abs() == 1).any())
    assert bool((exact.abs() < 1).any())


def test_rosenbrock_valley():
    def function(z):
        x, y = 2 * z[:, 0], 2 * z[:, 1]
        return (1 - x) ** 2 + 100 * (y - x**2) ** 2

    start = torch.tensor([[-0.6, 0.5], [0.0, 0.0], [0.9, -0.9]], dtype=torch.float64)
    search = minimised(BoxLBFGS(start), function, 120)
    torch.testing.assert_close(search.point, torch.full_like(start, 0.5), rtol=1e-4, atol=1e-4)


def test_rows_do_not_meet():
    H, g, function = quadratics()
    together = minimised(BoxLBFGS(torch.zeros_like(g)), function, 15).point
    for i in range(3):

        def alone(z, i=i):
            return 0.5 * (z * (H[i] @ z[..., None])[..., 0]).sum(-1) + (g[i] * z).sum(-1)

        one = minimised(BoxLBFGS(torch.zeros_like(g[i : i + 1])), alone, 15).point
        torch.testing.assert_close(one[0], together[i], rtol=1e-6, atol=1e-8)


def test_values_never_rise():
    _, g, function = quadratics()
    search, before = BoxLBFGS(torch.zeros_like(g)), torch.full((20,), float("inf"), dtype=torch.float64)
    for _ in range(30):
        minimised(search, function, 1)
        assert bool((search.value <= before + 1e-12 * before.abs().clamp(max=1e6)).all())
        before = search.value


def test_a_start_without_value_moves_to_the_middle_until_it_has_one():
    def function(z):
        near = (z.abs() < 0.3).all(-1)
        return torch.where(near, (z - 0.1).square().sum(-1), torch.inf * torch.ones_like(z[:, 0]))

    start = torch.tensor([[0.9, 0.9], [0.2, 0.2]], dtype=torch.float64)
    search = BoxLBFGS(start)
    for _ in range(30):
        z = search.trial.detach().requires_grad_()
        value = function(z)
        (gradient,) = torch.autograd.grad(torch.where(value.isfinite(), value, 0.0).sum(), z)
        search.tell(value.detach(), gradient)
    torch.testing.assert_close(search.point, torch.full_like(start, 0.1), rtol=1e-6, atol=1e-6)


def test_nan_is_never_taken():
    search = BoxLBFGS(torch.zeros(3, 2))
    nan = torch.full((3, 2), float("nan"))
    for _ in range(20):
        search.tell(torch.tensor([float("nan"), 1.0, float("inf")]), nan)
    assert bool(search.trial.isfinite().all())
    assert not bool(search.value.isfinite().any())


def test_finished_rows_stay():
    _, g, function = quadratics()
    search = minimised(BoxLBFGS(torch.zeros_like(g), tolerance=1e-6), function, 100)
    assert bool(search.finished.all())
    point = search.point
    torch.testing.assert_close(minimised(search, function, 5).point, point, rtol=0, atol=0)


def test_another_function_is_a_new_start():
    search = BoxLBFGS(torch.zeros(1, 2, dtype=torch.float64))
    minimised(search, lambda z: (z - 0.5).square().sum(-1), 10)
    for _ in range(20):
        z = search.trial.detach().requires_grad_()
        value = 100 + (z + 0.25).square().sum(-1)
        (gradient,) = torch.autograd.grad(value.sum(), z)
        search.tell(value.detach(), gradient, comparable=torch.tensor([bool(search.value < 50) is False]))
    torch.testing.assert_close(search.point, torch.full((1, 2), -0.25, dtype=torch.float64), rtol=1e-5, atol=1e-5)
