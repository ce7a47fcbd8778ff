import itertools

import pytest
import torch
from torch import Tensor
from torch.distributions import HalfNormal, Laplace, Normal, Uniform

from bayeswm.base import FitWarning, SpecError
from bayeswm.inference import Curvature, Diagonal, FullHessian, GaussNewton, Joint, Kronecker, LastLayer
from bayeswm.structures.networks import evaluate
from tests.inference.joints import F64, WAVE, X, by_column, gaussian_joint, network_joint, randn

S = HalfNormal(torch.tensor(1.0, dtype=F64))


def matrix(curvature: Curvature, joint: Joint, x: Tensor) -> Tensor:
    """The precision (d, d) that spread stands for."""
    law = curvature.precision(joint, x)
    factor = law.spread(torch.eye(len(curvature.uncertain(joint)), dtype=F64))
    whole = torch.linalg.inv(factor.mT @ factor)
    torch.testing.assert_close(law.log_det, torch.logdet(whole), rtol=1e-9, atol=1e-9)
    return whole


def network(sizes: tuple[int, ...], *, rows: int = 24, outputs: int = 1, prior: Tensor | float = 0.7) -> Joint:
    """A network of X, with unknown noise of the first column."""
    count = sum((i + 1) * o for i, o in itertools.pairwise(sizes))
    laws = {"net": Normal(torch.zeros(count, dtype=F64), prior), "s": S}
    y = torch.cat((WAVE, X.square()), -1)[:rows, :outputs]
    return network_joint(sizes, X[:rows], y, laws=laws, noise={"s": 0.0, "known": 0.5} if outputs == 2 else {"s": 0.0})


def test_linear_regression_has_one_curvature() -> None:
    phi, y = randn(20, 3, seed=0), randn(20, 2, seed=1)
    scale = torch.tensor([1.0, 2.0, 3.0], dtype=F64).expand(2, 3)
    laws = {"w": Normal(torch.zeros(2, 3, dtype=F64), scale)}
    joint = gaussian_joint(by_column(phi), y, laws=laws, noise={"a": 0.3, "b": 2.0})
    blocks = [torch.diag(scale[0] ** -2) + phi.mT @ phi / s**2 for s in (0.3, 2.0)]
    exact, x = torch.block_diag(*blocks), randn(6, seed=2)
    for curvature in (FullHessian(), GaussNewton()):
        torch.testing.assert_close(matrix(curvature, joint, x), exact, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(matrix(Diagonal(), joint, x), torch.diag(exact.diagonal()), rtol=1e-9, atol=1e-9)


def test_full_hessian_is_the_second_derivative() -> None:
    x = 0.3 * randn(11, seed=0)
    # far from a maximum the curvature of the weights need not be positive; a narrow prior makes it so
    narrow = network((1, 3, 1), prior=0.02)
    exact = -torch.autograd.functional.hessian(lambda at: narrow.log_density(at[None])[0], x)
    torch.testing.assert_close(matrix(FullHessian(), narrow, x), exact, rtol=1e-8, atol=1e-6)


def test_gauss_newton_is_the_expected_hessian() -> None:
    joint, x = network((1, 3, 1)), 0.3 * randn(11, seed=0)
    assert joint.predict is not None
    mean, sd = joint.predict(joint.values(x[None]), None)
    # the Hessian is quadratic in y: its average over N(mean, sd) is that over the two points mean - sd and mean + sd
    total = torch.zeros(11, 11, dtype=F64)
    for sign in (-1.0, 1.0):
        y = (mean + sign * sd)[0].detach()
        like = network_joint((1, 3, 1), X, y, laws=joint.laws, noise={"s": 0.0})
        total -= 0.5 * torch.autograd.functional.hessian(lambda at, j=like: j.log_density(at[None])[0], x)
    torch.testing.assert_close(matrix(GaussNewton(), joint, x), total, rtol=1e-8, atol=1e-7)


def test_noise_that_the_parameters_say_counts_too() -> None:
    phi, y = randn(20, 2, seed=0), randn(20, 1, seed=1)

    def predict(values, rows):
        found = torch.einsum("nd,wd->wn", phi, values["w"])[..., None]
        both = found, (0.3 * torch.einsum("nd,wd->wn", phi.flip(-1), values["w"]))[..., None].exp()
        return both if rows is None else tuple(v[:, rows] for v in both)

    joint = Joint(
        {"w": Normal(torch.zeros(2, dtype=F64), 1.0)}, lambda v, r: v["w"], terms=20, predict=predict, target=y
    )
    x = randn(2, seed=3)
    sd = (0.3 * phi.flip(-1) @ x).exp()
    # Fisher information of N(m, s): dm dm' / s^2 + 2 dlog s dlog s'
    exact = torch.eye(2) + (phi / sd[:, None]).mT @ (phi / sd[:, None]) + 2 * 0.09 * phi.flip(-1).mT @ phi.flip(-1)
    torch.testing.assert_close(matrix(GaussNewton(), joint, x), exact, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("outputs", [1, 2])
def test_kronecker_is_exact_for_one_layer(outputs: int) -> None:
    joint = network((1, outputs), outputs=outputs)
    x = randn(joint.flat.size, seed=0)
    exact = matrix(GaussNewton(), joint, x)
    torch.testing.assert_close(matrix(Kronecker(), joint, x), exact, rtol=1e-8, atol=1e-8)


def test_kronecker_is_exact_within_layers_for_one_row() -> None:
    joint = network((1, 4, 3, 1), rows=1)
    x = randn(joint.flat.size, seed=0)
    whole, found = matrix(GaussNewton(), joint, x), matrix(Kronecker(), joint, x)
    wanted = torch.block_diag(whole[:8, :8], whole[8:23, 8:23], whole[23:27, 23:27], whole[27:, 27:])
    torch.testing.assert_close(found, wanted, rtol=1e-8, atol=1e-8)


def test_kronecker_factors_are_those_of_the_network() -> None:
    prior = torch.cat((torch.full((3,), 0.5), torch.full((3,), 2.0), torch.full((3,), 0.8), torch.ones(1))).double()
    joint = network((1, 3, 1), prior=prior)
    x = randn(joint.flat.size, seed=0)
    sigma = float(x[-1].exp())
    ones = torch.ones(24, 1, dtype=F64)
    inner, outer = x[:6].view(2, 3), x[6:10].view(4, 1)
    sums = (torch.cat((X, ones), -1) @ inner).requires_grad_()
    hidden = torch.nn.functional.silu(sums)
    (back,) = torch.autograd.grad((hidden @ outer[:-1]).sum(), sums)
    first, second = torch.cat((X, ones), -1), torch.cat((hidden.detach(), ones), -1)
    blocks = [
        torch.kron(first.mT @ first / 24, back.mT @ back / sigma**2),
        torch.kron(second.mT @ second / 24, torch.tensor([[24 / sigma**2]], dtype=F64)),
    ]
    found = matrix(Kronecker(), joint, x)
    torch.testing.assert_close(found[:10, :10], torch.block_diag(*blocks) + torch.diag(prior**-2), rtol=1e-8, atol=1e-8)


def test_rows_that_reach_no_output_say_nothing() -> None:
    joint = network((1, 3, 1))
    x = torch.zeros(11, dtype=F64)  # the last layer is 0: no gradient comes to the first
    found = matrix(Kronecker(), joint, x)
    torch.testing.assert_close(found[:6, :6], torch.eye(6, dtype=F64) / 0.49)


def test_last_layer_is_the_part_of_gauss_newton() -> None:
    joint = network((1, 3, 1))
    x = randn(11, seed=0)
    index = LastLayer().uncertain(joint)
    assert index.tolist() == [6, 7, 8, 9, 10]
    whole = matrix(GaussNewton(), joint, x)
    torch.testing.assert_close(matrix(LastLayer(), joint, x), whole[index][:, index], rtol=1e-8, atol=1e-8)


def test_where_the_density_does_not_fall_gauss_newton_takes_over() -> None:
    joint = network((1, 3, 1), prior=3.0)
    x = torch.zeros(11, dtype=F64)
    x[-1] = -3.0
    with pytest.warns(FitWarning, match="Gauss-Newton is used instead"):
        found = matrix(FullHessian(), joint, x)
    torch.testing.assert_close(found, matrix(GaussNewton(), joint, x))


def test_without_a_mean_the_curvature_is_turned() -> None:
    joint = Joint({"u": Normal(0.0, 1.0)}, lambda v, r: v["u"][:, None].square(), terms=1)
    with pytest.warns(FitWarning, match="1 of 1 directions"):
        assert float(matrix(FullHessian(), joint, torch.zeros(1, dtype=F64))) == pytest.approx(1.0)  # -(1 - 2)


@pytest.mark.parametrize("curvature", [Kronecker(), LastLayer()])
def test_networks_are_asked_for(curvature: Curvature) -> None:
    joint = gaussian_joint(by_column(X), WAVE, laws={"w": Normal(torch.zeros(1, 1, dtype=F64), 1.0)}, noise={"x": 1.0})
    with pytest.raises(SpecError, match="expected a network"):
        curvature.precision(joint, torch.zeros(1, dtype=F64))


def test_layers_have_to_fit_the_weights() -> None:
    joint = network((1, 3, 1))
    joint.layers = {"net": ((1, 3), (3, 2))}
    with pytest.raises(SpecError, match="expected 14 weights"):
        Kronecker().precision(joint, torch.zeros(11, dtype=F64))
    zeros = torch.zeros(10, dtype=F64)
    for law in (Laplace(zeros, 1.0), Uniform(zeros, 1.0)):
        other = network_joint((1, 3, 1), X, WAVE, laws={"net": law, "s": S}, noise={"s": 0.0})
        with pytest.raises(SpecError, match="net: expected a Normal law"):
            Kronecker().precision(other, torch.zeros(11, dtype=F64))


def test_a_prior_that_does_not_split_is_refused() -> None:
    joint = network((1, 3, 1), prior=1 + torch.arange(10, dtype=F64).square())
    with pytest.raises(SpecError, match="factor of the input"):
        Kronecker().precision(joint, torch.zeros(11, dtype=F64))


def test_layout_is_that_of_networks() -> None:
    # the first row of a layer belongs to its first input, the last to the bias
    flat = torch.arange(1.0, 5.0).double()[None]
    out = evaluate(flat, torch.tensor([[[10.0]]]).double(), (1, 2))
    assert out.tolist() == [[[13.0, 24.0]]]
