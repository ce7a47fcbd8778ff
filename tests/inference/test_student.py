import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from bayeswm.base import SpecError
from bayeswm.base.random import make_generator
from bayeswm.inference import StudentT

F64 = torch.float64


def law(nu: float = 5.0) -> StudentT:
    mean = torch.tensor([[[1.0, -2.0]]], dtype=F64)
    return StudentT(mean, torch.tensor([0.5, 3.0], dtype=F64), torch.tensor([nu, 2 * nu], dtype=F64))


def test_density_cdf_and_moments_are_scipys() -> None:
    x = torch.tensor([[[0.2, 4.0]]], dtype=F64)
    exact = stats.t([5.0, 10.0], [1.0, -2.0], [0.5, 3.0])
    torch.testing.assert_close(law().log_prob(x, marginal=True)[0, 0], torch.as_tensor(exact.logpdf(x[0, 0])))
    torch.testing.assert_close(law().log_prob(x)[0, 0], torch.as_tensor(exact.logpdf(x[0, 0]).sum()))
    torch.testing.assert_close(law().cdf(x)[0, 0], torch.as_tensor(exact.cdf(x[0, 0])))
    torch.testing.assert_close(law().variance[0, 0], torch.as_tensor(exact.var()))
    assert law(2.0).variance[0, 0].tolist() == [float("inf"), 18.0]


@given(st.floats(-8, 8), st.floats(0.5, 60))
def test_abduct_inverts_push(noise: float, nu: float) -> None:
    n = torch.full((1, 1, 2), noise, dtype=F64)
    torch.testing.assert_close(law(nu).abduct(law(nu).push(n)), n, rtol=1e-8, atol=1e-8)


def test_push_has_the_derivative_of_the_quantile() -> None:
    n = torch.tensor([[[0.7, -1.3]]], dtype=F64, requires_grad=True)
    law().push(n).sum().backward()
    h = 1e-6
    with torch.no_grad():
        wanted = (law().push(n + h) - law().push(n - h)) / (2 * h)
    torch.testing.assert_close(n.grad, wanted, rtol=1e-6, atol=1e-8)


@pytest.mark.statistical
def test_pushed_noise_has_the_law() -> None:
    noise = torch.randn(1, 4000, 2, generator=make_generator(0), dtype=F64)
    drawn = law().map(lambda v: v.expand(1, 4000, 2)).push(noise)
    assert stats.kstest(drawn[0, :, 0].numpy(), stats.t(5.0, 1.0, 0.5).cdf).pvalue > 1e-5


def test_scales_that_make_no_sense() -> None:
    with pytest.raises(SpecError, match="degrees of freedom > 0"):
        law(0.0)
