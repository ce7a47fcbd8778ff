"""Energy, variogram and Dawid-Sebastiani scores of vectors."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

import bayeswm as bwm
from bayeswm.diagnostics import (
    crps_samples,
    dawid_sebastiani,
    dawid_sebastiani_multivariate,
    energy_score,
    variogram_score,
)
from tests.diagnostics.test_univariate_scores import normal


def by_pairs(x: torch.Tensor, y: torch.Tensor, w: torch.Tensor, *, fair: bool) -> torch.Tensor:
    """The definition: x has shape (n, batch, d)."""
    w = w / w.sum()
    gaps = (x[:, None] - x[None]).square().sum(-1).sqrt()
    pairs = (w[:, None, None] * w[None, :, None] * gaps).sum((0, 1))
    near = (w[:, None] * (x - y).square().sum(-1).sqrt()).sum(0)
    return near - pairs / 2 / ((1 - w.square().sum()) if fair else 1)


@given(st.integers(2, 30), st.integers(1, 4), st.booleans(), st.booleans(), st.integers(0, 1000))
def test_energy_score_is_its_definition(n: int, d: int, fair: bool, weighted: bool, seed: int) -> None:
    x, y = normal(n, 3, d, seed=seed), normal(3, d, seed=seed + 1)
    w = normal(n, seed=seed + 2).exp() if weighted else torch.ones(n, dtype=torch.float64)
    found = energy_score(x, y, weight=w if weighted else None, fair=fair)
    assert torch.allclose(found, by_pairs(x, y, w, fair=fair), rtol=1e-10, atol=1e-12)


def test_blocks_change_nothing() -> None:
    x, y, w = normal(700, 3, 2), normal(3, 2, seed=1), normal(700, seed=2).exp()
    assert torch.allclose(energy_score(x, y), by_pairs(x, y, torch.ones(700).double(), fair=True), rtol=1e-11)
    assert torch.allclose(energy_score(x, y, weight=w), by_pairs(x, y, w, fair=True), rtol=1e-11)


@given(st.integers(2, 12), st.booleans(), st.integers(0, 1000))
def test_in_one_dimension_it_is_the_crps(n: int, fair: bool, seed: int) -> None:
    x, y = normal(n, 4, seed=seed), normal(4, seed=seed + 1)
    found = energy_score(x[..., None], y[..., None], fair=fair)
    assert torch.allclose(found, crps_samples(x, y, fair=fair), rtol=1e-10, atol=1e-12)


@given(st.floats(0.05, 5), st.integers(0, 1000))
def test_energy_score_scales_and_ignores_shifts_and_rotations(factor: float, seed: int) -> None:
    x, y, shift = normal(9, 3, seed=seed), normal(3, seed=seed + 1), normal(3, seed=seed + 2)
    turn = torch.linalg.qr(normal(3, 3, seed=seed + 3)).Q
    moved = energy_score(factor * x @ turn + shift, factor * y @ turn + shift)
    assert float(moved) == pytest.approx(factor * float(energy_score(x, y)), rel=1e-9, abs=1e-9)


@pytest.mark.statistical
@pytest.mark.parametrize(("d", "expected"), [(1, 0.564190), (2, 0.886227), (4, 1.329340)])
def test_expected_energy_score_of_a_calibrated_gaussian(d: int, expected: float) -> None:
    assert math.gamma((d + 1) / 2) / math.gamma(d / 2) == pytest.approx(expected, abs=1e-6)
    n = 4
    x, y = normal(n, 60_000, d, seed=d), normal(60_000, d, seed=d + 10)
    for fair, truth in ((True, expected), (False, expected * (1 + 1 / n))):
        score = energy_score(x, y, fair=fair)
        z = float((score.mean() - truth) / (score.std() / math.sqrt(len(score))))
        assert 2 * stats.norm.sf(abs(z)) > 1e-5


def test_near_duplicates_keep_their_distances() -> None:
    """Points 1e-9 apart at 1e3: products of coordinates would lose the distance, 1e-16 of |x|^2, altogether."""
    step = 2.0**-30
    x = torch.tensor([[1024.0, 1024.0], [1024.0 + step, 1024.0]], dtype=torch.float64)
    found = energy_score(x, x[0])
    assert float(found) == step / 2 - step / 2
    assert float(energy_score(x, x[0], fair=False)) == step / 4


@given(st.lists(st.integers(0, 3), min_size=3, max_size=3).filter(any), st.integers(0, 1000))
def test_whole_number_weights_are_repeats_and_zero_is_absent(counts: list[int], seed: int) -> None:
    x, y, w = normal(3, 2, seed=seed), normal(2, seed=seed + 1), torch.tensor(counts).double()
    repeated = x.repeat_interleave(torch.tensor(counts), 0)
    found = energy_score(x, y, weight=w, fair=False)
    assert float(found) == pytest.approx(float(energy_score(repeated, y, fair=False)), rel=1e-9, abs=1e-12)
    found = variogram_score(x, y, weight=w)
    assert float(found) == pytest.approx(float(variogram_score(repeated, y)), rel=1e-9, abs=1e-12)


def test_one_sample_zero_spread_and_missing_outcomes() -> None:
    x, y = normal(1, 2), normal(2, seed=1)
    assert math.isnan(float(energy_score(x, y)))
    distance = float((x[0] - y).norm())
    assert float(energy_score(x, y, fair=False)) == pytest.approx(distance)
    assert float(energy_score(x.expand(5, 2), y)) == pytest.approx(distance)
    gap = torch.tensor([float("nan"), 0.0], dtype=torch.float64)
    assert math.isnan(float(energy_score(normal(4, 2), gap)))
    assert math.isnan(float(variogram_score(normal(4, 2), gap)))


def test_variogram_score_is_its_definition_and_ignores_common_shifts() -> None:
    x, y, w = normal(6, 3), normal(3, seed=1), torch.softmax(normal(6, seed=2), 0)
    told = (w[:, None, None] * (x[:, :, None] - x[:, None]).abs().sqrt()).sum(0)
    expected = ((y[:, None] - y).abs().sqrt() - told).square().sum()
    assert float(variogram_score(x, y, weight=w)) == pytest.approx(float(expected), rel=1e-12)
    assert float(variogram_score(x + 5, y - 2, weight=w)) == pytest.approx(float(expected), rel=1e-9)


def test_dawid_sebastiani_of_independent_variables_adds_up() -> None:
    m, v, y = normal(5, 3), normal(5, 3, seed=1).exp(), normal(5, 3, seed=2)
    found = dawid_sebastiani_multivariate(m, torch.diag_embed(v), y)
    assert torch.allclose(found, dawid_sebastiani(m, v, y).sum(-1), rtol=1e-12)
    law = torch.distributions.MultivariateNormal(m[0], torch.eye(3).double() + 0.5)
    expected = -2 * law.log_prob(y[0]) - 3 * math.log(2 * math.pi)
    found = dawid_sebastiani_multivariate(m[0], torch.eye(3).double() + 0.5, y[0])
    assert float(found) == pytest.approx(float(expected), rel=1e-12)


def test_scores_are_differentiable_also_at_duplicates() -> None:
    x, y, w = (v.requires_grad_() for v in (normal(5, 2, 3), normal(2, 3, seed=1), normal(5, seed=2).exp()))
    assert torch.autograd.gradcheck(lambda x, y, w: energy_score(x, y, weight=w), (x, y, w))
    assert torch.autograd.gradcheck(energy_score, (x, y))
    assert torch.autograd.gradcheck(lambda x, y, w: variogram_score(x, y, weight=w), (x, y, w))
    covariance = torch.eye(3).double().requires_grad_()
    assert torch.autograd.gradcheck(lambda m, y, c: dawid_sebastiani_multivariate(m, c @ c.T, y), (x[0], y, covariance))
    same = torch.ones(4, 3).double().requires_grad_()
    for score in (energy_score, variogram_score):
        (gradient,) = torch.autograd.grad(score(same, torch.zeros(3).double()), same)
        assert bool(gradient.isfinite().all())


def test_bad_shapes_and_covariances_are_named() -> None:
    with pytest.raises(bwm.DataError, match=r"expected samples of shape .* got \(3, 2\) and \(3,\)"):
        energy_score(normal(3, 2), normal(3))
    with pytest.raises(bwm.DataError, match="positive definite"):
        dawid_sebastiani_multivariate(normal(2), torch.zeros(2, 2).double(), normal(2))
    with pytest.raises(bwm.DataError, match=">= 0"):
        variogram_score(normal(2, 2), normal(2), weight=torch.tensor([1.0, -1.0]))


def test_scores_agree_with_scoringrules() -> None:
    sr = pytest.importorskip("scoringrules")
    x, y = normal(7, 20, 3), normal(20, 3, seed=1)
    draws, came = x.transpose(0, 1).numpy(), y.numpy()
    for fair, estimator in ((False, "nrg"), (True, "fair")):
        theirs = sr.es_ensemble(came, draws, estimator=estimator, backend="numpy")
        assert np.allclose(energy_score(x, y, fair=fair), theirs, atol=1e-6)
    assert np.allclose(variogram_score(x, y), sr.vs_ensemble(came, draws, p=0.5, backend="numpy"), atol=1e-6)
    w = torch.softmax(normal(7, seed=3), 0)
    wide = np.broadcast_to(w.numpy(), (20, 7)).copy()
    theirs = sr.es_ensemble(came, draws, ens_w=wide, backend="numpy")
    assert np.allclose(energy_score(x, y, weight=w, fair=False), theirs, atol=1e-6)
    # theirs divides the covariance by n - 1
    mean, error = x.mean(0), x - x.mean(0)
    covariance = torch.einsum("nbi,nbj->bij", error, error) / 6
    theirs = sr.dssmv_ensemble(came, draws, backend="numpy")
    assert np.allclose(dawid_sebastiani_multivariate(mean, covariance, y), theirs, atol=1e-6)
