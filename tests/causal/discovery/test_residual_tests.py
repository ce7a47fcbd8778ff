"""Tests of conditional independence: the statistic by hand, its law, its power, and the share of false edges."""

import numpy as np
import pytest
import torch
from scipy import stats

import bayeswm as bwm
from bayeswm.base.errors import DataError, SpecError
from bayeswm.causal import ResidualTests, discover
from bayeswm.causal.discovery.candidates import Candidates
from bayeswm.causal.discovery.residual_tests import adjusted, independence


def rows(x, y):
    """Return states x with next states y as episodes of one step."""
    schema = bwm.Schema(state=[bwm.Variable(f"s{i}") for i in range(x.shape[1])], time_step=1.0)
    return bwm.Trajectories(schema, state=torch.stack((x, y.expand_as(x)), 1))


def p_value(x, y, cause, *, degree):
    """Return the p-value of y not depending on one column of x."""
    names = tuple(f"s{i}[t-1]" for i in range(x.shape[1]))
    given = Candidates(names, ("y[t]",), x, y[:, None], (False,) * x.shape[1], ((),))
    return float(independence(given.design(0, degree=degree), y, cause))


def test_against_a_regression_by_hand():
    g = torch.Generator().manual_seed(0)
    x = torch.randn(60, 3, generator=g, dtype=torch.float64)
    y = 0.3 * x[:, 0] + x[:, 1] + torch.randn(60, generator=g, dtype=torch.float64)
    others = np.column_stack((np.ones(60), x[:, 1:].numpy()))
    r, z = (v - others @ np.linalg.lstsq(others, v, rcond=None)[0] for v in (y.numpy(), x[:, 0].numpy()))
    statistic = (r * z).sum() ** 2 / (r**2 * z**2).sum() * (60 - 1 - 3) / 60
    assert p_value(x, y, 0, degree=1) == pytest.approx(stats.chi2.sf(statistic, 1), rel=1e-9)


@pytest.mark.statistical
@pytest.mark.parametrize("degree", [1, 2])
def test_p_values_are_uniform_without_an_effect(degree):
    g = torch.Generator().manual_seed(1)
    found = []
    for _ in range(400):
        x = torch.randn(400, 3, generator=g, dtype=torch.float64)
        x[:, 0] += x[:, 1]
        # the size of the noise changes with the very cause that is tested
        y = x[:, 1] + (0.5 + x[:, 0].abs()) * torch.randn(400, generator=g, dtype=torch.float64)
        found.append(p_value(x, y, 0, degree=degree))
    if degree == 1:
        assert stats.kstest(found, "uniform").pvalue > 1e-5
    # with four features the law is approached from the safe side
    assert stats.binomtest(sum(p < 0.05 for p in found), 400, 0.05, alternative="greater").pvalue > 1e-5


def test_an_even_effect_and_a_product_need_the_second_degree():
    g = torch.Generator().manual_seed(2)
    x = torch.randn(500, 3, generator=g, dtype=torch.float64)
    noise = 0.3 * torch.randn(500, generator=g, dtype=torch.float64)
    for y in (x[:, 0].square() + noise, x[:, 0] * x[:, 1] + noise):
        assert p_value(x, y, 0, degree=2) < 1e-8
        assert p_value(x, y, 0, degree=1) > 1e-3
        assert p_value(x, y, 2, degree=2) > 1e-3


def test_what_never_varies_or_follows_from_others_is_not_found():
    g = torch.Generator().manual_seed(3)
    x = torch.randn(50, 3, generator=g, dtype=torch.float64)
    x[:, 1], x[:, 2] = 1.0, 2 * x[:, 0]
    assert p_value(x, x[:, 0] + 0.1 * torch.randn(50, generator=g, dtype=torch.float64), 1, degree=1) == 1.0
    assert p_value(x, x[:, 0] + 0.1 * torch.randn(50, generator=g, dtype=torch.float64), 2, degree=1) == 1.0


def test_adjusted_as_in_scipy():
    p = torch.rand(40, generator=torch.Generator().manual_seed(4), dtype=torch.float64) ** 2
    np.testing.assert_allclose(adjusted(p), stats.false_discovery_control(p.numpy()), rtol=1e-12)


@pytest.mark.statistical
def test_share_of_false_edges():
    g = torch.Generator().manual_seed(5)
    shares, seen = [], []
    for _ in range(60):
        weight = 0.5 * torch.randn(6, 6, generator=g, dtype=torch.float64)
        weight *= torch.rand(6, 6, generator=g, dtype=torch.float64) < 0.3
        x = torch.randn(300, 6, generator=g, dtype=torch.float64)
        data = rows(x, x @ weight + torch.randn(300, 6, generator=g, dtype=torch.float64))
        kept = torch.from_numpy(discover(data, method=ResidualTests(degree=1)).table.values) <= 0.05
        shares.append(float((kept & (weight == 0)).sum() / max(int(kept.sum()), 1)))
        seen.append(float((kept & (weight.abs() > 0.3)).sum() / (weight.abs() > 0.3).sum()))
    excess = (np.mean(shares) - 0.05) / (np.std(shares) / len(shares) ** 0.5)
    assert stats.norm.sf(excess) > 1e-5
    assert np.mean(seen) > 0.95


def test_refusals():
    with pytest.raises(DataError, match="use degree=1"):
        discover(rows(torch.randn(8, 3), torch.zeros(8, 1)), method=ResidualTests())
    with pytest.raises(SpecError, match="degree=1"):
        ResidualTests(degree=4)
