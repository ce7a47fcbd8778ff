import itertools
import math

import pytest
import torch
from torch import Tensor

from bayeswm.base import SpecError
from bayeswm.structures import RK4, Euler, Integrator, Leapfrog, SemiImplicitEuler
from bayeswm.structures.integrators import decode, encode

F64 = torch.float64
PAIRS = ((0, 1),)
METHODS = [(Euler, 1), (SemiImplicitEuler, 1), (Leapfrog, 2), (RK4, 4)]


def oscillator(x: Tensor) -> Tensor:
    return torch.stack((x[..., 1], -x[..., 0]), -1)


def swing(x: Tensor) -> Tensor:
    return torch.stack((x[..., 1], -torch.sin(x[..., 0])), -1)


def run(method: Integrator, steps: int, h: float) -> Tensor:
    x = torch.tensor([1.0, 0.0], dtype=F64)
    for _ in range(steps):
        x = method(oscillator, x, h, PAIRS)
    return x


@pytest.mark.parametrize(("method", "order"), METHODS)
def test_observed_order_of_convergence(method: type[Integrator], order: int) -> None:
    exact = torch.tensor([math.cos(2.0), -math.sin(2.0)], dtype=F64)
    errors = [float((run(method(), n, 2.0 / n) - exact).norm()) for n in (40, 80, 160)]
    rates = [math.log2(a / b) for a, b in itertools.pairwise(errors)]
    # the next term of the error expansion moves the rate by O(h): below 0.1 here
    assert rates[-1] == pytest.approx(order, abs=0.1)


@pytest.mark.parametrize(("method", "order"), METHODS)
def test_substeps_are_smaller_steps(method: type[Integrator], order: int) -> None:
    torch.testing.assert_close(run(method(substeps=4), 10, 0.2), run(method(), 40, 0.05), atol=1e-13, rtol=0)


@pytest.mark.parametrize(("method", "order"), METHODS)
def test_batched_and_under_vmap(method: type[Integrator], order: int) -> None:
    x = torch.randn(5, 3, 2, generator=torch.Generator().manual_seed(0), dtype=F64)
    scale = torch.rand(5, generator=torch.Generator().manual_seed(1), dtype=F64)

    def step(k: Tensor, x: Tensor) -> Tensor:
        return method(substeps=2)(lambda y: k * swing(y), x, 0.1, PAIRS, ((1, 0.5),))

    together = torch.func.vmap(step)(scale, x)
    for i in range(5):
        for j in range(3):
            torch.testing.assert_close(together[i, j], step(scale[i], x[i, j]))


@pytest.mark.parametrize(("method", "order"), METHODS)
def test_gradients(method: type[Integrator], order: int) -> None:
    x = torch.tensor([[0.7, -0.3], [2.0, 1.0]], dtype=F64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda y: method(substeps=3)(swing, y, 0.3, PAIRS), (x,))


def energy(x: Tensor) -> Tensor:
    return 0.5 * x[..., 1].square() - torch.cos(x[..., 0])


def test_symplectic_methods_keep_the_energy_and_euler_does_not() -> None:
    start = torch.tensor([1.5, 0.0], dtype=F64)
    drift = {}
    for method in (Euler(), SemiImplicitEuler(), Leapfrog()):
        x, track = start, []
        for _ in range(4000):
            x = method(swing, x, 0.05, PAIRS)
            track.append(energy(x) - energy(start))
        first, last = torch.stack(track[:1000]), torch.stack(track[-1000:])
        drift[type(method)] = float(first.abs().max()), float(last.abs().max())
    # bounded for ever: the last swings err no more than the first
    for method, bound in ((SemiImplicitEuler, 0.05), (Leapfrog, 0.05**2)):
        assert drift[method][0] < bound
        assert drift[method][1] < 1.05 * drift[method][0]
    assert drift[Euler][1] > 1.0


def test_leapfrog_and_semi_implicit_keep_the_area() -> None:
    for method in (SemiImplicitEuler(substeps=3), Leapfrog(substeps=3)):
        x = torch.tensor([1.2, -0.4], dtype=F64)
        jacobian = torch.func.jacrev(lambda y, m=method: m(swing, y, 0.3, PAIRS))(x)
        assert float(torch.linalg.det(jacobian)) == pytest.approx(1.0, abs=1e-13)


def test_limits_clip_after_each_substep() -> None:
    fast = torch.tensor([0.0, 10.0], dtype=F64)
    moved = SemiImplicitEuler(substeps=2)(lambda x: torch.zeros_like(x), fast, 1.0, PAIRS, ((1, 4.0),))
    assert moved.tolist() == [4.0, 4.0]


def test_what_makes_no_sense() -> None:
    with pytest.raises(SpecError, match="substeps >= 1"):
        RK4(substeps=0)
    for method in (SemiImplicitEuler(), Leapfrog()):
        with pytest.raises(SpecError, match="pairs="):
            method(swing, torch.zeros(2), 0.1)
    with pytest.raises(SpecError, match="'Magic'"):
        decode({"method": "Magic", "substeps": 1})
    for method in (Euler(), Leapfrog(substeps=4)):
        assert decode(encode(method)) == method
