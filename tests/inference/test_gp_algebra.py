"""Sums, products and variances of kernels: any of them has the covariance and the gradient of its definition."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import bayeswm as bwm
from bayeswm.inference import RBF, Matern, Periodic, Scaled
from bayeswm.inference.gp_algebra import Product, Sum, with_signal
from bayeswm.inference.gp_kernels import kernel_from_dict
from tests.inference.gp_kernels import by_definition, points, values_of


@st.composite
def kernels(draw, depth=2):
    if depth and draw(st.booleans()):
        one, other = draw(kernels(depth=depth - 1)), draw(kernels(depth=depth - 1))
        return one + other if draw(st.booleans()) else one * other
    active, ard = draw(st.sampled_from([None, 0, 2, (0, 1), (2, 0)])), draw(st.booleans())
    periodic = Periodic(period=draw(st.floats(0.5, 9.0)), learn_period=draw(st.booleans()), active=active, ard=ard)
    leaf = draw(
        st.sampled_from([RBF(active=active, ard=ard), periodic])
        | st.sampled_from([0.5, 1.5, 2.5]).map(lambda nu: Matern(nu=nu, active=active, ard=ard))
    )
    return Scaled(leaf, signal=draw(st.none() | st.floats(0.1, 3.0))) if draw(st.booleans()) else leaf


@given(kernel=kernels(), seed=st.integers(0, 1000))
def test_any_sum_and_product_has_the_gradient_of_its_definition(kernel, seed):
    x, values = points(6, 3, seed=seed), values_of(kernel, 3, seed=seed)
    log_values = values.log().requires_grad_()
    weight = points(6, 6, seed=seed + 1)
    weight = weight + weight.mT
    expected = by_definition(kernel, x, x, log_values.exp())
    slope = torch.autograd.grad((weight * expected).sum(), log_values)[0] if len(values) else values
    covariance, gradient = kernel.with_gradient(x, values)
    torch.testing.assert_close(covariance, expected.detach(), rtol=1e-12, atol=1e-12)
    size = float((weight.abs() * covariance).sum())
    torch.testing.assert_close(gradient(weight), slope, rtol=1e-8, atol=1e-11 * size)
    assert len({p.name for p in kernel.parameters(3)}) == len(kernel.parameters(3))
    assert kernel_from_dict(kernel.to_dict()) == kernel


def test_names_of_hyper_parameters_say_kernel_kind_and_inputs():
    kernel = RBF(active="angle") + Matern() * Periodic(active=("angle", "speed")) + RBF(active="angle")
    assert repr(kernel) == (
        "Scaled(RBF(active='angle')) + Scaled(Matern(nu=2.5) * Periodic(active=('angle', 'speed')))"
        " + Scaled(RBF(active='angle'))"
    )
    names = [p.name for p in kernel.map(lambda leaf: type(leaf)(active=leaf.active, columns=(0,))).parameters(3)]
    assert names == [
        *("RBF(angle).length", "RBF(angle).signal"),
        *("Matern.length", "Periodic(angle, speed).length", "Matern*Periodic(angle, speed).signal"),
        *("RBF(angle).length#2", "RBF(angle).signal#2"),
    ]


def test_terms_of_a_sum_get_signals_and_nested_sums_and_products_are_flat():
    a, b, c = RBF(), Matern(), Periodic()
    assert a + b + c == a + (b + c) == Sum((Scaled(a), Scaled(b), Scaled(c)))
    assert a * b * c == a * (b * c) == Product((a, b, c))
    fixed = Scaled(a, signal=2.0)
    assert (fixed + b).children == (fixed, Scaled(b))
    assert (fixed * c + b).children == (Product((fixed, c)), Scaled(b))
    assert repr((a + b) * c) == "(Scaled(RBF()) + Scaled(Matern(nu=2.5))) * Periodic()"
    assert with_signal((a + b) * c) == (a + b) * c
    assert with_signal(a * c) == Scaled(a * c)


def test_a_signal_of_nothing_is_refused():
    with pytest.raises(bwm.SpecError, match="signal > 0"):
        Scaled(RBF(), signal=0.0)
