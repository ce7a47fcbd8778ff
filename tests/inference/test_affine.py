import pytest
import torch
from torch.distributions import Gamma, HalfNormal, Independent, MultivariateNormal, Normal

from bayeswm.base import FitError, SpecError
from bayeswm.base.random import make_generator
from bayeswm.inference.affine import AffineMean, Coefficients
from tests.inference.joints import F64, by_column, gaussian_joint, randn

PHI, Y = randn(20, 3, seed=0), randn(20, 2, seed=1)
LAWS = {
    "w": Normal(0.5 * torch.ones(2, 3, dtype=F64), torch.tensor([1e-3, 1.0, 1e3], dtype=F64).expand(2, 3)),
    "a": HalfNormal(torch.tensor(1.0, dtype=F64)),
}


def test_laws_become_one_mean_and_covariance() -> None:
    block = torch.tensor([[2.0, 1.0], [1.0, 3.0]], dtype=F64)
    laws = {
        "m": MultivariateNormal(torch.zeros(2, 2, dtype=F64), block),
        "n": Independent(Normal(torch.ones(2, dtype=F64), 2.0), 1),
    }
    found = Coefficients.of(laws)
    torch.testing.assert_close(found.mean, torch.tensor([0.0, 0.0, 0.0, 0.0, 1.0, 1.0], dtype=F64))
    torch.testing.assert_close(found.covariance, torch.block_diag(block, block, 4 * torch.eye(2, dtype=F64)))
    assert found.labels == ["m"] * 4 + ["n"] * 2
    values = found.values(torch.arange(6.0)[None])
    assert values["m"].tolist() == [[[0.0, 1.0], [2.0, 3.0]]]
    assert values["n"].tolist() == [[4.0, 5.0]]


def test_a_law_that_is_not_normal_is_refused() -> None:
    with pytest.raises(SpecError, match="k: expected a Normal or MultivariateNormal law, got Gamma"):
        Coefficients.of({"k": Gamma(1.0, 1.0)})


def test_rows_are_features_whatever_the_scales() -> None:
    mean = AffineMean(gaussian_joint(by_column(PHI), Y, laws=LAWS, noise={"a": 0.1, "y": 2.0}))
    mean.check(make_generator(0))
    (rows,) = list(mean)
    for column in range(2):
        own = slice(3 * column, 3 * column + 3)
        torch.testing.assert_close(rows.phi[:, column, own], PHI, rtol=1e-9, atol=1e-9)
    assert bool((rows.phi[:, 0, 3:] == 0).all())
    torch.testing.assert_close(rows.y, Y - 0.5 * PHI.sum(-1, keepdim=True), rtol=1e-12, atol=1e-12)
    assert mean.noise == {0: "a"}
    assert bool((rows.noise[:, 1] == 2.0).all())


def test_a_slight_bend_is_seen() -> None:
    # coefficients of scale 1e3 make means of that size, which rounding is measured by
    def bent(values):
        return by_column(PHI)(values) + 1e-4 * values["w"][:, None, :, 1].square()

    mean = AffineMean(gaussian_joint(bent, Y, laws=LAWS, noise={"a": 0.1, "y": 2.0}))
    with pytest.raises(SpecError, match="it is not in w"):
        mean.check(make_generator(0))


def test_targets_that_are_not_finite_are_refused() -> None:
    y = Y.clone()
    y[3, 1] = torch.nan
    mean = AffineMean(gaussian_joint(by_column(PHI), y, laws=LAWS, noise={"a": 0.1, "y": 2.0}))
    with pytest.raises(FitError, match="finite means and targets"):
        list(mean)
