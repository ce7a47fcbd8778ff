"""Recalibration repairs what is wrong, and leaves alone what is not."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import bayeswm as bwm
from bayeswm.base.predictive import Predictive
from bayeswm.base.schema import Variables
from bayeswm.diagnostics import (
    ConformalisedQuantile,
    Forecast,
    Isotonic,
    Recalibration,
    Scale,
    SplitConformal,
    calibration,
    forecast_of,
    recalibrate,
)
from bayeswm.diagnostics.maps import as_points
from tests.diagnostics.recordings import Linear, linear_system, record

HORIZONS = (1, 5, 10, 25, 50)
WAYS = (Scale(), Scale(level=None), Isotonic(), SplitConformal(), ConformalisedQuantile())


def gaussian_forecast(
    mean: Tensor, sd: Tensor, came: Tensor, *, draws: int = 400, seed: int = 0, recording: Tensor | None = None
) -> Forecast:
    """Forecasts (n, H, S) of independent normal variables, sampled."""
    g = torch.Generator().manual_seed(seed)
    z = torch.randn(1, draws, *mean.shape, generator=g, dtype=torch.float64)
    paths = mean + sd * z
    laws = [bwm.Gaussian(mean[None, None, :, h], sd.expand(mean.shape)[None, None, :, h]) for h in range(mean.shape[1])]
    variables = Variables([bwm.Variable(f"x{i}") for i in range(mean.shape[-1])])
    p = Predictive(
        variables,
        laws,
        torch.zeros(1).double(),
        exhaustive=True,
        time_step=1.0,
        particles=paths.movedim(-2, 0),
        resolved=[True] * mean.shape[1],
    )
    return forecast_of(p, came, recording=recording)


def normal(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_scale_is_exact_for_known_errors() -> None:
    mean, sd = normal(99, 2, 1, seed=0), torch.full((2, 1), 0.5).double()
    z = torch.linspace(-3, 3, 99, dtype=torch.float64)[:, None, None]
    part = gaussian_forecast(mean, sd, mean + sd * z)
    factor = Scale(level=None).fit(part).tensors["factor"]
    assert torch.allclose(factor, z.square().mean().sqrt().expand(2, 1))
    # |z| below c for at least 90 % of 99: the 90th smallest, c; the interval is m +- 1.6449 sd
    factor = Scale(level=0.9).fit(part).tensors["factor"]
    expected = z.abs().flatten().sort().values[89] / torch.special.ndtri(torch.tensor(0.95).double())
    assert torch.allclose(factor, expected.expand(2, 1), atol=1e-5)


def test_scale_covers_its_share_of_the_outcomes(linear: Linear) -> None:
    model = recalibrate(linear.model(0.5), linear.data, horizon=6, method=Scale(level=0.8), particles=300)
    found = calibration(model, linear.data, horizon=6, levels=[0.8], particles=300, bootstrap=20)
    # the same forecasts again: 400 outcomes, of which the smallest factor holds 320 (or one more)
    assert np.abs(found.coverage - 0.8).max() <= 1.5 / 400


def test_isotonic_repairs_bias_and_skew() -> None:
    sd = torch.ones(1, 1).double()
    mean = normal(3000, 1, 1, seed=1)
    # outcomes whose normal scores are (exp(0.5 e) - 1): a monotone map of a normal variable
    came = mean + torch.expm1(0.5 * normal(3000, 1, 1, seed=2))
    fitted = Isotonic().fit(gaussian_forecast(mean, sd, came))
    z = torch.tensor([[-1.5, -0.5, 0.0, 0.5, 1.5]]).double()
    # 3000 outcomes: standard errors of the quantiles below 0.04 (0.05 in the outer ones), and 400 draws a window
    assert torch.allclose(fitted.moved(z, 0), torch.expm1(0.5 * z), atol=0.15)


def test_isotonic_without_smoothing_is_the_empirical_map() -> None:
    came = torch.linspace(-1, 2, 31).double().view(31, 1, 1)
    part = gaussian_forecast(torch.zeros_like(came), torch.ones(1, 1).double(), came, draws=4001)
    fitted = Isotonic(smoothing=0.0).fit(part)
    rank = (torch.arange(31).double() + 0.5) / 31
    scores = Isotonic().scores(part)["score"].flatten()
    assert torch.allclose(fitted.tensors["knots"][0, 0], torch.special.ndtri(rank))
    assert torch.allclose(fitted.tensors["moved"][0, 0], scores)
    heavy = Isotonic(smoothing=1e9).fit(part)
    z = torch.tensor([[-2.0, 0.0, 2.0]]).double()
    assert torch.allclose(heavy.moved(z, 0), scores.mean() + scores.std() * z, atol=1e-4)


@pytest.mark.parametrize("way", WAYS, ids=repr)
def test_what_is_calibrated_is_hardly_changed(way: Recalibration) -> None:
    n = 2000
    mean, sd = normal(n, 2, 1, seed=3), torch.tensor([[1.0], [2.0]]).double()
    part = gaussian_forecast(mean, sd, mean + sd * normal(n, 2, 1, seed=4))
    before = as_points(part.predictive)
    after = as_points(way.fit(part)(part.predictive))
    # standard errors of the factor: 0.9 / sqrt(n) = 0.02 for a quantile of 90 %, and less for the root mean square
    assert torch.allclose(after.stddev / before.stddev, torch.ones(()).double(), atol=0.09)
    assert float(((after.mean - before.mean) / sd).abs().mean()) < 0.08
    assert torch.equal(after.particles[0].argsort(0), before.particles[0].argsort(0))


@pytest.mark.parametrize("way", [Scale(), Isotonic()], ids=repr)
def test_the_limit_is_the_identity(way: Recalibration) -> None:
    change = []
    for n in (400, 6400):
        mean, sd = normal(n, 1, 1, seed=5), torch.ones(1, 1).double()
        part = gaussian_forecast(mean, sd, mean + normal(n, 1, 1, seed=6), draws=200)
        after = way.fit(part)(part.predictive)
        change.append(float((after.particles - part.predictive.particles).square().mean().sqrt()))
    # errors shrink by the square root of 16; a factor 2 leaves room for the luck of two draws
    assert change[1] < 0.5 * change[0] < 0.1


@pytest.fixture(scope="module")
def slow_system() -> Linear:
    truth = linear_system()
    return Linear(truth, record(truth, episodes=600, steps=50, seed=3))


@pytest.mark.slow
@pytest.mark.parametrize("way", [Scale(), Scale(level=None), Isotonic(), ConformalisedQuantile()], ids=repr)
def test_an_overconfident_system_is_repaired(slow_system: Linear, way: Recalibration) -> None:
    model = slow_system.model(0.6)
    settings = {"horizon": 50, "particles": 400}
    repaired = recalibrate(model, slow_system.data, method=way, **settings)
    test = record(slow_system.truth, episodes=600, steps=50, seed=4)
    old, new = (calibration(m, test, bootstrap=20, **settings).sel(horizon=list(HORIZONS)) for m in (model, repaired))
    assert (old.coverage.sel(level=0.9) < 0.75).all()
    # standard error of coverage: sqrt(0.09 (1 / 600 + 1 / 600)) = 0.017
    assert (np.abs(new.coverage.sel(level=0.9) - 0.9) < 0.065).all()
    assert float(np.abs(new.coverage.sel(level=0.9) - 0.9).mean()) < 0.02
    assert (new.crps <= 1.02 * old.crps).all()


def test_an_overconfident_system_is_repaired_quickly(linear: Linear) -> None:
    test = record(linear.truth, episodes=400, steps=6, seed=12)
    model = linear.model(0.6)
    old = calibration(model, test, horizon=6, particles=200, bootstrap=20)
    for way in (Scale(), Isotonic(), ConformalisedQuantile()):
        repaired = recalibrate(model, linear.data, horizon=6, method=way, particles=200)
        new = calibration(repaired, test, horizon=6, particles=200, bootstrap=20)
        assert (old.coverage.sel(level=0.9) < 0.75).all()
        # standard error sqrt(0.09 / 200) = 0.021
        assert (np.abs(new.coverage.sel(level=0.9) - 0.9) < 0.085).all()
        assert (new.crps <= 1.02 * old.crps).all()


@pytest.mark.parametrize("first", [Scale(), Isotonic()], ids=repr)
def test_recalibrated_models_are_recalibrated_again(linear: Linear, first: Recalibration) -> None:
    half, rest = linear.data[:200], linear.data[200:]
    once = recalibrate(linear.model(0.5), half, horizon=6, method=first, particles=200)
    twice = recalibrate(once, rest, horizon=6, method=SplitConformal(), particles=200)
    # the first has done the work: what is left is the scatter of 200 tubes, 0.88 / sqrt(200) = 0.06 for one variable
    factor = twice.outcome_map.tensors["factor"]
    assert bool(((factor - 1).abs() < 0.2).all())
    one, two = (
        bwm.rollout(m, torch.zeros(2), torch.zeros(6, 1), generator=torch.Generator().manual_seed(0))
        for m in (once, twice)
    )
    assert torch.allclose(two.stddev, factor * one.stddev)
    assert two.has_split == one.has_split == isinstance(first, Scale)


def test_chance_constraints_see_the_repair(linear: Linear) -> None:
    model = linear.model(0.5)
    repaired = recalibrate(model, linear.data, horizon=6, method=Scale(), particles=200)
    start, plan = torch.zeros(2), torch.zeros(6, 1)
    limit = float(linear.variance(6)[-1, 0].sqrt())

    def crossed(paths: Tensor) -> Tensor:
        return paths[..., 5, 0] > limit

    found = [
        bwm.rollout(m, start, plan, particles=4000, generator=torch.Generator().manual_seed(0)).probability(crossed)
        for m in (model, repaired, linear.truth)
    ]
    assert abs(float(found[0].value) - 0.02275) < 0.01  # 1 - Phi(2)
    # the factor's standard error is 0.044: that of 1 - Phi(1 / f) is 0.011
    assert abs(float(found[1].value) - float(found[2].value)) < 0.05
    assert float(found[1].value) > 0.1


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.sampled_from([-1.0, 0.0, 0.0, 0.5, 2.0, math.nan]), min_size=14, max_size=30),
    st.sampled_from([Scale(), Scale(level=None), Isotonic(), Isotonic(smoothing=0.0), ConformalisedQuantile(0.5)]),
)
def test_ties_and_missing_outcomes(came: list[float], way: Recalibration) -> None:
    y = torch.tensor(came, dtype=torch.float64).view(-1, 1, 1)
    part = gaussian_forecast(torch.zeros_like(y), torch.ones(1, 1).double(), y, draws=40)
    if int((~y.isnan()).sum()) < 10:
        if not isinstance(way, ConformalisedQuantile):
            with pytest.raises(bwm.DataError, match="10 outcomes or more"):
                way.fit(part)
        return
    after = way.fit(part)(part.predictive).particles[0, :, :, 0, 0]
    assert bool(after.isfinite().all())
    before = part.predictive.particles[0, :, :, 0, 0]
    rising = before.argsort(0)
    assert bool((after.gather(0, rising).diff(dim=0) >= -1e-9).all())


@pytest.mark.parametrize("way", WAYS, ids=repr)
def test_predictions_without_spread(way: Recalibration) -> None:
    mean = normal(30, 1, 1, seed=0)
    silent = torch.zeros(1, 1).double()
    met = gaussian_forecast(mean, silent, mean)
    assert torch.allclose(way.fit(met)(met.predictive).particles, met.predictive.particles)
    with pytest.raises(bwm.DataError, match="process noise"):
        way.fit(gaussian_forecast(mean, silent, mean + 0.1))


def test_settings_that_make_no_sense(linear: Linear) -> None:
    for make in (lambda: Scale(level=1.0), lambda: Isotonic(smoothing=-1.0), lambda: SplitConformal(level=0.0)):
        with pytest.raises(bwm.SpecError):
            make()
    with pytest.raises(bwm.SpecError, match="method=Scale"):
        recalibrate(linear.truth, linear.data, horizon=2, method="scale")
    with pytest.raises(bwm.DataError, match="10 outcomes or more"):
        recalibrate(linear.truth, linear.data[:5], horizon=6, method=Scale())
    model = recalibrate(linear.truth, linear.data, horizon=2, method=Scale())
    with pytest.raises(bwm.SpecError, match="horizon=3"):
        bwm.rollout(model, torch.zeros(2), torch.zeros(3, 1), generator=torch.Generator().manual_seed(0))


def test_drawn_worlds_keep_the_split() -> None:
    from torch.distributions import LogNormal

    truth = bwm.KnownDynamics(structure=bwm.structures.Pendulum(length=0.5), noise=0.1)
    model = bwm.KnownDynamics(structure=bwm.structures.Pendulum(length=0.5, mass=LogNormal(0.0, 0.2)), noise=0.05)
    g = torch.Generator().manual_seed(0)
    start = torch.randn(100, 2, generator=g, dtype=torch.float64)
    paths = bwm.rollout(truth, start, torch.ones(3, 1), particles=1, generator=g).particles[0, 0]
    data = bwm.Trajectories(truth.schema, state=torch.cat((start[:, None], paths), 1), action=torch.ones(100, 3, 1))
    wide = recalibrate(model, data, horizon=3, method=Scale())
    share = [
        (p.epistemic_variance / p.variance, p.stddev)
        for p in (
            bwm.rollout(m, start[0], torch.ones(3, 1), generator=torch.Generator().manual_seed(1))
            for m in (model, wide)
        )
    ]
    assert torch.allclose(share[0][0], share[1][0])
    assert bool((share[1][1] > 1.2 * share[0][1]).all())
