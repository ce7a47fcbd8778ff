"""The cluster bootstrap against exact answers."""

import itertools
import math

import pytest
import torch
from scipy import stats

import bayeswm as bwm
from bayeswm.diagnostics import cluster_bootstrap, cluster_error


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_standard_error_of_independent_clusters_is_the_usual_one() -> None:
    x = torch.randn(50, generator=seeded(), dtype=torch.float64)
    resamples = 40_000
    found = cluster_bootstrap(x, torch.arange(50), generator=seeded(1), resamples=resamples)
    exact = float(x.std() / math.sqrt(50))
    # a standard deviation of n normal draws has relative error 1 / sqrt(2 n); 4.4 of them is p = 1e-5
    assert float(found.standard_error) == pytest.approx(exact, rel=4.4 / math.sqrt(2 * resamples))
    assert float(found.value) == pytest.approx(float(x.mean()), rel=1e-12)


def test_windows_that_repeat_each_other_count_once() -> None:
    x = torch.randn(30, generator=seeded(), dtype=torch.float64)
    repeated, cluster = x.repeat_interleave(8), torch.arange(30).repeat_interleave(8)
    found = cluster_bootstrap(repeated, cluster, generator=seeded(1))
    single = cluster_bootstrap(x, torch.arange(30), generator=seeded(1))
    assert torch.allclose(found.standard_error, single.standard_error, rtol=1e-12)
    naive = float(repeated.std() / math.sqrt(240))
    assert float(found.standard_error) > 2 * naive


@pytest.mark.parametrize("seed", range(3))
def test_the_closed_form_is_that_of_cluster_means_and_the_usual_one(seed: int) -> None:
    x = torch.randn(24, 2, generator=seeded(seed), dtype=torch.float64)
    means = x.view(6, 4, 2).mean(1)
    cluster = torch.arange(24) // 4
    torch.testing.assert_close(cluster_error(x, cluster), means.std(0) / math.sqrt(6))
    torch.testing.assert_close(cluster_error(x, torch.arange(24)), x.std(0) / math.sqrt(24))
    holes = torch.where(torch.arange(24)[:, None] < 4, float("nan"), x)  # a cluster that is not there
    torch.testing.assert_close(cluster_error(holes, cluster), cluster_error(x[4:], cluster[4:]))
    assert bool(cluster_error(x, torch.zeros(24)).isnan().all())


@pytest.mark.statistical
def test_the_bootstrap_comes_to_the_closed_form() -> None:
    x = torch.randn(200, generator=seeded(5), dtype=torch.float64)
    cluster, resamples = torch.arange(200) // 5, 40_000
    found = cluster_bootstrap(x, cluster, generator=seeded(1), resamples=resamples)
    error = 4.42 / math.sqrt(2 * resamples)
    assert float(found.standard_error) == pytest.approx(float(cluster_error(x, cluster)), rel=error)


@pytest.mark.statistical
def test_the_closed_form_of_unequal_clusters_is_what_repeated_experiments_show() -> None:
    """Means of clusters of 1 to 10 observations that share an offset; the exact variance is known."""
    trials, sizes = 4000, torch.arange(1, 11).repeat(6)
    cluster, g = torch.arange(60).repeat_interleave(sizes), seeded(3)
    offset = torch.randn(60, trials, generator=g, dtype=torch.float64)
    x = offset[cluster] + 0.5 * torch.randn(len(cluster), trials, generator=g, dtype=torch.float64)
    n = len(cluster)
    exact = float((sizes.double().square() + 0.25 * sizes).sum()) / n**2
    variance = cluster_error(x, cluster).square()
    z = float((x.mean(0).var() / exact - 1) / math.sqrt(2 / trials))
    assert 2 * stats.norm.sf(abs(z)) > 1e-5
    # to first order in the number of clusters: off by a few of their shares
    assert float(variance.mean()) == pytest.approx(exact, rel=3 / 60)


@pytest.mark.statistical
def test_dependent_windows_give_the_error_that_repeated_experiments_show() -> None:
    """Windows of a recording share an offset: the exact standard error is known, and the naive one is far too small."""
    recordings, windows, trials = 60, 10, 400
    g = seeded(3)
    offset = torch.randn(trials, recordings, 1, generator=g, dtype=torch.float64)
    x = (offset + 0.5 * torch.randn(trials, recordings, windows, generator=g, dtype=torch.float64)).flatten(1)
    cluster = torch.arange(recordings).repeat_interleave(windows)
    found = cluster_bootstrap(x.T, cluster, generator=g, resamples=2000)
    variance = found.standard_error.square()
    exact = (1 + 0.25 / windows) / recordings
    z = float((variance.mean() - exact) / (variance.std() / math.sqrt(trials)))
    # the trials share their resamples; 2000 of them add a common relative error of sqrt(2 / 2000) to the variance
    spread = math.hypot(1.0, exact * math.sqrt(2 / 2000) / float(variance.std() / math.sqrt(trials)))
    assert 2 * stats.norm.sf(abs(z) / spread) > 1e-5
    assert float(x.var(1).mean()) / (recordings * windows) < 0.15 * exact


@pytest.mark.statistical
def test_unequal_clusters_follow_the_enumeration_of_all_resamples() -> None:
    x = torch.tensor([1.0, 5.0, 2.0, 8.0, -3.0, 0.5]).double()
    cluster = torch.tensor([7, 7, 7, 2, 9, 9])  # any labels
    sums, sizes = {7: 8.0, 2: 8.0, 9: -2.5}, {7: 3, 2: 1, 9: 2}
    means = [
        sum(sums[c] for c in draw) / sum(sizes[c] for c in draw) for draw in itertools.product((7, 2, 9), repeat=3)
    ]
    means = torch.tensor(means).double()
    squared = (means - means.mean()).square()
    resamples = 50_000
    with pytest.warns(bwm.EstimateWarning, match="3 recordings"):
        found = cluster_bootstrap(x, cluster, generator=seeded(), resamples=resamples)
    variance = float(found.standard_error.square()) * 2 / 3  # without the factor C / (C - 1)
    z = (variance - float(squared.mean())) / (float(squared.std(correction=0)) / math.sqrt(resamples))
    assert 2 * stats.norm.sf(abs(z)) > 1e-5
    assert float(found.value) == pytest.approx(13.5 / 6)


def test_a_function_of_means_is_bootstrapped_as_a_whole() -> None:
    x = torch.rand(40, 2, 3, generator=seeded(), dtype=torch.float64) + 1
    cluster = torch.arange(40) // 2
    found = cluster_bootstrap(x, cluster, generator=seeded(1), statistic=torch.sqrt)
    plain = cluster_bootstrap(x, cluster, generator=seeded(1))
    assert torch.equal(found.value, plain.value.sqrt())
    assert found.value.shape == (2, 3)
    assert torch.equal(found.lower, plain.lower.sqrt()) or torch.allclose(found.lower, plain.lower.sqrt(), rtol=1e-4)


def test_missing_values_are_left_out() -> None:
    x = torch.randn(20, 2, generator=seeded(), dtype=torch.float64)
    x[3:5, 1] = float("nan")
    found = cluster_bootstrap(x, torch.arange(20), generator=seeded(1))
    assert float(found.value[1]) == pytest.approx(float(x[:, 1].nanmean()), rel=1e-12)
    assert bool(found.standard_error.isfinite().all())


def test_quantiles_of_the_resamples() -> None:
    x = torch.randn(100, generator=seeded(), dtype=torch.float64)
    found = cluster_bootstrap(x, torch.arange(100), generator=seeded(1), confidence=0.9, resamples=20_000)
    half = 1.6448536 * float(found.standard_error) * math.sqrt(99 / 100)
    # the mean of 100 values is normal to about 1 %; the quantiles of 20,000 resamples add about 1 %
    assert float(found.upper - found.value) == pytest.approx(half, rel=0.05)
    assert float(found.value - found.lower) == pytest.approx(half, rel=0.05)


def test_a_single_recording_has_no_error() -> None:
    with pytest.warns(bwm.UndefinedWarning, match="one recording"):
        found = cluster_bootstrap(torch.ones(5, 2), torch.zeros(5), generator=seeded())
    assert torch.equal(found.value, torch.ones(2).double())
    assert bool(found.standard_error.isnan().all())
    assert bool(found.lower.isnan().all())


def test_an_infinite_score_gives_an_infinite_mean_and_no_error() -> None:
    x = torch.randn(10, 2, generator=seeded())
    x[0, 0] = float("-inf")
    found = cluster_bootstrap(x, torch.arange(10), generator=seeded())
    assert float(found.value[0]) == float("-inf")
    assert math.isnan(float(found.standard_error[0]))
    assert math.isfinite(float(found.standard_error[1]))


def test_bad_arguments_are_named() -> None:
    with pytest.raises(bwm.DataError, match="at least one observation"):
        cluster_bootstrap(torch.ones(0), torch.zeros(0), generator=seeded())
    with pytest.raises(bwm.DataError, match=r"shape \(5,\)"):
        cluster_bootstrap(torch.ones(5), torch.zeros(4), generator=seeded())
    with pytest.raises(bwm.SpecError, match="resamples"):
        cluster_bootstrap(torch.ones(5), torch.arange(5), generator=seeded(), resamples=1)
