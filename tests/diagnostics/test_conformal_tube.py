"""The guarantee of split conformal tubes, by simulation and against the exact law."""

import math
from collections.abc import Callable
from typing import NamedTuple

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from torch import Tensor

import bayeswm as bwm
from bayeswm.diagnostics import ConformalTube, forecast_of
from bayeswm.diagnostics.tube import AXES
from tests.diagnostics.paths import autoregressive, of_moments
from tests.diagnostics.recordings import NOISE, TRANSITION

CALIBRATION, NEW = 50, 50


class System(NamedTuple):
    """What came in many independent runs, (runs, H, S), and what a model that is wrong said of it."""

    came: Tensor
    mean: Tensor
    stddev: Tensor


def linear_gaussian(runs: int, *, seed: int) -> System:
    """The model has the exact transition, and half of the noise."""
    g = torch.Generator().manual_seed(seed)
    x = mean = torch.randn(runs, 2, generator=g, dtype=torch.float64)
    scale, covariance = torch.tensor(NOISE).double(), torch.zeros(2, 2).double()
    came, means, spreads = [], [], []
    for _ in range(10):
        x = x @ TRANSITION.T + scale * torch.randn(runs, 2, generator=g, dtype=torch.float64)
        mean = mean @ TRANSITION.T
        covariance = TRANSITION @ covariance @ TRANSITION.T + torch.diag((scale / 2).square())
        came.append(x)
        means.append(mean)
        spreads.append(covariance.diagonal().sqrt().expand(runs, 2))
    return System(*(torch.stack(v, 1) for v in (came, means, spreads)))


def heavy_tailed(runs: int, *, seed: int) -> System:
    """A walk with steps of Student's t with 2 degrees of freedom, of infinite variance; the model's are N(0, 1)."""
    g = torch.Generator().manual_seed(seed)
    top, below = torch.randn(2, runs, 10, 2, generator=g, dtype=torch.float64).unbind(-1)
    step = (
        top / (0.5 * (below.square() + torch.randn(2, runs, 10, generator=g, dtype=torch.float64)[0].square())).sqrt()
    )
    spread = torch.arange(1, 11).double().sqrt()[:, None].expand(runs, 10, 2)
    return System(step.movedim(0, -1).cumsum(1), torch.zeros_like(spread), spread)


def double_pendulum(runs: int, *, seed: int) -> System:
    """Chaotic motion from any angles; the model's second link is 10 % too heavy, and it knows half of the noise."""
    g = torch.Generator().manual_seed(seed)
    start = torch.rand(runs, 4, generator=g, dtype=torch.float64) * 2 - 1
    start = start * torch.tensor([math.pi, math.pi, 4.0, 4.0])
    truth, model = (
        bwm.KnownDynamics(structure=bwm.structures.DoublePendulum(actuated=(), mass_2=m, time_step=0.05), noise=s)
        for m, s in ((1.0, 0.02), (1.1, 0.01))
    )
    came = bwm.rollout(truth, start, horizon=20, particles=1, generator=g).particles[0, 0]
    paths = bwm.rollout(model, start, horizon=20, particles=20, generator=g).particles[0]
    return System(came, paths.mean(0), paths.std(0))


def coverages(system: System, *, repetitions: int, level: float) -> Tensor:
    """Return the coverage of new runs in each repetition; all runs are new in each if there are enough.

    Otherwise they are drawn without replacement from those there are, which is exchangeable too.
    """
    need, g = CALIBRATION + NEW, torch.Generator().manual_seed(0)
    runs, found = len(system.came), []
    for r in range(repetitions):
        rows = (
            torch.arange(r * need, (r + 1) * need) if runs >= repetitions * need else torch.randperm(runs, generator=g)
        )
        old, new = rows[:CALIBRATION], rows[CALIBRATION:need]
        method = ConformalTube().fit(forecast_of(of_moments(system.mean[old], system.stddev[old]), system.came[old]))
        tube = method(of_moments(system.mean[new], system.stddev[new]), level=level)
        found.append(tube.contains(system.came[new]).double().mean())
    return torch.stack(found)


def check_guarantee(coverage: Tensor, *, level: float) -> None:
    """The mean over repetitions lies in [level, level + 1 / (n + 1)] within two of its standard errors."""
    mean, error = float(coverage.mean()), float(coverage.std()) / len(coverage) ** 0.5
    assert level - 2 * error <= mean <= level + 1 / (CALIBRATION + 1) + 2 * error, (mean, error)


@pytest.mark.statistical
@pytest.mark.parametrize("system", [linear_gaussian, heavy_tailed])
def test_guarantee_in_a_hundred_repetitions(system: Callable[..., System]) -> None:
    runs = 100 * (CALIBRATION + NEW)
    check_guarantee(coverages(system(runs, seed=1), repetitions=100, level=0.9), level=0.9)


@pytest.mark.slow
@pytest.mark.statistical
@pytest.mark.parametrize("system", [linear_gaussian, heavy_tailed])
@pytest.mark.parametrize("level", [0.8, 0.9])
def test_guarantee_in_a_thousand_repetitions(system: Callable[..., System], level: float) -> None:
    runs = 1000 * (CALIBRATION + NEW)
    check_guarantee(coverages(system(runs, seed=2), repetitions=1000, level=level), level=level)


@pytest.mark.slow
@pytest.mark.statistical
def test_guarantee_for_the_double_pendulum_in_a_thousand_repetitions() -> None:
    check_guarantee(coverages(double_pendulum(8000, seed=2), repetitions=1000, level=0.9), level=0.9)


@pytest.mark.statistical
def test_coverage_given_the_calibration_is_beta_distributed() -> None:
    """The model is twice too wide. Its coverage of N(0, 1) is known exactly for each set: 2 Phi(2 c) - 1."""
    n, level = 19, 0.8
    x = torch.randn(400, n, 1, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    p = of_moments(torch.zeros(n, 1, 1).double(), torch.full((n, 1, 1), 2.0, dtype=torch.float64))
    critical = torch.stack([ConformalTube().fit(forecast_of(p, came)).critical(level) for came in x])
    found = 2 * stats.norm.cdf(2 * critical[:, 0].numpy()) - 1
    k = math.ceil((n + 1) * level)
    assert stats.kstest(found, stats.beta(k, n + 1 - k).cdf).pvalue > 1e-5


def calibrated(came: Tensor, over: tuple[str, ...] = AXES) -> ConformalTube:
    return ConformalTube(over=over).fit(forecast_of(of_moments(torch.zeros_like(came), torch.ones_like(came)), came))


@given(st.integers(0, 2**31), st.integers(10, 60), st.sampled_from([AXES, ("horizon",), ("variable",)]))
def test_the_critical_value_is_that_order_statistic(seed: int, n: int, over: tuple[str, ...]) -> None:
    x = torch.randn(n, 4, 2, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    worst = {AXES: x.abs().flatten(1).amax(-1)[:, None], ("horizon",): x.abs().amax(1), ("variable",): x.abs().amax(2)}
    method = calibrated(x, over=over)
    for level in (0.5, 0.8):
        k = math.ceil((n + 1) * level)
        assert torch.equal(method.critical(level), worst[over].sort(0).values[k - 1])


@given(st.integers(0, 2**31), st.floats(0.1, 10.0), st.floats(-5.0, 5.0))
def test_tubes_move_with_the_data(seed: int, scale: float, shift: float) -> None:
    x = torch.randn(30, 4, 2, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    mean, spread = torch.zeros(30, 4, 2).double(), torch.ones(30, 4, 2).double()
    plain = ConformalTube().fit(forecast_of(of_moments(mean, spread), x))
    moved = ConformalTube().fit(forecast_of(of_moments(mean + shift, scale * spread), shift + scale * x))
    assert torch.allclose(plain.critical(0.8), moved.critical(0.8), rtol=1e-9)
    assert float(plain.critical(0.5)) <= float(plain.critical(0.8))


def test_windows_of_a_recording_share_its_weight() -> None:
    """Nine recordings of one window, and one of a hundred: the critical value is not that one's."""
    x = torch.cat((torch.arange(1.0, 10.0), torch.full((100,), 50.0))).double().view(-1, 1, 1)
    recording = torch.cat((torch.arange(9), torch.full((100,), 9)))
    p = of_moments(torch.zeros_like(x), torch.ones_like(x))
    method = ConformalTube().fit(forecast_of(p, x, recording=recording))
    assert [float(method.critical(level)) for level in (0.5, 0.81, 0.9)] == [6.0, 9.0, 50.0]


def test_too_few_recordings_give_an_infinite_tube_that_says_how_many_it_takes() -> None:
    x, _ = autoregressive(1.0, 8, steps=3, seed=0)
    method = calibrated(x)
    p = of_moments(torch.zeros_like(x), torch.ones_like(x))
    with pytest.warns(bwm.EstimateWarning, match="record at least 9"):
        tube = method(p, level=0.9)
    assert bool(tube.upper.isinf().all())
    assert bool(tube.contains(1e9 * x).all())
    assert bool(calibrated(torch.cat((x, x[:1])))(p, level=0.9).upper.isfinite().all())  # nine are enough


def test_gaps_do_not_count() -> None:
    x, _ = autoregressive(0.0, 30, steps=4, seed=0)
    gaps = x.clone()
    gaps[:10, 2:] = math.nan  # the first steps still do
    gaps[20:] = math.nan  # nothing: as if not there
    expected = torch.cat((x[:10, :2].abs().amax((1, 2)), x[10:20].abs().amax((1, 2)))).sort().values[16]
    assert float(calibrated(gaps).critical(0.8)) == float(expected)
    with pytest.raises(bwm.DataError, match="none that can be scored"):
        calibrated(x * math.nan)


def test_no_spread_is_met_or_missed_without_bound() -> None:
    mean, none = torch.ones(20, 2, 1).double(), torch.zeros(20, 2, 1).double()
    p = of_moments(mean, none)
    met = ConformalTube().fit(forecast_of(p, mean))
    assert float(met.critical(0.9)) == 0
    assert bool(met(p, level=0.9).contains(mean).all())
    missed = ConformalTube().fit(forecast_of(p, mean + 1))
    with pytest.warns(bwm.EstimateWarning, match="infinite"):
        assert bool(missed(p, level=0.9).upper.isinf().all())


def test_order_of_use_is_checked() -> None:
    x, _ = autoregressive(0.0, 30, steps=4, seed=0)
    with pytest.raises(bwm.SpecError, match="fit"):
        ConformalTube().critical(0.9)
    p = of_moments(torch.zeros_like(x)[:, :3], torch.ones_like(x)[:, :3])
    with pytest.raises(bwm.SpecError, match="as was calibrated"):
        calibrated(x)(p, level=0.8)
    with pytest.raises(bwm.SpecError, match="level between 0 and 1"):
        calibrated(x).critical(1.0)
