"""Conjugate regressions of several numbers: against least squares, and inverses against pushes."""

import pytest
import torch

from bayeswm.base import DataError
from bayeswm.causal.confounding.regression import LinearMap, LinearRegression


def rows(n: int, *, seed: int = 0):
    """Features with a constant, and two numbers with correlated errors."""
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(n, 2, generator=g, dtype=torch.float64) * torch.tensor([1.0, 30.0]) + 5
    phi = torch.cat((torch.ones(n, 1, dtype=torch.float64), x), -1)
    weight = torch.tensor([[1.0, 2.0, -0.1], [-3.0, 0.5, 0.02]], dtype=torch.float64)
    root = torch.tensor([[0.5, 0.0], [0.4, 0.3]], dtype=torch.float64)
    return phi, phi @ weight.mT + torch.randn(n, 2, generator=g, dtype=torch.float64) @ root.mT


def test_centre_is_least_squares():
    phi, y = rows(500)
    found = LinearRegression.fit(phi, y).centre()
    solved = torch.linalg.lstsq(phi, y).solution
    residual = y - phi @ solved
    torch.testing.assert_close(found.weight[0], solved.mT, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(found.covariance[0], residual.mT @ residual / 500, rtol=1e-3, atol=0.0)


def test_draws_spread_as_the_posterior():
    """Coefficients scatter by the errors' covariance times the inverse Gram matrix, as least squares has it."""
    phi, y = rows(200)
    law = LinearRegression.fit(phi, y)
    drawn = law.draw(40_000, generator=torch.Generator().manual_seed(1))
    gram = torch.linalg.inv(phi.mT @ phi)
    for i in range(2):
        # a column with d coefficients has a Student-t posterior of about n degrees of freedom
        expected = law.centre().covariance[0, i, i] * gram.diagonal() * 200 / 198
        ratio = drawn.weight[:, i].var(0) / expected
        assert bool(((ratio - 1).abs() < 5 * (2 / 40_000) ** 0.5 + 0.02).all())


@pytest.mark.parametrize("worlds", [1, 3])
def test_abduct_inverts_push(worlds):
    phi, y = rows(50)
    law = LinearRegression.fit(phi, y).draw(worlds, generator=torch.Generator().manual_seed(0))
    noise = torch.randn(worlds, 4, 50, 2, dtype=torch.float64)
    at = phi[None, None]
    torch.testing.assert_close(law.abduct(at, law.push(at, noise)), noise)


def test_worlds_have_their_own_map():
    law = LinearMap(torch.tensor([[[2.0]], [[3.0]]]), torch.zeros(2, 1, 1))
    assert law.mean(torch.ones(1, 1, 4, 1))[:, 0, :, 0].tolist() == [[2.0] * 4, [3.0] * 4]


def test_tensors_rebuild_it():
    law = LinearRegression.fit(*rows(50))
    again = LinearRegression.from_tensors(law.tensors())
    torch.testing.assert_close(again.centre().weight, law.centre().weight)


def test_a_constant_feature_does_no_harm():
    phi, y = rows(100)
    both = torch.cat((phi, torch.full((100, 1), 7.0)), -1)
    found = LinearRegression.fit(both, y).centre()
    torch.testing.assert_close(found.mean(both[None, None]), (phi @ torch.linalg.lstsq(phi, y).solution)[None, None])


def test_too_few_rows():
    with pytest.raises(DataError, match="more than 5 steps"):
        LinearRegression.fit(*(v[:5] for v in rows(10)))


def test_few_worlds_have_the_mean_and_about_the_covariance():
    phi, y = rows(200)
    law = LinearRegression.fit(phi, y)
    g = torch.Generator().manual_seed(0)
    several = law.spread(5, generator=g)
    torch.testing.assert_close(several.weight.mean(0), law.centre().weight[0])
    assert not torch.equal(several.weight, law.spread(5, generator=g).weight)
    # variances of many groups of five, the size of which is that of all draws
    many = law.spread(4000, generator=g)
    drawn = law.draw(4000, generator=torch.Generator().manual_seed(1))
    ratio = many.weight.var(0, correction=0) / drawn.weight.var(0)
    assert bool(((ratio - 1).abs() < 4.42 * (4 / 4000) ** 0.5).all())
    assert torch.equal(law.spread(1, generator=g).weight, law.centre().weight)
