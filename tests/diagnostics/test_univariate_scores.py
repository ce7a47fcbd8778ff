"""Proper scores: identities first, then numbers, then another implementation."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

import bayeswm as bwm
from bayeswm.diagnostics import crps_gaussian, crps_mixture, crps_samples, crps_worlds, log_score_gaussian

numbers = st.floats(-5, 5, allow_subnormal=False)
scales = st.floats(0.05, 5)


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def one(value: float) -> torch.Tensor:
    return torch.tensor(value, dtype=torch.float64)


# --- one Gaussian -----------------------------------------------------------------------------------------------------


def test_crps_of_the_standard_normal_at_zero() -> None:
    assert float(crps_gaussian(one(0), one(1), one(0))) == pytest.approx(0.233694977, abs=1e-9)


@pytest.mark.parametrize(("share", "expected"), [(1.0, 0.5641895835), (0.5, 0.609967), (2.0, 0.655745)])
def test_expected_crps_of_a_gaussian_by_quadrature(share: float, expected: float) -> None:
    y = torch.linspace(-12, 12, 200_001, dtype=torch.float64)
    density = torch.exp(-0.5 * y.square()) / math.sqrt(2 * math.pi)
    value = torch.trapezoid(crps_gaussian(one(0), one(share), y) * density, y)
    assert float(value) == pytest.approx(expected, abs=1e-6)
    assert expected == pytest.approx(math.sqrt(2 * (1 + share**2) / math.pi) - share / math.sqrt(math.pi), abs=1e-6)


def test_a_scale_of_zero_is_a_point_whose_score_is_the_absolute_error() -> None:
    m, y = normal(10), normal(10, seed=1)
    assert torch.equal(crps_gaussian(m, torch.zeros(10).double(), y), (y - m).abs())
    assert torch.allclose(crps_mixture(m[None], torch.zeros(1, 10).double(), y), (y - m).abs(), atol=1e-15)


@given(numbers, scales, numbers, scales, numbers)
def test_scores_scale_with_the_data_and_ignore_shifts(
    m: float, s: float, y: float, factor: float, shift: float
) -> None:
    base = crps_gaussian(one(m), one(s), one(y))
    moved = crps_gaussian(one(factor * m + shift), one(factor * s), one(factor * y + shift))
    assert float(moved) == pytest.approx(factor * float(base), rel=1e-9, abs=1e-12)


# --- mixtures ---------------------------------------------------------------------------------------------------------


def test_a_mixture_of_one_component_is_that_gaussian() -> None:
    m, s, y = normal(1, 7), normal(1, 7, seed=1).exp(), normal(7, seed=2)
    assert torch.allclose(crps_mixture(m, s, y), crps_gaussian(m[0], s[0], y), rtol=1e-12)


def test_equal_components_and_equal_weights_change_nothing() -> None:
    m, s, y = normal(1, 7), normal(1, 7, seed=1).exp(), normal(7, seed=2)
    many = crps_mixture(m.expand(4, 7), s.expand(4, 7), y)
    assert torch.allclose(many, crps_gaussian(m[0], s[0], y), rtol=1e-12)
    m, s = normal(4, 7), normal(4, 7, seed=1).exp()
    weighted = crps_mixture(m, s, y, weight=torch.full((4,), 3.0))
    assert torch.allclose(weighted, crps_mixture(m, s, y), rtol=1e-12)


def test_mixture_is_the_integral_of_the_squared_difference_of_cdfs() -> None:
    m, s, w = normal(5), normal(5, seed=1).exp(), torch.tensor([0.1, 0.3, 0.05, 0.35, 0.2], dtype=torch.float64)
    x = torch.linspace(-40, 40, 400_001, dtype=torch.float64)
    y = float(x[205_000])  # on the grid, so that the jump is no error of the quadrature
    cdf = (w[:, None] * torch.special.ndtr((x - m[:, None]) / s[:, None])).sum(0)
    squared = (cdf - (x >= y).double()).square()
    lower, upper = torch.trapezoid(cdf[x <= y].square(), x[x <= y]), torch.trapezoid(squared[x >= y], x[x >= y])
    assert float(crps_mixture(m, s, one(y), weight=w)) == pytest.approx(float(lower + upper), abs=1e-7)


@given(st.integers(2, 6), scales, numbers)
def test_mixture_scales_and_ignores_shifts(components: int, factor: float, shift: float) -> None:
    m, s, y = normal(components, seed=components), normal(components, seed=3).exp(), one(0.3)
    base = crps_mixture(m, s, y)
    assert float(crps_mixture(factor * m + shift, factor * s, factor * y + shift)) == pytest.approx(
        factor * float(base), rel=1e-9
    )


def test_fair_mixture_leaves_out_pairs_of_a_component_with_itself() -> None:
    m, s, y = normal(3), normal(3, seed=1).exp(), one(0.4)
    near = sum(float(crps_gaussian(m[i], s[i], y) + s[i] / math.sqrt(math.pi)) for i in range(3)) / 3
    wide = (s[:, None].square() + s.square()).sqrt()
    z = (m[:, None] - m) / wide
    gaps = wide * (z * torch.erf(z / math.sqrt(2)) + math.sqrt(2 / math.pi) * torch.exp(-0.5 * z.square()))
    apart = float(gaps.sum() - gaps.trace()) / 6
    assert float(crps_mixture(m, s, y, fair=True)) == pytest.approx(near - apart / 2, rel=1e-12)


# --- samples ----------------------------------------------------------------------------------------------------------


@given(st.integers(2, 12), st.booleans(), st.booleans(), st.integers(0, 1000))
def test_sorted_estimator_equals_the_sum_over_all_pairs(n: int, fair: bool, weighted: bool, seed: int) -> None:
    x, y = normal(n, 3, seed=seed), normal(3, seed=seed + 1)
    w = normal(n, seed=seed + 2).exp() if weighted else torch.ones(n, dtype=torch.float64)
    share = w / w.sum()
    pairs = (share[:, None, None] * share[None, :, None] * (x[:, None] - x[None]).abs()).sum((0, 1))
    expected = (share[:, None] * (x - y).abs()).sum(0) - pairs / (2 * (1 - share.square().sum()) if fair else 2)
    found = crps_samples(x, y, weight=w if weighted else None, fair=fair)
    assert torch.allclose(found, expected, rtol=1e-9, atol=1e-12)


@given(st.permutations(range(6)), scales, numbers)
def test_samples_have_no_order_and_scores_scale(order: list[int], factor: float, shift: float) -> None:
    x, y = normal(6), one(0.2)
    base = float(crps_samples(x, y))
    assert float(crps_samples(x[order], y)) == pytest.approx(base, rel=1e-12)
    assert float(crps_samples(factor * x + shift, factor * y + shift)) == pytest.approx(factor * base, rel=1e-9)


def test_whole_number_weights_are_repeats() -> None:
    x, y = normal(3), one(0.1)
    repeated = crps_samples(x[[0, 0, 1, 2, 2, 2]], y, fair=False)
    assert float(crps_samples(x, y, weight=torch.tensor([2.0, 1.0, 3.0]), fair=False)) == pytest.approx(float(repeated))


def test_one_sample_is_a_point_and_has_no_fair_score() -> None:
    assert float(crps_samples(one(2.0)[None], one(0.5), fair=False)) == 1.5
    assert math.isnan(float(crps_samples(one(2.0)[None], one(0.5))))


def test_gradients_pass_through_the_sort() -> None:
    x = normal(5).requires_grad_()
    (by_sort,) = torch.autograd.grad(crps_samples(x, one(0.3)), x)
    pairs = (x[:, None] - x).abs().sum() / 20
    (by_pairs,) = torch.autograd.grad((x - 0.3).abs().mean() - pairs / 2, x)
    assert torch.allclose(by_sort, by_pairs, atol=1e-12)


@pytest.mark.statistical
@pytest.mark.parametrize("n", [3, 10])
def test_naive_estimator_is_too_high_by_one_over_n_and_the_fair_one_is_not(n: int) -> None:
    x, y = normal(n, 200_000, seed=5), normal(200_000, seed=6)
    truth = 1 / math.sqrt(math.pi)
    for fair, expected in ((True, truth), (False, truth * (1 + 1 / n))):
        score = crps_samples(x, y, fair=fair)
        z = float((score.mean() - expected) / (score.std() / math.sqrt(len(score))))
        assert 2 * stats.norm.sf(abs(z)) > 1e-5


def test_bad_weights_are_named() -> None:
    with pytest.raises(bwm.DataError, match=r"expected weights of shape \(3,\)"):
        crps_samples(normal(3), one(0), weight=torch.ones(2))
    with pytest.raises(bwm.DataError, match=">= 0"):
        crps_samples(normal(3), one(0), weight=torch.tensor([1.0, -1.0, 1.0]))


# --- worlds -----------------------------------------------------------------------------------------------------------


def by_pairs(x: torch.Tensor, y: torch.Tensor, w: torch.Tensor, *, exhaustive: bool) -> torch.Tensor:
    """The definition, term by term: x has shape (W, P)."""
    worlds, particles = x.shape
    near = sum(w[i] * (x[i] - y).abs().mean() for i in range(worlds))
    spread, norm = torch.zeros(()).double(), torch.zeros(()).double()
    for i in range(worlds):
        for j in range(worlds):
            if i == j and not exhaustive:
                continue
            gap = (x[i][:, None] - x[j]).abs()
            spread += w[i] * w[j] * (gap.sum() / (particles * (particles - 1)) if i == j else gap.mean())
            norm += w[i] * w[j]
    return near - spread / norm / 2


@pytest.mark.parametrize("exhaustive", [True, False])
@pytest.mark.parametrize("weight", [[0.25] * 4, [0.1, 0.2, 0.3, 0.4]])
def test_worlds_score_equals_its_definition(exhaustive: bool, weight: list[float]) -> None:
    x, y, w = normal(4, 5), one(0.3), torch.tensor(weight, dtype=torch.float64)
    found = crps_worlds(x, y, weight=w, exhaustive=exhaustive)
    assert float(found) == pytest.approx(float(by_pairs(x, y, w, exhaustive=exhaustive)), rel=1e-12)


@pytest.mark.parametrize("exhaustive", [True, False])
def test_samples_left_out_do_not_count(exhaustive: bool) -> None:
    x, y, w = normal(3, 4), one(0.3), torch.tensor([0.2, 0.3, 0.5], dtype=torch.float64)
    valid = torch.ones(3, 6, dtype=torch.bool)
    valid[:, 4:] = False
    padded = torch.cat((x, torch.full((3, 2), 1e9).double()), 1)
    found = crps_worlds(padded, y, weight=w, exhaustive=exhaustive, valid=valid)
    assert float(found) == pytest.approx(float(crps_worlds(x, y, weight=w, exhaustive=exhaustive)), rel=1e-12)


@pytest.mark.statistical
@pytest.mark.parametrize("exhaustive", [True, False])
def test_worlds_score_is_unbiased(exhaustive: bool) -> None:
    """Worlds N(m, 1) with m ~ N(0, 2^2), or m fixed; the score of the infinite mixture is known in closed form."""
    n, worlds, particles = 100_000, 3, 2
    if exhaustive:
        m = torch.tensor([-1.0, 0.5, 3.0]).double()[:, None, None].expand(worlds, 1, n)
        y = one(0.7).expand(n)
        expected = float(crps_mixture(m[:, 0, 0], torch.ones(3).double(), one(0.7)))
    else:
        m, y = 2 * normal(worlds, 1, n, seed=1), one(0.7).expand(n)
        expected = float(crps_gaussian(one(0), one(5**0.5), one(0.7)))
    x = m + normal(worlds, particles, n, seed=2)
    score = crps_worlds(x, y, weight=torch.full((worlds,), 1 / worlds).double(), exhaustive=exhaustive)
    z = float((score.mean() - expected) / (score.std() / math.sqrt(n)))
    assert 2 * stats.norm.sf(abs(z)) > 1e-5


# --- another implementation -------------------------------------------------------------------------------------------


def test_scores_agree_with_scoringrules() -> None:
    sr = pytest.importorskip("scoringrules")
    m, s, y = normal(6, 50), normal(6, 50, seed=1).exp(), normal(50, seed=2)
    w = torch.softmax(normal(6, seed=3), 0)
    observed, wide = y.numpy(), np.broadcast_to(w.numpy()[:, None], (6, 50))
    assert np.allclose(crps_gaussian(m[0], s[0], y), sr.crps_normal(observed, m[0].numpy(), s[0].numpy()), atol=1e-6)
    theirs = sr.crps_mixnorm(observed, m.numpy(), s.numpy(), wide, m_axis=0, backend="numpy")
    assert np.allclose(crps_mixture(m, s, y, weight=w), theirs, atol=1e-6)
    for fair, estimator in ((True, "pwm"), (True, "fair"), (False, "nrg")):
        theirs = sr.crps_ensemble(observed, m.numpy(), m_axis=0, estimator=estimator, backend="numpy")
        assert np.allclose(crps_samples(m, y, fair=fair), theirs, atol=1e-6)
    theirs = sr.crps_ensemble(observed, m.numpy(), m_axis=0, ens_w=wide, estimator="nrg", backend="numpy")
    assert np.allclose(crps_samples(m, y, weight=w, fair=False), theirs, atol=1e-6)
    props = pytest.importorskip("properscoring")
    assert np.allclose(crps_samples(m, y, fair=False), props.crps_ensemble(observed, m.numpy().T), atol=1e-12)
    theirs = props.crps_ensemble(observed, m.numpy().T, weights=wide.T)
    assert np.allclose(crps_samples(m, y, weight=w, fair=False), theirs, atol=1e-12)
    assert np.allclose(crps_gaussian(m[0], s[0], y), props.crps_gaussian(observed, m[0].numpy(), s[0].numpy()))


def test_scores_of_gaussians_agree_with_uncertainty_toolbox() -> None:
    toolbox = pytest.importorskip("uncertainty_toolbox")
    m, s, y = normal(50), normal(50, seed=1).exp(), normal(50, seed=2)
    arrays = m.numpy(), s.numpy(), y.numpy()
    theirs = toolbox.crps_gaussian(*arrays)
    assert float(crps_gaussian(m, s, y).mean()) == pytest.approx(float(theirs), abs=1e-6)
    theirs = toolbox.nll_gaussian(*arrays)
    assert -float(log_score_gaussian(m, s, y).mean()) == pytest.approx(float(theirs), abs=1e-6)


# --- samples that are odd ---------------------------------------------------------------------------------------------


@given(st.integers(2, 40), st.booleans(), st.integers(0, 1000))
def test_blocks_without_gradients_and_torch_with_them_agree(n: int, fair: bool, seed: int) -> None:
    x, y = normal(n, 3, 2, seed=seed), normal(3, 2, seed=seed + 1)
    found = crps_samples(x, y, fair=fair)
    assert torch.allclose(found, crps_samples(x.clone().requires_grad_(), y, fair=fair), rtol=1e-12, atol=1e-14)
    assert torch.allclose(found, crps_samples(x, y, weight=torch.full((n,), 0.3), fair=fair), rtol=1e-12, atol=1e-14)
    assert torch.allclose(found, crps_samples(x.float(), y.float(), fair=fair).double(), atol=1e-5)


def test_many_rows_come_in_blocks() -> None:
    x, y = normal(50, 2001), normal(2001, seed=1)
    assert torch.allclose(crps_samples(x, y)[1990:], crps_samples(x[:, 1990:], y[1990:]), rtol=1e-12)


@given(st.lists(st.sampled_from([-1.0, 0.0, 0.5]), min_size=2, max_size=8), st.sampled_from([-1.0, 0.0, 2.0]))
def test_ties_and_zero_spread_and_absent_samples(values: list[float], y: float) -> None:
    x = torch.tensor(values, dtype=torch.float64)
    expected = (x - y).abs().mean() - (x[:, None] - x).abs().mean() / 2
    assert float(crps_samples(x, one(y), fair=False)) == pytest.approx(float(expected), abs=1e-14)
    more, weight = torch.cat((x, one(1e6)[None])), torch.cat((torch.ones(len(x)), torch.zeros(1)))
    assert float(crps_samples(more, one(y), weight=weight)) == pytest.approx(float(crps_samples(x, one(y))), abs=1e-8)


def test_missing_outcomes_have_no_score() -> None:
    y = torch.tensor([float("nan"), 0.0], dtype=torch.float64)
    assert crps_samples(normal(4, 2), y).isnan().tolist() == [True, False]


def test_scores_are_differentiable() -> None:
    m, s, y = normal(4), normal(4, seed=1).exp(), normal(4, seed=2)
    inputs = [v.requires_grad_() for v in (m, s, y)]
    assert torch.autograd.gradcheck(crps_gaussian, inputs)
    assert torch.autograd.gradcheck(lambda m, s: crps_mixture(m, s, one(0.3)), inputs[:2])
    weight = normal(4, seed=4).exp().requires_grad_()
    assert torch.autograd.gradcheck(lambda x, w: crps_samples(x, one(0.3), weight=w), [m, weight])


def test_a_missing_sample_leaves_no_score() -> None:
    x = normal(1000, 2)
    x[3, 0] = float("nan")
    assert crps_samples(x, normal(2, seed=1)).isnan().tolist() == [True, False]
